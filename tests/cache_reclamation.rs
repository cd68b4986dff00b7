//! What leaves a cache comes back when nobody can see it any more. One test at a time: who is pinned delays what comes back to any
//! cache of the process.

use std::sync::Mutex;

use casblock::cache::{BlockCache, CacheError, Config};
use casblock::device::{Faults, Faulty};
use casblock::{Geometry, Store};

const BLOCKS: u64 = 64;

static ALONE: Mutex<()> = Mutex::new(());

/// A device that does not say that it is a store.
fn disk() -> Faulty<Store> {
    Faulty::new(Store::in_memory(Geometry::blocks(BLOCKS)).unwrap(), Faults::none(1))
}

fn cache(blocks: u32) -> BlockCache<Faulty<Store>> {
    BlockCache::new(disk(), Config::blocks(blocks)).unwrap()
}

#[test]
fn it_holds_what_fits_and_evicts_the_rest() {
    let _alone = ALONE.lock().unwrap();
    for capacity in [1, 2, 7, 16] {
        let cache = cache(capacity);
        for round in 0..3 {
            for lba in 0..BLOCKS {
                cache.write(lba, &[round; 512]).unwrap();
                assert_eq!(*cache.get(lba).unwrap(), [round; 512]);
                assert!(cache.statistics().len <= u64::from(capacity));
            }
        }
        let counts = cache.statistics();
        assert_eq!((counts.len, counts.evictions), (capacity.into(), 3 * BLOCKS - u64::from(capacity)), "{capacity}");
        let cached = (0..BLOCKS).filter(|lba| cache.get(*lba).unwrap().is_cached()).count();
        assert_eq!(cached, BLOCKS as usize, "there is room for one more");
    }
    let error = BlockCache::new(disk(), Config::blocks(0)).unwrap_err();
    assert_eq!(error, CacheError::Capacity { blocks: 0 });
    assert!(matches!(BlockCache::new(disk(), Config::blocks(u32::MAX)), Err(CacheError::Capacity { .. })));
}

/// With a guard held for ever nothing that leaves the cache comes back; it keeps what it has, reads the rest, and takes no more memory.
#[test]
fn a_guard_held_for_ever_stops_nothing() {
    let _alone = ALONE.lock().unwrap();
    let cache = cache(16);
    cache.prefetch(0, 16).unwrap();
    let held = cache.get(3).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200u8 {
                for lba in 0..BLOCKS {
                    cache.write(lba, &[round; 512]).unwrap();
                    assert_eq!(*cache.get(lba).unwrap(), [round; 512]);
                }
            }
            let stalled = cache.statistics();
            // 128 frames are there for what cannot come back, and a few for who is at work.
            assert!(stalled.evictions <= 128, "{stalled:?}");
            assert_eq!(stalled.reclaimed, 0);
        });
    });
    assert_eq!(*held, [0; 512]);
    drop(held);
    let before = cache.statistics();
    for _ in 0..10 {
        (0..BLOCKS).for_each(|lba| drop(cache.get(lba).unwrap()));
    }
    let after = cache.statistics();
    assert!(after.reclaimed > before.reclaimed && after.evictions > before.evictions + 128, "{before:?} {after:?}");
    assert!((0..BLOCKS).all(|lba| cache.get(lba).unwrap().is_cached()));
}
