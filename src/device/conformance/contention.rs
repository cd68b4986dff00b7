//! Cases of several callers at once, and counters for several processes.

use std::thread;

use super::{Context, Finding, Verdict, broken};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::dice::Dice;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// The counter in a block's first eight bytes.
///
/// # Errors
/// What the device answers.
pub fn counter(device: &dyn BlockDevice, lba: u64) -> Result<u64, DeviceError> {
    let mut block = vec![0; device.block_bytes()];
    device.read(lba, &mut block)?;
    Ok(count_of(&block))
}

fn count_of(block: &[u8]) -> u64 {
    block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A block with a count in it, which all its bytes depend on.
fn counted(count: u64, bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(count, 0);
    let mut block = count.to_le_bytes().to_vec();
    while block.len() < bytes {
        block.extend(dice.throw().to_le_bytes());
    }
    block.truncate(bytes);
    block
}

/// Whether a block is whole: zeros, or one that [`counted`] made.
fn is_whole(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0) || block == counted(count_of(block), block.len())
}

/// So many miscompares in a row are no contention: of those who contend, somebody succeeds each time.
const IN_VAIN_MAX: u32 = 100_000;

/// Increments the counter of a block so often, beside others who do, in this process or another; how often it did. The
/// sum of what all of them give is the counter's growth, or updates were lost.
///
/// # Errors
/// What the device answers, but for miscompares, after which it goes on with what was found; [`Failure::Corrupt`] if a block was found that no
/// one has written.
pub fn contend(device: &dyn BlockDevice, lba: u64, increments: u64) -> Result<u64, DeviceError> {
    let mut current = vec![0; device.block_bytes()];
    device.read(lba, &mut current)?;
    let (mut done, mut in_vain) = (0, 0);
    while done < increments {
        if in_vain == IN_VAIN_MAX {
            let what = format!(
                "{IN_VAIN_MAX} miscompares of block {lba} one after the other, each with what was found before"
            );
            return Err(DeviceError::failed(Failure::Corrupt, what));
        }
        if !is_whole(&current) {
            let what = format!("block {lba} holds what nobody wrote, beginning with count {}", count_of(&current));
            return Err(DeviceError::failed(Failure::Corrupt, what));
        }
        match device.compare_and_write(lba, &current, &counted(count_of(&current) + 1, current.len())) {
            Ok(()) => {
                (done, in_vain) = (done + 1, 0);
                current = counted(count_of(&current) + 1, current.len());
            }
            Err(DeviceError::Miscompare(miscompare)) => {
                let same = miscompare.found.get(miscompare.offset) == current.get(miscompare.offset);
                if miscompare.found.len() != current.len() || same {
                    let what = format!("a miscompare of block {lba} shows no difference at {}", miscompare.offset);
                    return Err(DeviceError::failed(Failure::Corrupt, what));
                }
                current.copy_from_slice(&miscompare.found);
                in_vain += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Runs `work` in threads, each with its number; the first finding of any.
fn in_threads(threads: usize, work: impl Fn(usize) -> Verdict + Sync) -> Verdict {
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        let mut verdict = Ok(());
        for thread in running {
            let its = thread.join().unwrap_or_else(|_| broken("the device panicked"));
            verdict = verdict.and(its);
        }
        verdict
    })
}

/// Does something when it is dropped, by a panic too: what others wait for must come.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn found(lba: u64, error: DeviceError) -> Finding {
    Finding::Broken(format!("counting in block {lba}: {error}"))
}

pub(super) fn one_counter(context: &Context<'_>) -> Verdict {
    let (device, lba) = (context.device, context.middle());
    let sum = AtomicU64::new(0);
    in_threads(context.threads, |_| {
        let done = contend(device, lba, context.increments).map_err(|error| found(lba, error))?;
        sum.fetch_add(done, Relaxed);
        Ok(())
    })?;
    let (sum, counter) = (sum.load(Relaxed), counter(device, lba).map_err(|error| found(lba, error))?);
    match counter == sum {
        true => Ok(()),
        false => broken(format!("{sum} increments of block {lba} succeeded, but its counter is {counter}")),
    }
}

pub(super) fn many_counters(context: &Context<'_>) -> Verdict {
    let (device, first, count) = (context.device, context.region.first_lba, context.region.blocks.min(4));
    let sums: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    in_threads(context.threads, |number| {
        let mut dice = Dice::new(number as u64, 1);
        for _ in 0..context.increments {
            let block = dice.below(count);
            let done = contend(device, first + block, 1).map_err(|error| found(first + block, error))?;
            sums[block as usize].fetch_add(done, Relaxed);
        }
        Ok(())
    })?;
    for (lba, sum) in (first..).zip(sums) {
        let (sum, counter) = (sum.load(Relaxed), counter(device, lba).map_err(|error| found(lba, error))?);
        if counter != sum {
            return broken(format!("{sum} increments of block {lba} succeeded, but its counter is {counter}"));
        }
    }
    Ok(())
}

/// Counters in several blocks, which each compare-and-write increments together: at no moment do two of them differ.
pub(super) fn many_together(context: &Context<'_>) -> Verdict {
    let (lba, blocks) = (context.region.first_lba, context.most().min(4));
    if blocks == 1 {
        return Err(Finding::NotApplicable("a compare-and-write takes one block".into()));
    }
    in_threads(context.threads, |_| count_together(context, lba, blocks))?;
    let sum = context.threads as u64 * context.increments;
    for (lba, block) in (lba..).zip(context.read(lba, blocks)?.chunks(context.block_bytes())) {
        let counter = count_of(block);
        if counter != sum {
            return broken(format!(
                "{sum} increments of {blocks} blocks succeeded, but the counter of block {lba} is {counter}"
            ));
        }
    }
    Ok(())
}

fn count_together(context: &Context<'_>, lba: u64, blocks: u64) -> Verdict {
    let bytes = context.block_bytes();
    let mut current = context.read(lba, blocks)?;
    let (mut done, mut in_vain) = (0, 0);
    while done < context.increments {
        let new = counted(count_of(&current) + 1, bytes).repeat(blocks as usize);
        match context.device.compare_and_write(lba, &current, &new) {
            // Where blocks are read one by one they may differ in what was read. They never do in what is compared.
            Ok(()) if current.chunks(bytes).any(|block| *block != current[..bytes]) => {
                return broken(format!(
                    "{blocks} blocks from {lba} on compared as equal to what they never held together"
                ));
            }
            Ok(()) => (done, in_vain, current) = (done + 1, 0, new),
            Err(DeviceError::Miscompare(it)) if it.found.len() == current.len() && in_vain < IN_VAIN_MAX => {
                current.copy_from_slice(&it.found);
                in_vain += 1;
            }
            Err(error) => return Err(found(lba, error)),
        }
    }
    Ok(())
}

pub(super) fn never_torn(context: &Context<'_>) -> Verdict {
    let (device, lba, bytes) = (context.device, context.middle(), context.block_bytes());
    let writers_left = AtomicU64::new(context.threads as u64);
    in_threads(context.threads + 1, |number| {
        if number > 0 {
            let _left = Finally(|| {
                writers_left.fetch_add(u64::MAX, Relaxed);
            });
            // One half of them write, the other compare and write.
            let done = match number % 2 {
                0 => contend(device, lba, context.increments).map(|_| ()),
                _ => (0..context.increments).try_for_each(|count| device.write(lba, &counted(count << 8, bytes))),
            };
            return done.map_err(|error| found(lba, error));
        }
        let mut block = vec![0; bytes];
        loop {
            let last = writers_left.load(Relaxed) == 0;
            device.read(lba, &mut block).map_err(|error| found(lba, error))?;
            if !is_whole(&block) {
                return broken(format!("block {lba} was read torn, beginning with count {}", count_of(&block)));
            }
            if last {
                return Ok(());
            }
        }
    })
}

/// Of one block, one caller changes the first half by compare-and-write, the other writes blocks of a new second half, and
/// reads them back: a compare-and-write that let a plain write fall between its compare and its write, undoes that write.
pub(super) fn plain_writes(context: &Context<'_>) -> Verdict {
    if !context.plain_writes_excluded {
        return Err(Finding::NotApplicable("the device is said not to exclude plain writes".into()));
    }
    let (device, lba) = (context.device, context.middle());
    let (attempts, done) = (AtomicU64::new(0), AtomicU64::new(0));
    in_threads(2, |number| {
        if number == 0 {
            let _done = Finally(|| done.store(1, Relaxed));
            return write_and_look(context, lba, &attempts);
        }
        // The other waits for no more of them.
        let _ended = Finally(|| attempts.store(u64::MAX, Relaxed));
        let mut current = vec![0u8; context.block_bytes()];
        while done.load(Relaxed) == 0 {
            let mut new = current.clone();
            new[0] = new[0].wrapping_add(1);
            let answer = device.compare_and_write(lba, &current, &new);
            attempts.fetch_add(1, Relaxed);
            match answer {
                Ok(()) => current = new,
                Err(DeviceError::Miscompare(it)) if it.found.len() == current.len() => {
                    current.copy_from_slice(&it.found)
                }
                Err(error) => return Err(found(lba, error)),
            }
        }
        Ok(())
    })
}

/// Where the plain writer's number lies.
const NUMBER_AT: std::ops::Range<usize> = 256..264;

fn write_and_look(context: &Context<'_>, lba: u64, attempts: &AtomicU64) -> Verdict {
    let mut block = vec![0; context.block_bytes()];
    let mut number = 0u64;
    // Until both have done enough for the two to meet.
    while number < context.increments || attempts.load(Relaxed) < context.increments {
        number += 1;
        block[NUMBER_AT].copy_from_slice(&number.to_le_bytes());
        context.write(lba, &block)?;
        let now = context.read(lba, 1)?;
        if now[NUMBER_AT] != block[NUMBER_AT] {
            let earlier = now[NUMBER_AT].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            return broken(format!(
                "write {number} of block {lba} was undone by a compare-and-write that had compared before it: {earlier} is there"
            ));
        }
    }
    Ok(())
}
