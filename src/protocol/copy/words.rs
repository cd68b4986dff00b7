//! The portable copies: relaxed 8-byte words. What loom and every target without a vector form run.

use super::BlockCopy;
use crate::protocol::memory::Frame;
use crate::sync::Ordering::Relaxed;

/// Copies by relaxed atomic words.
#[derive(Clone, Copy, Debug)]
pub struct Words;

/// An 8-byte word of a buffer, in the byte order of the file.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("chunks_exact(8) gives 8 bytes"))
}

impl<const W: usize> BlockCopy<W> for Words {
    #[inline(always)]
    fn load(self, frame: &Frame<W>, out: &mut [u8]) {
        assert_eq!(out.len(), 8 * W);
        for (bytes, source) in out.chunks_exact_mut(8).zip(&frame.0) {
            bytes.copy_from_slice(&source.load(Relaxed).to_le_bytes());
        }
    }

    #[inline(always)]
    fn store(self, frame: &Frame<W>, data: &[u8]) {
        assert_eq!(data.len(), 8 * W);
        for (bytes, target) in data.chunks_exact(8).zip(&frame.0) {
            target.store(word(bytes), Relaxed);
        }
    }

    #[inline(always)]
    fn equals(self, frame: &Frame<W>, expected: &[u8]) -> bool {
        assert_eq!(expected.len(), 8 * W);
        expected.chunks_exact(8).zip(&frame.0).all(|(bytes, found)| word(bytes) == found.load(Relaxed))
    }
}
