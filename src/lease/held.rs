//! Acquiring, holding, releasing and breaking leases.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::block::{HOLDERS_MAX, Holder, LeaseView, Mode};
use super::look::{is_gone, read_lease, tell_if_broken};
use crate::ats::{Draft, Owner, Verdict};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::{Environment, System};
use crate::heartbeat::host::{Inner, locked};
use crate::heartbeat::region::kind;
use crate::heartbeat::{Host, HostError};

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
    /// The device could not, or did not answer. Where it did not, the host finds out later whether the lease is held, and
    /// releases it.
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
    lease: u64,
    mode: Mode,
    token: u64,
    released: bool,
}

/// What an attempt to change a lease's block came to.
enum Change {
    /// It was made.
    Made,
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
        self.inner.read_lease(lease).map(|(view, _)| view)
    }
}

impl<D: BlockDevice, E: Environment> Inner<D, E> {
    fn read_lease(&self, lease: u64) -> Result<(LeaseView, Box<[u8]>), DeviceError> {
        read_lease(&self.slots, lease)
    }

    fn is_us(&self, holder: &Holder) -> bool {
        (holder.slot, holder.generation) == (self.slot, self.generation)
    }

    fn try_acquire(host: &Arc<Self>, lease: u64, mode: Mode) -> Result<Lease<D, E>, LeaseError>
    where
        D: 'static,
        E: 'static,
    {
        let (mut view, mut block) = host.read_lease(lease)?;
        loop {
            host.check_current()?;
            let wanted = host.wanted(&view, mode)?;
            let token = wanted.token;
            match host.change_to_hold(lease, token, &block, &wanted)? {
                Change::Made => {
                    tell_if_broken(&host.slots, [&view, &wanted], None);
                    host.check_current()?;
                    return Ok(Lease { host: Arc::clone(host), lease, mode, token, released: false });
                }
                Change::Moved(found) => {
                    let lba = host.slots.cluster.lease_lba(lease)?;
                    (view, block) = (LeaseView::of_block(lease, lba, &found)?, found);
                }
            }
        }
    }

