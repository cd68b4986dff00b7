//! Heartbeat words beside a bare exchange.
//!
//! `cargo bench --bench words`

use std::hint::black_box;

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

use casblock::{Geometry, Store};
use criterion::{Criterion, criterion_group, criterion_main};

mod common;
use common::on_two_threads;

fn words(c: &mut Criterion) {
    let mut group = c.benchmark_group("words");
    let bare = AtomicU64::new(0);
    let mut value = 0;
    group.bench_function("limit: AtomicU64::compare_exchange", |b| {
        b.iter(|| {
            black_box(&bare).compare_exchange(value, value + 1, AcqRel, Acquire).expect("nobody else");
            value += 1;
        });
    });
    let store = Store::in_memory(Geometry::blocks(1)).expect("memory");
    let word = store.word(0).expect("in range");
    let mut value = 0;
    group.bench_function("exchange", |b| {
        b.iter(|| {
            black_box(&word).compare_exchange(value, value + 1).expect("nobody else");
            value += 1;
        });
    });
    group.bench_function("load", |b| b.iter(|| black_box(&word).load()));
    group.bench_function("exchange, two threads, one word", |b| {
        b.iter_custom(|iterations| {
            let word = store.word(1).expect("in range");
            on_two_threads(
                iterations,
                |_| word.load(),
                |seen, _| match word.compare_exchange(*seen, *seen + 1) {
                    Ok(()) => *seen += 1,
                    Err(found) => *seen = found,
                },
            )
        });
    });
}

criterion_group!(benches, words);
criterion_main!(benches);
