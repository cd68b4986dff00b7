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
        self.count_in_bursts(now, interval, 1)
    }

    /// As [`count`](Self::count), where there may be so many lines at once after as many intervals without.
    fn count_in_bursts(&self, now: impl FnOnce() -> Duration, interval: Duration, burst: u32) -> Option<u64> {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(1, Relaxed);
        let now_ns = nanoseconds(now());
        let next_ns = self.next_ns.load(Relaxed);
        // Each line takes an interval of the time that is left, of which there are never more than a burst's.
        if now_ns.saturating_add(nanoseconds(interval * (burst - 1))) < next_ns {
            return None;
        }
        let then_ns = next_ns.max(now_ns).saturating_add(nanoseconds(interval));
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
/// How often at most a line tells of what the layer above does, after as many at once as tell of a few of it one by one.
const ABOVE_INTERVAL: Duration = Duration::from_secs(1);
const ABOVE_BURST: u32 = 16;
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
    above: Kind,
}

/// An operation that came to its end.
pub(super) struct Told<'a> {
    /// The first block.
    pub lba: u64,
    /// The operation, if it was begun.
    pub operation: Option<&'a Operation>,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// The last error that the device gave, if the outcome does not tell it.
    pub last: Option<&'a DeviceError>,
}

/// A line on an operation: all that is known of it. A macro, as a level must be constant.
macro_rules! line {
    ($level:expr, $event:literal, $log:expr, $count:expr, $told:expr, $message:literal) => {{
        let (outcome, facts) = ($told.outcome, Facts::of($told));
        tracing::event!(
            target: "casblock::ats",
            $level,
            event = $event,
            device = %$log.device,
            lba = $told.lba,
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
            above: Kind::default(),
        }
    }

    /// Counts an event of the layer above, which logs it; how many a line may tell of now, if there may be one.
    pub fn count_above(&self, now: impl FnOnce() -> Duration) -> Option<u64> {
        self.above.count_in_bursts(now, ABOVE_INTERVAL, ABOVE_BURST)
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

    /// Counts an operation, and logs it if it is its turn.
    pub fn note(&self, now: impl FnOnce() -> Duration, told: &Told<'_>) {
        let outcome = told.outcome;
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
                        lba = told.lba,
                        attempts = outcome.attempts,
                        elapsed_us = u64::try_from(outcome.elapsed.as_micros()).unwrap_or(u64::MAX),
                        verdict = outcome.verdict.name(),
                        source = told.last.map(tracing::field::display),
                        count,
                        "written, but not at the first attempt"
                    );
                }
            }
            Verdict::PeerChanged { .. } => {
                if let Some(count) = self.peer_changed.count(now, CONTENTION_INTERVAL) {
                    line!(Level::INFO, "ats.miscompare", self, count, told, "a peer was faster");
                }
            }
            Verdict::OwnWriteLanded { .. } => {
                if let Some(count) = self.own_write_landed.count(now, FAULT_INTERVAL) {
                    line!(
                        Level::WARN,
                        "ats.own_write_landed",
                        self,
                        count,
                        told,
                        "written, but the answer was lost; the block shows it"
                    );
                }
            }
            Verdict::Unwritten { .. } => {
                if let Some(count) = self.unwritten.count(now, FAULT_INTERVAL) {
                    line!(Level::WARN, "ats.unwritten", self, count, told, "not written");
                }
            }
            Verdict::Indeterminate { .. } => {
                if let Some(count) = self.indeterminate.count(now, FAULT_INTERVAL) {
                    line!(
                        Level::WARN,
                        "ats.indeterminate",
                        self,
                        count,
                        told,
                        "nobody can tell whether it was written"
                    );
                }
            }
        }
    }
}

/// A line on events that no line has told of, if there are any. A macro, as a level must be constant.
macro_rules! remainder {
    ($level:expr, $event:literal, $log:expr, $kind:expr) => {{
        let (count, total) = ($kind.untold(), $kind.total.load(Relaxed));
        if count > 0 {
            tracing::event!(
                target: "casblock::ats",
                $level,
                event = $event,
                device = %$log.device,
                count,
                total,
                "more of these, not logged one by one"
            );
        }
    }};
}

impl Drop for Log {
    /// Tells of what no line has told of yet, so that the counts add up: at the level of the lines before, so that they do
    /// whatever the log shows.
    fn drop(&mut self) {
        let counts = self.counts();
        remainder!(Level::INFO, "ats.written_after_retry", self, self.written_after_retry);
        remainder!(Level::INFO, "ats.miscompare", self, self.peer_changed);
        remainder!(Level::WARN, "ats.own_write_landed", self, self.own_write_landed);
        remainder!(Level::WARN, "ats.unwritten", self, self.unwritten);
        remainder!(Level::WARN, "ats.indeterminate", self, self.indeterminate);
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
    fn of(told: &Told<'a>) -> Self {
        let (found, source) = match &told.outcome.verdict {
            Verdict::Written | Verdict::OwnWriteLanded { .. } => (None, None),
            Verdict::PeerChanged { found, .. } => (Some(found), None),
            Verdict::Unwritten { source } => (None, Some(source)),
            Verdict::Indeterminate { found, source, .. } => (found.as_ref(), Some(source)),
        };
        let (expected, found) = (told.operation.map(Operation::expected), found.map(|found| &**found));
        let offset = expected.zip(found).and_then(|(expected, found)| crate::device::first_difference(expected, found));
        let word = |block: &[u8]| {
            let start = offset? / 8 * 8;
            let bytes: [u8; 8] = block.get(start..start + 8)?.try_into().ok()?;
            Some(format!("{:016x}", u64::from_be_bytes(bytes)))
        };
        Self {
            offset,
            expected: expected.and_then(word),
            found: found.and_then(word),
            ours: told.operation.and_then(|it| Fields::of_block(told.lba, it.image()).ok()),
            theirs: found.and_then(|found| Fields::of_block(told.lba, found).ok()),
            source: source.or(told.last),
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
    fn a_few_are_told_of_one_by_one_and_a_storm_is_not() {
        let kind = Kind::default();
        let mut told =
            |millisecond: u64| kind.count_in_bursts(|| Duration::from_millis(millisecond), Duration::from_secs(1), 4);
        // All at once, then one an interval; four again after as many intervals.
        assert_eq!([0; 6].map(&mut told), [Some(1), Some(1), Some(1), Some(1), None, None]);
        assert_eq!([999, 1000, 1001].map(&mut told), [None, Some(4), None]);
        assert_eq!([9000; 5].map(&mut told), [Some(2), Some(1), Some(1), Some(1), None]);
    }

    #[test]
    fn the_first_is_told_at_once() {
        let kind = Kind::default();
        assert_eq!(kind.count(|| Duration::ZERO, CONTENTION_INTERVAL), Some(1));
        assert_eq!(kind.count(|| Duration::ZERO, CONTENTION_INTERVAL), None);
        assert_eq!(kind.count(|| Duration::from_secs(3600), CONTENTION_INTERVAL), Some(2));
    }
}
