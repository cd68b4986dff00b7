//! A host's beating heart: what its handles share.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::beat::State;
use super::config::Timing;
use super::host::{HostError, Loss, OnLoss};
use super::slots::{Exchange, HostName, Seen, Slots};
use super::watch::Watch;
use crate::device::BlockDevice;
use crate::environment::Environment;
use crate::lease::books::Books;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// What a host's handles share: its leases, and the thread in which its heart beats.
pub(crate) struct Inner<D, E> {
    pub slots: Slots<D, E>,
    pub slot: u32,
    pub generation: u32,
    /// What tells this join from all others.
    pub(super) join: u128,
    pub(super) name: HostName,
    /// What the slot holds, as far as is known. Held through a beat.
    pub(super) seen: Mutex<Seen>,
    /// Until when it may claim what it has, in nanoseconds of the environment's time; 0 once it is lost.
    pub(super) valid_until_ns: AtomicU64,
    pub(super) loss: OnceLock<Loss>,
    /// Taken by whoever calls it.
    pub(super) on_loss: Mutex<Option<Box<OnLoss>>>,
    pub watch: Mutex<Watch>,
    /// What it knows of its leases.
    pub books: Mutex<Books>,
    pub(super) stop: Mutex<bool>,
    /// Told when it is to stop, or lost.
    pub(super) stopped: Condvar,
}

impl<D: BlockDevice, E: Environment> fmt::Debug for Inner<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .field("loss", &self.loss.get())
            .finish_non_exhaustive()
    }
}

