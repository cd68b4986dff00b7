//! The vector copies against the portable ones, on buffers at every alignment, with guard bytes around them.

use super::{BlockCopy, Words};
use crate::protocol::memory::Frame;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// Guard bytes before and after each buffer: more than any vector is long.
const GUARD_BYTES: usize = 128;

/// What guard bytes hold.
const GUARD: u8 = 0xa5;

fn frame<const W: usize>() -> Box<Frame<W>> {
    Box::new(Frame(std::array::from_fn(|_| AtomicU64::new(0))))
}

/// The frame's bytes, without the copies under test.
fn bytes_of<const W: usize>(frame: &Frame<W>) -> Vec<u8> {
    frame.0.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
}

/// Puts bytes in the frame, without the copies under test.
fn fill<const W: usize>(frame: &Frame<W>, bytes: &[u8]) {
    for (word, bytes) in frame.0.iter().zip(bytes.chunks_exact(8)) {
        word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Relaxed);
    }
}

/// A buffer that begins at a chosen distance from a multiple of 64, between guard bytes.
struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Guarded {
    fn new(length: usize, alignment: usize) -> Self {
        let bytes = vec![GUARD; GUARD_BYTES + 64 + length + GUARD_BYTES];
        let misaligned = (bytes.as_ptr().addr() + GUARD_BYTES) % 64;
        let start = GUARD_BYTES + (64 + alignment - misaligned) % 64;
        let new = Self { bytes, start, length };
        assert_eq!(new.bytes[start..].as_ptr().addr() % 64, alignment);
        new
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.length]
    }

    fn assert_guards(&self) {
        let (before, rest) = self.bytes.split_at(self.start);
        let after = &rest[self.length..];
        assert!(before.iter().chain(after).all(|&byte| byte == GUARD), "a copy wrote outside its buffer");
    }
}

/// Images at the edges of what bytes can be, and random ones.
fn images(length: usize, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut images = vec![vec![0; length], vec![0xff; length], vec![0x80; length], vec![0x01; length]];
    for _ in 0..4 {
        images.push((0..length).map(|_| random.u8(..)).collect());
    }
    images
}

/// All three copies, with every image, from and to buffers at every alignment.
fn copies_bytes_exactly<const W: usize>(copies: impl BlockCopy<W>) {
    let length = 8 * W;
    let mut random = fastrand::Rng::with_seed(W as u64);
    // Neighbours in one allocation, so that a store outside the middle one is seen.
    let frames: Box<[Frame<W>; 3]> =
        Box::new(std::array::from_fn(|_| Frame(std::array::from_fn(|_| AtomicU64::new(u64::MAX / 3)))));
    let neighbour = bytes_of(&frames[0]);
    for image in images(length, &mut random) {
        for alignment in 0..64 {
            let mut buffer = Guarded::new(length, alignment);
            fill(&frames[1], &image);
            copies.load(&frames[1], buffer.get());
            assert_eq!(buffer.get(), image, "load to alignment {alignment}");
            assert!(copies.equals(&frames[1], buffer.get()), "equals at alignment {alignment}");
            buffer.assert_guards();

            fill(&frames[1], &image.iter().map(|byte| !byte).collect::<Vec<_>>());
            assert!(!copies.equals(&frames[1], buffer.get()), "equals at alignment {alignment}, all bytes differ");
            copies.store(&frames[1], buffer.get());
            assert_eq!(bytes_of(&frames[1]), image, "store from alignment {alignment}");
            assert_eq!(buffer.get(), image, "store changed what it copies");
            buffer.assert_guards();
            assert_eq!(bytes_of(&frames[0]), neighbour, "store wrote before its frame");
            assert_eq!(bytes_of(&frames[2]), neighbour, "store wrote after its frame");
        }
    }
}

