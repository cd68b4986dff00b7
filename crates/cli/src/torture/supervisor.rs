//! The parent: starts children, kills and replaces them, sees whether any is stuck, and ends them.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::dice::Dice;
use super::ledger::{ENDED, Header, Ledger, Note};
use crate::signals::Interruptible;

/// How often the parent looks at its children.
const TICK: Duration = Duration::from_millis(20);

/// How often it looks for the end of one that is to end.
const STEP: Duration = Duration::from_millis(1);

/// What the parent goes by.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long.
    pub run: Duration,
    /// From one kill to the next, on average; `None` for no kills.
    pub kill_every: Option<Duration>,
    /// How long a thread may do nothing, or a child take to end, before it counts as stuck.
    pub patience: Duration,
    /// What the moments and the victims come from.
    pub seed: u64,
}

/// What happened to the children.
#[derive(Clone, Default, Debug)]
pub struct Events {
    /// Children killed, each by SIGKILL while it ran.
    pub kills: u64,
    /// For each counter, the increments that a child died in.
    pub unresolved: Vec<u64>,
    /// Threads that stood still.
    pub stuck: u64,
    /// Children that ended by themselves, with how they did.
    pub failed: Vec<String>,
    /// Whether a signal asked to end early.
    pub interrupted: bool,
}

/// One thread, as the parent watches it.
#[derive(Clone, Copy, Default, Debug)]
struct Watch {
    progress: u64,
    still_for: Duration,
    stuck: bool,
}

/// A child and its successors.
#[derive(Debug)]
struct Place {
    child: Option<Child>,
    /// Whether it has been killed from here.
    dying: bool,
    generation: u64,
    threads: Vec<Watch>,
}

/// The parent's hold on its children. None outlives it.
#[derive(Debug)]
pub struct Supervisor<'a> {
    store: &'a Path,
    file: &'a File,
    ledger: &'a Ledger,
    places: Vec<Place>,
    events: Events,
}

