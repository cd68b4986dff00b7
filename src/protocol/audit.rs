//! The invariants, verified: where every frame is.

use super::Fault;
use super::cell::Cell;
use super::memory::Memory;
use super::pool::LIMBO;
use super::slot::{Holding, resolve};
use crate::sync::Ordering::Relaxed;

/// What a check of a store's invariants found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Check {
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
}

impl Check {
    /// Whether all invariants hold.
    pub fn is_clean(&self) -> bool {
        let faults = [self.frames_leaked, self.frames_doubly_owned, self.cells_out_of_range, self.slots_damaged];
        faults == [0; 4]
    }
}

/// Finds every frame's place. Exact only while nobody updates; needs one byte a frame.
pub fn check<const W: usize>(mem: &impl Memory<W>, mut progress: impl FnMut(u64)) -> Check {
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
    for (frame, &count) in (0u64..).zip(&owners) {
        let tag = mem.tag(frame).expect("below the number of frames").load(Relaxed);
        let in_limbo = tag == LIMBO && mem.epochs().is_some();
        let taken = tag != 0 && !in_limbo;
        check.frames_in_limbo += u64::from(in_limbo);
        check.frames_in_use += u64::from(taken);
        check.frames_leaked += u64::from(taken && count == 0);
        check.frames_doubly_owned += u64::from(count > 1 || (count == 1 && !taken));
    }
    check
}
