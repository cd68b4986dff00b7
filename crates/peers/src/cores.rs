//! The machine: which cores there are, and on which of them a thread runs.

use std::sync::Arc;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores this process may run on.
#[derive(Clone, Debug)]
pub struct Cores(Arc<[usize]>);

impl Cores {
    /// Asks the system.
    pub fn of_this_process() -> Self {
        let allowed = sched_getaffinity(None);
        let cores = allowed.map(|set| (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect());
        Self(cores.unwrap_or_default())
    }

    /// How many threads run at once.
    pub fn count(&self) -> usize {
        if self.0.is_empty() { thread::available_parallelism().map_or(1, usize::from) } else { self.0.len() }
    }

    /// Has the calling thread run on one of them, the `index`-th modulo how many there are; whether it does.
    pub fn pin(&self, index: usize) -> bool {
        let Some(&core) = self.0.get(index % self.0.len().max(1)) else { return false };
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).is_ok()
    }

    /// Lets the calling thread run on all of them again.
    pub fn unpin(&self) {
        let mut set = CpuSet::new();
        self.0.iter().for_each(|&core| set.set(core));
        let _ = sched_setaffinity(None, &set);
    }
}
