//! Looking at a cluster from outside, without being one of its hosts.

use std::sync::Mutex;

use super::heart::locked;
use super::host::retry;
use super::region::{Cluster, ClusterError};
use super::slots::Slots;
use super::watch::{SlotView, Watch};
use crate::ats::Ats;
use crate::device::{BlockDevice, DeviceError};
use crate::environment::{Environment, System};

/// Somebody who looks at a cluster. He sees who is there at once; who lives, when he has looked for a while.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use casblock::ats::Ats;
/// # use casblock::heartbeat::{Cluster, ClusterOptions, Observer};
/// # use casblock::{Geometry, Store};
/// # let store = Store::in_memory(Geometry::blocks(64))?;
/// # Cluster::create(&Ats::new(store.clone()), ClusterOptions::hosts(8), false)?;
/// let observer = Observer::new(store, 0)?;
/// for slot in observer.look()? {
///     println!("slot {}: {}", slot.slot, slot.liveness.name());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Observer<D, E = System> {
    pub(crate) slots: Slots<D, E>,
    pub(crate) watch: Mutex<Watch>,
}

impl<D: BlockDevice> Observer<D> {
    /// Of the cluster whose header is block `first_lba`.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn new(device: D, first_lba: u64) -> Result<Self, ClusterError> {
        Self::in_environment(device, first_lba, System)
    }
}

impl<D: BlockDevice, E: Environment> Observer<D, E> {
    /// As [`new`](Observer::new), with another clock.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn in_environment(device: D, first_lba: u64, environment: E) -> Result<Self, ClusterError> {
        let cluster = Cluster::open(&device, first_lba)?;
        let ats = Ats::in_environment(device, environment).retry(retry(cluster.timing()));
        Ok(Self { slots: Slots { cluster, ats }, watch: Mutex::default() })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.slots.cluster
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.slots.ats.device()
    }

    /// All slots, as this observer has seen them until now.
    ///
    /// # Errors
    /// What the device answers.
    pub fn look(&self) -> Result<Vec<SlotView>, DeviceError> {
        Ok(locked(&self.watch).look_at_all(&self.slots)?.into_iter().map(|(_, view)| view).collect())
    }
}
