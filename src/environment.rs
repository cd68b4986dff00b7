//! The clock and the dice: all that the layers above a device take from the world besides the device.
//!
//! Whoever tests them gives them others, and runs a day of faults in a second, the same each time.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::dice::Dice;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Mutex};

/// A clock that only goes forward, sleep, and random numbers.
pub trait Environment: Send + Sync {
    /// The time since some moment in the past, which is the same for all calls. It goes on while the machine is suspended,
    /// where the system can tell: another host's clock did.
    fn now(&self) -> Duration;

    /// Comes back when that time has passed.
    fn sleep(&self, time: Duration);

    /// A number that nobody else drew: 128 random bits.
    fn random(&self) -> u128;
}

impl<E: Environment + ?Sized> Environment for &E {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn sleep(&self, time: Duration) {
        (**self).sleep(time);
    }

    fn random(&self) -> u128 {
        (**self).random()
    }
}

impl<E: Environment + ?Sized> Environment for Arc<E> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn sleep(&self, time: Duration) {
        (**self).sleep(time);
    }

    fn random(&self) -> u128 {
        (**self).random()
    }
}

/// The machine's own: `CLOCK_BOOTTIME` on Linux, the standard library's `Instant` elsewhere; the system's random numbers.
#[derive(Clone, Copy, Default, Debug)]
pub struct System;

impl Environment for System {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// # Panics
    /// Where the system has no random numbers: without them no two images of a block can be told apart.
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        u128::from_ne_bytes(bytes)
    }
}

/// A world of its own, for tests: time passes only while somebody sleeps, which takes no time outside, and all random
/// numbers follow from a seed.
///
/// ```
/// use std::time::Duration;
///
/// use casblock::environment::{Environment, Virtual};
///
/// let world = Virtual::new(1);
/// world.sleep(Duration::from_secs(3600));
/// assert_eq!(world.now(), Duration::from_secs(3600));
/// ```
#[derive(Debug)]
pub struct Virtual {
    now_ns: AtomicU64,
    dice: Mutex<Dice>,
}

impl Virtual {
    /// The world of a seed, at time zero.
    pub fn new(seed: u64) -> Self {
        Self { now_ns: AtomicU64::new(0), dice: Mutex::new(Dice::new(seed, u64::MAX)) }
    }
}

impl Environment for Virtual {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.now_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn random(&self) -> u128 {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(dice.throw()) << 64 | u128::from(dice.throw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_and_no_number_comes_twice() {
        let (before, first) = (System.now(), System.random());
        System.sleep(Duration::from_millis(2));
        assert!(System.now() >= before + Duration::from_millis(2));
        assert_ne!(System.random(), first);
    }
}
