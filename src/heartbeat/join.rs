//! Joining a cluster: which slot a host takes.

use std::time::Duration;

use super::beat::Beat;
use super::host::HostError;
use super::slots::{Exchange, HostName, Seen, Slots};
use super::watch::{Liveness, SlotView, Watch};
use crate::device::BlockDevice;
use crate::environment::Environment;

/// How many generations of a slot come before another's turn: a slot has four million, and a list of slots is easier to read if few
/// were ever taken.
const GENERATIONS_A_TURN: u32 = 4096;

/// How often a host looks whether another of its name leaves.
const LOOKS: u32 = 4;

/// Takes a slot: which, what it holds then, and when that began.
pub(super) fn take_slot<D: BlockDevice, E: Environment>(
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
                Liveness::Alive | Liveness::Late | Liveness::Damaged => None,
            }
        };
        let key = |slot: &&(Seen, SlotView)| (rank(slot), slot.1.generation / GENERATIONS_A_TURN, slot.1.slot);
        let best = match same {
            // It must be seen to be dead, and is then the one.
            Some(same) => Some(same).filter(|slot| rank(slot) == Some(0)),
            None => all.iter().filter(|slot| rank(slot).is_some()).min_by_key(key),
        };
        if let Some((seen, view)) = best {
            let started = environment.now();
            match slots.take(view.slot, seen, name) {
                Exchange::Done(seen) => {
                    leave_if_doubled(slots, name, view.slot, &seen, watch)?;
                    return Ok((view.slot, seen, started));
                }
                Exchange::Found(_) => continue,
                Exchange::Failed(error) => return Err(error.into()),
            }
        }
        // All live, or have not been watched for long enough.
        if environment.now().saturating_sub(began) > timing.stale + timing.interval * 2 {
            return Err(HostError::NoFreeSlot { hosts: slots.cluster.host_count() });
        }
        environment.sleep(timing.interval);
    }
}

/// Leaves again if another host of this name has joined at the same time. Where hearts beat in words, a name is written after the
/// slot was taken, so that another may have looked in between. Of two who both have written theirs and look then, one sees the
/// other: the one with the higher slot leaves, and the other gives it time to. Who is still there then had joined before.
fn leave_if_doubled<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    name: &HostName,
    slot: u32,
    seen: &Seen,
    watch: &mut Watch,
) -> Result<(), HostError> {
    if !slots.cluster.is_in_words() {
        return Ok(());
    }
    for look in 0..LOOKS {
        let all = watch.look_at_all(slots)?;
        let lives = |view: &SlotView| matches!(view.liveness, Liveness::Alive | Liveness::Late);
        let mut others = all.iter().filter(|(seen, view)| view.slot != slot && seen.name.as_ref() == Some(name));
        let Some((_, other)) = others.find(|(_, view)| lives(view)) else { return Ok(()) };
        if other.slot < slot || look + 1 == LOOKS {
            // A slot that cannot be freed goes stale.
            let _ = slots.exchange(slot, seen, seen.beat.freed(), None);
            return Err(HostError::NameInUse { name: name.clone(), slot: other.slot });
        }
        slots.ats.environment().sleep(slots.cluster.timing().interval / LOOKS);
    }
    Ok(())
}
