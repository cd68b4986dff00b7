//! An entry's state: one word, so that whoever changes it changes all of it, from what it saw.

/// What an entry holds, and what is going on with its block.
///
/// From the lowest bit: the frame's number plus one in 32 bits, 0 for none; whether somebody reads the block from the device
/// for all who wait; the **version** in 31 bits, which grows with each change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(u64);

const FRAME: u64 = u32::MAX as u64;
const READING: u64 = 1 << 32;
const VERSION: u64 = 1 << 33;

impl State {
    /// The state with these bits.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The state's bits.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The frame that has the block's contents, if one has.
    #[inline]
    pub fn frame(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1).filter(|_| !self.is_dead())
    }

    /// Whether somebody reads the block from the device for all who wait.
    #[inline]
    pub fn is_reading(self) -> bool {
        self.0 & READING != 0
    }

    /// Whether the entry was taken out of the index, or is about to be: it is never used for its block again.
    #[inline]
    pub fn is_dead(self) -> bool {
        self.0 & FRAME == FRAME
    }

    /// What it becomes when somebody asks the device about the block. Who asked before will find another version.
    pub fn begun(self, reading: bool) -> Self {
        let state = (self.0 & !READING).wrapping_add(VERSION);
        Self(if reading { state | READING } else { state })
    }

    /// What it becomes when its contents are replaced; by `None`, if nobody knows them.
    pub fn holding(self, frame: Option<u32>) -> Self {
        let frame = frame.map_or(0, |frame| u64::from(frame) + 1);
        Self((self.0 & !READING & !FRAME).wrapping_add(VERSION) | frame)
    }

    /// What it becomes when the entry is taken out of the index. The next use of the entry goes on from its version, so that
    /// nobody takes the new one for the old.
    pub fn dead(self) -> Self {
        Self((self.0 & !READING).wrapping_add(VERSION) | FRAME)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_another_version() {
        let empty = State::from_bits(0);
        assert_eq!((empty.frame(), empty.is_reading(), empty.is_dead()), (None, false, false));
        let reading = empty.begun(true);
        assert_eq!((reading.frame(), reading.is_reading()), (None, true));
        let held = reading.holding(Some(7));
        assert_eq!((held.frame(), held.is_reading()), (Some(7), false));
        let written = held.begun(false);
        assert_eq!((written.frame(), written.is_reading()), (Some(7), false));
        let dead = written.begun(true).dead();
        assert_eq!((dead.frame(), dead.is_reading(), dead.is_dead()), (None, false, true));
        let again = dead.holding(None);
        assert_eq!((again.frame(), again.is_dead()), (None, false));
        let versions = [empty, reading, held, written, dead, again].map(|state| state.bits() >> 33);
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    }

    #[test]
    fn versions_wrap_and_spoil_nothing() {
        let last = State::from_bits(u64::MAX << 33 | 5);
        assert_eq!((last.holding(Some(9)).frame(), last.holding(Some(9)).bits()), (Some(9), 10));
        assert_eq!(last.begun(true).frame(), Some(4));
        assert!(last.dead().is_dead());
    }
}
