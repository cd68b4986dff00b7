//! What durability `power` costs beside `process`, and how many durable updates a disk takes.
//!
//! `cargo bench --bench power`. The file of the durable updates lies in the system's folder for temporary files, or where
//! `TMPDIR` says: that is the disk which is measured.

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use casblock::{Durability, Geometry, Store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

mod common;
use common::{BLOCK, filled, image, random_lbas};

/// Updates by one thread between two syncs, in memory: what stamps, checksums and limbo cost, without the disk.
fn beside_process(c: &mut Criterion) {
    let mut group = c.benchmark_group("power beside process");
    let round_512: Vec<u64> = (0..512).collect();
    for (name, blocks, lbas) in [
        ("one block", 1, vec![0]),
        ("round 512 blocks", 512, round_512),
        ("random over 512 MiB", 1 << 20, random_lbas(1 << 20)),
    ] {
        for durability in [Durability::Process, Durability::Power] {
            let store = filled(Geometry::blocks(blocks).durability(durability));
            store.sync().expect("in memory");
            let mut writer = store.writer().expect("a slot");
            let mut turns = vec![1u8; blocks as usize];
            let mut next = lbas.iter().copied().cycle();
            group.bench_function(format!("compare-and-write, {name}, {durability:?}"), |b| {
                b.iter(|| {
                    let lba = next.next().expect("endless");
                    let turn = &mut turns[lba as usize];
                    let (expected, new) = (image(*turn), image(3 - *turn));
                    *turn = 3 - *turn;
                    writer.compare_and_write(lba, black_box(&expected), black_box(&new)).expect("ours");
                });
            });
        }
    }
    for durability in [Durability::Process, Durability::Power] {
        let store = filled(Geometry::blocks(1).durability(durability));
        let mut out = image(0);
        group.bench_function(format!("read, one block, {durability:?}"), |b| {
            b.iter(|| store.read(0, black_box(&mut out)).expect("in range"));
        });
    }
    let data = image(7);
    group.bench_function("limit: CRC-32C of a block", |b| b.iter(|| crc32c::crc32c(black_box(&data))));
}

/// Durable compare-and-writes by several threads, each on a block of its own.
fn durable(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = c.benchmark_group("durable");
    group.throughput(Throughput::Elements(1));
    let plain = std::fs::File::create(folder.path().join("plain")).expect("a file");
    plain.write_all_at(&vec![0; 1 << 20], 0).expect("room");
    plain.sync_all().expect("a disk");
    let mut round = 0u64;
    group.bench_function("limit: write of a block, fdatasync", |b| {
        b.iter(|| {
            round += 1;
            plain.write_all_at(&image(round as u8), 4096 * (round % 256)).expect("room");
            plain.sync_data().expect("a disk");
        });
    });
    for threads in [1, 2, 8, 32] {
        let path = folder.path().join(format!("{threads} threads"));
        let store = Store::create(path, Geometry::blocks(256).durability(Durability::Power)).expect("room");
        group.bench_function(format!("compare-and-write, {threads} threads"), |b| {
            b.iter_custom(|iterations| on_threads(&store, threads, iterations));
        });
    }
}

/// The time of about so many durable updates by so many threads.
fn on_threads(store: &Store, threads: u64, iterations: u64) -> Duration {
    let each = iterations.div_ceil(threads);
    let barrier = Barrier::new(threads as usize + 1);
    let elapsed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut current = [0; BLOCK];
                    store.read(thread, &mut current).expect("in range");
                    barrier.wait();
                    for _ in 0..each {
                        let mut new = current;
                        new[0] = new[0].wrapping_add(1);
                        store.durable().expect("power").compare_and_write(thread, &current, &new).expect("ours");
                        current = new;
                    }
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().expect("no panic");
        }
        start.elapsed()
    });
    // As many as were asked for, when each thread does as many as another.
    elapsed.mul_f64(iterations as f64 / (each * threads) as f64)
}

criterion_group!(benches, beside_process, durable);
criterion_main!(benches);
