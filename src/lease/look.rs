//! Looking at leases, and at whether their holders live.

use std::sync::Mutex;

use super::block::{Holder, LeaseView};
use super::held::LeaseError;
use crate::ats::{Draft, Owner, Verdict};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;
use crate::heartbeat::heart::locked;
use crate::heartbeat::journal;
use crate::heartbeat::region::kind;
use crate::heartbeat::slots::{Slots, read_blocks};
use crate::heartbeat::watch::Watch;
use crate::heartbeat::{Liveness, Observer};

/// What a lease's block says, and its bytes.
pub(super) fn read_lease<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    lease: u64,
) -> Result<(LeaseView, Box<[u8]>), DeviceError> {
    let lba = slots.cluster.lease_lba(lease)?;
    let mut block = vec![0; slots.ats.device().block_bytes()].into_boxed_slice();
    slots.ats.device().read_current(lba, &mut block)?;
    Ok((LeaseView::of_block(lease, lba, &block)?, block))
}

/// Tells of a lease that was taken from others than `own`, who are gone.
pub(super) fn tell_if_broken<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    [before, after]: [&LeaseView; 2],
    own: Option<&Holder>,
) {
    let gone = |holder: &&Holder| Some(*holder) != own && !after.holders.contains(holder);
    if before.holders.iter().any(|holder| gone(&holder))
        && let Ok(lba) = slots.cluster.lease_lba(before.lease)
    {
        journal::lease_broken(&slots.ats, lba, before.lease, [before.token, after.token]);
    }
}

/// Whether a holder is no longer in the cluster; fences one whose heart has stood still for long enough.
pub(super) fn is_gone<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    watch: &Mutex<Watch>,
    holder: &Holder,
) -> Result<bool, DeviceError> {
    if holder.slot >= slots.cluster.host_count() {
        let what = format!("a lease is held from slot {}, which does not exist", holder.slot);
        return Err(DeviceError::failed(Failure::Corrupt, what));
    }
    let (seen, view) = locked(watch).look(slots, holder.slot)?;
    if seen.damage.is_some() {
        return match view.still.is_some_and(|still| still >= slots.cluster.timing().stale) {
            true => slots.fence_damaged(holder.slot, &seen, last_generation(slots, holder)?),
            false => Ok(false),
        };
    }
    if seen.beat.generation() != holder.generation {
        return Ok(true);
    }
    match view.liveness {
        Liveness::Free | Liveness::Fenced => Ok(true),
        Liveness::Alive | Liveness::Late => Ok(false),
        Liveness::Stale => slots.fence(holder.slot, &seen),
        // As above.
        Liveness::Damaged => Ok(false),
    }
}

/// The last generation of a holder's slot that any lease tells of: the slot's block does not, and none may come twice.
fn last_generation<D: BlockDevice, E: Environment>(slots: &Slots<D, E>, holder: &Holder) -> Result<u32, DeviceError> {
    let mut last = holder.generation;
    for_each_lease(slots, |_, lease| {
        let of_slot = lease.iter().flat_map(|lease| &lease.holders).filter(|other| other.slot == holder.slot);
        last = of_slot.map(|other| other.generation).fold(last, u32::max);
        Ok(())
    })?;
    Ok(last)
}

/// Calls `look` with the number of every lease, in order, and what its block says, or what is wrong with it.
fn for_each_lease<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    mut look: impl FnMut(u64, Result<LeaseView, DeviceError>) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let Some(last) = slots.cluster.lease_count().checked_sub(1) else { return Ok(()) };
    let first = slots.cluster.lease_lba(0)?;
    read_blocks(slots.ats.device(), first..slots.cluster.lease_lba(last)? + 1, |lba, block| {
        look(lba - first, LeaseView::of_block(lba - first, lba, block))
    })
}

impl<D: BlockDevice, E: Environment> Observer<D, E> {
    /// What a lease's block says.
    ///
    /// # Errors
    /// What the device answers; [`Failure::Corrupt`] if it is no lease's.
    pub fn lease(&self, lease: u64) -> Result<LeaseView, DeviceError> {
        read_lease(&self.slots, lease).map(|(view, _)| view)
    }

    /// Calls `look` with the number of every lease, in order, that was ever held, and what its block says:
    /// [`Failure::Corrupt`] if it is no lease's.
    ///
    /// # Errors
    /// What the device answers, or what `look` gives.
    pub fn leases(
        &self,
        mut look: impl FnMut(u64, Result<LeaseView, DeviceError>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        for_each_lease(&self.slots, |lease, view| match view {
            Ok(view) if view.token == 0 => Ok(()),
            view => look(lease, view),
        })
    }

    /// Breaks a lease whose holders are dead, as far as this observer has watched them: fences them, then frees the lease.
    /// Call it again while it says that they are alive, until the stale time has passed.
    ///
    /// # Errors
    /// [`LeaseError::Held`] while a holder lives, or has not been watched for long enough; others.
    pub fn try_break(&self, lease: u64) -> Result<LeaseView, LeaseError> {
        let (mut view, mut block) = read_lease(&self.slots, lease)?;
        let lba = self.slots.cluster.lease_lba(lease)?;
        loop {
            let mut wanted = view.clone();
            for holder in &view.holders {
                if is_gone(&self.slots, &self.watch, holder)? {
                    wanted = wanted.without(holder);
                }
            }
            if wanted.mode.is_some() {
                return Err(LeaseError::Held(Box::new(wanted)));
            }
            if wanted == view {
                return Ok(view);
            }
            let payload = wanted.payload();
            let draft = Draft { kind: kind::LEASE, owner: Owner { host: u64::MAX, generation: 0 }, payload: &payload };
            match self.slots.ats.write_record(lba, &block, draft).verdict {
                Verdict::Written | Verdict::OwnWriteLanded { .. } => {
                    tell_if_broken(&self.slots, [&view, &wanted], None);
                    return Ok(wanted);
                }
                Verdict::PeerChanged { found, .. } => (view, block) = (LeaseView::of_block(lease, lba, &found)?, found),
                Verdict::Unwritten { source } | Verdict::Indeterminate { source, .. } => return Err(source.into()),
            }
        }
    }
}
