//! On which core a thread runs.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread, and those that it starts from now on, on one of the cores that it may run on: the `index`-th, modulo how many
/// there are. Threads of which only one runs at a time hand on to each other much faster there.
pub fn stay_on(index: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut one = CpuSet::new();
    one.set(cores[index % cores.len()]);
    // Where that is not allowed, it is only slower.
    let _ = sched_setaffinity(None, &one);
}
