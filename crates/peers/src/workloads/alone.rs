//! One thread: what an operation costs when nobody is in the way.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::team::{All, Nearest, Rounds, Workload};
use super::{Ground, folder, limits, timed};
use crate::block::{Block, Buffer, FIRST, numbered};
use crate::measure::{Entrant, compete, each_operation};
use crate::peers::{Durability, Handle, Peer};
use crate::results::{Axis, Kind, Section};

/// For random blocks: all contestants see the same.
pub const SEED: u64 = 7;

/// What blocks hold in turn: the first as they are when new.
pub const IMAGES: [Block; 2] = [FIRST, numbered(2)];

/// Blocks of 512 MiB.
const MANY: u64 = 1 << 20;

/// Blocks of which all caches of a core have a part.
const SOME: u64 = 1024;

/// Reads random blocks of `blocks`.
struct Read {
    blocks: u64,
    slice: Duration,
}

impl Workload for Read {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let (mut handle, blocks) = (peer.handle()?, self.blocks);
        let (mut random, mut out) = (Rng::with_seed(SEED), Buffer::of(FIRST));
        Ok(each_operation(self.slice, move |times| {
            for _ in 0..times {
                let block = if blocks == 1 { 0 } else { random.u64(..blocks) };
                handle.read(black_box(block), &mut out.block);
                black_box(&out);
            }
        }))
    }
}

/// Compares and writes random blocks of `blocks`: each holds one of two images, in turn. Of more than [`SOME`], all hold the
/// first.
struct CompareAndWrite {
    blocks: u64,
    slice: Duration,
}

impl Workload for CompareAndWrite {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let (mut handle, blocks) = (peer.handle()?, self.blocks);
        let mut random = Rng::with_seed(SEED);
        let mut is_second = vec![false; blocks as usize];
        if blocks <= SOME {
            let mut found = FIRST;
            for (block, is_second) in (0..).zip(&mut is_second) {
                handle.read(block, &mut found);
                *is_second = found == IMAGES[1];
            }
        }
        let mut known = IMAGES;
        Ok(each_operation(self.slice, move |times| {
            for _ in 0..times {
                let block = if blocks == 1 { 0 } else { random.u64(..blocks) };
                let second = &mut is_second[block as usize];
                let new = &IMAGES[usize::from(!*second)];
                assert!(handle.compare_and_write(black_box(block), black_box(&mut known[usize::from(*second)]), new));
                *second = !*second;
            }
        }))
    }
}

/// Compares a block with what it does not hold: they differ in one byte.
struct Miscompare {
    slice: Duration,
}

impl Workload for Miscompare {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let mut handle = peer.handle()?;
        let (mut known, new) = (Buffer::of(FIRST), IMAGES[1]);
        handle.read(0, &mut known.block);
        Ok(each_operation(self.slice, move |times| {
            for _ in 0..times {
                known.block[100] ^= 1;
                assert!(!handle.compare_and_write(black_box(0), black_box(&mut known.block), &new));
            }
        }))
    }
}

/// Heartbeat words, which only casblock has: against the bare exchange.
fn words(slice: Duration) -> Result<Entrant<'static>> {
    let store = casblock::Store::in_memory(casblock::Geometry::blocks(1))?;
    let run = each_operation(slice, move |times| {
        let word = store.word(0).expect("a word");
        let first = word.load();
        for number in first..first + times {
            black_box(&word).compare_exchange(number, number + 1).expect("nobody else's");
        }
    });
    Ok(Entrant { who: "casblock".to_owned(), kind: Kind::Casblock, run })
}

