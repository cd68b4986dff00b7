//! What is logged, and counted: `docs/events.md` has the events' names and fields.
//!
//! A miscompare is no fault: another host was a millisecond faster. It is counted, and now and then a line tells how many
//! there were. What is not normal is a warning. Neither can flood the log: of each kind there is a line an
//! interval at most, which tells how many it stands for.

use std::time::Duration;

use tracing::Level;

use super::operation::Operation;
use super::record::Fields;
use super::verdict::{Outcome, Verdict};
use crate::device::DeviceError;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// How many operations came to what: exact, whatever was logged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// [`Verdict::Written`].
    pub written: u64,
    /// [`Verdict::OwnWriteLanded`].
    pub own_write_landed: u64,
    /// [`Verdict::PeerChanged`], with those after which an update began again.
    pub peer_changed: u64,
    /// [`Verdict::Unwritten`].
    pub unwritten: u64,
    /// [`Verdict::Indeterminate`].
    pub indeterminate: u64,
}

/// One kind of event.
#[derive(Default, Debug)]
struct Kind {
    /// All so far.
    total: AtomicU64,
    /// All when the last line was logged.
    told: AtomicU64,
    /// When the next line may be logged, in nanoseconds of the environment's time.
    next_ns: AtomicU64,
}

impl Kind {
    /// Counts an event; how many a line may tell of now, if there may be one.
    fn count(&self, now: impl FnOnce() -> Duration, interval: Duration) -> Option<u64> {
        self.total.fetch_add(1, Relaxed);
        let now_ns = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        let next_ns = self.next_ns.load(Relaxed);
        if now_ns < next_ns {
            return None;
        }
        let then_ns = now_ns.saturating_add(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
        self.next_ns.compare_exchange(next_ns, then_ns, Relaxed, Relaxed).ok()?;
        Some(self.untold())
    }

    /// How many there were since this was last called, so that the sum of all answers is their number.
    fn untold(&self) -> u64 {
        let total = self.total.load(Relaxed);
        total.saturating_sub(self.told.fetch_max(total, Relaxed))
    }
}

/// How often at most a line tells of contention.
const CONTENTION_INTERVAL: Duration = Duration::from_secs(1);
/// How often at most a line tells of one kind of fault.
const FAULT_INTERVAL: Duration = Duration::from_millis(100);

/// The log of what is done on one device.
#[derive(Debug)]
pub(super) struct Log {
    device: String,
    written: AtomicU64,
    written_after_retry: Kind,
    own_write_landed: Kind,
    peer_changed: Kind,
    unwritten: Kind,
    indeterminate: Kind,
}

/// A line on an operation: all that is known of it. A macro, as a level must be constant.
macro_rules! line {
    ($level:expr, $event:literal, $log:expr, $count:expr, ($operation:expr, $outcome:expr, $last:expr), $message:literal) => {{
        let (operation, outcome, facts) = ($operation, $outcome, Facts::of($operation, $outcome, $last));
        tracing::event!(
            target: "casblock::ats",
            $level,
            event = $event,
            device = %$log.device,
            lba = operation.lba(),
            offset = facts.offset,
            expected = facts.expected,
            found = facts.found,
            host = facts.ours.map(|ours| ours.owner.host),
            generation = facts.ours.map(|ours| ours.owner.generation),
            nonce = facts.ours.map(|ours| tracing::field::display(ours.nonce)),
            found_host = facts.theirs.map(|theirs| theirs.owner.host),
            found_generation = facts.theirs.map(|theirs| theirs.owner.generation),
            found_nonce = facts.theirs.map(|theirs| tracing::field::display(theirs.nonce)),
            attempts = outcome.attempts,
            elapsed_us = u64::try_from(outcome.elapsed.as_micros()).unwrap_or(u64::MAX),
            verdict = outcome.verdict.name(),
            source = facts.source.map(tracing::field::display),
            count = $count,
            $message
        );
    }};
}

impl Log {
    pub fn new(device: String) -> Self {
        Self {
            device,
            written: AtomicU64::new(0),
            written_after_retry: Kind::default(),
            own_write_landed: Kind::default(),
            peer_changed: Kind::default(),
            unwritten: Kind::default(),
            indeterminate: Kind::default(),
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            written: self.written.load(Relaxed),
            own_write_landed: self.own_write_landed.total.load(Relaxed),
            peer_changed: self.peer_changed.total.load(Relaxed),
            unwritten: self.unwritten.total.load(Relaxed),
            indeterminate: self.indeterminate.total.load(Relaxed),
        }
    }

