//! The copies in 32-byte vectors, for x86-64 machines with AVX2.
//!
//! They are assembly because no Rust type loads 32 bytes that another thread may be storing. To the language an `asm!`
//! block is one it cannot look into, which may do whatever some sequence of relaxed atomic accesses could; and on every
//! machine with AVX2 an aligned 8-byte part of a vector access is read or written whole, which is all that
//! [`super::Words`] promises too.

use core::arch::asm;

use super::vectors::Vectors;

/// Copies by AVX2 vectors. A value of this type is the proof that the machine has them.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The vector copies, if this machine has AVX2.
    pub fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// One assembly block. Every vector register is a clobber: `vzeroupper` changes them all.
macro_rules! vectors {
    ($($line:literal,)* ; $($operand:tt)*) => {
        asm!(
            $($line,)*
            "vzeroupper",
            $($operand)*,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        )
    };
}

// SAFETY: the steps touch what the trait says, and nothing else.
unsafe impl Vectors for Avx2 {
    const STEP: usize = 256;

    #[inline(always)]
    unsafe fn copy_step(from: *const u8, to: *mut u8) {
        // SAFETY: the caller's promises; the block touches those bytes and the listed registers, nothing else.
        unsafe {
            vectors!(
                "vmovdqu ymm0, [{from}]",
                "vmovdqu ymm1, [{from} + 32]",
                "vmovdqu ymm2, [{from} + 64]",
                "vmovdqu ymm3, [{from} + 96]",
                "vmovdqu ymm4, [{from} + 128]",
                "vmovdqu ymm5, [{from} + 160]",
                "vmovdqu ymm6, [{from} + 192]",
                "vmovdqu ymm7, [{from} + 224]",
                "vmovdqu [{to}], ymm0",
                "vmovdqu [{to} + 32], ymm1",
                "vmovdqu [{to} + 64], ymm2",
                "vmovdqu [{to} + 96], ymm3",
                "vmovdqu [{to} + 128], ymm4",
                "vmovdqu [{to} + 160], ymm5",
                "vmovdqu [{to} + 192], ymm6",
                "vmovdqu [{to} + 224], ymm7",;
                from = in(reg) from, to = in(reg) to
            );
        }
    }

    #[inline(always)]
    unsafe fn equal_step(a: *const u8, b: *const u8) -> bool {
        let differ: u8;
        // SAFETY: the caller's promises; the block reads those bytes and changes the listed registers, nothing else.
        unsafe {
            vectors!(
                "vmovdqu ymm0, [{a}]",
                "vmovdqu ymm1, [{a} + 32]",
                "vmovdqu ymm2, [{a} + 64]",
                "vmovdqu ymm3, [{a} + 96]",
                "vpxor ymm0, ymm0, [{b}]",
                "vpxor ymm1, ymm1, [{b} + 32]",
                "vpxor ymm2, ymm2, [{b} + 64]",
                "vpxor ymm3, ymm3, [{b} + 96]",
                "vmovdqu ymm4, [{a} + 128]",
                "vmovdqu ymm5, [{a} + 160]",
                "vmovdqu ymm6, [{a} + 192]",
                "vmovdqu ymm7, [{a} + 224]",
                "vpxor ymm4, ymm4, [{b} + 128]",
                "vpxor ymm5, ymm5, [{b} + 160]",
                "vpxor ymm6, ymm6, [{b} + 192]",
                "vpxor ymm7, ymm7, [{b} + 224]",
                "vpor ymm0, ymm0, ymm1",
                "vpor ymm2, ymm2, ymm3",
                "vpor ymm4, ymm4, ymm5",
                "vpor ymm6, ymm6, ymm7",
                "vpor ymm0, ymm0, ymm2",
                "vpor ymm4, ymm4, ymm6",
                "vpor ymm0, ymm0, ymm4",
                "vptest ymm0, ymm0",
                "setnz {differ}",;
                a = in(reg) a, b = in(reg) b, differ = out(reg_byte) differ
            );
        }
        differ == 0
    }
}
