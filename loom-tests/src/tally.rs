//! Which outcomes a model reached, over all its executions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Counts outcomes; a clone counts into the same tally. Loom does not see it.
#[derive(Clone, Default)]
pub struct Tally {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Tally {
    /// An empty tally.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one outcome.
    pub fn count(&self, outcome: impl Into<String>) {
        *self.counts.lock().expect("not poisoned").entry(outcome.into()).or_default() += 1;
    }

    /// Whether an outcome was never reached.
    pub fn never(&self, outcome: &str) -> bool {
        !self.counts.lock().expect("not poisoned").contains_key(outcome)
    }

    /// How many different outcomes were reached.
    pub fn kinds(&self) -> usize {
        let counts = self.counts.lock().expect("not poisoned");
        println!("  {counts:?}");
        counts.len()
    }

    /// Asserts that these outcomes were reached, and no others.
    pub fn assert_reached(&self, outcomes: &[&str]) {
        let counts = self.counts.lock().expect("not poisoned");
        println!("  {counts:?}");
        let reached: Vec<&str> = counts.keys().map(String::as_str).collect();
        let mut meant = outcomes.to_vec();
        meant.sort_unstable();
        assert_eq!(reached, meant, "the outcomes reached are not those the model is about");
    }
}

/// What must not be, and was. Where a panic in the midst of a model would drop what cannot be dropped there, a flaw is noted
/// instead; loom does not see it.
#[derive(Clone, Default)]
pub struct Flaws(Arc<Mutex<BTreeMap<String, u64>>>);

impl Flaws {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a flaw unless it is well.
    pub fn expect(&self, well: bool, flaw: &str) {
        if !well {
            *self.0.lock().expect("not poisoned").entry(flaw.into()).or_default() += 1;
        }
    }

    /// Fails if there was one, in any execution.
    pub fn assert_none(&self) {
        let flaws = self.0.lock().expect("not poisoned");
        assert!(flaws.is_empty(), "in so many executions: {flaws:?}");
    }
}
