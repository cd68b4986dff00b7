//! What the life of a cluster leaves to read: a line in the log and, on a store, an event in its flight recorder, which
//! outlives whoever recorded it.

use crate::ats::Ats;
use crate::device::{BlockDevice, DeviceError};
use crate::environment::Environment;
use crate::{Event, EventKind};

/// A host was shut out: the owner of a slot, in this generation. `lba` is its slot's block.
pub(crate) fn host_fenced(device: &(impl BlockDevice + ?Sized), lba: u64, slot: u32, generation: u32) {
    tracing::warn!(
        target: "casblock::heartbeat",
        event = "cluster.host_fenced",
        device = %device.name(),
        lba,
        found_host = slot,
        found_generation = generation,
        "its heart stood still: it was shut out"
    );
    let found = slot.into();
    record(device, Event { lba: Some(lba), found, ..Event::new(EventKind::HostFenced) });
}

/// A lease was taken from holders that are gone. `lba` is its block; the tokens are those before and after.
///
/// A host that dies may leave thousands, which are taken one after the other. They must not flood the log, nor push all else
/// out of the flight recorder, which is to tell who was shut out and when: beyond a few there is a line, and an event, a second.
pub(crate) fn lease_broken<D: BlockDevice, E: Environment>(ats: &Ats<D, E>, lba: u64, lease: u64, tokens: [u64; 2]) {
    let Some(count) = ats.count_event() else { return };
    let (device, [before, token]) = (ats.device(), tokens);
    tracing::warn!(
        target: "casblock::lease",
        event = "cluster.lease_broken",
        device = %device.name(),
        lba,
        lease,
        token_before = before,
        token,
        count,
        "its holder is gone: it was taken"
    );
    let mut event = Event { lba: Some(lba), expected: before, found: token, ..Event::new(EventKind::LeaseBroken) };
    event.count = u32::try_from(count).unwrap_or(u32::MAX);
    record(device, event);
}

/// A lease of which nobody could tell whether it is held, and whose block is damaged: nobody is told any more.
pub(crate) fn lease_given_up(device: &(impl BlockDevice + ?Sized), lease: u64, error: &DeviceError) {
    tracing::warn!(
        target: "casblock::lease",
        event = "cluster.lease_given_up",
        device = %device.name(),
        lease,
        source = %error,
        "whether it is held could not be found out"
    );
}

fn record(device: &(impl BlockDevice + ?Sized), event: Event) {
    if let Some(store) = device.as_store() {
        // Whoever has just updated the store may record; an event that is lost harms nobody.
        let _ = store.record_event(&event);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::environment::Virtual;
    use crate::{Geometry, Store};

    #[test]
    fn the_leases_of_a_dead_host_leave_room_for_who_it_was() {
        let store = Store::in_memory(Geometry::blocks(8).events(64)).unwrap();
        let ats = Ats::in_environment(store.clone(), Virtual::new(1));
        host_fenced(&store, 1, 7, 1);
        (0..10_000).for_each(|lease| lease_broken(&ats, lease, lease, [1, 2]));
        ats.environment().sleep(Duration::from_secs(1));
        lease_broken(&ats, 3, 3, [8, 9]);
        let events = store.events();
        assert_eq!((events[0].kind, events[0].found), (EventKind::HostFenced, 7));
        let broken = &events[1..];
        assert_eq!((broken.len(), broken.iter().map(|it| it.count).sum::<u32>()), (17, 10_001));
        // A few are told of one by one.
        assert!(broken[..16].iter().zip(0..).all(|(it, lease)| (it.lba, it.count) == (Some(lease), 1)));
        assert_eq!((broken[16].lba, broken[16].expected, broken[16].found), (Some(3), 8, 9));
    }
}
