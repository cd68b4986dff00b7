//! The orderings that are kept although no loom model fails without them.

use super::mutants::Mutant;

/// An ordering that no model misses, and why it stays.
pub struct Kept {
    /// As in `cargo xtask weaken --list`: module and function.
    pub function: &'static str,
    /// Which access of that function.
    pub access: &'static str,
    /// The weakening, such as `Acquire -> Relaxed`.
    pub mutation: &'static str,
    /// Why it stays: one sentence, which goes into docs/orderings.md.
    pub reason: &'static str,
}

/// Why a store that the file must show in program order stays a Release.
const DEATH: &str = "keeps compiled code in program order where a death may fall between two stores; in a model a thread that dies has stopped in program order anyway";

/// Why what a pass over the pool learns stays ordered.
const POOL: &str = "whoever sees a frame taken must see what its taker gave back before, or it may report that there is no space; a \
                    tag is loaded and then exchanged, and loom can miss interleavings of those two (loom #166), so no model shows it";

/// Why what a sync is done with is not used before it is done.
const FLUSH: &str = "what comes before is a flush: the kernel reads the frames, which no model sees; in a model the thread that syncs has \
                     read them before, and loom never lets a load take its value from a store that comes later";

/// All of them.
pub const KEPT: &[Kept] = &[
    Kept {
        function: "block::Writer::take_spare",
        access: "slot.spare.store",
        mutation: "Release -> Relaxed",
        reason: DEATH,
    },
    Kept {
        function: "block::Writer::take_spare",
        access: "slot.reserve.store",
        mutation: "Release -> Relaxed",
        reason: DEATH,
    },
    Kept {
        function: "block::Writer::put_spare_back",
        access: "slot.reserve.store",
        mutation: "Release -> Relaxed",
        reason: DEATH,
    },
    Kept {
        function: "block::Writer::put_spare_back",
        access: "slot.spare.store",
        mutation: "Release -> Relaxed",
        reason: DEATH,
    },
    Kept { function: "pool::put", access: "slot.reserve.store", mutation: "Release -> Relaxed", reason: DEATH },
    Kept {
        function: "block::Writer::first_write",
        access: "slot.reserve.store",
        mutation: "Release -> Relaxed",
        reason: DEATH,
    },
    Kept {
        function: "block::Writer::exchange_cell",
        access: "cell.compare_exchange success",
        mutation: "AcqRel -> Release",
        reason: "the Acquire part keeps the bookkeeping behind the exchange in compiled code, where a death may fall between the two",
    },
    Kept { function: "pool::scan", access: "slot.reserve.store", mutation: "Release -> Relaxed", reason: DEATH },
    Kept {
        function: "durable::Epochs::complete",
        access: "self.completed.0.fetch_max",
        mutation: "Release -> Relaxed",
        reason: FLUSH,
    },
    Kept {
        function: "durable::Epochs::is_past",
        access: "self.completed.0.load",
        mutation: "Acquire -> Relaxed",
        reason: FLUSH,
    },
    Kept {
        function: "audit::prove",
        access: "fence(Acquire)",
        mutation: "removed",
        reason: "as the fence of `block::validate`, but in the check that runs while others work, which has no model",
    },
    Kept { function: "slot::settle", access: "slot.spare.store #1", mutation: "Release -> Relaxed", reason: DEATH },
    Kept { function: "slot::settle", access: "slot.reserve.store #1", mutation: "Release -> Relaxed", reason: DEATH },
    Kept { function: "slot::settle", access: "slot.spare.store #2", mutation: "Release -> Relaxed", reason: DEATH },
    Kept { function: "slot::settle", access: "slot.reserve.store #2", mutation: "Release -> Relaxed", reason: DEATH },
    Kept { function: "pool::scan", access: "tag.load", mutation: "Acquire -> Relaxed", reason: POOL },
    Kept {
        function: "pool::scan",
        access: "tag.compare_exchange failure",
        mutation: "Acquire -> Relaxed",
        reason: POOL,
    },
    Kept { function: "pool::given_back", access: "slot.freed.load", mutation: "Acquire -> Relaxed", reason: POOL },
    Kept {
        function: "pool::count_given_back",
        access: "slot.freed.store",
        mutation: "Release -> Relaxed",
        reason: POOL,
    },
];

impl Kept {
    fn is_of(&self, mutant: &Mutant) -> bool {
        (self.function, self.access, self.mutation)
            == (mutant.function.as_str(), mutant.access.as_str(), mutant.mutation.as_str())
    }
}

/// Why the ordering stays that `mutant` weakens, if it is listed.
pub fn reason(mutant: &Mutant) -> Option<&'static str> {
    KEPT.iter().find(|kept| kept.is_of(mutant)).map(|kept| kept.reason)
}

/// What is listed, but is no weakening of the sources any more.
pub fn without_mutant(mutants: &[Mutant]) -> Vec<String> {
    let gone = KEPT.iter().filter(|kept| !mutants.iter().any(|mutant| kept.is_of(mutant)));
    gone.map(|kept| format!("{}: {}: {}", kept.function, kept.access, kept.mutation)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kept_ordering_exists_and_has_a_reason() {
        let mutants = super::super::mutants::find().unwrap();
        assert_eq!(super::without_mutant(&mutants), [""; 0]);
        assert!(super::KEPT.iter().all(|kept| !kept.reason.is_empty()));
    }
}
