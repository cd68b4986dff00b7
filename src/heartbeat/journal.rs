//! What the life of a cluster leaves to read: a line in the log and, on a store, an event in its flight recorder, which
//! outlives whoever recorded it.

use crate::device::{BlockDevice, DeviceError};
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
pub(crate) fn lease_broken(device: &(impl BlockDevice + ?Sized), lba: u64, lease: u64, tokens: [u64; 2]) {
    let [before, token] = tokens;
    tracing::warn!(
        target: "casblock::lease",
        event = "cluster.lease_broken",
        device = %device.name(),
        lba,
        lease,
        token_before = before,
        token,
        "its holder is gone: it was taken"
    );
    record(device, Event { lba: Some(lba), expected: before, found: token, ..Event::new(EventKind::LeaseBroken) });
}

/// A lease of which nobody could tell whether it is held, and whose block is damaged: nobody is told any more.
pub(crate) fn lease_given_up(device: &(impl BlockDevice + ?Sized), lease: u64, error: &DeviceError) {
    tracing::warn!(
        target: "casblock::lease",
        event = "cluster.lease_given_up",
        device = %device.name(),
        lease,
        %error,
        "whether it is held could not be found out"
    );
}

fn record(device: &(impl BlockDevice + ?Sized), event: Event) {
    if let Some(store) = device.as_store() {
        // Whoever has just updated the store may record; an event that is lost harms nobody.
        let _ = store.record_event(&event);
    }
}
