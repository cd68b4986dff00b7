//! Planted faults: with them a test shows that the torture would see the real ones.

/// A fault that a child commits on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Plant {
    /// Some increments are a read and a plain write: what others wrote in between is lost.
    Lost,
    /// Some blocks are written with the second half as it was.
    Torn,
    /// One thread waits for ever.
    Stuck,
}

impl Plant {
    /// How the ledger notes it.
    pub fn number(plant: Option<Self>) -> u64 {
        plant.map_or(0, |plant| plant as u64 + 1)
    }

    /// What the ledger notes so.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Lost, Self::Torn, Self::Stuck].into_iter().find(|&plant| Self::number(Some(plant)) == number)
    }
}
