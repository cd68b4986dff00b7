//! A lease that is held: its handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::block::{HOLDERS_MAX, Holder, LeaseView, Mode};
use super::books::Key;
use crate::device::{BlockDevice, DeviceError};
use crate::environment::{Environment, System};
use crate::heartbeat::HostError;
use crate::heartbeat::heart::{Inner, locked};
use crate::heartbeat::slots::make_durable;

/// Why a lease was not acquired, changed, or released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Others hold it, and live, or have not been watched for long enough.
    #[error("lease {} is held by {}", .0.lease, holders_named(.0))]
    Held(Box<LeaseView>),
    /// As many share it as can.
    #[error("lease {lease} is shared by {HOLDERS_MAX} hosts already")]
    TooManyHolders {
        /// Which.
        lease: u64,
    },
    /// This host is no longer in the cluster, or the lease was lost with it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The device could not, or did not answer. Where it did not, the host finds out later what the lease's block says, and
    /// brings it to what its handle does: a lease without one is given up.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn holders_named(view: &LeaseView) -> String {
    let named = |holder: &Holder| format!("slot {} generation {}", holder.slot, holder.generation);
    view.holders.iter().map(named).collect::<Vec<_>>().join(", ")
}

/// A lease that this host holds. Dropped, it is released.
#[must_use = "a lease that is dropped is released"]
pub struct Lease<D: BlockDevice + 'static, E: Environment + 'static = System> {
    host: Arc<Inner<D, E>>,
    key: Key,
    mode: Mode,
    released: bool,
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Lease<D, E> {
    pub(super) fn new(host: Arc<Inner<D, E>>, key: Key, mode: Mode) -> Self {
        Self { host, key, mode, released: false }
    }

    /// Whether this host may still act as its holder: its heart has beaten in time, and it was not found to be fenced. Costs a
    /// look at the clock. What is sent after this said yes may arrive when it would say no: that is what the token is for.
    pub fn is_valid(&self) -> bool {
        !self.released && self.host.is_current()
    }

    /// For how long it is valid from now on, if its host does not beat meanwhile; zero once it is not.
    pub fn valid_for(&self) -> Duration {
        if self.released { Duration::ZERO } else { self.host.valid_for() }
    }

    /// The fencing token: greater than that of every acquisition of this lease before.
    pub fn token(&self) -> u64 {
        self.key.token
    }

    /// Which lease.
    pub fn number(&self) -> u64 {
        self.key.lease
    }

    /// How it is held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Gives it back. It is free at once.
    ///
    /// # Errors
    /// See [`LeaseError`]. It is given up all the same: the host tries again.
    pub fn release(mut self) -> Result<(), LeaseError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), LeaseError> {
        self.released = true;
        let (host, lease) = (&self.host, self.key.lease);
        let mut books = locked(&host.books);
        books.let_go(self.key);
        let is_loose = books.loose_since(lease).is_some();
        drop(books);
        if is_loose {
            // To settle it is to give up what no handle has.
            return Ok(host.settle(lease)?);
        }
        let given = host.change_own(self.key, |view, own| Ok(view.without(own)));
        if let Err(LeaseError::Device(_)) = given {
            locked(&host.books).loosen(lease);
        }
        given.map(|_| ())
    }

    /// Shares an exclusive lease with others from now on. It keeps its token.
    ///
    /// # Errors
    /// See [`LeaseError`]. It is shared all the same, for this host: others may join when the host has got through to the
    /// device, which it goes on to try.
    pub fn downgrade(&mut self) -> Result<(), LeaseError> {
        // First: the block must never say that others may join while this one says that they may not.
        self.mode = Mode::Shared;
        locked(&self.host.books).downgrade(self.key);
        let downgraded = self.host.change_own(self.key, |mut view, _| {
            view.mode = Some(Mode::Shared);
            Ok(view)
        });
        if let Err(LeaseError::Device(_)) = downgraded {
            locked(&self.host.books).loosen(self.key.lease);
        }
        downgraded.map(|_| ())
    }

    /// Makes a shared lease exclusive, if nobody else that lives shares it. It gets a new token.
    ///
    /// # Errors
    /// See [`LeaseError`]. It is still shared then, with the token that it had: where the device did not answer, too. (Where
    /// only a store's sync failed, its token is a new one.)
    pub fn try_upgrade(&mut self) -> Result<(), LeaseError> {
        let (host, key) = (&self.host, self.key);
        let upgraded = host.change_own(key, |view, own| {
            let wanted = host.wanted(&view.without(own), Mode::Exclusive)?;
            locked(&host.books).begin_upgrade(key, wanted.token);
            Ok(wanted)
        });
        let mut books = locked(&host.books);
        match upgraded {
            Ok(view) => {
                (self.mode, self.key) = (Mode::Exclusive, books.end_upgrade(key, view.token));
                drop(books);
                let durable = make_durable(self.host.slots.ats.device());
                if durable.is_err() {
                    // Its token may come again: nobody is to have it alone by that.
                    let _ = self.downgrade();
                }
                durable?;
                Ok(self.host.check_current()?)
            }
            Err(error) => {
                books.give_up_upgrade(key);
                Err(error)
            }
        }
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> fmt::Debug for Lease<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("lease", &self.key.lease)
            .field("mode", &self.mode)
            .field("token", &self.key.token)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Drop for Lease<D, E> {
    fn drop(&mut self) {
        // A host that is lost has lost its leases; whoever wants them takes them.
        if !self.released && self.host.is_current() {
            let _ = self.give_back();
        }
    }
}