    /// How a lease's block is to be, so that this host has it; fences those who are dead.
    fn wanted(&self, view: &LeaseView, mode: Mode) -> Result<LeaseView, LeaseError> {
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

    /// As [`change`](Self::change), where it gives this host the lease with this token.
    fn change_to_hold(&self, lease: u64, token: u64, block: &[u8], wanted: &LeaseView) -> Result<Change, DeviceError> {
        // Before it is done: who tidies up must not take it for one that nobody knows of.
        locked(&self.held).insert((lease, token));
        let change = self.change(lease, block, wanted);
        if !matches!(change, Ok(Change::Made)) {
            locked(&self.held).remove(&(lease, token));
        }
        change
    }

    /// Puts a lease's block from `block` to what `wanted` says. If nobody can tell whether that was done, the host looks again later.
    fn change(&self, lease: u64, block: &[u8], wanted: &LeaseView) -> Result<Change, DeviceError> {
        let lba = self.slots.cluster.lease_lba(lease)?;
        let owner = Owner { host: self.slot.into(), generation: self.generation.into() };
        let payload = wanted.payload();
        let outcome = self.slots.ats.write_record(lba, block, Draft { kind: kind::LEASE, owner, payload: &payload });
        match outcome.verdict {
            Verdict::Written | Verdict::OwnWriteLanded { .. } => Ok(Change::Made),
            Verdict::PeerChanged { found, .. } => Ok(Change::Moved(found)),
            Verdict::Unwritten { source } => Err(source),
            Verdict::Indeterminate { source, .. } => {
                locked(&self.loose).insert(lease);
                Err(source)
            }
        }
    }

    /// Changes what a lease's block says of this host, as long as it says that this host has it with this token.
    fn change_own(
        &self,
        lease: u64,
        token: u64,
        mut how: impl FnMut(LeaseView, &Holder) -> Result<LeaseView, LeaseError>,
    ) -> Result<(), LeaseError> {
        let (mut view, mut block) = self.read_lease(lease)?;
        loop {
            let own = view.holders.iter().copied().find(|holder| self.is_us(holder) && holder.token == token);
            let Some(own) = own else {
                // It was broken: this host was taken for dead.
                return Err(HostError::Lost(self.loss().unwrap_or(crate::heartbeat::Loss::Fenced)).into());
            };
            let wanted = how(view.clone(), &own)?;
            match self.change(lease, &block, &wanted)? {
                Change::Made => {
                    tell_if_broken(&self.slots, [&view, &wanted], Some(&own));
                    return Ok(());
                }
                Change::Moved(found) => {
                    let lba = self.slots.cluster.lease_lba(lease)?;
                    (view, block) = (LeaseView::of_block(lease, lba, &found)?, found);
                }
            }
        }
    }

    /// Finds out about one lease of which it is not known whether this host has it, and gives it up if so.
    pub fn tidy(&self) {
        let Some(lease) = locked(&self.loose).first().copied() else { return };
        if self.settle(lease).is_ok() {
            locked(&self.loose).remove(&lease);
        }
    }

    /// Gives a lease up, and sees to it that no request for it that is under way takes effect: by writing the block anew.
    fn settle(&self, lease: u64) -> Result<(), DeviceError> {
        let (mut wanted, block) = self.read_lease(lease)?;
        let held = locked(&self.held).clone();
        let unknown = |holder: &&Holder| self.is_us(holder) && !held.contains(&(lease, holder.token));
        while let Some(holder) = wanted.holders.iter().find(unknown).copied() {
            wanted = wanted.without(&holder);
        }
        match self.change(lease, &block, &wanted)? {
            Change::Made => Ok(()),
            // The next beat looks again.
            Change::Moved(_) => Err(DeviceError::failed(Failure::Busy, "somebody was faster")),
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl<D: BlockDevice + 'static, E: Environment + 'static> Lease<D, E> {
    /// Whether this host may still act as its holder: its heart has beaten in time, and it was not found to be fenced. Costs a
    /// look at the clock. What is sent after this said yes may arrive when it would say no: that is what the token is for.
    pub fn is_valid(&self) -> bool {
        !self.released && self.host.is_current()
    }

    /// The fencing token: greater than that of every acquisition of this lease before.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Which lease.
    pub fn number(&self) -> u64 {
        self.lease
    }

    /// How it is held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Gives it back. It is free at once.
    ///
    /// # Errors
    /// See [`LeaseError`]. It is given up all the same: the host tries again as it beats.
    pub fn release(mut self) -> Result<(), LeaseError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), LeaseError> {
        self.released = true;
        locked(&self.host.held).remove(&(self.lease, self.token));
        let given = self.host.change_own(self.lease, self.token, |view, own| Ok(view.without(own)));
        if let Err(LeaseError::Device(_)) = given {
            locked(&self.host.loose).insert(self.lease);
        }
        given
    }

    /// Shares an exclusive lease with others from now on. It keeps its token.
    ///
    /// # Errors
    /// See [`LeaseError`]; if the device did not answer, it may be shared or not: try again.
    pub fn downgrade(&mut self) -> Result<(), LeaseError> {
        self.host.change_own(self.lease, self.token, |mut view, _| {
            view.mode = Some(Mode::Shared);
            Ok(view)
        })?;
        self.mode = Mode::Shared;
        Ok(())
    }

    /// Makes a shared lease exclusive, if nobody else that lives shares it. It gets a new token.
    ///
    /// # Errors
    /// See [`LeaseError`]; it is still shared then.
    pub fn try_upgrade(&mut self) -> Result<(), LeaseError> {
        let (host, lease, old) = (&self.host, self.lease, self.token);
        let mut token = old;
        let upgraded = host.change_own(lease, old, |view, own| {
            let wanted = host.wanted(&view.without(own), Mode::Exclusive)?;
            // Both, till it is known which it is.
            locked(&host.held).remove(&(lease, token));
            token = wanted.token;
            locked(&host.held).extend([(lease, old), (lease, token)]);
            Ok(wanted)
        });
        let gone = if upgraded.is_ok() { old } else { token };
        if token != old {
            locked(&host.held).remove(&(lease, gone));
        }
        upgraded?;
        (self.mode, self.token) = (Mode::Exclusive, token);
        Ok(())
    }
}

impl<D: BlockDevice + 'static, E: Environment + 'static> fmt::Debug for Lease<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("lease", &self.lease)
            .field("mode", &self.mode)
            .field("token", &self.token)
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