/// A difference of one bit is found wherever it is, at alignments that make vectors cross cache lines and ones that
/// do not.
fn equals_sees_every_bit<const W: usize>(copies: impl BlockCopy<W>) {
    let length = 8 * W;
    let mut random = fastrand::Rng::with_seed(W as u64);
    let frame = frame::<W>();
    for image in images(length, &mut random) {
        fill(&frame, &image);
        for alignment in [0, 1, 8, 31, 63] {
            let mut buffer = Guarded::new(length, alignment);
            buffer.get().copy_from_slice(&image);
            for position in 0..length {
                let bit = 1 << (position % 8);
                buffer.get()[position] ^= bit;
                assert!(!copies.equals(&frame, buffer.get()), "byte {position} differs, alignment {alignment}");
                buffer.get()[position] ^= bit;
            }
            assert!(copies.equals(&frame, buffer.get()));
        }
    }
    for bit in 0..8 * length {
        let mut other = bytes_of(&frame);
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!copies.equals(&frame, &other), "bit {bit} differs");
    }
}

/// What one copy stored, the other loads and finds equal.
fn agree<const W: usize>(one: impl BlockCopy<W>, other: impl BlockCopy<W>) {
    let length = 8 * W;
    let mut random = fastrand::Rng::with_seed(W as u64);
    let frame = frame::<W>();
    for round in 0..2000 {
        let mut image: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        one.store(&frame, &image);
        let mut loaded = Guarded::new(length, random.usize(..64));
        other.load(&frame, loaded.get());
        assert_eq!(loaded.get(), image, "round {round}");
        loaded.assert_guards();
        image[random.usize(..length)] ^= random.u8(..);
        assert_eq!(one.equals(&frame, &image), other.equals(&frame, &image), "round {round}");
    }
}

/// A buffer of any other length than a block's panics before anything is copied.
fn refuses_other_lengths<const W: usize>(copies: impl BlockCopy<W>) {
    let frame = frame::<W>();
    let before = bytes_of(&frame);
    for length in [0, 8 * W - 1, 8 * W + 1, 16 * W] {
        let refused = |copy: &mut dyn FnMut(&mut [u8])| {
            let mut buffer = Guarded::new(length, 0);
            buffer.get().fill(1);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy(buffer.get())));
            assert!(result.is_err(), "a buffer of {length} bytes was taken");
            assert!(buffer.get().iter().all(|&byte| byte == 1), "the buffer was changed");
            buffer.assert_guards();
        };
        refused(&mut |buffer| copies.load(&frame, buffer));
        refused(&mut |buffer| copies.store(&frame, buffer));
        refused(&mut |buffer| _ = std::hint::black_box(copies.equals(&frame, buffer)));
        assert_eq!(bytes_of(&frame), before, "the frame was changed");
    }
}

fn all_checks<const W: usize>(copies: impl BlockCopy<W>) {
    copies_bytes_exactly::<W>(copies);
    equals_sees_every_bit::<W>(copies);
    agree::<W>(copies, Words);
    agree::<W>(Words, copies);
    refuses_other_lengths::<W>(copies);
}

#[test]
fn portable_copies_copy_compare_and_stay_in_their_buffers() {
    all_checks::<64>(Words);
    all_checks::<512>(Words);
}

/// Loads and stores of a model's two-word blocks, too.
#[test]
fn portable_copies_serve_the_blocks_of_the_models() {
    all_checks::<2>(Words);
}

/// Not by `eprintln`, which the harness keeps to itself.
#[cfg(target_arch = "x86_64")]
fn say_not_tested(what: &str) {
    use std::io::Write;
    let mut out = std::io::stderr();
    writeln!(out, "NOT TESTED: this machine has no {what}, so those copies never ran").unwrap();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx2_copies_equal_the_portable_ones() {
    let Some(avx2) = super::Avx2::detect() else { return say_not_tested("AVX2") };
    all_checks::<64>(avx2);
    all_checks::<512>(avx2);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx512_copies_equal_the_portable_ones() {
    let Some(avx512) = super::Avx512::detect() else { return say_not_tested("AVX-512F") };
    all_checks::<64>(avx512);
    all_checks::<512>(avx512);
}
