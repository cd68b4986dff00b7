//! Dice: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), for what is to be the same each time a seed is given.

/// Throws that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The throws of a seed; each `stream` of it is another sequence.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed);
        let base = dice.throw();
        Self(base ^ Self(stream).throw())
    }

    /// 64 even bits.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.throw()) * u128::from(bound)) >> 64) as u64
    }

    /// `true` so often.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.throw() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throws_follow_from_the_seed_and_the_stream() {
        // The first outputs for the seed 0, as published with the generator.
        let mut dice = Dice(0);
        assert_eq!([dice.throw(), dice.throw()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let throws = |seed, stream| Dice::new(seed, stream).throw();
        assert_eq!(throws(1, 2), throws(1, 2));
        assert_ne!(throws(1, 2), throws(1, 3));
        assert_ne!(throws(1, 2), throws(2, 2));
    }

    #[test]
    fn chances_and_bounds_hold() {
        let mut dice = Dice::new(1, 0);
        assert!((0..1000).all(|_| dice.below(3) < 3 && !dice.chance(0.0) && dice.chance(1.0)));
        let hits = (0..10_000).filter(|_| dice.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
