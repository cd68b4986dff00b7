//! A host of a cluster: its slot, and its beating heart.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::config::Timing;
use super::heart::{Inner, locked, nanoseconds};
use super::join::take_slot;
use super::region::{Cluster, ClusterError};
use super::slots::{HostName, Slots, make_durable};
use super::watch::{SlotView, Watch};
use crate::ats::{Ats, Retry};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::{Environment, System};
use crate::sync::AtomicU64;

/// Who joins a cluster.
pub struct HostConfig {
    name: HostName,
    first_lba: u64,
    on_loss: Option<Box<OnLoss>>,
}

pub(super) type OnLoss = dyn Fn(&Loss) + Send + Sync;

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

    /// Sets what is called, once, when the host finds that it is taken for dead, or could be: at its deadline at the latest, from
    /// a thread of its own; of a host that [joined by hand](Host::join_by_hand), from the [beat](Host::beat) that finds it.
    ///
    /// It may take its time, join again, and drop the host that is lost, which waits for requests of that host that are under
    /// way. It is not called when the host leaves.
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
    /// Its heart's thread, and that which calls the handler, if there is one; none where it beats by hand.
    threads: Vec<JoinHandle<()>>,
}

/// What one of a host's threads does.
type Part<D> = fn(&Arc<Inner<D, System>>);

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
        let inner = &host.inner;
        // In that order: whoever has a handler is told even if the heart does not come to beat.
        let mut parts: Vec<(&str, Part<D>)> = Vec::new();
        if locked(&inner.on_loss).is_some() {
            parts.push(("guard", |inner| inner.guard()));
        }
        parts.push(("heart", Inner::beat_on));
        for (part, act) in parts {
            let inner = Arc::clone(&host.inner);
            let thread = thread::Builder::new().name(format!("{part} of {}", inner.name)).spawn(move || act(&inner));
            host.threads.push(thread.map_err(|source| DeviceError::failed(Failure::Io, source))?);
        }
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
        // No generation comes twice, after a cut of the power either.
        make_durable(slots.ats.device())?;
        let generation = seen.beat.generation();
        let inner = Inner {
            slot,
            generation,
            join: seen.join,
            name: config.name,
            seen: Mutex::new(seen),
            valid_until_ns: AtomicU64::new(nanoseconds(started + slots.cluster.timing().deadline())),
            loss: OnceLock::new(),
            on_loss: Mutex::new(config.on_loss),
            watch: Mutex::new(watch),
            books: Mutex::default(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
            slots,
        };
        Ok(Self { inner: Arc::new(inner), threads: Vec::new() })
    }

    /// Beats once: for a host that [joined by hand](Self::join_by_hand), every [`Timing::interval`] from the beginning of one to
    /// that of the next.
    ///
    /// # Errors
    /// [`HostError::Lost`]; [`HostError::Device`] if the device did not answer, or could not: try again.
    pub fn beat(&self) -> Result<(), HostError> {
        let beaten = self.inner.beat();
        self.inner.tell();
        beaten
    }

    /// Looks at the leases of which nobody could tell whether they are held, as the device did not answer, and gives them up: for a
    /// host that [joined by hand](Self::join_by_hand), some time after an operation of a lease ended with
    /// [`LeaseError::Device`](crate::lease::LeaseError::Device). It takes as long as the device does; a heart should not wait for
    /// it. What cannot be found out yet is tried again the next time.
    pub fn tidy(&self) {
        self.inner.tidy();
    }

    /// Whether the host may claim what it has: its last beat is not older than the deadline, and nobody has been found to have
    /// fenced it. Costs a look at the clock.
    pub fn is_current(&self) -> bool {
        self.inner.is_current()
    }

    /// For how long it may claim what it has from now on, if no beat is done meanwhile; zero once it may not.
    pub fn valid_for(&self) -> Duration {
        self.inner.valid_for()
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
    /// What the device answers.
    pub fn hosts(&self) -> Result<Vec<SlotView>, DeviceError> {
        let all = locked(&self.inner.watch).look_at_all(&self.inner.slots)?;
        Ok(all.into_iter().map(|(_, view)| view).collect())
    }

    /// Leaves the cluster: the slot is free at once, and so is every lease that was not released. A host that is dropped does
    /// the same. Both wait for requests that are under way.
    pub fn leave(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        *locked(&self.inner.stop) = true;
        self.inner.stopped.notify_all();
        for part in self.threads.drain(..) {
            // The handler may drop the host whose loss it is told of. If it panicked, there is nothing to do about it.
            if part.thread().id() != thread::current().id() {
                let _ = part.join();
            }
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
