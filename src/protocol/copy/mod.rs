//! Racy copies: the three ways a block's bytes pass between a caller's buffer and a frame.
//!
//! A frame may be overwritten while it is copied. Whatever that tears is thrown away: the caller validates the cell
//! after the copy (see [`super::block`]). All a copy must promise is that the race itself is defined: it reads and
//! writes the frame in relaxed atomic words, or in assembly whose every 8-byte word is one.

use super::memory::Frame;

mod words;
pub use words::Words;

#[cfg(all(target_arch = "x86_64", not(loom)))]
mod vectors;

#[cfg(all(target_arch = "x86_64", not(loom)))]
mod avx2;
#[cfg(all(target_arch = "x86_64", not(loom)))]
pub use avx2::Avx2;
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod avx512;
#[cfg(all(target_arch = "x86_64", not(loom)))]
pub use avx512::Avx512;

#[cfg(all(test, not(loom)))]
mod tests;

/// The three racy copies between a frame and a buffer of exactly `8 * W` bytes; any other length panics.
pub trait BlockCopy<const W: usize>: Copy {
    /// Copies the frame to `out`.
    fn load(self, frame: &Frame<W>, out: &mut [u8]);
    /// Copies `data` to the frame.
    fn store(self, frame: &Frame<W>, data: &[u8]);
    /// Whether the frame's bytes are those of `expected`.
    fn equals(self, frame: &Frame<W>, expected: &[u8]) -> bool;
}
