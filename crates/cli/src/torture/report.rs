//! What the torture found, as text and as JSON.

use std::fmt;
use std::path::PathBuf;

use casblock::Check;
use serde::Serialize;

use crate::number::grouped;

/// Everything that the torture found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The store.
    pub store: PathBuf,
    /// Child processes.
    pub processes: u64,
    /// Threads of each.
    pub threads: u64,
    /// Counters in blocks.
    pub blocks: u64,
    /// Counters in heartbeat words.
    pub words: u64,
    /// How long it ran.
    pub seconds: f64,
    /// Milliseconds from one kill to the next, on average.
    pub kill_every_ms: u64,
    /// What the random choices came from.
    pub seed: u64,
    /// Whether it was asked to end early.
    pub interrupted: bool,
    /// Compare-and-writes.
    pub attempts: u64,
    /// Those that wrote, as reported by who did.
    pub written: u64,
    /// Those that did not.
    pub miscompares: u64,
    /// Compare-and-writes per second.
    pub attempts_per_second: u64,
    /// Those that wrote, per second.
    pub written_per_second: u64,
    /// Plain reads.
    pub reads: u64,
    /// Heartbeat words exchanged.
    pub beats: u64,
    /// Writers claimed.
    pub claims: u64,
    /// Latency of a compare-and-write: half took no longer.
    pub p50_ns: u64,
    /// 99 in 100 took no longer.
    pub p99_ns: u64,
    /// 999 in 1,000 took no longer.
    pub p99_9_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Children killed.
    pub kills: u64,
    /// Of these, threads that died inside an increment: whether it was done is unknown.
    pub unresolved: u64,
    /// Increments of blocks and words that were reported as done.
    pub confirmed: u64,
    /// By how much the counters have grown.
    pub counted: u64,
    /// Increments that were reported as done, and are not in the counters.
    pub lost: u64,
    /// Increments that are in the counters, beyond those done and those unresolved.
    pub extra: u64,
    /// Blocks and words found that no increment makes.
    pub torn: u64,
    /// Threads that stood still, or did not end.
    pub stuck: u64,
    /// Times that no writer slot or no frame was free, and the thread tried again.
    pub refused: u64,
    /// Children that ended by themselves.
    pub failed: u64,
    /// Whether the store's check found nothing.
    pub check_clean: bool,
    /// Frames that hold nothing, are no writer's and are not free.
    pub frames_leaked: u64,
    /// Frames in more than one place.
    pub frames_doubly_owned: u64,
    /// Cells that name no frame.
    pub cells_out_of_range: u64,
    /// Writer slots that name what does not exist.
    pub slots_damaged: u64,
}

impl Report {
    /// Takes over what the check of the store found.
    pub fn set_check(&mut self, check: &Check) {
        self.check_clean = check.is_clean();
        self.frames_leaked = check.frames_leaked;
        self.frames_doubly_owned = check.frames_doubly_owned;
        self.cells_out_of_range = check.cells_out_of_range;
        self.slots_damaged = check.slots_damaged;
    }

    /// Whether the store came through.
    pub fn is_clean(&self) -> bool {
        [self.lost, self.extra, self.torn, self.stuck, self.failed] == [0; 5] && self.check_clean
    }
}

/// A duration as people read it.
fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{} ns", grouped(ns)),
        10_000..10_000_000 => format!("{} µs", grouped(ns / 1000)),
        _ => format!("{} ms", grouped(ns / 1_000_000)),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &str, note: &str| {
            let line = format!("{name:<13}{value:>14}   {note}");
            writeln!(f, "{}", line.trim_end())
        };
        let shape = format!("threads of each: {}; blocks: {}; words: {}", self.threads, self.blocks, self.words);
        row(f, "processes", &grouped(self.processes), &shape)?;
        let early = if self.interrupted { "; ended early by a signal" } else { "" };
        row(f, "seconds", &format!("{:.1}", self.seconds), &format!("seed {}{early}", self.seed))?;
        row(f, "attempts", &grouped(self.attempts), &format!("{} a second", grouped(self.attempts_per_second)))?;
        row(f, "written", &grouped(self.written), &format!("{} a second", grouped(self.written_per_second)))?;
        row(f, "miscompares", &grouped(self.miscompares), "lost races: the attempt was made again")?;
        row(f, "beats", &grouped(self.beats), "heartbeat words exchanged")?;
        let percentiles = [("p50", self.p50_ns), ("p99", self.p99_ns), ("p99.9", self.p99_9_ns), ("max", self.max_ns)];
        for (name, ns) in percentiles {
            row(f, name, &time(ns), if name == "p50" { "latency of a compare-and-write" } else { "" })?;
        }
        let unresolved = format!("threads that died inside an increment: {}", grouped(self.unresolved));
        row(f, "kills", &grouped(self.kills), &unresolved)?;
        row(f, "confirmed", &grouped(self.confirmed), "increments reported done, of blocks and words")?;
        row(f, "counted", &grouped(self.counted), "increments that the counters hold")?;
        row(f, "lost", &grouped(self.lost), "increments reported done that the counters lack")?;
        row(f, "extra", &grouped(self.extra), "increments in the counters that nobody made")?;
        row(f, "torn", &grouped(self.torn), "blocks or words that no increment makes")?;
        row(f, "stuck", &grouped(self.stuck), "threads that stood still, or did not end")?;
        if self.refused > 0 {
            row(f, "refused", &grouped(self.refused), "times no slot or frame was free; tried again")?;
        }
        if self.failed > 0 {
            row(f, "failed", &grouped(self.failed), "children that ended by themselves")?;
        }
        let faults = self.frames_leaked + self.frames_doubly_owned + self.cells_out_of_range + self.slots_damaged;
        let (check, note) = if self.check_clean {
            ("clean", "every frame has exactly one owner".into())
        } else {
            ("NOT CLEAN", format!("{faults} faults: casblock check tells which"))
        };
        row(f, "check", check, &note)?;
        writeln!(
            f,
            "A thread killed inside an increment cannot say whether it was done, so each\n\
             counter may hold one more than was reported for each such death; none may\n\
             hold less, and none more than that."
        )?;
        let verdict = if self.is_clean() { "nothing lost, torn or stuck" } else { "FAILED" };
        write!(f, "{}: {verdict}", self.store.display())
    }
}
