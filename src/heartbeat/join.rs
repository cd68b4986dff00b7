//! Joining a cluster: which slot a host takes.

use std::time::Duration;

use super::beat::Beat;
use super::host::HostError;
use super::slots::{Exchange, HostName, Seen, Slots};
use super::watch::{Liveness, SlotView, Watch};
use crate::device::BlockDevice;
use crate::environment::Environment;

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
        let best = all.iter().filter(|slot| rank(slot).is_some()).min_by_key(|slot| rank(slot));
        match best {
            Some((seen, view)) if same.is_none() || rank(&best.expect("it is")) == Some(0) => {
                let started = environment.now();
                match slots.take(view.slot, seen, name) {
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
