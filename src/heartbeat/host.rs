//! A host of a cluster: its slot, and its beating heart.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::beat::{Beat, State};
use super::config::Timing;
use super::region::{Cluster, ClusterError};
use super::slots::{Exchange, HostName, Seen, Slots};
use super::watch::{Liveness, SlotView, Watch};
use crate::ats::{Ats, Retry};
use crate::device::{BlockDevice, DeviceError};
use crate::environment::{Environment, System};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// Who joins a cluster.
pub struct HostConfig {
    name: HostName,
    first_lba: u64,
    on_loss: Option<Box<OnLoss>>,
}

type OnLoss = dyn Fn(&Loss) + Send + Sync;

impl HostConfig {
    /// A host of this name, in the cluster whose header is block 0.
    pub fn new(name: HostName) -> Self {
        Self { name, first_lba: 0, on_loss: None }
    }

    /// Sets the block of the cluster's header.
    #[must_use]
    pub fn first_lba(mut self, lba: u64) -> Self {
        self.first_lba = lba;
        self
    }

    /// Sets what is called, once, when the host finds that it is taken for dead, or could be: from the thread in which its
    /// heart beats.
    #[must_use]
    pub fn on_loss(mut self, handler: impl Fn(&Loss) + Send + Sync + 'static) -> Self {
        self.on_loss = Some(Box::new(handler));
        self
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("name", &self.name)
            .field("first_lba", &self.first_lba)
            .finish_non_exhaustive()
    }
}

/// Why a host is one no longer. It can join again, as another generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// Its slot was fenced, or taken by another, who saw its heart stand still.
    Fenced,
    /// It has not been able to beat in time, so that others may fence it.
    Overdue,
    /// Its heart has beaten as often as a generation's can.
    WornOut,
    /// It left.
    Left,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "it was fenced: others saw its heart stand still",
            Self::Overdue => "it could not beat in time: others may take it for dead",
            Self::WornOut => "its heart has beaten as often as one can",
            Self::Left => "it left",
        })
    }
}

/// Why a host cannot join, or beat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is no cluster, or it makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// All slots are taken, by hosts that live.
    #[error("all {hosts} slots of the cluster are taken by hosts that live")]
    NoFreeSlot {
        /// How many there are.
        hosts: u32,
    },
    /// A host of that name lives.
    #[error("a host named {name} lives, in slot {slot}")]
    NameInUse {
        /// The name.
        name: HostName,
        /// The slot.
        slot: u32,
    },
    /// The host is one no longer.
    #[error("the host is no longer in the cluster: {0}")]
    Lost(Loss),
    /// The device could not, or did not answer.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A host that has joined a cluster. Its heart beats until it is dropped.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::ats::Ats;
/// use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName};
/// use casblock::{Geometry, Store};
///
/// let store = Store::in_memory(Geometry::blocks(64))?;
/// Cluster::create(&Ats::new(store.clone()), ClusterOptions::hosts(8), false)?;
/// let name = HostName::new("alpha").expect("a name");
/// let host = Host::join(store, HostConfig::new(name).on_loss(|loss| eprintln!("stop all work: {loss}")))?;
/// assert!(host.is_current());
/// host.leave();
/// # Ok(())
/// # }
/// ```
pub struct Host<D: BlockDevice + 'static, E: Environment + 'static = System> {
    pub(crate) inner: Arc<Inner<D, E>>,
    /// `None` where it beats by hand.
    heart: Option<JoinHandle<()>>,
}

