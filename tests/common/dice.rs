//! Where tests of damage take their choices from: a seed, or bytes that a fuzzer gives.
#![allow(dead_code, reason = "each test uses its part")]

/// A source of choices.
pub enum Dice<'a> {
    /// From a seed, without end.
    Seeded(Box<fastrand::Rng>),
    /// From bytes; zeros when they are used up.
    Fed(&'a [u8]),
}

impl<'a> Dice<'a> {
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Box::new(fastrand::Rng::with_seed(seed)))
    }

    pub fn fed(bytes: &'a [u8]) -> Self {
        Self::Fed(bytes)
    }

    /// Whether bytes are used up.
    pub fn is_spent(&self) -> bool {
        matches!(self, Self::Fed([]))
    }

    /// Any number of so many bytes, at most eight.
    pub fn number(&mut self, bytes: usize) -> u64 {
        let mut number = [0; 8];
        match self {
            Self::Seeded(random) => number[..bytes].copy_from_slice(&random.u64(..).to_le_bytes()[..bytes]),
            Self::Fed(fed) => {
                let (now, later) = fed.split_at(bytes.min(fed.len()));
                number[..now.len()].copy_from_slice(now);
                *fed = later;
            }
        }
        u64::from_le_bytes(number)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0 | 1 => 0,
            2..=0x100 => self.number(1) % limit,
            0x101..=0x1_0000 => self.number(2) % limit,
            _ => self.number(8) % limit,
        }
    }

    /// One of them.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number that is likely to hurt where `limit` is the first that is out of range.
    pub fn nasty(&mut self, limit: u64) -> u64 {
        match self.below(8) {
            0 => self.number(8),
            1 => u64::MAX - self.below(3),
            2 => 1 << self.below(64),
            3 => limit.saturating_add(self.below(4)).saturating_sub(2),
            4 => 0,
            _ => self.below(limit.saturating_mul(2)),
        }
    }
}
