//! Two hosts share a disk, each with a cache: what each sees of the other's updates, and why compare-and-write needs no more than a hint.
//!
//! ```text
//! cargo run --example cache
//! ```

use std::error::Error;
use std::time::Duration;

use casblock::cache::{BlockCache, Config, Consistency};
use casblock::device::{DeviceError, Faults, Faulty};
use casblock::{Geometry, Store};

/// Adds one to the number in a block: it reads a hint, and tries again with what a miscompare brings. How often it was wrong.
fn count(cache: &BlockCache<Faulty<Store>>, lba: u64) -> Result<u32, DeviceError> {
    let mut known = cache.get(lba)?.to_vec();
    let mut new = known.clone();
    for misses in 0.. {
        new[0] = known[0] + 1;
        match cache.compare_and_write(lba, &known, &new) {
            Ok(()) => return Ok(misses),
            Err(DeviceError::Miscompare(miscompare)) => known.copy_from_slice(&miscompare.found),
            Err(error) => return Err(error),
        }
    }
    unreachable!("it ends when it has written")
}

fn main() -> Result<(), Box<dyn Error>> {
    // A disk, as two hosts see it.
    let disk = Faulty::new(Store::in_memory(Geometry::blocks(1000))?, Faults::none(1));
    let here = BlockCache::new(disk.another_host(), Config::blocks(100))?;
    let there = BlockCache::new(disk, Config::blocks(100))?;

    println!("both have read block 7:           {} and {}", here.get(7)?[0], there.get(7)?[0]);
    there.write(7, &[5; 512])?;
    println!("after an update there, a hint:    {}", here.get(7)?[0]);
    println!(
        "no older than an hour:            {}",
        here.get_as(7, Consistency::MaxAge(Duration::from_secs(3600)))?[0]
    );
    println!("as the disk has it now:           {}", here.get_as(7, Consistency::Current)?[0]);
    println!("and from then on, as a hint:      {}", here.get(7)?[0]);

    there.write(7, &[8; 512])?;
    println!("counting with an old hint:        {} wrong, then {}", count(&here, 7)?, here.get(7)?[0]);
    println!("counting again, with a fresh one: {} wrong, then {}", count(&here, 7)?, here.get(7)?[0]);
    let counts = here.statistics();
    println!("here {} reads hit, {} asked the disk", counts.hits, counts.misses);
    Ok(())
}
