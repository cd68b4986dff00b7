//! What no store of blocks can beat: the copying, comparing and exchanging alone, over a plain array.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use memmap2::MmapMut;

use super::alone::{IMAGES, SEED};
use crate::block::{BLOCK, Block, Buffer, FIRST};
use crate::measure::{Entrant, each_operation};
use crate::results::Kind;

fn limit<'a>(who: &str, run: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>) -> Entrant<'a> {
    Entrant { who: format!("limit: {who}"), kind: Kind::Limit, run }
}

/// Blocks from the beginning of a page on, each as it is when new.
struct Array(MmapMut);

impl Array {
    fn new(blocks: u64) -> Result<Self> {
        let mut map = MmapMut::map_anon(blocks as usize * BLOCK)?;
        map.as_chunks_mut().0.iter_mut().for_each(|block| *block = FIRST);
        Ok(Self(map))
    }

    #[inline]
    fn block(&mut self, index: u64) -> &mut Block {
        &mut self.0.as_chunks_mut().0[index as usize]
    }
}

/// A `memcpy` of random blocks of `blocks`.
pub fn copy(blocks: u64, slice: Duration) -> Result<Entrant<'static>> {
    let (mut array, mut random, mut out) = (Array::new(blocks)?, Rng::with_seed(SEED), Buffer::of(FIRST));
    let run = each_operation(slice, move |times| {
        for _ in 0..times {
            let block = if blocks == 1 { 0 } else { random.u64(..blocks) };
            black_box(&mut out.block).copy_from_slice(black_box(&*array.block(block)));
        }
    });
    Ok(limit("memcpy", run))
}

/// A `memcmp`, a `memcpy` and an exchange of a word nobody else uses, with random blocks of `blocks`.
pub fn compare_and_copy(blocks: u64, slice: Duration) -> Result<Entrant<'static>> {
    let (mut array, mut is_second) = (Array::new(blocks)?, vec![false; blocks as usize]);
    let (word, mut random) = (AtomicU64::new(0), Rng::with_seed(SEED));
    let run = each_operation(slice, move |times| {
        for _ in 0..times {
            let block = if blocks == 1 { 0 } else { random.u64(..blocks) };
            let second = is_second[block as usize];
            let (known, new) = (&IMAGES[usize::from(second)], &IMAGES[usize::from(!second)]);
            if *black_box(array.block(block)) == *black_box(known) {
                array.block(block).copy_from_slice(black_box(new));
                let number = word.load(Acquire);
                word.compare_exchange(number, number + 1, AcqRel, Acquire).expect("nobody else's");
                is_second[block as usize] = !second;
            }
        }
    });
    Ok(limit("memcmp+memcpy+CAS", run))
}

/// A `memcmp` that finds a difference, and a `memcpy`.
pub fn miscompare(slice: Duration) -> Result<Entrant<'static>> {
    let (mut array, mut found) = (Array::new(1)?, Buffer::of(FIRST));
    let run = each_operation(slice, move |times| {
        for _ in 0..times {
            found.block[100] ^= 1;
            if *black_box(array.block(0)) != found.block {
                black_box(&mut found.block).copy_from_slice(array.block(0));
            }
        }
    });
    Ok(limit("memcmp+memcpy", run))
}

/// An exchange of an `AtomicU64`.
pub fn exchange(slice: Duration) -> Entrant<'static> {
    let word = AtomicU64::new(0);
    let run = each_operation(slice, move |times| {
        let first = word.load(Acquire);
        for number in first..first + times {
            black_box(&word).compare_exchange(number, number + 1, AcqRel, Acquire).expect("nobody else's");
        }
    });
    limit("a bare exchange", run)
}

/// A block written to a file, and `fdatasync`.
pub fn flush(folder: &Path, slice: Duration) -> Result<Entrant<'static>> {
    let file = File::create_new(folder.join("flushed"))?;
    file.write_all_at(&[0; 64 * BLOCK], 0)?;
    file.sync_all()?;
    let block: Block = FIRST;
    let run = each_operation(slice, move |times| {
        for turn in 0..times {
            file.write_all_at(&block, turn % 64 * BLOCK as u64).expect("room on the disk");
            file.sync_data().expect("a disk that works");
        }
    });
    Ok(limit("pwrite + fdatasync", run))
}
