//! Reads of a block: hot, in a random order over 512 MiB, and while another thread writes.
//!
//! `cargo bench --bench read`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

mod common;
use common::{BLOCK, bench_memcpy, image, on_two_threads, random_lbas, store};

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    bench_memcpy(&mut group);

    let hot = store(1);
    let writer = hot.writer().expect("a slot");
    let mut out = [0; BLOCK];
    group.bench_function("one block", |b| b.iter(|| hot.read(0, black_box(&mut out)).expect("in range")));
    group.bench_function("one block, by a writer", |b| {
        b.iter(|| writer.read(0, black_box(&mut out)).expect("in range"))
    });
    group.bench_function("one block that another thread keeps replacing", |b| {
        b.iter_custom(|iterations| {
            on_two_threads(
                iterations,
                |thread| (thread, hot.writer().expect("a slot"), [0; BLOCK]),
                |(thread, writer, out), round| match thread {
                    0 => writer.write(0, &image(round as u8)).expect("in range"),
                    _ => hot.read(0, out).expect("in range"),
                },
            )
        });
    });

    let large = store(1 << 20);
    let lbas = random_lbas(1 << 20);
    let mut next = lbas.iter().cycle();
    group.bench_function("random over 512 MiB", |b| {
        b.iter(|| large.read(*next.next().expect("endless"), black_box(&mut out)).expect("in range"));
    });
    let flat = vec![1u8; BLOCK << 20];
    group.bench_function("limit: memcpy, random over 512 MiB", |b| {
        b.iter(|| {
            let at = *next.next().expect("endless") as usize * BLOCK;
            black_box(&mut out).copy_from_slice(&flat[at..at + BLOCK]);
        });
    });
}

criterion_group!(benches, read);
criterion_main!(benches);
