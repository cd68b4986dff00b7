//! Writes of a block, whatever it holds.
//!
//! `cargo bench --bench write`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

mod common;
use common::{bench_memcpy, image, on_two_threads, random_lbas, store};

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    bench_memcpy(&mut group);

    let small = store(1024);
    let mut writer = small.writer().expect("a slot");
    let data = image(2);
    group.bench_function("one block, by a writer", |b| b.iter(|| writer.write(0, black_box(&data)).expect("in range")));
    group.bench_function("one block, by the store", |b| b.iter(|| small.write(0, black_box(&data)).expect("in range")));
    let lbas = random_lbas(1024);
    let mut next = lbas.iter().cycle();
    group.bench_function("random over 1,024 blocks", |b| {
        b.iter(|| writer.write(*next.next().expect("endless"), black_box(&data)));
    });
    group.bench_function("random over 1,024 blocks, two threads", |b| {
        b.iter_custom(|iterations| {
            on_two_threads(
                iterations,
                |thread| (thread, small.writer().expect("a slot")),
                |(thread, writer), round| {
                    let lba = lbas[(round as usize + *thread * 1000) % lbas.len()];
                    writer.write(lba, &data).expect("in range");
                },
            )
        });
    });
}

criterion_group!(benches, write);
criterion_main!(benches);
