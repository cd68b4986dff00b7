//! The state page of a store of durability `power`: which syncs there were, whether it was closed, what was recovered.

use std::io;

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
    /// How many threads, of all processes, are writing to the disk, or were killed at that.
    flushing: Counter,
    /// One of the phases below.
    phase: AtomicU64,
    /// Who has it in use.
    used_by: [AtomicU64; INCARNATION_FIELDS],
    /// What the last recovery did: [`Recovery`]'s fields.
    recovery: [AtomicU64; RECOVERY_FIELDS],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Counter>() == 128);
    assert!(offset_of!(State, epochs) == 0 && offset_of!(Epochs, completed) == 128);
    assert!(offset_of!(State, failed) == 256);
    assert!(offset_of!(State, made_good) == 384);
    assert!(offset_of!(State, flushing) == 512);
    // In one sector of 512 bytes, apart from what changes with every sync.
    assert!(offset_of!(State, phase) == 1024 - 384);
    assert!(offset_of!(State, used_by) == 648);
    assert!(offset_of!(State, recovery) == 688);
    assert!(size_of::<State>() <= 1024);
};

/// Nobody lives to see so many syncs: a greater number is damage, and would soon be 0.
pub(super) const EPOCH_MAX: u64 = u64::MAX / 2;

/// All of it is on the disk.
const CLOSED: u64 = 0;
/// In use; that may not be on the disk yet.
const ENTERED: u64 = 1;
/// In use, which is on the disk.
const IN_USE: u64 = 2;
/// A recovery has begun, and is not done. (So is any other number.)
const RECOVERING: u64 = 3;

/// Who is using a store: one boot of one machine, on one file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Incarnation {
    /// Linux's boot id, in two halves.
    pub boot: [u64; 2],
    /// The file's device.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970: an inode is used again. 0 if the file system does not know.
    pub born_ns: u64,
}

const INCARNATION_FIELDS: usize = 5;

impl Incarnation {
    fn fields(&self) -> [u64; INCARNATION_FIELDS] {
        [self.boot[0], self.boot[1], self.device, self.inode, self.born_ns]
    }
}

/// How a store was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Closed by the last who had it open: all of it is on the disk.
    Closed,
    /// In use, by those who have it open now, or who were killed: the kernel still has all they wrote. Whether it is
    /// known that the disk says so.
    InUse { on_disk: bool },
    /// In use before the machine started, or it is a copy, or a recovery did not end: it must be recovered.
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
    pub fn left(&self, now: &Incarnation) -> Left {
        let (completed, started) = (self.epochs.completed.0.load(Relaxed), self.epochs.started.0.load(Relaxed));
        if completed > started || started > EPOCH_MAX {
            // No writer leaves it so.
            return Left::CutOff;
        }
        let used_by = std::array::from_fn(|field| self.used_by[field].load(Relaxed));
        match self.phase.load(Relaxed) {
            CLOSED => Left::Closed,
            phase @ (ENTERED | IN_USE) if now.fields() == used_by => Left::InUse { on_disk: phase == IN_USE },
            _ => Left::CutOff,
        }
    }

    /// Notes that a recovery begins. It must be on the disk before anything is changed.
    pub fn note_recovering(&self) {
        self.phase.store(RECOVERING, Relaxed);
    }

    /// Notes that the store is in use from now on. It must be on the disk before anything is updated.
    pub fn note_entered(&self, now: &Incarnation) {
        for (field, value) in self.used_by.iter().zip(now.fields()) {
            field.store(value, Relaxed);
        }
        self.phase.store(ENTERED, Relaxed);
    }

    /// Notes that the disk knows that the store is in use.
    pub fn note_in_use(&self) {
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
    }

    /// Writes to the disk by `flush`; a failure is noted.
    pub fn flush(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.flushing.0.fetch_add(1, Relaxed);
        let flushed = flush();
        if flushed.is_err() {
            self.note_failure();
        }
        self.flushing.0.fetch_sub(1, Relaxed);
        flushed
    }

    /// Notes as failures what those may have met with who were killed in a flush. Only while nobody else is at work.
    pub fn note_killed_in_flush(&self) {
        if self.flushing.0.load(Relaxed) != 0 {
            self.note_failure();
            self.flushing.0.store(0, Relaxed);
        }
    }

    /// How many syncs have failed, if that is more than were made good.
    pub fn not_made_good(&self) -> Option<u64> {
        // ORDERING [failed]: pairs with the exchange in `note_failure`.
        // - We see that a sync failed: what it was to write is written anew.
        // - We do not: then our flush meets with the same error. The kernel tells each open file of it once; those opened
        //   later are not told, but they find the failure noted.
        let failed = self.failed.0.load(Acquire);
        (self.made_good.0.load(Relaxed) < failed).then_some(failed)
    }

    /// Notes that a sync failed: the kernel may hold for written what is not.
    fn note_failure(&self) {
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
        let now = Incarnation { boot: [1, 2], device: 3, inode: 4, born_ns: 5 };
        assert_eq!(state.left(&now), Left::Closed);
        state.note_entered(&now);
        assert_eq!(state.left(&now), Left::InUse { on_disk: false });
        state.note_in_use();
        assert_eq!(state.left(&now), Left::InUse { on_disk: true });
        for other in [
            Incarnation { boot: [9, 2], ..now },
            Incarnation { boot: [1, 9], ..now },
            Incarnation { device: 9, ..now },
            Incarnation { inode: 9, ..now },
            Incarnation { born_ns: 9, ..now },
        ] {
            assert_eq!(state.left(&other), Left::CutOff, "{other:?}");
        }
        state.note_recovering();
        assert_eq!(state.left(&now), Left::CutOff);
        state.note_closed();
        assert_eq!(state.left(&now), Left::Closed);
        state.epochs.complete(1);
        assert_eq!(state.left(&now), Left::CutOff, "a sync is done that has not begun");
    }

    #[test]
    fn who_was_killed_in_a_flush_may_have_met_with_a_failure() {
        // SAFETY: as above.
        let state: State = unsafe { std::mem::zeroed() };
        state.flush(|| Ok(())).unwrap();
        state.note_killed_in_flush();
        assert_eq!(state.not_made_good(), None);
        let died = std::panic::catch_unwind(|| state.flush(|| panic!("as if killed")));
        assert!(died.is_err());
        state.note_killed_in_flush();
        assert_eq!(state.not_made_good(), Some(1));
        state.note_killed_in_flush();
        assert_eq!(state.not_made_good(), Some(1), "once");
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
