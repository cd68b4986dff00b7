//! Acquiring leases, and changing their blocks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::block::{HOLDERS_MAX, Holder, LeaseView, Mode};
use super::books::Key;
use super::held::{Lease, LeaseError};
use super::look::{is_gone, read_lease, tell_if_broken};
use crate::ats::{Draft, Owner, Verdict};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;
use crate::heartbeat::heart::{Inner, locked};
use crate::heartbeat::region::kind;
use crate::heartbeat::slots::make_durable;
use crate::heartbeat::{Host, HostError, Loss};

/// What an attempt to change a lease's block came to, where it was not refused.
pub(super) enum Change {
    /// It was made.
    Made,
    /// The block says something else now.
    Moved(Box<[u8]>),
    /// Nobody can tell.
    Unanswered(DeviceError),
}

/// What an attempt to have a lease came to.
enum Attempt {
    Held(Key),
    /// The block says something else now.
    Moved(Box<[u8]>),
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Host<D, E> {
    /// Acquires a lease, if nobody has it that lives: one read, and one compare-and-write if it can be had. A holder that is dead, as
    /// far as this host has watched it, is fenced, and the lease taken.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub fn try_acquire(&self, lease: u64, mode: Mode) -> Result<Lease<D, E>, LeaseError> {
        Inner::try_acquire(&self.inner, lease, mode)
    }

    /// Acquires a lease, waiting for it at most so long. A holder whose heart stands still is watched for the stale time, then
    /// fenced.
    ///
    /// # Errors
    /// See [`LeaseError`]: the last one.
    pub fn acquire(&self, lease: u64, mode: Mode, timeout: Duration) -> Result<Lease<D, E>, LeaseError> {
        let environment = self.inner.slots.ats.environment();
        let (started, interval) = (environment.now(), self.inner.timing().interval);
        loop {
            let error = match self.try_acquire(lease, mode) {
                Err(error @ (LeaseError::Held(_) | LeaseError::TooManyHolders { .. })) => error,
                other => return other,
            };
            let left = timeout.saturating_sub(environment.now().saturating_sub(started));
            if left.is_zero() {
                return Err(error);
            }
            environment.sleep(interval.min(left));
        }
    }

    /// What a lease's block says.
    ///
    /// # Errors
    /// What the device answers; [`Failure::Corrupt`] if it is no lease's.
    pub fn lease(&self, lease: u64) -> Result<LeaseView, DeviceError> {
        read_lease(&self.inner.slots, lease).map(|(view, _)| view)
    }
}

impl<D: BlockDevice, E: Environment> Inner<D, E> {
    pub(super) fn is_us(&self, holder: &Holder) -> bool {
        (holder.slot, holder.generation) == (self.slot, self.generation)
    }

    fn try_acquire(host: &Arc<Self>, lease: u64, mode: Mode) -> Result<Lease<D, E>, LeaseError>
    where
        D: 'static,
        E: 'static,
    {
        // What was sent before must not be taken for what is sent now.
        host.settle(lease)?;
        let (mut view, mut block) = read_lease(&host.slots, lease)?;
        loop {
            host.check_current()?;
            let wanted = host.wanted(&view, mode)?;
            match host.try_to_hold(lease, mode, &block, &wanted)? {
                Attempt::Held(key) => {
                    tell_if_broken(&host.slots, [&view, &wanted], None);
                    let lease = Lease::new(Arc::clone(host), key, mode);
                    // Before anybody sees its token: it must not come again after a cut of the power.
                    make_durable(host.slots.ats.device())?;
                    host.check_current()?;
                    return Ok(lease);
                }
                Attempt::Moved(found) => {
                    let lba = host.slots.cluster.lease_lba(lease)?;
                    (view, block) = (LeaseView::of_block(lease, lba, &found)?, found);
                }
            }
        }
    }

