//! Random choices that a seed repeats: SplitMix64.

/// A sequence of random choices.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence that belongs to a seed and to whoever draws from it.
    pub fn new(seed: u64, whose: [u64; 3]) -> Self {
        whose.into_iter().fold(Self(seed), |mut dice, number| {
            let mixed = dice.next() ^ number;
            Self(mixed)
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number from 0 to `sides - 1`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(sides)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_each_has_a_sequence_of_its_own() {
        let rolls = |seed, whose| {
            let mut dice = Dice::new(seed, whose);
            (0..200).map(|_| dice.roll(6)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(1, [0, 1, 2]), rolls(1, [0, 1, 2]));
        assert_ne!(rolls(1, [0, 1, 2]), rolls(1, [0, 2, 1]));
        assert_ne!(rolls(1, [0, 0, 0]), rolls(2, [0, 0, 0]));
        assert!((0..6).all(|side| rolls(3, [0; 3]).contains(&side)));
    }
}
