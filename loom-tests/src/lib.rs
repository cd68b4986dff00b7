//! What the models share: the protocol's memory on the heap, the runner, and the tally of outcomes.
//!
//! A model passes for nothing if the interleaving it is about never came up. So each counts the outcomes it means to
//! reach and fails if one was not reached, and each has a twin, named `control_…`, in which the mechanism under test
//! is weakened and which must fail.
#![cfg(loom)]

mod disk;
mod heap;
mod tally;

pub mod weakened;

pub use disk::{History, Image, epochs, sequence};
pub use heap::{Block, Heap, all, piece};
pub use tally::{Flaws, Tally};

/// Explores every execution of `f` and prints how many there were.
///
/// There is no preemption bound, no limit on executions and none on time: a model that ends was explored fully.
pub fn run_model(name: &str, f: impl Fn() + Send + Sync + 'static) {
    explore(name, None, f);
}

/// As [`run_model`], but only the executions in which threads are preempted at most `preemptions` times: for models
/// whose full exploration takes over a minute.
pub fn run_model_bounded(name: &str, preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    explore(name, Some(preemptions), f);
}

/// How many preemptions a model is explored with from day to day, or `long`, which takes a minute or more: where the environment has
/// `CASBLOCK_TEST_LONG`, as in `CASBLOCK_TEST_LONG=1 cargo xtask test --only loom`, and in `cargo xtask weaken`.
pub fn daily_or_long(daily: usize, long: usize) -> usize {
    if std::env::var_os("CASBLOCK_TEST_LONG").is_some() { long } else { daily }
}

fn explore(name: &str, preemptions: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    let mut builder = loom::model::Builder::new();
    assert!(
        builder.max_permutations.is_none() && builder.max_duration.is_none() && builder.preemption_bound.is_none(),
        "unset LOOM_MAX_PERMUTATIONS, LOOM_MAX_DURATION and LOOM_MAX_PREEMPTIONS: they end a model early with success"
    );
    builder.max_branches = 100_000;
    builder.preemption_bound = preemptions;
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        f();
    });
    let bound = preemptions.map(|most| format!(" with at most {most} preemptions")).unwrap_or_default();
    println!("{name}: {} executions{bound}", executions.load(Relaxed));
}

/// Runs `work` for so many atomic steps of this thread, which then stops for ever; whether it came to its end.
pub fn stop_after(steps: usize, work: impl FnOnce()) -> bool {
    casblock::kill_this_thread_after(steps);
    let ended = casblock::run_until_killed(work).is_ok();
    casblock::kill_this_thread_after(usize::MAX);
    ended
}

/// Explores a model for each number of steps after which a thread of it stops, with at most so many preemptions each.
/// `f` tells whether the thread came to its end; it must have stopped at `least` steps.
pub fn run_model_at_each_stop(
    name: &str,
    preemptions: usize,
    least: usize,
    f: impl Fn(usize) -> bool + Clone + Send + Sync + 'static,
) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    let mut steps = 0;
    loop {
        let stopped = Arc::new(AtomicBool::new(false));
        let (f, stops) = (f.clone(), Arc::clone(&stopped));
        run_model_bounded(&format!("{name}, stopped after {steps} steps"), preemptions, move || {
            if !f(steps) {
                stops.store(true, Relaxed);
            }
        });
        if !stopped.load(Relaxed) {
            break;
        }
        steps += 1;
    }
    println!("{name}: {steps} steps");
    assert!(steps >= least, "it stopped at {steps} steps only");
}
