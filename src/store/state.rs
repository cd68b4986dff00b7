//! The state page of a store of durability `power`: which syncs there were, whether it was closed, what was recovered.

use crate::protocol::durable::{Counter, Epochs};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// The state page. All of it is shared memory; what changes while the store is in use comes first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct State {
    /// The syncs that have begun and that are done.
    pub epochs: Epochs,
    /// How many syncs have failed.
    failed: Counter,
    /// As many of them as have been made good: everything was written anew since.
    made_good: Counter,
    /// 0: closed. 1: in use since the boot below.
    phase: AtomicU64,
    /// Linux's boot id: two halves.
    boot: [AtomicU64; 2],
    /// The file's inode: a copy of a store in use is recovered as well.
    inode: AtomicU64,
    /// What the last recovery did: [`Recovery`]'s fields.
    recovery: [AtomicU64; RECOVERY_FIELDS],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Counter>() == 128);
    assert!(offset_of!(State, epochs) == 0 && offset_of!(Epochs, completed) == 128);
    assert!(offset_of!(State, failed) == 256);
    assert!(offset_of!(State, made_good) == 384);
    // In one sector of 512 bytes, apart from what changes with every sync.
    assert!(offset_of!(State, phase) == 512);
    assert!(offset_of!(State, boot) == 520);
    assert!(offset_of!(State, inode) == 536);
    assert!(offset_of!(State, recovery) == 544);
    assert!(size_of::<State>() <= 4096);
};

const CLOSED: u64 = 0;
const IN_USE: u64 = 1;

/// Who is using a store: one boot of one machine, on one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Incarnation {
    pub boot: [u64; 2],
    pub inode: u64,
}

/// How a store was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Closed by the last who had it open: all of it is on the disk.
    Closed,
    /// In use, by those who have it open now, or who were killed: the kernel still has all they wrote.
    InUse,
    /// In use before the machine started, or it is a copy: it must be recovered.
    CutOff,
}

/// What a recovery did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// When it was done, in seconds since 1970-01-01 00:00 UTC.
    pub at_unix_seconds: u64,
    /// Blocks that hold an update.
    pub blocks: u64,
    /// Blocks of which the disk knew of a newer update than survived whole.
    pub blocks_rolled_back: u64,
    /// Updates of those blocks that were lost: no sync that covers them was done.
    pub updates_discarded: u64,
    /// Frames that were stamped as holding an update, but do not: some of their sectors were not on the disk.
    pub frames_discarded: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

const RECOVERY_FIELDS: usize = 6;

impl Recovery {
    fn fields(&self) -> [u64; RECOVERY_FIELDS] {
        [
            self.at_unix_seconds,
            self.blocks,
            self.blocks_rolled_back,
            self.updates_discarded,
            self.frames_discarded,
            self.duration_us,
        ]
    }

    fn of_fields(fields: [u64; RECOVERY_FIELDS]) -> Self {
        let [at_unix_seconds, blocks, blocks_rolled_back, updates_discarded, frames_discarded, duration_us] = fields;
        Self { at_unix_seconds, blocks, blocks_rolled_back, updates_discarded, frames_discarded, duration_us }
    }
}

impl State {
    /// How the store was left, seen from `now`. Whoever asks holds off those who open and close it.
    pub fn left(&self, now: Incarnation) -> Left {
        let boot = [self.boot[0].load(Relaxed), self.boot[1].load(Relaxed)];
        match self.phase.load(Relaxed) {
            CLOSED => Left::Closed,
            IN_USE if (Incarnation { boot, inode: self.inode.load(Relaxed) }) == now => Left::InUse,
            _ => Left::CutOff,
        }
    }

    /// Notes that the store is in use from now on. It must be on the disk before anything is updated.
    pub fn note_in_use(&self, now: Incarnation) {
        self.boot[0].store(now.boot[0], Relaxed);
        self.boot[1].store(now.boot[1], Relaxed);
        self.inode.store(now.inode, Relaxed);
        self.phase.store(IN_USE, Relaxed);
    }

