//! Asking for cache lines before they are needed, to write to them.
//!
//! What one core has written last, another must fetch from it, and fetch again, for itself alone, before it writes there.
//! Asked for in time, and at once to write, that is one wait and not two, and it passes while other lines are waited for.
//! A prefetch reads and writes nothing; where a machine has none, these do nothing.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the lines of `place`, to write to them.
#[inline(always)]
pub fn for_write<T>(place: &T) {
    let start = core::ptr::from_ref(place).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(LINE) {
        line_for_write(start.wrapping_add(line));
    }
}

#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline(always)]
fn line_for_write(address: *const u8) {
    // SAFETY: a prefetch accesses no memory that the language knows of, and cannot fault; it changes nothing else.
    unsafe { core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

#[cfg(any(not(target_arch = "x86_64"), loom))]
#[inline(always)]
fn line_for_write(_address: *const u8) {}
