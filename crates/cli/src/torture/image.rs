//! What a block of the torture holds: a counter, in such a way that any tearing shows.

/// The counter stands at both ends of the block; between them, words that only this counter in this block gives.
///
/// Counter 0 is a block of zeros: one that was never written.
fn word(lba: u64, index: usize, last: usize, count: u64) -> u64 {
    if index == 0 || index == last {
        return count;
    }
    let place = (lba << 16 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    count.wrapping_mul((place ^ place >> 29) | 1)
}

/// Fills `block` with what block `lba` holds when its counter is `count`.
pub fn fill(block: &mut [u8], lba: u64, count: u64) {
    let last = block.len() / 8 - 1;
    for (index, bytes) in block.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&word(lba, index, last, count).to_le_bytes());
    }
}

/// The counter at the front of a block, true or not.
pub fn front(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().expect("8 bytes"))
}

/// The counter that block `lba` holds, if every word of it agrees.
pub fn count(block: &[u8], lba: u64) -> Option<u64> {
    let (count, last) = (front(block), block.len() / 8 - 1);
    let whole = |(index, bytes): (usize, &[u8])| bytes == word(lba, index, last, count).to_le_bytes();
    block.chunks_exact(8).enumerate().all(whole).then_some(count)
}

/// Marks a heartbeat word as one of the torture's; the rest of it is the count. 0 is one never exchanged.
const WORD_MARK: u64 = 0x7042 << 48;

/// The heartbeat word that stands for `count`.
pub fn beat(count: u64) -> u64 {
    if count == 0 { 0 } else { WORD_MARK | count }
}

/// The count a heartbeat word stands for, if it is one of the torture's.
pub fn beat_count(word: u64) -> Option<u64> {
    let count = word & ((1 << 48) - 1);
    (beat(count) == word).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_an_unwritten_block_and_every_changed_byte_shows() {
        for bytes in [512, 4096] {
            let mut block = vec![0; bytes];
            assert_eq!(count(&block, 9), Some(0));
            fill(&mut block, 9, 77);
            assert_eq!(count(&block, 9), Some(77));
            assert_eq!(count(&block, 8), None, "another block's contents");
            for at in 0..bytes {
                block[at] ^= 1;
                assert_eq!(count(&block, 9), None, "byte {at}");
                block[at] ^= 1;
            }
        }
    }

    #[test]
    fn two_counters_differ_in_every_word() {
        let (mut a, mut b) = (vec![0; 512], vec![0; 512]);
        for first in [0, 1, 1 << 20] {
            fill(&mut a, 3, first);
            fill(&mut b, 3, first + 1);
            assert!(a.chunks(8).zip(b.chunks(8)).all(|(a, b)| a != b), "{first}");
        }
    }

    #[test]
    fn beats_are_told_from_what_others_write() {
        for count in [0, 1, 1 << 40] {
            assert_eq!(beat_count(beat(count)), Some(count));
        }
        for foreign in [1, u64::MAX, WORD_MARK] {
            assert_eq!(beat_count(foreign), None);
        }
    }
}