    /// Counts an operation, and logs it if it is its turn. `last` is the last error that the device gave, if the outcome
    /// does not tell it.
    pub fn note(
        &self,
        now: impl FnOnce() -> Duration,
        operation: &Operation,
        outcome: &Outcome,
        last: Option<&DeviceError>,
    ) {
        match &outcome.verdict {
            Verdict::Written => {
                self.written.fetch_add(1, Relaxed);
                if outcome.attempts > 1
                    && let Some(count) = self.written_after_retry.count(now, FAULT_INTERVAL)
                {
                    tracing::info!(
                        target: "casblock::ats",
                        event = "ats.written_after_retry",
                        device = %self.device,
                        lba = operation.lba(),
                        attempts = outcome.attempts,
                        elapsed_us = u64::try_from(outcome.elapsed.as_micros()).unwrap_or(u64::MAX),
                        verdict = outcome.verdict.name(),
                        source = last.map(tracing::field::display),
                        count,
                        "written, but not at the first attempt"
                    );
                }
            }
            Verdict::PeerChanged { .. } => {
                if let Some(count) = self.peer_changed.count(now, CONTENTION_INTERVAL) {
                    line!(Level::INFO, "ats.miscompare", self, count, (operation, outcome, last), "a peer was faster");
                }
            }
            Verdict::OwnWriteLanded { .. } => {
                if let Some(count) = self.own_write_landed.count(now, FAULT_INTERVAL) {
                    line!(
                        Level::WARN,
                        "ats.own_write_landed",
                        self,
                        count,
                        (operation, outcome, last),
                        "written, but the answer was lost; the block shows it"
                    );
                }
            }
            Verdict::Unwritten { .. } => {
                if let Some(count) = self.unwritten.count(now, FAULT_INTERVAL) {
                    line!(Level::WARN, "ats.unwritten", self, count, (operation, outcome, last), "not written");
                }
            }
            Verdict::Indeterminate { .. } => {
                if let Some(count) = self.indeterminate.count(now, FAULT_INTERVAL) {
                    line!(
                        Level::WARN,
                        "ats.indeterminate",
                        self,
                        count,
                        (operation, outcome, last),
                        "nobody can tell whether it was written"
                    );
                }
            }
        }
    }
}

impl Drop for Log {
    /// Tells of what no line has told of yet, so that the counts add up.
    fn drop(&mut self) {
        let counts = self.counts();
        let untold = [
            ("ats.written_after_retry", &self.written_after_retry),
            ("ats.miscompare", &self.peer_changed),
            ("ats.own_write_landed", &self.own_write_landed),
            ("ats.unwritten", &self.unwritten),
            ("ats.indeterminate", &self.indeterminate),
        ];
        for (event, kind) in untold {
            let count = kind.untold();
            if count > 0 {
                let (device, total) = (&self.device, kind.total.load(Relaxed));
                tracing::info!(target: "casblock::ats", event, %device, count, total, "more of these, not logged one by one");
            }
        }
        tracing::debug!(
            target: "casblock::ats",
            event = "ats.closed",
            device = %self.device,
            written = counts.written,
            own_write_landed = counts.own_write_landed,
            peer_changed = counts.peer_changed,
            unwritten = counts.unwritten,
            indeterminate = counts.indeterminate,
            "all operations"
        );
    }
}

/// What a line tells of an operation.
struct Facts<'a> {
    offset: Option<usize>,
    /// The aligned word in which the blocks first differ, as its eight bytes.
    expected: Option<String>,
    found: Option<String>,
    ours: Option<Fields>,
    theirs: Option<Fields>,
    source: Option<&'a DeviceError>,
}

impl<'a> Facts<'a> {
    fn of(operation: &Operation, outcome: &'a Outcome, last: Option<&'a DeviceError>) -> Self {
        let (found, source) = match &outcome.verdict {
            Verdict::Written | Verdict::OwnWriteLanded { .. } => (None, None),
            Verdict::PeerChanged { found, .. } => (Some(found), None),
            Verdict::Unwritten { source } => (None, Some(source)),
            Verdict::Indeterminate { found, source, .. } => (found.as_ref(), Some(source)),
        };
        let offset = found.and_then(|found| crate::device::first_difference(operation.expected(), found));
        let word = |block: &[u8]| {
            let start = offset? / 8 * 8;
            let bytes: [u8; 8] = block.get(start..start + 8)?.try_into().ok()?;
            Some(format!("{:016x}", u64::from_be_bytes(bytes)))
        };
        Self {
            offset,
            expected: word(operation.expected()),
            found: found.and_then(|found| word(found)),
            ours: Fields::of_block(operation.lba(), operation.image()).ok(),
            theirs: found.and_then(|found| Fields::of_block(operation.lba(), found).ok()),
            source: source.or(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_few_lines_and_exact_counts() {
        let kind = Kind::default();
        let (mut lines, mut told) = (0, 0);
        for event in 0..1_000_000u64 {
            // A million in a second.
            if let Some(count) = kind.count(|| Duration::from_micros(event), FAULT_INTERVAL) {
                (lines, told) = (lines + 1, told + count);
            }
        }
        assert_eq!(lines, 10);
        assert_eq!(told + kind.untold(), 1_000_000);
        assert_eq!((kind.untold(), kind.total.load(Relaxed)), (0, 1_000_000));
    }

    #[test]
    fn the_first_is_told_at_once() {
        let kind = Kind::default();
        assert_eq!(kind.count(|| Duration::ZERO, CONTENTION_INTERVAL), Some(1));
        assert_eq!(kind.count(|| Duration::ZERO, CONTENTION_INTERVAL), None);
        assert_eq!(kind.count(|| Duration::from_secs(3600), CONTENTION_INTERVAL), Some(2));
    }
}
