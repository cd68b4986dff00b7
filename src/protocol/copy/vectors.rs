//! Copies in steps of several vectors, whatever their size.

use super::BlockCopy;
use crate::protocol::memory::Frame;

/// A vector form of the copies: how one step of it is made. A value of such a type is the proof that the machine has it.
///
/// # Safety
/// An implementation accesses no other memory than its methods say, and changes no other registers than its assembly
/// lists.
pub(super) unsafe trait Vectors: Copy {
    /// Bytes of a step; blocks are whole steps.
    const STEP: usize;

    /// Copies a step.
    ///
    /// # Safety
    /// The machine has these vectors; `STEP` bytes are readable at `from` and writable at `to`; nobody else accesses the
    /// one of the two that is not a frame.
    unsafe fn copy_step(from: *const u8, to: *mut u8);

    /// Whether a step's bytes are equal.
    ///
    /// # Safety
    /// The machine has these vectors; `STEP` bytes are readable at `a` and at `b`; nobody writes the one of the two that
    /// is not a frame.
    unsafe fn equal_step(a: *const u8, b: *const u8) -> bool;
}

impl<const W: usize, V: Vectors> BlockCopy<W> for V {
    #[inline(always)]
    fn load(self, frame: &Frame<W>, out: &mut [u8]) {
        const { assert!((8 * W).is_multiple_of(V::STEP)) };
        assert_eq!(out.len(), 8 * W);
        let (from, to) = (frame.0.as_ptr().cast::<u8>(), out.as_mut_ptr());
        for at in (0..8 * W).step_by(V::STEP) {
            // SAFETY: `at + V::STEP <= 8 * W`, the size of the frame.
            let from = unsafe { from.add(at) };
            // SAFETY: `at + V::STEP <= 8 * W`, the length of `out`.
            let to = unsafe { to.add(at) };
            // SAFETY: `self` proves the vectors; both ranges lie inside their objects, and `out` is borrowed mutably.
            unsafe { V::copy_step(from, to) };
        }
    }

    #[inline(always)]
    fn store(self, frame: &Frame<W>, data: &[u8]) {
        const { assert!((8 * W).is_multiple_of(V::STEP)) };
        assert_eq!(data.len(), 8 * W);
        let (from, to) = (data.as_ptr(), frame.0.as_ptr().cast::<u8>().cast_mut());
        for at in (0..8 * W).step_by(V::STEP) {
            // SAFETY: `at + V::STEP <= 8 * W`, the length of `data`.
            let from = unsafe { from.add(at) };
            // SAFETY: `at + V::STEP <= 8 * W`, the size of the frame.
            let to = unsafe { to.add(at) };
            // SAFETY: `self` proves the vectors; both ranges lie inside their objects; a frame is atomics, which may be
            // written through a shared reference, and `data` is borrowed, so nobody writes it.
            unsafe { V::copy_step(from, to) };
        }
    }

    #[inline(always)]
    fn equals(self, frame: &Frame<W>, expected: &[u8]) -> bool {
        const { assert!((8 * W).is_multiple_of(V::STEP)) };
        assert_eq!(expected.len(), 8 * W);
        let (a, b) = (expected.as_ptr(), frame.0.as_ptr().cast::<u8>());
        (0..8 * W).step_by(V::STEP).all(|at| {
            // SAFETY: `at + V::STEP <= 8 * W`, the length of `expected`.
            let a = unsafe { a.add(at) };
            // SAFETY: `at + V::STEP <= 8 * W`, the size of the frame.
            let b = unsafe { b.add(at) };
            // SAFETY: `self` proves the vectors; both ranges lie inside their objects, and `expected` is borrowed.
            unsafe { V::equal_step(a, b) }
        })
    }
}
