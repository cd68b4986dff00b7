//! What heartbeats and leases cost on a store: `cargo bench --bench leases`.

use std::hint::black_box;

use casblock::ats::Ats;
use casblock::environment::System;
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName};
use casblock::lease::Mode;
use casblock::{Geometry, Store};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Leases that one host holds at the same time.
const HELD: u64 = 10_000;

fn host(store: &Store, name: &str) -> Host<Store> {
    let name = HostName::new(name).expect("a name");
    Host::join_by_hand(store.clone(), HostConfig::new(name), System).expect("there is room")
}

fn cluster() -> Store {
    let store = Store::in_memory(Geometry::blocks(HELD + 100)).expect("memory");
    let options = ClusterOptions { leases: HELD + 50, ..ClusterOptions::hosts(8) };
    Cluster::create(&Ats::new(&store), options, false).expect("there is room");
    store
}

fn leases(criterion: &mut Criterion) {
    let store = cluster();
    let (one, two) = (host(&store, "one"), host(&store, "two"));
    criterion.bench_function("beat", |bencher| bencher.iter(|| one.beat().expect("it lives")));
    let held: Vec<_> = (0..HELD).map(|lease| one.try_acquire(lease, Mode::Exclusive).expect("it is free")).collect();
    criterion.bench_function("beat, 10,000 leases held", |bencher| bencher.iter(|| one.beat().expect("it lives")));
    criterion.bench_function("acquire a free lease, and release it", |bencher| {
        bencher.iter_batched(
            || one.beat().expect("it lives"),
            |()| one.try_acquire(HELD + 1, Mode::Exclusive).expect("it is free").release(),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("try to acquire one that is held", |bencher| {
        bencher.iter_batched(
            || (one.beat().expect("it lives"), two.beat().expect("it lives")),
            |_| black_box(two.try_acquire(3, Mode::Exclusive).is_err()),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("ask whether a lease is valid", |bencher| bencher.iter(|| black_box(held[7].is_valid())));
}

criterion_group!(benches, leases);
criterion_main!(benches);
