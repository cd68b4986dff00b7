//! Telling a child that was forked while a store was open: it shares its parent's locks and writer slots.

use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// The process that opened a store, to be told from its children.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Where [`PAGE`] was mapped, and the number it held then.
    page: Option<(&'static AtomicU64, u64)>,
}

/// A page that the kernel gives to a child as zeros.
static PAGE: OnceLock<Option<MmapRaw>> = OnceLock::new();

/// The number that the next process to ask puts in its page. A child inherits it, and so takes another.
static NEXT: OnceLock<Numbers> = OnceLock::new();

#[derive(Debug)]
struct Numbers(AtomicU64);

fn page() -> Option<&'static AtomicU64> {
    let page = PAGE.get_or_init(|| {
        let page: MmapRaw = MmapOptions::new().len(size_of::<AtomicU64>()).map_anon().ok()?.into();
        // SAFETY: the range is a private anonymous mapping of our own, which nobody else knows of; the advice changes
        // what a child finds in it.
        let advised = unsafe { libc::madvise(page.as_mut_ptr().cast(), page.len(), libc::MADV_WIPEONFORK) };
        // Kernels before 4.14 cannot do it: then children are not noticed.
        (advised == 0).then_some(page)
    });
    let start = page.as_ref()?.as_mut_ptr().cast::<AtomicU64>();
    // SAFETY: the mapping is in a static, so it stays; it is page-aligned and long enough; all bits are an AtomicU64,
    // and it is accessed only as that.
    Some(unsafe { &*start })
}

impl Origin {
    /// This process.
    pub fn here() -> Self {
        let Some(page) = page() else { return Self { page: None } };
        let numbers = NEXT.get_or_init(|| Numbers(AtomicU64::new(1)));
        let mut number = page.load(Relaxed);
        if number == 0 {
            let mine = numbers.0.fetch_add(1, Relaxed);
            // If another thread was faster, its number is this process's.
            number = match page.compare_exchange(0, mine, Relaxed, Relaxed) {
                Ok(_) => mine,
                Err(other) => other,
            };
        }
        Self { page: Some((page, number)) }
    }

    /// Whether this is a child of the process that opened the store.
    #[inline(always)]
    pub fn is_elsewhere(self) -> bool {
        match self.page {
            Some((page, number)) => page.load(Relaxed) != number,
            None => false,
        }
    }
}
