//! The invariants, verified: where every frame is.

use super::Fault;
use super::block::load;
use super::cell::Cell;
use super::copy::BlockCopy;
use super::memory::Memory;
use super::pool::LIMBO;
use super::slot::{Holding, resolve};
use crate::sync::Ordering::Relaxed;

/// What a check of a store's invariants found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Check {
    /// Whether nobody else had the store open. If others did, what they were changing was looked at several times, and
    /// what is told is what looked wrong each time: on a store of few frames under load that may be chance, and a fault
    /// that comes and goes is missed.
    pub exclusive: bool,
    /// Blocks that were ever written.
    pub blocks_written: u64,
    /// Frames that are not free.
    pub frames_in_use: u64,
    /// Frames that were replaced since a sync, and wait for the next.
    pub frames_in_limbo: u64,
    /// Frames that are not free, but hold no block, are no writer's and do not wait for a sync: lost.
    pub frames_leaked: u64,
    /// Frames that are in more than one place: two cells, a cell and a slot, a cell and the pool.
    pub frames_doubly_owned: u64,
    /// Blocks whose cell names a frame that does not exist.
    pub cells_out_of_range: u64,
    /// Writer slots that name a frame or a block that does not exist.
    pub slots_damaged: u64,
    /// Blocks whose frame is stamped as another's, or as another update. With durability `power`.
    pub blocks_misstamped: u64,
    /// Blocks whose frame is stamped as theirs, but whose bytes do not match the checksum. With durability `power`.
    pub blocks_damaged: u64,
}

impl Check {
    /// Whether all invariants hold.
    pub fn is_clean(&self) -> bool {
        let faults = [
            self.frames_leaked,
            self.frames_doubly_owned,
            self.cells_out_of_range,
            self.slots_damaged,
            self.blocks_misstamped,
            self.blocks_damaged,
        ];
        faults == [0; 6]
    }
}

/// Where a frame was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Sound,
    /// Taken, but nowhere.
    Leaked,
    /// In more than one place.
    DoublyOwned,
}

/// How often a store that others are using is gone through, to tell what is wrong from what moves.
const PASSES: u32 = 5;

/// Finds every frame's place. Needs one byte a frame, and one more unless `exclusive`, which says that nobody updates.
///
/// `progress` gets the number of blocks that were looked at, now and then.
pub fn check<const W: usize>(mem: &impl Memory<W>, exclusive: bool, mut progress: impl FnMut(u64)) -> Check {
    let (mut check, mut fates) = pass(mem, &mut progress);
    check.exclusive = exclusive;
    if !exclusive {
        for _ in 1..PASSES {
            if check.is_clean() {
                break;
            }
            let (again, fates_again) = pass(mem, &mut |_| {});
            for (fate, again) in fates.iter_mut().zip(fates_again) {
                if *fate != again {
                    *fate = Fate::Sound;
                }
            }
            check.cells_out_of_range = check.cells_out_of_range.min(again.cells_out_of_range);
            check.slots_damaged = check.slots_damaged.min(again.slots_damaged);
            check.count(&fates);
        }
    }
    if mem.epochs().is_some() {
        check_stamps(mem, &mut check, &mut progress);
    }
    check
}

impl Check {
    fn count(&mut self, fates: &[Fate]) {
        let count = |fate| fates.iter().filter(|found| **found == fate).count() as u64;
        (self.frames_leaked, self.frames_doubly_owned) = (count(Fate::Leaked), count(Fate::DoublyOwned));
    }
}

/// Goes once through slots, cells and tags.
pub(super) fn pass<const W: usize>(mem: &impl Memory<W>, progress: &mut impl FnMut(u64)) -> (Check, Vec<Fate>) {
    let mut check = Check::default();
    let frames = usize::try_from(mem.frames()).expect("frames fit in memory");
    let mut owners = vec![0u8; frames];
    let mut own = |frame: u64| match usize::try_from(frame).ok().and_then(|frame| owners.get_mut(frame)) {
        Some(count) => {
            *count = count.saturating_add(1);
            true
        }
        None => false,
    };
    for writer in 0..mem.writers() {
        match resolve(mem, writer) {
            Ok(Holding { spare, reserve }) => {
                let known = [spare, reserve].into_iter().flatten().all(&mut own);
                check.slots_damaged += u64::from(!known);
            }
            Err(Fault::DamagedSlot { .. }) => check.slots_damaged += 1,
            Err(fault) => unreachable!("resolve gives no other fault: {fault:?}"),
        }
    }
    for block in 0..mem.blocks() {
        let cell = mem.cell(block).expect("below the number of blocks");
        let cell = Cell::from_bits(cell.load(Relaxed));
        if !cell.is_unwritten() {
            check.blocks_written += 1;
            check.cells_out_of_range += u64::from(!own(mem.layout().frame(cell)));
        }
        if block.is_multiple_of(1 << 16) {
            progress(block);
        }
    }
    let mut fates = vec![Fate::Sound; frames];
    for (frame, (&count, fate)) in (0u64..).zip(owners.iter().zip(&mut fates)) {
        let tag = mem.tag(frame).expect("below the number of frames").load(Relaxed);
        let in_limbo = tag == LIMBO && mem.epochs().is_some();
        let taken = tag != 0 && !in_limbo;
        check.frames_in_limbo += u64::from(in_limbo);
        check.frames_in_use += u64::from(taken);
        *fate = match count {
            0 if taken => Fate::Leaked,
            1 if !taken => Fate::DoublyOwned,
            2.. => Fate::DoublyOwned,
            _ => Fate::Sound,
        };
    }
    check.count(&fates);
    (check, fates)
}

/// What the stamp of a block's frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// The frame holds what the cell says, or the block was never written, or names no frame at all.
    Sound,
    /// It is stamped as holding something else.
    Misstamped,
    /// It is stamped as that, but its bytes are others.
    Damaged,
}

/// Looks at a block's frame and stamp, as often as it is updated meanwhile.
pub(super) fn prove<const W: usize>(mem: &impl Memory<W>, block: u64, bytes: &mut [u8]) -> Proof {
    let cell = mem.cell(block).expect("below the number of blocks");
    loop {
        let current = load(cell);
        let number = mem.layout().frame(current);
        let (Some(frame), Some(stamp)) = (mem.frame(number), mem.stamp(number)) else { return Proof::Sound };
        if current.is_unwritten() {
            return Proof::Sound;
        }
        let sequence = mem.layout().sequence(current);
        mem.copies().load(frame, bytes);
        let proof = if !stamp.is_of(block, sequence) {
            Proof::Misstamped
        } else if !stamp.proves(block, sequence, number, bytes) {
            Proof::Damaged
        } else {
            return Proof::Sound;
        };
        // ORDERING [frame-recycled]: pairs with the Release fence in `Writer::stage`.
        // - What we saw is of a later use of the frame: this load sees that the cell has moved.
        // - It is not: it is the frame's, as the cell names it.
        crate::sync::fence(crate::sync::Ordering::Acquire);
        if cell.load(Relaxed) == current.bits() {
            return proof;
        }
    }
}

fn check_stamps<const W: usize>(mem: &impl Memory<W>, check: &mut Check, progress: &mut impl FnMut(u64)) {
    let mut bytes = vec![0; 8 * W];
    for block in 0..mem.blocks() {
        match prove(mem, block, &mut bytes) {
            Proof::Sound => {}
            Proof::Misstamped => check.blocks_misstamped += 1,
            Proof::Damaged => check.blocks_damaged += 1,
        }
        if block.is_multiple_of(1 << 16) {
            progress(block);
        }
    }
}
