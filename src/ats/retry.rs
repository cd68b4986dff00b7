//! How long to go on, and how long to wait in between.

use std::time::Duration;

use crate::environment::Environment;

/// How long an operation goes on, and how long it waits between two attempts.
///
/// The wait before attempt `n + 1` is drawn evenly from zero to `backoff_first` × 2ⁿ⁻¹, at most `backoff_max`: those that lost
/// together do not come back together.
///
/// The deadline bounds when an attempt may begin. How long the device waits for an answer that does not come is the device's own
/// affair, and must be a fraction of the deadline: a third leaves time for a request, a look, and the request once more. An
/// operation then ends at the deadline and two such waits at the latest: an attempt that began in time, and the look after
/// it. On a device that waits for as long as the deadline or longer, nothing whose answer was missed is ever tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// No attempt begins later than this after the operation did. Three times what the device waits for an answer, or more.
    pub deadline: Duration,
    /// The longest wait before the second attempt.
    pub backoff_first: Duration,
    /// The longest wait before any.
    pub backoff_max: Duration,
}

impl Default for Retry {
    /// 8 s, as VMFS gives a heartbeat's I/O; waits from 1 ms to 250 ms.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(8),
            backoff_first: Duration::from_millis(1),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// How an operation's retries go.
#[derive(Debug)]
pub(super) struct Patience {
    retry: Retry,
    started: Duration,
    ceiling: Duration,
}

impl Patience {
    pub fn new(retry: Retry, environment: &impl Environment) -> Self {
        Self { retry, started: environment.now(), ceiling: retry.backoff_first.min(retry.backoff_max) }
    }

    /// How long the operation has taken.
    pub fn elapsed(&self, environment: &impl Environment) -> Duration {
        environment.now().saturating_sub(self.started)
    }

    /// Waits; `false`, without a wait, if the wait would end after the deadline.
    pub fn wait(&mut self, environment: &impl Environment) -> bool {
        let ceiling = u64::try_from(self.ceiling.as_nanos()).unwrap_or(u64::MAX);
        // The high half of 64 random bits times the ceiling: even, but for one in 2⁶⁴.
        let drawn = (u128::from(environment.random() as u64) * (u128::from(ceiling) + 1)) >> 64;
        let wait = Duration::from_nanos(drawn as u64);
        if self.elapsed(environment).saturating_add(wait) > self.retry.deadline {
            return false;
        }
        self.ceiling = self.ceiling.saturating_mul(2).min(self.retry.backoff_max);
        environment.sleep(wait);
        true
    }
}
