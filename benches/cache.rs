//! The block cache: hits, hits beside updates by another thread, misses that evict, updates; before a device that costs nothing.
//!
//! `cargo bench --bench cache`

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use casblock::cache::{BlockCache, Config, Consistency};
use casblock::device::{BlockDevice, DeviceError};
use criterion::{Criterion, criterion_group, criterion_main};

mod common;
use common::{BLOCK, filled, image, on_two_threads, random_lbas};

/// Blocks that are cached: 8 MiB.
const CACHED: u64 = 1 << 14;

/// A device that gives zeros and forgets what is written.
struct Nothing;

impl BlockDevice for Nothing {
    fn name(&self) -> Cow<'_, str> {
        "nothing".into()
    }

    fn block_bytes(&self) -> usize {
        BLOCK
    }

    fn block_count(&self) -> u64 {
        1 << 40
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, _lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        out.fill(0);
        Ok(())
    }

    fn write(&self, _lba: u64, _data: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn compare_and_write(&self, _lba: u64, _expected: &[u8], _new: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn cache<D: BlockDevice>(device: D) -> BlockCache<D> {
    let cache = BlockCache::new(device, Config::blocks(CACHED as u32)).expect("memory");
    cache.prefetch(0, CACHED).expect("it never fails");
    cache
}

fn caches(c: &mut Criterion) {
    let mut group = c.benchmark_group("cache");
    let of_nothing = cache(Nothing);
    group.bench_function("hit, one block", |b| b.iter(|| of_nothing.get(black_box(7)).expect("cached")[100]));
    let lbas = random_lbas(CACHED);
    let mut next = lbas.iter().cycle();
    group.bench_function("hit, random over 8 MiB", |b| {
        b.iter(|| {
            let lba = *next.next().expect("endless");
            of_nothing.get(lba).expect("cached")[(lba as usize * 8) % BLOCK]
        });
    });
    let max_age = Consistency::MaxAge(Duration::from_secs(3600));
    group.bench_function("hit no older than an hour, one block", |b| {
        b.iter(|| of_nothing.get_as(black_box(7), max_age).expect("cached")[100]);
    });
    group.bench_function("update, one block", |b| b.iter(|| of_nothing.write(black_box(7), &image(1))));
    group.bench_function("hit beside a thread that updates the block", |b| {
        b.iter_custom(|iterations| {
            on_two_threads(
                iterations,
                |thread| thread,
                |thread, round| match thread {
                    0 => of_nothing.write(7, &image(round as u8)).expect("it never fails"),
                    _ => drop(black_box(of_nothing.get(7).expect("it never fails")[100])),
                },
            )
        });
    });
    let mut next = CACHED..;
    group.bench_function("miss that evicts", |b| {
        b.iter(|| of_nothing.get(next.next().expect("endless")).expect("it never fails")[100]);
    });

    let of_store = cache(filled(casblock::Geometry::blocks(CACHED)));
    let mut next = lbas.iter().cycle();
    group.bench_function("hit over a store, random over 8 MiB", |b| {
        b.iter(|| {
            let lba = *next.next().expect("endless");
            of_store.get(lba).expect("cached")[(lba as usize * 8) % BLOCK]
        });
    });
}

criterion_group!(benches, caches);
criterion_main!(benches);
