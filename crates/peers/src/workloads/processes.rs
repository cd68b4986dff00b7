//! Processes that want the same block.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::contended::{Attempts, CONTENDED};
use super::team::kind_of;
use super::{Ground, folder, section};
use crate::block::{FIRST, number};
use crate::cores::Cores;
use crate::measure::{Entrant, compete};
use crate::peers::{Casblock, Durability, Handle, Lmdb, Ofd, Peer, Robust, SharedPeer, Sqlite};
use crate::results::{Axis, Section};

/// What a process is sent for: to count in block 0 of a store, beside others.
#[derive(clap::Args, Clone, Debug)]
pub struct Errand {
    /// Which contestant's store it is.
    #[arg(long)]
    peer: String,
    /// The store's folder.
    #[arg(long)]
    folder: PathBuf,
    /// Which of the processes this is.
    #[arg(long)]
    index: usize,
    /// For how long.
    #[arg(long)]
    milliseconds: u64,
}

/// What it reports, as JSON.
#[derive(Serialize, Deserialize)]
struct Report {
    /// When it began and when it ended, in nanoseconds by the clock that all processes have.
    when_ns: (u64, u64),
    hits: u64,
    /// Nanoseconds, and how many attempts took so long.
    latencies: Vec<(u64, u64)>,
}

/// In the process that was sent.
pub fn run_errand(errand: &Errand) -> Result<()> {
    match errand.peer.as_str() {
        Casblock::NAME => work::<Casblock>(errand),
        Robust::NAME => work::<Robust>(errand),
        Ofd::NAME => work::<Ofd>(errand),
        Lmdb::NAME => work::<Lmdb>(errand),
        Sqlite::NAME => work::<Sqlite>(errand),
        other => anyhow::bail!("{other} is not shared by processes"),
    }
}

fn work<P: SharedPeer>(errand: &Errand) -> Result<()> {
    Cores::of_this_process().pin(errand.index);
    let peer = P::open(&errand.folder, 1, Durability::Process)?;
    let handle = peer.handle()?;
    println!("ready");
    // Whoever sent this closes our input if it ends.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    ensure!(line == "go\n", "nobody waits for this");
    let (over, began) = (AtomicBool::new(false), now_ns());
    let attempts = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(errand.milliseconds));
            over.store(true, Relaxed);
        });
        Attempts::make(handle, || over.load(Relaxed))
    });
    let ended = now_ns();
    let latencies = attempts.latencies.iter_recorded();
    let latencies = latencies.map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
    let when_ns = (began, ended);
    println!("{}", serde_json::to_string(&Report { when_ns, hits: attempts.hits, latencies })?);
    Ok(())
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A process on an errand.
struct Sent {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Sent {
    fn send(peer: &str, folder: &Path, index: usize, time: Duration) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["errand", "--peer", peer, "--folder"]).arg(folder);
        command.args(["--index", &index.to_string(), "--milliseconds", &time.as_millis().to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().context("its output is ours")?);
        let mut sent = Self { process, output };
        ensure!(sent.line()? == "ready\n", "a process of {peer} failed");
        Ok(sent)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn go(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut().context("its input is ours")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// What it saw, and when it began and ended.
    fn attempts(mut self) -> Result<(Attempts, (u64, u64))> {
        let report: Report = serde_json::from_str(&self.line()?).context("a process failed")?;
        let mut attempts = Attempts { hits: report.hits, ..Attempts::none() };
        report.latencies.iter().for_each(|&(value, count)| attempts.latencies.saturating_record_n(value, count));
        ensure!(self.process.wait()?.success(), "a process failed");
        Ok((attempts, report.when_ns))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // It has ended, but for an error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An entrant whose rounds have so many processes count in one block of its store in `within`.
fn entrant<P: SharedPeer + 'static>(within: &Path, processes: usize, time: Duration) -> Result<Entrant<'static>> {
    let folder = tempfile::tempdir_in(within)?;
    let peer = P::create(folder.path(), 1, Durability::Process)?;
    let run = move || {
        let before = read_number(&peer)?;
        let sent = (0..processes).map(|index| Sent::send(P::NAME, folder.path(), index, time));
        let mut sent = sent.collect::<Result<Vec<_>>>()?;
        sent.iter_mut().try_for_each(Sent::go)?;
        let (mut all, mut began, mut ended) = (Attempts::none(), u64::MAX, 0);
        for of_one in sent {
            let (attempts, when_ns) = of_one.attempts()?;
            all.add(&attempts)?;
            (began, ended) = (began.min(when_ns.0), ended.max(when_ns.1));
        }
        ensure!(read_number(&peer)? == before + all.hits, "updates were lost");
        Ok(all.values(Duration::from_nanos(ended.saturating_sub(began))))
    };
    Ok(Entrant { who: P::NAME.to_owned(), kind: kind_of::<P>(), run: Box::new(run) })
}

fn read_number(peer: &impl SharedPeer) -> Result<u64> {
    let mut block = FIRST;
    peer.handle()?.read(0, &mut block);
    number(&block).context("the block is torn")
}

/// How many processes want one block.
const PROCESSES: [usize; 3] = [2, 4, 8];

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let temporary = folder(&ground.memory)?;
    let (within, time) = (temporary.path(), ground.effort.long_slice);
    let mut rows = Vec::new();
    for processes in PROCESSES {
        let entrants = vec![
            entrant::<Casblock>(within, processes, time)?,
            entrant::<Robust>(within, processes, time)?,
            entrant::<Ofd>(within, processes, time)?,
            entrant::<Lmdb>(within, processes, time)?,
            entrant::<Sqlite>(within, processes, time)?,
        ];
        rows.extend(compete(entrants, ground.effort.long_rounds, Some(processes as f64))?);
    }
    let about = "As many threads before, but each in a process of its own. redb is not here: with several processes it flushes each update.";
    let mut section = section("contended-processes", "Many processes, one block", about, &CONTENDED, rows);
    section.axis = Some(Axis { label: "processes".to_owned(), doubles: true });
    Ok(vec![section])
}
