//! Leases of which nobody could tell: bringing their blocks to what this host knows.

use super::acquire::Change;
use super::look::read_lease;
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;
use crate::heartbeat::heart::{Inner, locked};
use crate::heartbeat::journal;

/// How often a block is written anew in one go, where others are faster.
const ROUNDS_MAX: u32 = 8;

impl<D: BlockDevice, E: Environment> Inner<D, E> {
    /// Tries to settle each loose lease once.
    pub fn tidy(&self) {
        let mut tried = Vec::new();
        while self.loss().is_none() {
            let Some(lease) = locked(&self.books).next_loose().filter(|lease| !tried.contains(lease)) else { return };
            tried.push(lease);
            if let Err(error) = self.settle(lease)
                && error.failure() == Some(Failure::Corrupt)
            {
                // Its block names no holder that anybody would go by.
                journal::lease_given_up(self.slots.ats.device(), lease, &error);
                locked(&self.books).forget(lease);
            }
        }
    }

    /// Settles a lease, if it is loose: afterwards its block says what this host knows of it, and nothing that was sent before
    /// takes effect.
    pub(super) fn settle(&self, lease: u64) -> Result<(), DeviceError> {
        for _ in 0..ROUNDS_MAX {
            let Some(since) = locked(&self.books).loose_since(lease) else { return Ok(()) };
            let (view, block) = read_lease(&self.slots, lease)?;
            let wanted = locked(&self.books).agreed(&view, |holder| self.is_us(holder));
            match self.change(lease, &block, &wanted)? {
                Change::Made => locked(&self.books).settled(lease, since),
                Change::Moved(_) => {}
                Change::Unanswered(source) => {
                    locked(&self.books).loosen(lease);
                    return Err(source);
                }
            }
        }
        Err(DeviceError::failed(Failure::Busy, format!("lease {lease} changes all the time")))
    }
}