impl Drop for Supervisor<'_> {
    fn drop(&mut self) {
        for child in self.places.iter_mut().filter_map(|place| place.child.as_mut()) {
            // It may have ended already; then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl<'a> Supervisor<'a> {
    /// Starts the children. `file` is the one that `ledger` maps.
    pub fn start(store: &'a Path, file: &'a File, ledger: &'a Ledger) -> anyhow::Result<Self> {
        let shape = ledger.shape();
        let threads = vec![Watch::default(); shape.threads];
        let place = || Place { child: None, dying: false, generation: 0, threads: threads.clone() };
        let places = (0..shape.processes).map(|_| place()).collect();
        let events = Events { unresolved: vec![0; shape.counters()], ..Events::default() };
        let mut supervisor = Self { store, file, ledger, places, events };
        for process in 0..shape.processes {
            supervisor.spawn(process)?;
        }
        Ok(supervisor)
    }

    fn spawn(&mut self, process: usize) -> anyhow::Result<()> {
        let place = &mut self.places[process];
        for (row, watch) in self.ledger.rows_of(process).zip(&mut place.threads) {
            row.set(Note::State, 0);
            *watch = Watch { progress: row.get(Note::Progress), still_for: Duration::ZERO, stuck: watch.stuck };
        }
        let ledger = self.file.try_clone().context("duplicating the ledger's descriptor")?;
        let child = Command::new(std::env::current_exe().context("finding this program's file")?)
            .arg0("casblock")
            .args(["torture", "--child", &process.to_string(), "--generation", &place.generation.to_string(), "--"])
            .arg(self.store)
            .stdin(ledger)
            .stdout(Stdio::null())
            .spawn()
            .context("starting a child")?;
        place.child = Some(child);
        place.dying = false;
        place.generation += 1;
        Ok(())
    }

    /// Lets the children work for as long as planned, then ends them.
    pub fn run(
        mut self,
        plan: &Plan,
        signals: &Interruptible,
        mut tick: impl FnMut(Duration),
    ) -> anyhow::Result<Events> {
        let begun = Instant::now();
        let mut kills = plan.kill_every.map(|interval| Kills::new(interval, plan.seed, begun));
        let mut last_watch = begun;
        while begun.elapsed() < plan.run && self.events.failed.is_empty() {
            self.reap()?;
            if let Some(kills) = &mut kills {
                self.kill_if_due(kills)?;
            }
            let since_watch = last_watch.elapsed();
            if since_watch >= TICK {
                self.watch(since_watch, plan.patience);
                last_watch += since_watch;
                tick(begun.elapsed());
            }
            if signals.check().is_err() {
                self.events.interrupted = true;
                break;
            }
            let next_kill = kills.as_ref().map_or(begun + plan.run, |kills| kills.next.max(Instant::now() + STEP));
            let dying = self.places.iter().any(|place| place.dying);
            let step = if dying { STEP } else { TICK };
            thread::sleep(step.min(next_kill.saturating_duration_since(Instant::now())));
        }
        self.end(plan.patience)?;
        Ok(std::mem::take(&mut self.events))
    }

    /// Kills a child at whatever it is doing. [`reap`](Self::reap) starts its successor as soon as it is dead: that
    /// takes the system a while where many threads want few processors.
    fn kill_if_due(&mut self, kills: &mut Kills) -> anyhow::Result<()> {
        let now = Instant::now();
        if kills.next > now {
            return Ok(());
        }
        let first = kills.dice.roll(self.places.len() as u64) as usize;
        // Most are killed at work; a few while they open the store and claim their writers.
        let beginner_too = kills.dice.roll(4) == 0;
        let ready = |&process: &usize| {
            let place = &self.places[process];
            let at_work = || self.ledger.rows_of(process).all(|row| row.get(Note::State) != 0);
            place.child.is_some() && !place.dying && (beginner_too || at_work())
        };
        let Some(process) = (first..self.places.len()).chain(0..first).find(ready) else { return Ok(()) };
        let place = &mut self.places[process];
        place.child.as_mut().expect("it is ready").kill().context("killing a child")?;
        place.dying = true;
        // Counted from when it was due, so that delays do not make the kills fewer; long ones are not caught up.
        kills.next = kills.next.max(now.checked_sub(10 * kills.interval).unwrap_or(now)) + kills.interval();
        Ok(())
    }

    /// Notes the increments that a dead child was in.
    fn settle(&mut self, process: usize) {
        for counter in self.ledger.rows_of(process).filter_map(|row| row.take_unresolved()) {
            self.events.unresolved[counter] += 1;
        }
    }

    /// Notes how a child ended.
    fn judge(&mut self, process: usize, status: ExitStatus) {
        match status.signal() {
            Some(libc::SIGKILL) if self.places[process].dying => {
                self.events.kills += 1;
                return;
            }
            // A signal to end may reach a child, which the terminal sends it too, before it listens.
            Some(libc::SIGINT | libc::SIGTERM | libc::SIGHUP) => return,
            _ => {}
        }
        let as_told = self.ledger.stopped() && self.ledger.rows_of(process).all(|row| row.get(Note::State) == ENDED);
        if !(status.success() && as_told) {
            self.events.failed.push(format!("child {process} ended by itself: {status}"));
        }
    }

    /// Finds children that have ended; replaces them unless it is time to end.
    fn reap(&mut self) -> anyhow::Result<()> {
        for process in 0..self.places.len() {
            let Some(child) = &mut self.places[process].child else { continue };
            let Some(status) = child.try_wait().context("looking for ended children")? else { continue };
            self.places[process].child = None;
            self.settle(process);
            self.judge(process, status);
            if self.events.failed.is_empty() && !self.ledger.stopped() {
                self.spawn(process)?;
            }
        }
        Ok(())
    }

    /// Counts the threads that have done nothing for too long; each once.
    fn watch(&mut self, passed: Duration, patience: Duration) {
        // If this process was not running itself, the children may not have been either.
        let passed = passed.min(10 * TICK);
        for (process, place) in self.places.iter_mut().enumerate() {
            for (row, watch) in self.ledger.rows_of(process).zip(&mut place.threads) {
                let progress = row.get(Note::Progress);
                if progress != watch.progress || row.get(Note::State) == ENDED {
                    *watch = Watch { progress, still_for: Duration::ZERO, stuck: watch.stuck };
                    continue;
                }
                watch.still_for += passed;
                if watch.still_for >= patience && !watch.stuck {
                    watch.stuck = true;
                    self.events.stuck += 1;
                }
            }
        }
    }

    /// Tells the children to end. Those that do not are stuck, and killed.
    fn end(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.ledger.set(Header::Stop, 1);
        let mut waited = Duration::ZERO;
        while waited < patience && self.places.iter().any(|place| place.child.is_some()) {
            self.reap()?;
            let begun = Instant::now();
            thread::sleep(STEP);
            waited += begun.elapsed().min(TICK);
        }
        for process in 0..self.places.len() {
            let Some(mut child) = self.places[process].child.take() else { continue };
            for (row, watch) in self.ledger.rows_of(process).zip(&mut self.places[process].threads) {
                if row.get(Note::State) != ENDED && !watch.stuck {
                    watch.stuck = true;
                    self.events.stuck += 1;
                }
            }
            child.kill().context("killing a stuck child")?;
            child.wait().context("waiting for a stuck child")?;
            self.settle(process);
        }
        Ok(())
    }
}

/// When to kill, and whom.
#[derive(Debug)]
struct Kills {
    interval: Duration,
    next: Instant,
    dice: Dice,
}

impl Kills {
    fn new(interval: Duration, seed: u64, begun: Instant) -> Self {
        let mut kills = Self { interval, next: begun, dice: Dice::new(seed, [u64::MAX; 3]) };
        kills.next = begun + kills.interval();
        kills
    }

    /// From half the interval to one and a half.
    fn interval(&mut self) -> Duration {
        let ns = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX / 2);
        Duration::from_nanos(ns / 2 + self.dice.roll(ns + 1))
    }
}
