//! A beat: eight bytes that say who has a slot, and that change as long as it lives.

use std::fmt;

/// Bits of the count.
const COUNT_BITS: u32 = 40;
/// Bits of the state.
const STATE_BITS: u32 = 2;

/// The most beats of one generation: 34 years of one each millisecond.
pub const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// The greatest generation of a slot: four million joins.
pub const GENERATION_MAX: u32 = (1 << (64 - COUNT_BITS - STATE_BITS)) - 1;

/// What a slot says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Nobody has it: its last owner left, or it never had one.
    Free,
    /// Somebody has it.
    Taken,
    /// Its last owner was found dead, and shut out.
    Fenced,
}

/// The contents of a slot's heartbeat: `generation | state | count`, from the highest bit down. No value comes twice (but
/// after all generations), so a late exchange finds nothing to match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Beat(u64);

impl Beat {
    /// The beat with these bits; any are one, and those of no state count as fenced: nobody lives in what nobody wrote.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn new(generation: u32, state: State, count: u64) -> Self {
        let state = match state {
            State::Free => 0,
            State::Taken => 1,
            State::Fenced => 2,
        };
        Self((generation as u64) << (COUNT_BITS + STATE_BITS) | state << COUNT_BITS | count)
    }

    /// The first beat of this generation.
    pub const fn of_generation(generation: u32) -> Self {
        Self::new(generation, State::Taken, 0)
    }

    /// Which of the slot's owners, one after the other.
    pub const fn generation(self) -> u32 {
        (self.0 >> (COUNT_BITS + STATE_BITS)) as u32
    }

    /// What the slot says of itself.
    pub const fn state(self) -> State {
        match self.0 >> COUNT_BITS & ((1 << STATE_BITS) - 1) {
            0 => State::Free,
            1 => State::Taken,
            _ => State::Fenced,
        }
    }

    /// How often this owner's heart has beaten.
    pub const fn count(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// The first beat of a new owner, after this.
    #[must_use]
    pub const fn taken(self) -> Self {
        let generation = self.generation();
        // Generation 0 is that of a slot which never had an owner.
        let next = if generation == GENERATION_MAX { 1 } else { generation + 1 };
        Self::new(next, State::Taken, 0)
    }

    /// The owner's next beat; `None` if this generation has had its share.
    pub const fn next(self) -> Option<Self> {
        match self.count() {
            COUNT_MAX => None,
            count => Some(Self::new(self.generation(), self.state(), count + 1)),
        }
    }

    /// The owner has left.
    #[must_use]
    pub const fn freed(self) -> Self {
        // In another state than any beat of this generation had.
        Self::new(self.generation(), State::Free, self.count())
    }

    /// The owner was found dead.
    #[must_use]
    pub const fn fenced(self) -> Self {
        Self::new(self.generation(), State::Fenced, self.count())
    }
}

impl fmt::Debug for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by generation {}, beat {}", self.state(), self.generation(), self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(beat: Beat) -> (u32, State, u64) {
        (beat.generation(), beat.state(), beat.count())
    }

    #[test]
    fn a_life_goes_from_free_to_taken_to_free_or_fenced() {
        let new = Beat::from_bits(0);
        assert_eq!(parts(new), (0, State::Free, 0));
        let first = new.taken();
        assert_eq!(parts(first), (1, State::Taken, 0));
        let second = first.next().unwrap();
        assert_eq!(parts(second), (1, State::Taken, 1));
        assert_eq!(parts(second.freed()), (1, State::Free, 1));
        assert_eq!(parts(second.fenced()), (1, State::Fenced, 1));
        assert_eq!(parts(second.fenced().taken()), (2, State::Taken, 0));
    }

    #[test]
    fn the_ends_are_known() {
        let last = Beat::new(GENERATION_MAX, State::Taken, COUNT_MAX);
        assert_eq!(parts(last), (GENERATION_MAX, State::Taken, COUNT_MAX));
        assert_eq!(last.next(), None);
        assert_eq!(parts(last.taken()), (1, State::Taken, 0));
        assert_eq!(Beat::from_bits(u64::MAX).state(), State::Fenced);
        assert_eq!(Beat::from_bits(last.bits()), last);
    }
}
