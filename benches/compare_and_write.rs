//! Compare-and-writes of a block: on one block again and again, round 512, random, miscompares, two threads.
//!
//! `cargo bench --bench compare_and_write`

use std::hint::black_box;
use std::sync::Mutex;

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

use casblock::{Comparison, Writer};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};

mod common;
use common::{BLOCK, image, on_two_threads, random_lbas, store};

/// Toggles blocks of the given order between two images.
fn toggle(lbas: &[u64], blocks: usize, mut attempt: impl FnMut(u64, &[u8], &[u8])) -> impl FnMut() {
    let images = [image(1), image(2)];
    let mut turns = vec![0u8; blocks];
    let mut next = lbas.iter().copied().cycle();
    move || {
        let lba = next.next().expect("endless");
        let turn = &mut turns[lba as usize];
        let (expected, new) = (usize::from(*turn), usize::from(1 - *turn));
        *turn = 1 - *turn;
        attempt(lba, black_box(&images[expected]), black_box(&images[new]));
    }
}

/// One `memcmp`, one `memcpy` and one uncontended exchange for each block of a plain array: what a compare-and-write costs
/// at the least.
fn bench_limit(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, blocks: usize, lbas: &[u64]) {
    let mut plain = vec![image(1); blocks];
    let words: Vec<AtomicU64> = (0..blocks).map(|_| AtomicU64::new(0)).collect();
    let attempt = |lba, expected: &[u8], new: &[u8]| {
        let (block, word) = (&mut plain[lba as usize], &words[lba as usize]);
        assert!(block == expected);
        block.copy_from_slice(new);
        let before = word.load(Relaxed);
        word.compare_exchange(before, before + 1, AcqRel, Acquire).expect("nobody else");
    };
    let mut operate = toggle(lbas, blocks, attempt);
    group.bench_function(format!("limit: memcmp + memcpy + exchange, {name}"), |b| b.iter(&mut operate));
}

fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("compare_and_write");
    let round_512: Vec<u64> = (0..512).collect();
    for (name, blocks, lbas) in [
        ("one block", 1, vec![0]),
        ("round 512 blocks", 512, round_512),
        ("random over 1,024 blocks", 1024, random_lbas(1024)),
        ("random over 512 MiB", 1 << 20, random_lbas(1 << 20)),
    ] {
        bench_limit(&mut group, name, blocks as usize, &lbas);
        let store = store(blocks);
        let mut writer = store.writer().expect("a slot");
        let attempt = |lba, expected: &[u8], new: &[u8]| writer.compare_and_write(lba, expected, new).expect("ours");
        let mut operate = toggle(&lbas, blocks as usize, attempt);
        group.bench_function(name, |b| b.iter(&mut operate));
    }
    let store = store(1);
    let attempt = |lba, expected: &[u8], new: &[u8]| store.compare_and_write(lba, expected, new).expect("ours");
    let mut operate = toggle(&[0], 1, attempt);
    group.bench_function("one block, by the store", |b| b.iter(&mut operate));

    let mut writer = store.writer().expect("a slot");
    let mut expected = image(9);
    group.bench_function("miscompare", |b| {
        b.iter(|| {
            expected[0] = 9;
            writer.compare_and_write_or_load(0, black_box(&mut expected), &[3; BLOCK]).expect("in range")
        });
    });
}

/// One attempt on a block that others may have changed, and the next expected image from what was found.
fn attempt(writer: &mut Writer, lba: u64, expected: &mut [u8; BLOCK], round: u64) {
    let new = image(round as u8);
    match writer.compare_and_write_or_load(lba, expected, &new).expect("in range") {
        Comparison::Written => *expected = new,
        Comparison::Miscompare { .. } => {}
    }
}

fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("compare_and_write, two threads");
    for blocks in [1, 1024] {
        let store = store(blocks);
        let lbas = random_lbas(blocks);
        group.bench_function(format!("random over {blocks} blocks"), |b| {
            b.iter_custom(|iterations| {
                on_two_threads(
                    iterations,
                    |thread| (thread, store.writer().expect("a slot"), [0; BLOCK]),
                    |(thread, writer, expected), round| {
                        let lba = lbas[(round as usize + *thread * 1000) % lbas.len()];
                        attempt(writer, lba, expected, round);
                    },
                )
            });
        });
        let locked: Vec<Mutex<[u8; BLOCK]>> = (0..blocks).map(|_| Mutex::new(image(1))).collect();
        group.bench_function(format!("beside it: std Mutex, random over {blocks} blocks"), |b| {
            b.iter_custom(|iterations| {
                on_two_threads(
                    iterations,
                    |thread| (thread, [0; BLOCK]),
                    |(thread, expected), round| {
                        let lba = lbas[(round as usize + *thread * 1000) % lbas.len()];
                        let (mut block, new) = (locked[lba as usize].lock().expect("no panic"), image(round as u8));
                        if *block == *expected {
                            *block = new;
                            *expected = new;
                        } else {
                            *expected = *block;
                        }
                    },
                )
            });
        });
    }
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