    /// How a lease's block is to be, so that this host has it; fences those who are dead.
    pub(super) fn wanted(&self, view: &LeaseView, mode: Mode) -> Result<LeaseView, LeaseError> {
        let mut wanted = view.clone();
        let conflicts = |wanted: &LeaseView| match (mode, wanted.mode) {
            (_, None) => false,
            (Mode::Shared, Some(Mode::Shared)) => wanted.holders.len() == HOLDERS_MAX,
            _ => true,
        };
        for holder in &view.holders {
            // What this host's generation has is a lease it does not know of; it is not given twice.
            if conflicts(&wanted) && !self.is_us(holder) && is_gone(&self.slots, &self.watch, holder)? {
                wanted = wanted.without(holder);
            }
        }
        if conflicts(&wanted) {
            return Err(match (mode, wanted.mode) {
                (Mode::Shared, Some(Mode::Shared)) => LeaseError::TooManyHolders { lease: view.lease },
                _ => LeaseError::Held(Box::new(wanted)),
            });
        }
        let token = wanted
            .token
            .checked_add(1)
            .ok_or_else(|| DeviceError::failed(Failure::Corrupt, format!("lease {} has no tokens left", view.lease)))?;
        wanted.token = token;
        wanted.mode = Some(mode);
        wanted.acquired_unix_ms = unix_ms();
        wanted.holders.push(Holder { slot: self.slot, generation: self.generation, token });
        Ok(wanted)
    }

    /// Puts a lease's block from `block` to `wanted`, which gives this host the lease.
    fn try_to_hold(&self, lease: u64, mode: Mode, block: &[u8], wanted: &LeaseView) -> Result<Attempt, DeviceError> {
        let key = locked(&self.books).begin(lease, wanted.token);
        let change = self.change(lease, block, wanted);
        let mut books = locked(&self.books);
        match change {
            Ok(Change::Made) => books.hold(key, mode),
            _ => books.let_go(key),
        }
        match change? {
            Change::Made => Ok(Attempt::Held(key)),
            Change::Moved(found) => Ok(Attempt::Moved(found)),
            Change::Unanswered(source) => {
                books.loosen(lease);
                Err(source)
            }
        }
    }

    /// Puts a lease's block from `block` to what `wanted` says.
    pub(super) fn change(&self, lease: u64, block: &[u8], wanted: &LeaseView) -> Result<Change, DeviceError> {
        let lba = self.slots.cluster.lease_lba(lease)?;
        let owner = Owner { host: self.slot.into(), generation: self.generation.into() };
        let payload = wanted.payload();
        let outcome = self.slots.ats.write_record(lba, block, Draft { kind: kind::LEASE, owner, payload: &payload });
        match outcome.verdict {
            Verdict::Written | Verdict::OwnWriteLanded { .. } => Ok(Change::Made),
            Verdict::PeerChanged { found, .. } => Ok(Change::Moved(found)),
            Verdict::Unwritten { source } => Err(source),
            Verdict::Indeterminate { source, .. } => Ok(Change::Unanswered(source)),
        }
    }

    /// Changes what a lease's block says of this host, as long as it says that this host has it with this token. What it says
    /// then.
    pub(super) fn change_own(
        &self,
        key: Key,
        mut how: impl FnMut(LeaseView, &Holder) -> Result<LeaseView, LeaseError>,
    ) -> Result<LeaseView, LeaseError> {
        let Key { lease, token, .. } = key;
        // The block may have another token of an upgrade that was not answered.
        self.settle(lease)?;
        let (mut view, mut block) = read_lease(&self.slots, lease)?;
        loop {
            let own = view.holders.iter().copied().find(|holder| self.is_us(holder) && holder.token == token);
            let Some(own) = own else {
                // It was broken: this host was taken for dead.
                return Err(HostError::Lost(self.loss().unwrap_or(Loss::Fenced)).into());
            };
            let wanted = how(view.clone(), &own)?;
            match self.change(lease, &block, &wanted)? {
                Change::Made => {
                    tell_if_broken(&self.slots, [&view, &wanted], Some(&own));
                    return Ok(wanted);
                }
                Change::Moved(found) => {
                    let lba = self.slots.cluster.lease_lba(lease)?;
                    (view, block) = (LeaseView::of_block(lease, lba, &found)?, found);
                }
                Change::Unanswered(source) => {
                    locked(&self.books).unanswered(key);
                    return Err(source.into());
                }
            }
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
