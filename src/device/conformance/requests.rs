//! Cases of requests: what is possible, and what is not.

use super::{Context, Verdict, broken};
use crate::device::{DeviceError, Failure};

pub(super) fn geometry(context: &Context<'_>) -> Verdict {
    let (bytes, blocks) = (context.block_bytes(), context.device.block_count());
    if bytes < 512 || !bytes.is_power_of_two() {
        return broken(format!("a block has {bytes} bytes"));
    }
    if blocks.checked_mul(bytes as u64).is_none() {
        return broken(format!("{blocks} blocks of {bytes} bytes are more than can be"));
    }
    match context.device.name().is_empty() {
        true => broken("it has no name"),
        false => Ok(()),
    }
}

/// An error unless it failed as impossible.
fn refused(what: &str, answer: Result<(), DeviceError>) -> Verdict {
    match answer {
        Err(DeviceError::Failed { failure: Failure::Invalid, .. }) => Ok(()),
        Err(error) => broken(format!("{what}: it should fail as invalid, but: {error:?}")),
        Ok(()) => broken(format!("{what}: it should fail as invalid, but is said to be done")),
    }
}

pub(super) fn impossible(context: &Context<'_>) -> Verdict {
    let (device, lba, blocks, bytes) =
        (context.device, context.middle(), context.device.block_count(), context.block_bytes());
    let (image, new) = (context.image(1), context.image(2));
    let around = [context.image(8), image.clone(), context.image(9)].concat();
    context.write(lba - 1, &around)?;
    for length in [1, bytes - 1, bytes + 1] {
        let mut buffer = vec![7; length];
        refused(&format!("reading {length} bytes"), device.read(lba, &mut buffer))?;
        refused(&format!("writing {length} bytes"), device.write(lba, &buffer))?;
        let expected = vec![0; length];
        refused(&format!("comparing {length} bytes"), device.compare_and_write(lba, &expected, &buffer))?;
    }
    refused("comparing nothing", device.compare_and_write(lba, &[], &[]))?;
    refused("comparing a block, writing nothing", device.compare_and_write(lba, &image, &[]))?;
    refused("comparing a block, writing two", device.compare_and_write(lba, &image, &[&new[..], &new].concat()))?;
    one_block_too_many(context)?;
    for beyond in [blocks, blocks + 1, u64::MAX - 1, u64::MAX] {
        let mut buffer = new.clone();
        refused(&format!("reading block {beyond}"), device.read(beyond, &mut buffer))?;
        refused(&format!("writing block {beyond}"), device.write(beyond, &new))?;
        refused(&format!("comparing block {beyond}"), device.compare_and_write(beyond, &image, &new))?;
    }
    // The last block is there, the one behind it is not.
    let two = [&new[..], &new].concat();
    refused("reading over the end", device.read(blocks - 1, &mut two.clone()))?;
    refused("writing over the end", device.write(blocks - 1, &two))?;
    context.holds(lba - 1, &around, "after impossible requests")
}

/// Most blocks to hold in memory.
const BLOCKS_MAX: u64 = 4096;

/// One block more than a compare-and-write takes. They may reach beyond the region: so there is a difference in the first
/// byte, and the new bytes are those that are there. A device that takes them, or even writes them, does no harm.
fn one_block_too_many(context: &Context<'_>) -> Verdict {
    let (first, count) = (context.region.first_lba, context.most() + 1);
    if count > BLOCKS_MAX || count > context.device.block_count() - first {
        return Ok(());
    }
    let there = context.read(first, count)?;
    let mut expected = there.clone();
    expected[0] = !expected[0];
    refused(&format!("comparing {count} blocks"), context.device.compare_and_write(first, &expected, &there))
}

pub(super) fn flush(context: &Context<'_>) -> Verdict {
    let image = context.image(1);
    context.write(context.middle(), &image)?;
    for _ in 0..2 {
        context.device.flush().or_else(|error| broken(format!("flushing: {error}")))?;
    }
    context.holds(context.middle(), &image, "after a flush")
}