/// What such a mutex guards is whole after each statement.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<D: BlockDevice, E: Environment> Inner<D, E> {
    pub fn timing(&self) -> Timing {
        self.slots.cluster.timing()
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.slots.ats.environment().now())
    }

    /// For how long it may claim what it has, if no beat is done meanwhile. Who was told that it may not any more is never told
    /// that it may again: a beat that is done later does not count.
    pub fn valid_for(&self) -> Duration {
        let (valid_until, now) = (self.valid_until_ns.load(Relaxed), self.now_ns());
        if now < valid_until {
            return Duration::from_nanos(valid_until - now);
        }
        match self.valid_until_ns.compare_exchange(valid_until, 0, Relaxed, Relaxed) {
            Ok(_) => Duration::ZERO,
            // A beat was done just in time.
            Err(later) => Duration::from_nanos(later.saturating_sub(now)),
        }
    }

    pub fn is_current(&self) -> bool {
        !self.valid_for().is_zero()
    }

    pub fn loss(&self) -> Option<Loss> {
        self.loss.get().copied()
    }

    /// An error unless the host may claim what it has.
    pub fn check_current(&self) -> Result<(), HostError> {
        match (self.is_current(), self.loss()) {
            (true, _) => Ok(()),
            (false, loss) => Err(HostError::Lost(loss.unwrap_or(Loss::Overdue))),
        }
    }

    /// Notes that it is lost, and why, unless that is known already.
    fn lose(&self, loss: Loss) -> HostError {
        self.valid_until_ns.store(0, Relaxed);
        let loss = *self.loss.get_or_init(|| loss);
        // Whoever waits for it holds the lock while it looks.
        drop(locked(&self.stop));
        self.stopped.notify_all();
        HostError::Lost(loss)
    }

    /// Tells the handler of a loss, once. Without any lock: it may join again, and drop this host.
    pub fn tell(&self) {
        let Some(loss) = self.loss().filter(|loss| *loss != Loss::Left) else { return };
        let handler = locked(&self.on_loss).take();
        if let Some(handler) = handler {
            handler(&loss);
        }
    }

    pub fn beat(&self) -> Result<(), HostError> {
        let mut seen = locked(&self.seen);
        if let Some(loss) = self.loss() {
            return Err(HostError::Lost(loss));
        }
        loop {
            let (started, valid_until) = (self.slots.ats.environment().now(), self.valid_until_ns.load(Relaxed));
            if !self.is_current() {
                return Err(self.lose(Loss::Overdue));
            }
            let Some(next) = seen.beat.next() else { return Err(self.lose(Loss::WornOut)) };
            match self.slots.exchange(self.slot, &seen, next, None) {
                Exchange::Done(now) => {
                    *seen = now;
                    let later = nanoseconds(started + self.timing().deadline());
                    // It may have been done in time, but the answer came too late: who asked meanwhile was told no.
                    let in_time = self.is_current()
                        && self.valid_until_ns.compare_exchange(valid_until, later, Relaxed, Relaxed).is_ok();
                    return if in_time { Ok(()) } else { Err(self.lose(Loss::Overdue)) };
                }
                // A beat of its own whose answer was missed; go on from there.
                Exchange::Found(found) if self.is_own(&found) => *seen = found,
                Exchange::Found(_) => return Err(self.lose(Loss::Fenced)),
                Exchange::Failed(error) => {
                    if !self.is_current() {
                        self.lose(Loss::Overdue);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether a beat that was found is one of its own, whose answer was missed. A word's answer is never missed; a block says whose
    /// it is by more than the generation, which may come again.
    fn is_own(&self, found: &Seen) -> bool {
        let Seen { beat, join, .. } = found;
        !self.slots.cluster.is_in_words()
            && (beat.generation(), beat.state(), *join) == (self.generation, State::Taken, self.join)
    }

    /// Waits until it is to stop, or lost, or so much time has passed; whether it is to go on.
    fn wait(&self, time: Duration) -> bool {
        let is_on = |stop: &mut bool| !*stop && self.loss().is_none();
        let waited = self.stopped.wait_timeout_while(locked(&self.stop), time, is_on);
        is_on(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits for the host's loss, or its deadline, and tells the handler: in a thread of its own, as a heart that waits for its
    /// device can not. It looks at the clock at least each interval, for a machine that was suspended.
    pub fn guard(&self) {
        loop {
            let left = self.valid_for();
            if left.is_zero() {
                self.lose(Loss::Overdue);
            }
            if !self.wait(left.min(self.timing().interval)) {
                return self.tell();
            }
        }
    }

    /// Frees the slot, if it still is its own.
    pub fn leave(&self) {
        if self.loss() == Some(Loss::Left) {
            return;
        }
        self.lose(Loss::Left);
        let mut seen = locked(&self.seen);
        // A few tries, where a beat's answer was missed; a slot that stays taken goes stale.
        for _ in 0..3 {
            match self.slots.exchange(self.slot, &seen, seen.beat.freed(), None) {
                Exchange::Found(found) if self.is_own(&found) => *seen = found,
                _ => return,
            }
        }
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Inner<D, E> {
    /// Beats until it is told to stop, or lost: each interval from the beginning of one beat to that of the next, or when that is
    /// done, if it takes longer.
    pub fn beat_on(self: &Arc<Self>) {
        let mut tidier: Option<JoinHandle<()>> = None;
        loop {
            let started = self.slots.ats.environment().now();
            let _ = self.beat();
            if locked(&self.books).has_loose() && tidier.as_ref().is_none_or(JoinHandle::is_finished) {
                tidier = self.spawn_tidier();
            }
            let taken = self.slots.ats.environment().now().saturating_sub(started);
            if !self.wait(self.timing().interval.saturating_sub(taken)) {
                break;
            }
        }
        if let Some(tidier) = tidier {
            // It has been told to stop; if it panicked, the leases stay as they are.
            let _ = tidier.join();
        }
    }

    /// A thread that tidies until nothing is loose. Apart from the heart, which must not wait; if there is none to be had, the next
    /// beat asks again.
    fn spawn_tidier(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let host = Arc::clone(self);
        let tidy_up = move || {
            loop {
                host.tidy();
                if !locked(&host.books).has_loose() || !host.wait(host.timing().interval) {
                    return;
                }
            }
        };
        thread::Builder::new().name(format!("leases of {}", self.name)).spawn(tidy_up).ok()
    }
}