/// What is measured over [`SOME`] blocks or one of them.
fn small(ground: &Ground) -> Result<Vec<Section>> {
    let (rounds, slice) = (ground.effort.rounds, ground.effort.slice);
    let temporary = folder(&ground.memory)?;
    let team = All::create(temporary.path(), SOME, Durability::Process)?;

    let mut read = team.enter(&Read { blocks: 1, slice })?;
    read.push(limits::copy(1, slice)?);
    let mut one = team.enter(&CompareAndWrite { blocks: 1, slice })?;
    one.push(limits::compare_and_copy(1, slice)?);
    let one = compete(one, rounds, None)?;
    let mut some = team.enter(&CompareAndWrite { blocks: SOME, slice })?;
    some.push(limits::compare_and_copy(SOME, slice)?);
    let some = compete(some, rounds, None)?;
    let mut miscompare = team.enter(&Miscompare { slice })?;
    miscompare.push(limits::miscompare(slice)?);
    let exchange = vec![words(slice)?, limits::exchange(slice)];

    Ok(vec![
        timed(
            "read-hot",
            "Read one block",
            "One thread reads the same block again and again.",
            compete(read, rounds, None)?,
        ),
        timed(
            "caw-hot",
            "Compare-and-write, one block",
            "One thread replaces the same block again and again; each attempt succeeds.",
            one,
        ),
        timed(
            "caw-1024",
            "Compare-and-write, random over 1,024 blocks",
            "One thread replaces random blocks of 512 KiB; each attempt succeeds.",
            some,
        ),
        timed(
            "miscompare",
            "A miscompare",
            "One thread compares a block with what differs in one byte, and is given what the block holds.",
            compete(miscompare, rounds, None)?,
        ),
        timed(
            "words",
            "Exchange a heartbeat word",
            "One thread exchanges one 8-byte word again and again, against an AtomicU64 that is not in a store.",
            compete(exchange, rounds, None)?,
        ),
    ])
}

/// What is measured over [`MANY`] blocks.
fn large(ground: &Ground) -> Result<Vec<Section>> {
    let (rounds, slice) = (ground.effort.rounds, ground.effort.slice);
    let temporary = folder(&ground.memory)?;
    let blocks = MANY.min(ground.effort.most_blocks);
    let team = All::create(temporary.path(), blocks, Durability::Process)?;
    let mut read = team.enter(&Read { blocks, slice })?;
    read.push(limits::copy(blocks, slice)?);
    let read = compete(read, rounds, None)?;
    let mut update = team.enter(&CompareAndWrite { blocks, slice })?;
    update.push(limits::compare_and_copy(blocks, slice)?);
    let update = compete(update, rounds, None)?;
    Ok(vec![
        timed(
            "read-random",
            "Read, random over 512 MiB",
            "One thread reads random blocks of 2²⁰, each written once: in hardly any cache.",
            read,
        ),
        timed(
            "caw-random",
            "Compare-and-write, random over 512 MiB",
            "One thread replaces random blocks of 2²⁰; each attempt succeeds.",
            update,
        ),
    ])
}

/// Over how many blocks the cost of an update is shown: from what the first cache holds to what none does.
pub const FOOTPRINTS: [u64; 6] = [1 << 4, 1 << 7, 1 << 10, 1 << 13, 1 << 16, 1 << 19];

/// What it costs that a block's frame is known only once its cell is.
fn against_footprint(ground: &Ground) -> Result<Section> {
    let (rounds, slice) = (ground.effort.rounds, ground.effort.slice);
    let mut rows = Vec::new();
    for blocks in FOOTPRINTS.into_iter().filter(|blocks| *blocks <= ground.effort.most_blocks) {
        let temporary = folder(&ground.memory)?;
        let team = Nearest::create(temporary.path(), blocks, Durability::Process)?;
        let mut entrants = team.enter(&CompareAndWrite { blocks, slice })?;
        entrants.push(limits::compare_and_copy(blocks, slice)?);
        rows.extend(compete(entrants, rounds, Some(blocks as f64))?);
    }
    let about = "One thread replaces random blocks of so many. A lock lies beside its block; a cell names the frame that \
                 holds the block, so what is in no near cache is waited for twice.";
    let mut section = timed("caw-footprint", "Compare-and-write against the number of blocks in use", about, rows);
    section.axis = Some(Axis { label: "blocks".to_owned(), doubles: false });
    Ok(section)
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    ground.cores.pin(0);
    let mut sections = small(ground)?;
    sections.splice(1..1, large(ground)?);
    sections.push(against_footprint(ground)?);
    ground.cores.unpin();
    Ok(sections)
}
