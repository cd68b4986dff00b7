//! The protocol: cells, frames, tags, writer slots. No I/O, no mapping, no clock: all that loom checks lives here.
//!
//! A block's contents lie in a **frame**; the block's **cell** names the frame and counts the updates. A writer stages
//! a new image in its **spare** frame, which nobody else writes, and puts it in place by one exchange of the cell. The
//! frame it displaced is its next spare. Nothing is ever half done in place, so nobody waits for anybody, and a process
//! may die between any two instructions.
//!
//! # Invariants
//! 1. A frame is in exactly one place: one cell, one writer's slot (spare or reserve), the free pool, or limbo.
//! 2. A frame that a cell names is never written.
//! 3. A cell's sequence only grows, by one per update.
//! 4. No operation waits for another thread or process.
//! 5. A writer's intent is in its slot before the exchange it announces, and stays until the frame that the exchange
//!    displaced carries that writer's tag. So where a writer died, who owns what can always be told (see [`slot`]).
//!
//! `docs/design.md` argues for them; `docs/orderings.md` lists every ordering with the model that fails without it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`cell`] | the 8-byte word: sequence and frame index |
//! | [`copy`] | racy copies between frames and buffers |
//! | [`memory`] | the trait of what the protocol runs on |
//! | [`pool`] | free frames: taking one, giving one back |
//! | [`prefetch`] | asking for cache lines before they are written |
//! | [`slot`] | a writer's slot: intent, and finding out what a dead writer owned |
//! | [`block`] | read, write, compare-and-write |
//! | [`durable`] | durability `power`: stamps, epochs, limbo |
//! | [`recovery`] | making a store whole after a cut of the power |
//! | [`repair`] | putting right what a check finds wrong |
//! | [`word`] | heartbeat words |
//! | [`events`] | the flight recorder's ring |
//! | [`audit`] | the invariants, verified |

pub mod audit;
pub mod block;
pub mod cell;
pub mod copy;
pub mod durable;
pub mod events;
pub mod memory;
pub mod pool;
pub mod prefetch;
pub mod recovery;
pub mod repair;
pub mod slot;
pub mod word;

/// Why an operation could not be done. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The block number is not below the number of blocks.
    NoSuchBlock,
    /// Every frame is taken.
    NoSpace,
    /// Every frame is taken, or in limbo until the next sync.
    AllInLimbo,
    /// The block's cell names a frame that does not exist.
    DamagedCell {
        /// The block.
        block: u64,
        /// What its cell holds.
        bits: u64,
    },
    /// The stamp of the frame that holds the block is another's.
    DamagedStamp {
        /// The block.
        block: u64,
        /// The frame that its cell names.
        frame: u64,
    },
    /// The writer's slot names a frame or a block that does not exist.
    DamagedSlot {
        /// The slot's index.
        writer: u16,
    },
}

/// What a compare-and-write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The block held what was expected and now holds the new image.
    Written,
    /// The block held something else, and was left alone.
    Miscompare {
        /// Offset in bytes of the first byte that differs.
        offset: usize,
    },
}
