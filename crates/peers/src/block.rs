//! Blocks, as all contestants have them.

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// A block's contents.
pub type Block = [u8; BLOCK];

/// A block as words, for those that copy word by word.
pub type Words = [u64; BLOCK / 8];

/// The words of a block.
#[inline]
pub fn words(block: &Block) -> Words {
    let mut words = [0; BLOCK / 8];
    words.iter_mut().zip(block.as_chunks().0).for_each(|(word, bytes)| *word = u64::from_ne_bytes(*bytes));
    words
}

/// Copies words to a block.
#[inline]
pub fn copy_words(words: &Words, out: &mut Block) {
    out.as_chunks_mut().0.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_ne_bytes());
}

/// Bytes of a count.
const COUNT: usize = size_of::<u64>();

/// A buffer that starts in the middle of a page, as that of every contestant does: what is copied between two places
/// that have the same place in their pages takes longer.
#[repr(C, align(4096))]
pub struct Buffer {
    before: [u8; 1536],
    /// The buffer.
    pub block: Block,
}

impl Buffer {
    /// One that holds `block`.
    pub fn of(block: Block) -> Box<Self> {
        Box::new(Self { before: [0; 1536], block })
    }
}

/// What all blocks hold when a store is new.
pub const FIRST: Block = numbered(1);

/// A block that holds `number` in its first eight bytes and in its last, and its lowest byte between them.
pub const fn numbered(number: u64) -> Block {
    let mut block = [number as u8; BLOCK];
    let (mut byte, bytes) = (0, number.to_le_bytes());
    while byte < COUNT {
        block[byte] = bytes[byte];
        block[BLOCK - COUNT + byte] = bytes[byte];
        byte += 1;
    }
    block
}

/// A byte of a [`numbered`] block between its first and last eight, another one for each number: so that who looks at one byte of many blocks does
/// not always look at the same place of a page.
#[inline]
pub fn middle_byte(block: &Block, number: u64) -> u8 {
    block[COUNT + (number as usize * COUNT) % (BLOCK - 2 * COUNT)]
}

/// The number that a block holds; `None` if it is torn between its beginning and its end.
pub fn number(block: &Block) -> Option<u64> {
    let (first, last) = (block.first_chunk::<COUNT>()?, block.last_chunk::<COUNT>()?);
    (first == last).then(|| u64::from_le_bytes(*first))
}

/// The block with the next number. What is between its beginning and its end stays.
#[inline]
pub fn next(block: &Block) -> Block {
    let mut next = *block;
    let number = u64::from_le_bytes(*block.first_chunk().expect("a block is longer")).wrapping_add(1).to_le_bytes();
    *next.first_chunk_mut().expect("a block is longer") = number;
    *next.last_chunk_mut().expect("a block is longer") = number;
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_block_has_no_number() {
        let block = numbered(0x0123_4567);
        assert_eq!(number(&block), Some(0x0123_4567));
        assert_eq!(number(&next(&block)), Some(0x0123_4568));
        let mut torn = next(&block);
        torn[..256].copy_from_slice(&block[..256]);
        assert_eq!(number(&torn), None);
    }
}
