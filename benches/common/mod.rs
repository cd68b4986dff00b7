//! What the benches share: a store, and the limits that no block store can beat.
#![allow(dead_code, reason = "each bench uses a part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use casblock::{Geometry, Store};
use criterion::{BenchmarkGroup, measurement::WallTime};

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// An image whose bytes are all different from another round's.
pub fn image(round: u8) -> [u8; BLOCK] {
    [round; BLOCK]
}

/// A store in memory whose blocks all hold `image(1)`.
pub fn store(blocks: u64) -> Store {
    filled(Geometry::blocks(blocks))
}

/// Likewise, of any geometry.
pub fn filled(geometry: Geometry) -> Store {
    let store = Store::in_memory(geometry).expect("memory");
    let mut writer = store.writer().expect("a slot");
    for lba in 0..geometry.block_count() {
        writer.write(lba, &image(1)).expect("in range");
    }
    drop(writer);
    store
}

/// Block numbers below `blocks` in a random order that repeats: the same in every run.
pub fn random_lbas(blocks: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..1 << 16).map(|_| random.u64(..blocks)).collect()
}

/// The cost of copying a block between two buffers.
pub fn bench_memcpy(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (from, mut to) = (vec![1u8; BLOCK], vec![0u8; BLOCK]);
    group.bench_function("limit: memcpy", |b| b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from))));
}

/// Runs `operate` on each of two threads `iterations` times; the time until both are done.
pub fn on_two_threads<W>(
    iterations: u64,
    state: impl Fn(usize) -> W + Sync,
    operate: impl Fn(&mut W, u64) + Sync,
) -> Duration {
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            let (barrier, state, operate) = (&barrier, &state, &operate);
            scope.spawn(move || {
                let mut state = state(thread);
                barrier.wait();
                (0..iterations).for_each(|round| operate(&mut state, round));
            })
        });
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().expect("no panic");
        }
        start.elapsed()
    })
}
