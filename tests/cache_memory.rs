//! What a cache takes, and that all of it comes back. One test, as it counts what the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use casblock::cache::{BlockCache, Config, Consistency};
use casblock::device::{BlockDevice, Faults, Faulty};
use casblock::{BlockSize, Geometry, Store};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands everything to the system's allocator, and counts beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated() -> usize {
    ALLOCATED.load(Relaxed)
}

/// Reads, updates and evicts from several threads, which end.
fn churn(cache: &BlockCache<Faulty<Store>>, rounds: u64) {
    let (blocks, bytes) = (cache.block_count(), cache.block_bytes());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(thread);
                for round in 0..rounds {
                    let lba = dice.u64(0..blocks);
                    match dice.u32(0..8) {
                        0 => cache.write(lba, &vec![round as u8; bytes]).unwrap(),
                        1 => cache.invalidate(lba, 1),
                        2 => drop(cache.get_as(lba, Consistency::Current).unwrap()),
                        _ => drop(cache.get(lba).unwrap()),
                    }
                }
            });
        }
    });
}

/// Lets all that is retired come back.
fn reclaim() {
    (0..8).for_each(|_| crossbeam_epoch::pin().flush());
}

#[test]
fn a_cache_takes_what_it_says_and_gives_it_back() {
    for (size, blocks) in [(BlockSize::B512, 50_000), (BlockSize::B4096, 5_000), (BlockSize::B512, 1)] {
        let store = Store::in_memory(Geometry::blocks(3 * u64::from(blocks)).block_size(size)).unwrap();
        let disk = Faulty::new(store, Faults::none(1));
        // Whatever threads and the collector keep for themselves is there from here on.
        churn(&BlockCache::new(disk.another_host(), Config::blocks(10)).unwrap(), 1000);
        reclaim();
        let before = allocated();
        let cache = BlockCache::new(disk, Config::blocks(blocks)).unwrap();
        let (per_block, blocks) = (size.bytes() + 64, blocks as usize);
        let taken = allocated() - before;
        assert!(taken <= (blocks + 128) * per_block + (20 << 10), "{taken} for {blocks} of {}", size.bytes());
        churn(&cache, 100_000);
        let counts = cache.statistics();
        assert!(counts.reclaimed > 5000, "{counts:?}");
        // The collector has some under way, 40 bytes each, and threads that ended leave some until others come by.
        let later = allocated() - before;
        assert!(later <= taken + (1 << 20), "{later}, and {taken} at first");
        // At once, whatever is still to come back.
        drop(cache);
        let left = allocated().saturating_sub(before);
        assert!(left < 1 << 20, "{left} bytes are left of {taken}");
        reclaim();
        let left = allocated().saturating_sub(before);
        assert!(left < 64 << 10, "{left} bytes are left of {taken}");
    }
}