/// What a host's handles share: its leases, and the thread in which its heart beats.
pub(crate) struct Inner<D, E> {
    pub slots: Slots<D, E>,
    pub slot: u32,
    pub generation: u32,
    name: HostName,
    /// What the slot holds, as far as is known. Held through a beat.
    seen: Mutex<Seen>,
    /// Until when it may claim what it has, in nanoseconds of the environment's time; 0 once it is lost.
    valid_until_ns: AtomicU64,
    loss: OnceLock<Loss>,
    on_loss: Option<Box<OnLoss>>,
    pub watch: Mutex<Watch>,
    /// Leases that are held, or about to be, with their tokens.
    pub held: Mutex<BTreeSet<(u64, u64)>>,
    /// Leases of which it is not known whether they are held, or may come to be.
    pub loose: Mutex<BTreeSet<u64>>,
    stop: Mutex<bool>,
    stopped: Condvar,
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

impl<D: BlockDevice + 'static> Host<D> {
    /// Joins a cluster: takes the slot that it had before, if one has its name, or a free one, or else that of a dead host. Its
    /// heart beats in a thread of its own.
    ///
    /// If a host of that name seems to live, or no slot is free, this watches for the stale time.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn join(device: D, config: HostConfig) -> Result<Self, HostError> {
        let mut host = Self::join_by_hand(device, config, System)?;
        let inner = Arc::clone(&host.inner);
        let heart = thread::Builder::new().name(format!("heart of {}", inner.name)).spawn(move || inner.beat_on());
        host.heart = Some(heart.map_err(|source| DeviceError::failed(crate::device::Failure::Io, source))?);
        Ok(host)
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Host<D, E> {
    /// As [`join`](Host::join), but its heart beats only when [`beat`](Self::beat) is called: for programs that have their own
    /// threads or clocks.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn join_by_hand(device: D, config: HostConfig, environment: E) -> Result<Self, HostError> {
        let cluster = Cluster::open(&device, config.first_lba)?;
        let slots = Slots { ats: Ats::in_environment(device, environment).retry(retry(cluster.timing())), cluster };
        let mut watch = Watch::default();
        let (slot, seen, started) = take_slot(&slots, &config.name, &mut watch)?;
        let generation = seen.beat.generation();
        let inner = Inner {
            slot,
            generation,
            name: config.name,
            seen: Mutex::new(seen),
            valid_until_ns: AtomicU64::new(nanoseconds(started + slots.cluster.timing().deadline())),
            loss: OnceLock::new(),
            on_loss: config.on_loss,
            watch: Mutex::new(watch),
            held: Mutex::default(),
            loose: Mutex::default(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
            slots,
        };
        Ok(Self { inner: Arc::new(inner), heart: None })
    }

    /// Beats once: for a host that [joined by hand](Self::join_by_hand), every [`Timing::interval`].
    ///
    /// # Errors
    /// [`HostError::Lost`]; [`HostError::Device`] if the device did not answer, or could not: try again.
    pub fn beat(&self) -> Result<(), HostError> {
        self.inner.beat()?;
        self.inner.tidy();
        Ok(())
    }

    /// Whether the host may claim what it has: its last beat is not older than the deadline, and nobody has been found to have
    /// fenced it. Costs a look at the clock.
    pub fn is_current(&self) -> bool {
        self.inner.is_current()
    }

    /// Why it is a host no longer, once that is known.
    pub fn loss(&self) -> Option<Loss> {
        self.inner.loss()
    }

    /// Its slot.
    pub fn slot(&self) -> u32 {
        self.inner.slot
    }

    /// Which of its slot's owners it is.
    pub fn generation(&self) -> u32 {
        self.inner.generation
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.slots.cluster
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.inner.slots.ats.device()
    }

    /// The clock and the random numbers.
    pub fn environment(&self) -> &E {
        self.inner.slots.ats.environment()
    }

    /// All slots, as this host has seen them until now.
    ///
    /// # Errors
    /// The first slot's that cannot be read.
    pub fn hosts(&self) -> Result<Vec<SlotView>, DeviceError> {
        let all = locked(&self.inner.watch).look_at_all(&self.inner.slots)?;
        Ok(all.into_iter().map(|(_, view)| view).collect())
    }

    /// Leaves the cluster: the slot is free at once, and so is every lease that was not released. A host that is dropped does
    /// the same.
    pub fn leave(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        *locked(&self.inner.stop) = true;
        self.inner.stopped.notify_all();
        if let Some(heart) = self.heart.take() {
            // It does not panic; if a handler did, there is nothing to do about it.
            let _ = heart.join();
        }
        self.inner.leave();
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> fmt::Debug for Host<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Drop for Host<D, E> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long the operations of a cluster go on.
pub(super) fn retry(timing: Timing) -> Retry {
    let backoff_max = (timing.io_timeout / 16).min(Retry::default().backoff_max);
    Retry { deadline: timing.io_timeout, backoff_first: backoff_max.min(Retry::default().backoff_first), backoff_max }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes a slot: which, what it holds then, and when that began.
fn take_slot<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    name: &HostName,
    watch: &mut Watch,
) -> Result<(u32, Seen, Duration), HostError> {
    let (environment, timing) = (slots.ats.environment(), slots.cluster.timing());
    let began = environment.now();
    // The heartbeat under our name, when it was first seen.
    let mut own: Option<(u32, Beat)> = None;
    loop {
        let all = watch.look_at_all(slots)?;
        let same = all.iter().find(|(seen, view)| seen.name.as_ref() == Some(name) && view.liveness.is_taken());
        if let Some((seen, view)) = same {
            let first = own.get_or_insert((view.slot, seen.beat));
            if *first != (view.slot, seen.beat) {
                return Err(HostError::NameInUse { name: name.clone(), slot: view.slot });
            }
        }
        // One's own of before, if it is free or dead; else a free one; else a dead one.
        let rank = |(seen, view): &&(Seen, SlotView)| {
            let is_own = seen.name.as_ref() == Some(name);
            match view.liveness {
                Liveness::Free | Liveness::Fenced => Some(u8::from(!is_own)),
                Liveness::Stale if is_own => Some(0),
                Liveness::Stale => Some(2),
                Liveness::Alive | Liveness::Late => None,
            }
        };
        let best = all.iter().filter(|slot| rank(slot).is_some()).min_by_key(|slot| rank(slot));
        match best {
            Some((seen, view)) if same.is_none() || rank(&best.expect("it is")) == Some(0) => {
                let started = environment.now();
                match slots.exchange(view.slot, seen, seen.beat.taken(), Some(name)) {
                    Exchange::Done(seen) => return Ok((view.slot, seen, started)),
                    Exchange::Found(_) => continue,
                    Exchange::Failed(error) => return Err(error.into()),
                }
            }
            _ => {}
        }
        // All live, or have not been watched for long enough.
        if environment.now().saturating_sub(began) > timing.stale + timing.interval * 2 {
            return Err(HostError::NoFreeSlot { hosts: slots.cluster.host_count() });
        }
        environment.sleep(timing.interval);
    }
}

impl<D: BlockDevice, E: Environment> Inner<D, E> {
    pub fn timing(&self) -> Timing {
        self.slots.cluster.timing()
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.slots.ats.environment().now())
    }

    pub fn is_current(&self) -> bool {
        self.now_ns() < self.valid_until_ns.load(Relaxed)
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

    /// Notes that it is lost, and tells the handler, once.
    fn lose(&self, loss: Loss) -> HostError {
        self.valid_until_ns.store(0, Relaxed);
        if self.loss.set(loss).is_ok()
            && loss != Loss::Left
            && let Some(handler) = &self.on_loss
        {
            handler(&loss);
        }
        HostError::Lost(self.loss().unwrap_or(loss))
    }

    pub fn beat(&self) -> Result<(), HostError> {
        let mut seen = locked(&self.seen);
        if let Some(loss) = self.loss() {
            return Err(HostError::Lost(loss));
        }
        loop {
            let started = self.slots.ats.environment().now();
            if !self.is_current() {
                return Err(self.lose(Loss::Overdue));
            }
            let Some(next) = seen.beat.next() else { return Err(self.lose(Loss::WornOut)) };
            match self.slots.exchange(self.slot, &seen, next, None) {
                Exchange::Done(now) => {
                    *seen = now;
                    // It may have been done in time, but the answer came too late: who asked meanwhile was told no.
                    if !self.is_current() {
                        return Err(self.lose(Loss::Overdue));
                    }
                    self.valid_until_ns.store(nanoseconds(started + self.timing().deadline()), Relaxed);
                    return Ok(());
                }
                // A beat of its own whose answer was missed; go on from there.
                Exchange::Found(found) if self.is_own(found.beat) => *seen = found,
                Exchange::Found(_) => return Err(self.lose(Loss::Fenced)),
                Exchange::Failed(error) if !self.is_current() => {
                    self.lose(Loss::Overdue);
                    return Err(error.into());
                }
                Exchange::Failed(error) => return Err(error.into()),
            }
        }
    }

    fn is_own(&self, beat: Beat) -> bool {
        beat.generation() == self.generation && beat.state() == State::Taken
    }

    /// Beats until it is told to stop, or lost.
    fn beat_on(&self) {
        let mut stop = locked(&self.stop);
        while !*stop {
            drop(stop);
            if let Err(HostError::Lost(_)) = self.beat() {
                return;
            }
            self.tidy();
            stop = locked(&self.stop);
            let waited = self.stopped.wait_timeout_while(stop, self.timing().interval, |stop| !*stop);
            stop = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Frees the slot, if it still is its own.
    fn leave(&self) {
        if self.loss() == Some(Loss::Left) {
            return;
        }
        self.lose(Loss::Left);
        let mut seen = locked(&self.seen);
        // A few tries, where a beat's answer was missed; a slot that stays taken goes stale.
        for _ in 0..3 {
            match self.slots.exchange(self.slot, &seen, seen.beat.freed(), None) {
                Exchange::Found(found) if self.is_own(found.beat) => *seen = found,
                _ => return,
            }
        }
    }
}
