//! The copies in 64-byte vectors, for x86-64 machines with AVX-512F.
//!
//! [`super::Avx2`] says why they are assembly and why they are sound. These use only vector registers 16 to 23, whose
//! upper halves no other code has to be shielded from, so there is no `vzeroupper`.

use core::arch::asm;

use super::vectors::Vectors;

/// Copies by AVX-512 vectors. A value of this type is the proof that the machine has them.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The vector copies, if this machine has AVX-512F.
    pub fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

// SAFETY: the steps touch what the trait says, and nothing else.
unsafe impl Vectors for Avx512 {
    const STEP: usize = 512;

    #[inline(always)]
    unsafe fn copy_step(from: *const u8, to: *mut u8) {
        // SAFETY: the caller's promises; the block touches those bytes and the listed registers, nothing else.
        unsafe {
            asm!(
                "vmovdqu64 zmm16, [{from}]",
                "vmovdqu64 zmm17, [{from} + 64]",
                "vmovdqu64 zmm18, [{from} + 128]",
                "vmovdqu64 zmm19, [{from} + 192]",
                "vmovdqu64 zmm20, [{from} + 256]",
                "vmovdqu64 zmm21, [{from} + 320]",
                "vmovdqu64 zmm22, [{from} + 384]",
                "vmovdqu64 zmm23, [{from} + 448]",
                "vmovdqu64 [{to}], zmm16",
                "vmovdqu64 [{to} + 64], zmm17",
                "vmovdqu64 [{to} + 128], zmm18",
                "vmovdqu64 [{to} + 192], zmm19",
                "vmovdqu64 [{to} + 256], zmm20",
                "vmovdqu64 [{to} + 320], zmm21",
                "vmovdqu64 [{to} + 384], zmm22",
                "vmovdqu64 [{to} + 448], zmm23",
                from = in(reg) from, to = in(reg) to,
                out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
                out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn equal_step(a: *const u8, b: *const u8) -> bool {
        let differ: u8;
        // SAFETY: the caller's promises; the block reads those bytes and changes the listed registers, nothing else.
        unsafe {
            asm!(
                "vmovdqu64 zmm16, [{a}]",
                "vmovdqu64 zmm17, [{a} + 64]",
                "vmovdqu64 zmm18, [{a} + 128]",
                "vmovdqu64 zmm19, [{a} + 192]",
                "vpxorq zmm16, zmm16, [{b}]",
                "vpxorq zmm17, zmm17, [{b} + 64]",
                "vpxorq zmm18, zmm18, [{b} + 128]",
                "vpxorq zmm19, zmm19, [{b} + 192]",
                "vmovdqu64 zmm20, [{a} + 256]",
                "vmovdqu64 zmm21, [{a} + 320]",
                "vmovdqu64 zmm22, [{a} + 384]",
                "vmovdqu64 zmm23, [{a} + 448]",
                "vpxorq zmm20, zmm20, [{b} + 256]",
                "vpxorq zmm21, zmm21, [{b} + 320]",
                "vpxorq zmm22, zmm22, [{b} + 384]",
                "vpxorq zmm23, zmm23, [{b} + 448]",
                "vporq zmm16, zmm16, zmm17",
                "vporq zmm18, zmm18, zmm19",
                "vporq zmm20, zmm20, zmm21",
                "vporq zmm22, zmm22, zmm23",
                "vporq zmm16, zmm16, zmm18",
                "vporq zmm20, zmm20, zmm22",
                "vporq zmm16, zmm16, zmm20",
                "vptestmq k1, zmm16, zmm16",
                "kortestw k1, k1",
                "setnz {differ}",
                a = in(reg) a, b = in(reg) b, differ = out(reg_byte) differ,
                out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
                out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
                out("k1") _,
                options(nostack, readonly),
            );
        }
        differ == 0
    }
}
