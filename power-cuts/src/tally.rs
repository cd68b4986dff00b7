//! How much was done.

use std::fmt;

use crate::judge::Verdict;
use crate::log::Outcome;
use crate::recording::Recording;

macro_rules! tally {
    ($($name:ident: $what:literal,)*) => {
        /// How much was done.
        #[derive(Clone, Default, PartialEq, Eq, Debug)]
        pub struct Tally {
            $(#[doc = $what] pub $name: u64,)*
        }

        impl Tally {
            /// Adds another's figures.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12}  {}", self.$name, $what)?;)*
                Ok(())
            }
        }
    };
}

tally! {
    runs: "runs",
    stages: "stages: from the making of a store, or a cut, to the next",
    operations: "operations",
    refused: "operations refused: no space, no slot, a failed sync",
    steps: "steps",
    stopped: "processes stopped for good",
    killed: "processes killed",
    flushes: "flushes",
    failed_flushes: "flushes that failed",
    cuts: "cuts",
    recoveries: "recoveries",
    closed: "cuts after which the store was found closed",
    in_recovery: "cuts in a recovery",
    double: "cuts of a store that had been recovered from another",
    blocks: "blocks checked",
    newer: "blocks that came back newer than the last sync",
    discarded: "updates discarded: no sync came after them",
}

impl Tally {
    /// Counts a stage.
    pub fn count_stage(&mut self, recording: &Recording) {
        self.stages += 1;
        self.steps += recording.end;
        self.operations += recording.operations[0];
        self.refused += recording.operations[1];
        self.stopped += recording.deaths[0];
        self.killed += recording.deaths[1];
        self.flushes += recording.flushes.len() as u64;
        self.failed_flushes += recording.flushes.iter().filter(|flush| flush.outcome != Outcome::Done).count() as u64;
    }

    /// Counts a cut, the last of `depth`.
    pub fn count_cut(&mut self, recording: &Recording, time: u64, depth: usize, verdict: &Verdict) {
        self.cuts += 1;
        self.recoveries += u64::from(verdict.recovered);
        self.closed += u64::from(!verdict.recovered);
        let in_recovery = depth > 1 && time < recording.entered;
        self.in_recovery += u64::from(in_recovery);
        self.double += u64::from(depth > 1 && !in_recovery);
        self.blocks += verdict.contents.len() as u64;
        self.newer += verdict.newer;
        self.discarded += verdict.discarded;
    }
}