    /// Notes that the store is closed. All else must be on the disk before.
    pub fn note_closed(&self) {
        self.phase.store(CLOSED, Relaxed);
    }

    /// Starts the epochs anew: with no frame in limbo, and no stamp from an epoch.
    pub fn reset_epochs(&self) {
        for counter in [&self.epochs.started, &self.epochs.completed] {
            counter.0.store(1, Relaxed);
        }
        for counter in [&self.failed, &self.made_good] {
            counter.0.store(0, Relaxed);
        }
    }

    /// How many syncs have failed, if that is more than were made good.
    pub fn not_made_good(&self) -> Option<u64> {
        // ORDERING [failed]: pairs with the exchange in `note_failure`.
        // - We see that a sync failed: what it was to write is written anew.
        // - We do not: it fails after our sync has begun, which covers nothing that it was to cover, or fails as well.
        let failed = self.failed.0.load(Acquire);
        (failed != self.made_good.0.load(Relaxed)).then_some(failed)
    }

    /// Notes that a sync failed: the kernel may hold for written what is not.
    pub fn note_failure(&self) {
        // ORDERING [failed]: pairs with the load in `not_made_good`, which tells what it brings about.
        self.failed.0.fetch_add(1, Release);
    }

    /// Notes that everything was written anew after the failure number `failed`.
    pub fn note_made_good(&self, failed: u64) {
        self.made_good.0.fetch_max(failed, Relaxed);
    }

    /// What the last recovery did, if there was one.
    pub fn last_recovery(&self) -> Option<Recovery> {
        let fields = std::array::from_fn(|field| self.recovery[field].load(Relaxed));
        (fields != [0; RECOVERY_FIELDS]).then(|| Recovery::of_fields(fields))
    }

    /// Keeps what a recovery did.
    pub fn keep_recovery(&self, recovery: &Recovery) {
        for (field, value) in self.recovery.iter().zip(recovery.fields()) {
            field.store(value, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_kept_field_by_field() {
        // SAFETY: all fields are atomic integers, for which zeros are a value.
        let state: State = unsafe { std::mem::zeroed() };
        assert_eq!(state.last_recovery(), None);
        let recovery = Recovery {
            at_unix_seconds: 1,
            blocks: 2,
            blocks_rolled_back: 3,
            updates_discarded: 4,
            frames_discarded: 5,
            duration_us: 6,
        };
        state.keep_recovery(&recovery);
        assert_eq!(state.last_recovery(), Some(recovery));
    }

    #[test]
    fn a_store_in_use_is_so_in_one_boot_and_one_file() {
        // SAFETY: as above.
        let state: State = unsafe { std::mem::zeroed() };
        let now = Incarnation { boot: [1, 2], inode: 3 };
        assert_eq!(state.left(now), Left::Closed);
        state.note_in_use(now);
        assert_eq!(state.left(now), Left::InUse);
        for other in
            [Incarnation { boot: [9, 2], ..now }, Incarnation { boot: [1, 9], ..now }, Incarnation { inode: 9, ..now }]
        {
            assert_eq!(state.left(other), Left::CutOff, "{other:?}");
        }
        state.note_closed();
        assert_eq!(state.left(now), Left::Closed);
    }

    #[test]
    fn a_failure_stays_until_it_is_made_good() {
        // SAFETY: as above.
        let state: State = unsafe { std::mem::zeroed() };
        assert_eq!(state.not_made_good(), None);
        state.note_failure();
        state.note_failure();
        assert_eq!(state.not_made_good(), Some(2));
        state.note_failure();
        state.note_made_good(2);
        assert_eq!(state.not_made_good(), Some(3), "one failed meanwhile");
        state.note_made_good(3);
        assert_eq!(state.not_made_good(), None);
    }
}
