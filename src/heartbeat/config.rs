//! How fast hearts beat, and when they are taken for still: the one inequality.

use std::time::Duration;

/// How much faster or slower than another a host's clock may run, in percent.
pub const DRIFT_PERCENT: u32 = 10;

/// How fast a host's heart beats, and when it is taken for dead. All hosts of a cluster use the same, which is written in the
/// cluster's header.
///
/// # The inequality
/// A host that cannot beat must stop before others may take what it had. It counts from when it began the last beat that was
/// done; others count from when they saw that beat, which is later. If clocks drift apart by 10 % each way, a host that stops
/// after `deadline` on its own clock has stopped after `deadline / 0.9`; others who wait `stale` on theirs have waited
/// `stale / 1.1` at least. So
///
/// ```text
///     deadline / 0.9  ≤  stale / 1.1          the host stops before anyone may act
///     interval + io_timeout  ≤  deadline      a beat that takes its full time, after a quick one, still comes in time
/// ```
///
/// The deadline is the longest that the first allows; the second is what [`check`](Self::check) wants. VMFS's values, the
/// default, fulfil it: 3 s + 8 s ≤ 13 s. If every beat is slow, each may take half the deadline: it begins when the one before
/// it is done, and must be done before that one's beginning is a deadline ago.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// From one beat to the next.
    pub interval: Duration,
    /// How long a beat may take, with all its retries. No attempt begins later; the device's own timeout for one request must be
    /// shorter, or that is how long a beat can hang.
    pub io_timeout: Duration,
    /// How long others watch a heart stand still until they take its host for dead.
    pub stale: Duration,
}

impl Default for Timing {
    /// As VMFS: a beat every 3 s, 8 s for its I/O, dead after 16 s.
    fn default() -> Self {
        Self { interval: Duration::from_secs(3), io_timeout: Duration::from_secs(8), stale: Duration::from_secs(16) }
    }
}

/// Why a timing is not possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// A time is out of bounds.
    #[error("{name}: {time:?}; 1 ms to 1 day are possible")]
    OutOfBounds {
        /// Which.
        name: &'static str,
        /// What it is.
        time: Duration,
    },
    /// A host could be taken for dead while it is waiting for one beat.
    #[error(
        "a beat every {interval:?} that may take {io_timeout:?} needs a deadline of {needed:?}, but hosts that are dead after {stale:?} must stop after {deadline:?} (stale × 0.9 / 1.1, as clocks drift): choose a longer stale time, or shorter others"
    )]
    TooTight {
        /// From one beat to the next.
        interval: Duration,
        /// How long one may take.
        io_timeout: Duration,
        /// When others take its host for dead.
        stale: Duration,
        /// When it must have stopped.
        deadline: Duration,
        /// When it could have stopped.
        needed: Duration,
    },
}

impl Timing {
    /// How long after the beginning of its last beat a host may claim what it has, on its own clock.
    pub fn deadline(&self) -> Duration {
        self.stale * (100 - DRIFT_PERCENT) / (100 + DRIFT_PERCENT)
    }

    /// When others call a host late: two beats have not come.
    pub fn late(&self) -> Duration {
        (self.interval * 2).min(self.stale)
    }

    /// Whether it is possible.
    ///
    /// # Errors
    /// See [`TimingError`].
    pub fn check(&self) -> Result<(), TimingError> {
        let (least, most) = (Duration::from_millis(1), Duration::from_secs(86_400));
        for (name, time) in
            [("the interval", self.interval), ("the I/O timeout", self.io_timeout), ("the stale time", self.stale)]
        {
            if !(least..=most).contains(&time) {
                return Err(TimingError::OutOfBounds { name, time });
            }
        }
        let Self { interval, io_timeout, stale } = *self;
        let (deadline, needed) = (self.deadline(), interval + io_timeout);
        if needed > deadline {
            return Err(TimingError::TooTight { interval, io_timeout, stale, deadline, needed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(interval_ms: u64, io_timeout_ms: u64, stale_ms: u64) -> Timing {
        let ms = Duration::from_millis;
        Timing { interval: ms(interval_ms), io_timeout: ms(io_timeout_ms), stale: ms(stale_ms) }
    }

    #[test]
    fn the_inequality_is_checked_to_the_last_millisecond() {
        Timing::default().check().unwrap();
        assert_eq!(Timing::default().deadline().as_millis(), 13_090);
        timing(30, 60, 110).check().unwrap();
        let error = timing(31, 60, 110).check().unwrap_err();
        assert!(matches!(error, TimingError::TooTight { .. }), "{error}");
        assert!(error.to_string().contains("deadline of 91ms") && error.to_string().contains("after 90ms"), "{error}");
        timing(1, 1, 3).check().unwrap();
    }

    #[test]
    fn times_have_bounds() {
        for wrong in [timing(0, 1, 10), timing(1, 0, 10), timing(1, 1, 86_400_001)] {
            assert!(matches!(wrong.check(), Err(TimingError::OutOfBounds { .. })), "{wrong:?}");
        }
    }
}
