//! The block cache, as a user sees it: what is read is what may be read, the device is asked no more than it must be, and
//! whatever goes wrong, the cache goes on.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use casblock::ats::{Ats, Verdict};
use casblock::cache::{BlockCache, Config, Consistency};
use casblock::device::conformance::{Region, Suite};
use casblock::device::{BlockDevice, DeviceError, Failure, Faults, Faulty};
use casblock::environment::{Environment as _, Virtual};
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName, Liveness};
use casblock::lease::{LeaseError, Mode};
use casblock::{BlockSize, Geometry, Store};

const BLOCKS: u64 = 64;

/// What a device does with a request before it does it, if anything: it may wait, fail it, or do things behind the cache.
type Trouble = Box<dyn FnMut(&Request) -> Result<(), DeviceError> + Send>;

/// A request that a device had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    Read(u64, usize),
    Write(u64, usize),
    CompareAndWrite(u64, usize),
}

/// A device that does not say that it is a store, and keeps account of what it is asked.
#[derive(Clone)]
struct Disk {
    store: Store,
    requests: Arc<Mutex<Vec<Request>>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
    /// How long each request takes.
    takes_ms: Arc<AtomicU64>,
}

impl Disk {
    fn new() -> Self {
        Self::of(BlockSize::B512)
    }

    fn of(size: BlockSize) -> Self {
        let store = Store::in_memory(Geometry::blocks(BLOCKS).block_size(size)).unwrap();
        Self { store, requests: Arc::default(), trouble: Arc::default(), takes_ms: Arc::default() }
    }

    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn reads(&self) -> usize {
        self.requests().iter().filter(|request| matches!(request, Request::Read(..))).count()
    }

    fn trouble(&self, trouble: impl FnMut(&Request) -> Result<(), DeviceError> + Send + 'static) {
        *self.trouble.lock().unwrap() = Some(Box::new(trouble));
    }

    fn ask(&self, request: Request) -> Result<(), DeviceError> {
        self.requests.lock().unwrap().push(request);
        std::thread::sleep(Duration::from_millis(self.takes_ms.load(Relaxed)));
        self.trouble.lock().unwrap().as_mut().map_or(Ok(()), |trouble| trouble(&request))
    }

    /// What another host writes.
    fn write_elsewhere(&self, lba: u64, byte: u8) {
        self.store.write(lba, &vec![byte; self.block_bytes()]).unwrap();
    }
}

impl BlockDevice for Disk {
    fn name(&self) -> Cow<'_, str> {
        "disk".into()
    }

    fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.store.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.ask(Request::Read(lba, out.len()))?;
        BlockDevice::read(&self.store, lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.ask(Request::Write(lba, data.len()))?;
        BlockDevice::write(&self.store, lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.ask(Request::CompareAndWrite(lba, new.len()))?;
        BlockDevice::compare_and_write(&self.store, lba, expected, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        BlockDevice::flush(&self.store)
    }
}

fn cache(disk: &Disk, blocks: u32) -> BlockCache<Disk> {
    BlockCache::new(disk.clone(), Config::blocks(blocks)).unwrap()
}

#[test]
fn a_block_is_read_once() {
    let disk = Disk::new();
    disk.write_elsewhere(7, 3);
    let cache = cache(&disk, 8);
    for _ in 0..5 {
        assert_eq!(*cache.get(7).unwrap(), [3; 512]);
    }
    assert_eq!(disk.requests(), [Request::Read(7, 512)]);
    let counts = cache.statistics();
    assert_eq!((counts.hits, counts.misses, counts.stale, counts.evictions, counts.len), (4, 1, 0, 0, 1));
    assert!(cache.get(7).unwrap().is_cached());
}

#[test]
fn a_guard_keeps_what_it_has() {
    let disk = Disk::new();
    let cache = cache(&disk, 1);
    cache.write(7, &[1; 512]).unwrap();
    let first = cache.get(7).unwrap();
    cache.write(7, &[2; 512]).unwrap();
    let second = cache.get(7).unwrap();
    // It goes, and its frame would be another's.
    (0..BLOCKS).for_each(|lba| drop(cache.get(lba).unwrap()));
    assert_eq!((&*first, &*second), (&[1; 512][..], &[2; 512][..]));
}

#[test]
fn updates_are_seen_and_cost_no_read() {
    let disk = Disk::new();
    let cache = cache(&disk, 8);
    cache.write(7, &[1; 512]).unwrap();
    assert_eq!(*cache.get(7).unwrap(), [1; 512]);
    cache.compare_and_write(7, &[1; 512], &[2; 512]).unwrap();
    assert_eq!(*cache.get(7).unwrap(), [2; 512]);
    disk.write_elsewhere(7, 9);
    assert_eq!(*cache.get(7).unwrap(), [2; 512], "a hint");
    let Err(DeviceError::Miscompare(miscompare)) = cache.compare_and_write(7, &[2; 512], &[3; 512]) else {
        panic!("it was changed elsewhere")
    };
    assert_eq!((miscompare.lba, miscompare.offset, &*miscompare.found), (7, 0, &[9; 512][..]));
    assert_eq!(*cache.get(7).unwrap(), [9; 512], "what was found");
    assert_eq!(disk.reads(), 0);
}

#[test]
fn several_blocks_are_read_with_as_few_requests_as_can_be() {
    let disk = Disk::new();
    (0..BLOCKS).for_each(|lba| disk.write_elsewhere(lba, lba as u8));
    let cache = cache(&disk, 32);
    (10..12).for_each(|lba| drop(cache.get(lba).unwrap()));
    disk.requests();
    let mut out = vec![0; 8 * 512];
    for _ in 0..2 {
        cache.read(7, &mut out).unwrap();
        assert!((7..).zip(out.chunks(512)).all(|(lba, block)| *block == [lba; 512]));
    }
    assert_eq!(disk.requests(), [Request::Read(7, 3 * 512), Request::Read(12, 3 * 512)]);
    let counts = cache.statistics();
    assert_eq!((counts.hits, counts.misses), (2 + 8, 2 + 6));
    // As the device does, at its end as well.
    cache.read(BLOCKS - 2, &mut out[..1024]).unwrap();
    for (lba, bytes) in [(BLOCKS - 1, 1024), (BLOCKS, 512), (u64::MAX, 512), (0, 100), (0, 0)] {
        let (cached, direct) =
            (cache.read(lba, &mut out[..bytes]), BlockDevice::read(&disk.store, lba, &mut out[..bytes]));
        assert_eq!(cached.is_ok(), direct.is_ok(), "{lba} {bytes}");
        let (cached, direct) = (cache.write(lba, &out[..bytes]), BlockDevice::write(&disk.store, lba, &out[..bytes]));
        assert_eq!(cached.is_ok(), direct.is_ok(), "{lba} {bytes}");
    }
    assert!(cache.get(BLOCKS).is_err() && cache.get(u64::MAX).is_err());
}

#[test]
fn what_is_prefetched_is_hit_and_what_is_invalidated_is_not() {
    let disk = Disk::new();
    let cache = cache(&disk, 64);
    cache.prefetch(0, BLOCKS).unwrap();
    assert_eq!(disk.requests(), [Request::Read(0, 64 * 512)]);
    (0..BLOCKS).for_each(|lba| drop(cache.get(lba).unwrap()));
    assert_eq!(disk.reads(), 0);
    disk.write_elsewhere(9, 5);
    cache.invalidate(9, 1);
    assert_eq!(*cache.get(9).unwrap(), [5; 512]);
    // More blocks than it has places for.
    let small = self::cache(&disk, 4);
    (20..24).for_each(|lba| drop(small.get(lba).unwrap()));
    assert_eq!(disk.reads(), 1 + 4);
    small.invalidate(21, BLOCKS);
    (20..24).for_each(|lba| drop(small.get(lba).unwrap()));
    assert_eq!(disk.requests(), [21, 22, 23].map(|lba| Request::Read(lba, 512)));
    cache.invalidate(8, u64::MAX);
    assert_eq!(disk.reads(), 0);
    cache.get(7).unwrap();
    cache.get(8).unwrap();
    assert_eq!(disk.reads(), 1);
    cache.prefetch(0, 0).unwrap();
    assert!(cache.prefetch(BLOCKS - 1, 2).is_err());
}

#[test]
fn how_current_a_read_is_can_be_chosen() {
    let (disk, world) = (Disk::new(), Arc::new(Virtual::new(1)));
    let config = Config::blocks(8).consistency(Consistency::MaxAge(Duration::from_secs(5)));
    let cache = BlockCache::in_environment(disk.clone(), config, Arc::clone(&world)).unwrap();
    world.sleep(Duration::from_secs(100));
    cache.get(7).unwrap();
    disk.write_elsewhere(7, 1);
    world.sleep(Duration::from_secs(5));
    assert_eq!(*cache.get(7).unwrap(), [0; 512], "not too old yet");
    world.sleep(Duration::from_nanos(1));
    assert_eq!(*cache.get(7).unwrap(), [1; 512]);
    assert_eq!(cache.statistics().stale, 1);

    disk.write_elsewhere(7, 2);
    assert_eq!(*cache.get_as(7, Consistency::Hint).unwrap(), [1; 512]);
    assert_eq!(*cache.get_as(7, Consistency::Current).unwrap(), [2; 512]);
    assert_eq!(*cache.get_as(7, Consistency::Hint).unwrap(), [2; 512], "what was read is cached");
    disk.write_elsewhere(7, 3);
    assert_eq!(*cache.get_as(7, Consistency::MaxAge(Duration::ZERO)).unwrap(), [2; 512], "asked for at this instant");
    world.sleep(Duration::from_nanos(1));
    let mut out = [0; 1024];
    cache.read_as(6, &mut out, Consistency::MaxAge(Duration::ZERO)).unwrap();
    assert_eq!(out[512..], [3; 512]);
    disk.write_elsewhere(7, 4);
    cache.read_as(6, &mut out, Consistency::Current).unwrap();
    assert_eq!(out[512..], [4; 512]);
    // What is written is as old as the question.
    cache.write(7, &[5; 512]).unwrap();
    disk.write_elsewhere(7, 6);
    world.sleep(Duration::from_secs(5));
    assert_eq!(*cache.get(7).unwrap(), [5; 512]);
    world.sleep(Duration::from_nanos(1));
    assert_eq!(*cache.get(7).unwrap(), [6; 512]);
}

#[test]
fn over_a_store_every_read_is_current() {
    let store = Store::in_memory(Geometry::blocks(BLOCKS)).unwrap();
    for consistency in [Consistency::Hint, Consistency::MaxAge(Duration::from_secs(9)), Consistency::Current] {
        let cache = BlockCache::new(store.clone(), Config::blocks(8).consistency(consistency)).unwrap();
        let start = cache.get(7).unwrap()[0];
        for round in start + 1..start + 20 {
            store.write(7, &[round; 512]).unwrap();
            assert_eq!(*cache.get(7).unwrap(), [round; 512]);
            assert_eq!(*cache.get(7).unwrap(), [round; 512]);
        }
        let mut out = [0; 1024];
        cache.read(6, &mut out).unwrap();
        assert_eq!(out[512..], [start + 19; 512]);
        cache.write(7, &[start + 20; 512]).unwrap();
        assert_eq!(*cache.get(7).unwrap(), [start + 20; 512]);
        let counts = cache.statistics();
        assert_eq!((counts.hits, counts.misses, counts.stale), (19 + 2, 1 + 19 + 1, 19), "{consistency:?}");
        // A miscompare brings what there is.
        store.write(7, &[start + 21; 512]).unwrap();
        let error = cache.compare_and_write(7, &[start + 20; 512], &[0; 512]).unwrap_err();
        assert!(matches!(error, DeviceError::Miscompare(..)), "{error}");
        assert_eq!(*cache.get(7).unwrap(), [start + 21; 512]);
        cache.compare_and_write(7, &[start + 21; 512], &[start + 22; 512]).unwrap();
        assert_eq!(*cache.get(7).unwrap(), [start + 22; 512]);
        assert_eq!(cache.statistics().misses, counts.misses, "{consistency:?}");
    }
}

#[test]
fn who_miss_a_block_at_once_ask_once_and_have_one_error() {
    const THREADS: usize = 8;
    let disk = Disk::new();
    for fails in [false, true] {
        let cache = cache(&disk, 8);
        let (waiting, barrier) = (Arc::new(AtomicU64::new(0)), Barrier::new(THREADS));
        let seen = Arc::clone(&waiting);
        disk.trouble(move |_| {
            // Till the others must be waiting.
            while seen.load(SeqCst) < THREADS as u64 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(300));
            if fails { Err(DeviceError::failed(Failure::Io, "a scratch")) } else { Ok(()) }
        });
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    waiting.fetch_add(1, SeqCst);
                    match cache.get(7) {
                        Ok(block) => assert!(!fails && *block == [0; 512]),
                        Err(error) => {
                            assert!(fails && error.failure() == Some(Failure::Io), "{error}");
                            assert_eq!(error.to_string(), "a scratch");
                        }
                    }
                });
            }
        });
        assert_eq!(disk.reads(), 1, "one read for all");
        disk.trouble(|_| Ok(()));
        assert_eq!(*cache.get(7).unwrap(), [0; 512]);
        assert_eq!(disk.reads(), usize::from(fails), "an error is not cached");
    }
}

#[test]
fn an_update_of_which_nobody_knows_is_forgotten() {
    let disk = Disk::new();
    let cache = cache(&disk, 8);
    cache.write(7, &[1; 512]).unwrap();
    let behind = disk.store.clone();
    disk.trouble(move |request| match request {
        Request::Read(..) => Ok(()),
        _ => {
            behind.write(7, &[2; 512]).unwrap();
            Err(DeviceError::unknown("no answer"))
        }
    });
    assert!(matches!(cache.write(7, &[2; 512]), Err(DeviceError::OutcomeUnknown { .. })));
    assert_eq!(*cache.get(7).unwrap(), [2; 512], "it was asked for anew");
    assert!(cache.compare_and_write(7, &[2; 512], &[3; 512]).is_err());
    assert_eq!(disk.reads(), 1);
    cache.get(7).unwrap();
    assert_eq!(disk.reads(), 1);
    disk.trouble(|_| Err(DeviceError::failed(Failure::Busy, "later")));
    assert!(cache.write(7, &[2; 512]).is_err());
    assert_eq!(*cache.get(7).unwrap(), [2; 512], "what did not happen changes nothing");
}

#[test]
fn a_device_that_panics_leaves_a_cache_that_works() {
    let disk = Disk::new();
    let cache = cache(&disk, 8);
    cache.write(7, &[1; 512]).unwrap();
    let panics = |operation: &dyn Fn()| {
        disk.trouble(|_| panic!("a bug"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(operation));
        assert!(caught.is_err());
        disk.trouble.clear_poison();
        disk.trouble(|_| Ok(()));
        disk.write_elsewhere(7, 5);
    };
    panics(&|| drop(cache.write(7, &[2; 512])));
    assert_eq!(*cache.get(7).unwrap(), [5; 512], "nobody knows what it did");
    panics(&|| drop(cache.get(8)));
    assert_eq!(*cache.get(8).unwrap(), [0; 512]);
    panics(&|| drop(cache.read(16, &mut [0; 2048])));
    assert_eq!(*cache.get(17).unwrap(), [0; 512]);
}

#[test]
fn caches_conform() {
    let region = Region { first_lba: 8, blocks: 16 };
    for size in [BlockSize::B512, BlockSize::B4096] {
        for consistency in [Consistency::Hint, Consistency::Current] {
            for capacity in [1, 5, 100] {
                let config = Config::blocks(capacity).consistency(consistency);
                let over_disk = BlockCache::new(Disk::of(size), config).unwrap();
                Suite::new(&over_disk, region).increments(100).run().assert();
                let over_store = BlockCache::new(Disk::of(size).store, config).unwrap();
                Suite::new(&over_store, region).increments(100).run().assert();
            }
        }
    }
}

/// What is built on devices works on a cached one that loses answers, too.
#[test]
fn ats_works_over_a_cache() {
    let world = Arc::new(Virtual::new(7));
    let mut faults = Faults::none(7);
    (faults.request_lost, faults.answer_lost, faults.error) = (0.1, 0.1, 0.1);
    let disk_behind = Disk::new();
    let disk = Faulty::in_environment(disk_behind.clone(), faults, Arc::clone(&world));
    let cached = BlockCache::in_environment(disk, Config::blocks(4), Arc::clone(&world)).unwrap();
    let ats = Ats::in_environment(cached, Arc::clone(&world));
    let mut counted = 0u64;
    for _ in 0..500 {
        let outcome = ats.update(7, |block| {
            let count = u64::from_le_bytes(block[..8].try_into().unwrap()) + 1;
            block[..8].copy_from_slice(&count.to_le_bytes());
        });
        if matches!(outcome.verdict, Verdict::Written | Verdict::OwnWriteLanded { .. }) {
            counted += 1;
        }
    }
    assert!(counted > 300, "{counted}");
    let disk = &disk_behind.store;
    let mut block = [0; 512];
    disk.read(7, &mut block).unwrap();
    let count = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert!((counted..=500).contains(&count), "{count} of {counted}");
}

/// What two hosts believe of each other does not go through what their caches keep.
#[test]
fn leases_are_safe_over_caches() {
    let (disk, world) = (Disk::new(), Arc::new(Virtual::new(1)));
    let ats = Ats::in_environment(disk.clone(), Arc::clone(&world));
    Cluster::create(&ats, ClusterOptions::hosts(4), false).unwrap();
    let join = |name| {
        let cached = BlockCache::in_environment(disk.clone(), Config::blocks(64), Arc::clone(&world)).unwrap();
        Host::join_by_hand(cached, HostConfig::new(HostName::new(name).unwrap()), Arc::clone(&world)).unwrap()
    };
    // Who joins reads all slots, while the other's is free.
    let (one, two) = (join("one"), join("two"));
    let lease = two.try_acquire(3, Mode::Exclusive).unwrap();
    let refused = one.try_acquire(3, Mode::Exclusive).map(drop).unwrap_err();
    assert!(matches!(refused, LeaseError::Held(..)), "{refused}");
    for _ in 0..20 {
        world.sleep(Duration::from_secs(2));
        one.beat().unwrap();
        two.beat().unwrap();
        assert!(one.hosts().unwrap()[..2].iter().all(|host| host.liveness == Liveness::Alive));
        assert!(matches!(one.try_acquire(3, Mode::Exclusive).map(drop), Err(LeaseError::Held(..))));
    }
    assert!(lease.is_valid());
    lease.release().unwrap();
    assert!(one.try_acquire(3, Mode::Exclusive).unwrap().is_valid());
}

/// A cache before a cache gives hints; who asks for what is current gets it from the device.
#[test]
fn what_is_current_comes_through_two_caches() {
    let disk = Disk::new();
    let cached = BlockCache::new(cache(&disk, 8), Config::blocks(8)).unwrap();
    cached.get(7).unwrap();
    disk.write_elsewhere(7, 1);
    assert_eq!(*cached.get(7).unwrap(), [0; 512], "a hint");
    assert_eq!(*cached.get_as(7, Consistency::Current).unwrap(), [1; 512]);
    disk.write_elsewhere(7, 2);
    let mut out = [0; 1024];
    cached.read_as(6, &mut out, Consistency::Current).unwrap();
    assert_eq!(out[512..], [2; 512]);
    disk.write_elsewhere(7, 3);
    let faulty = Faulty::new(cached, Faults::none(1));
    faulty.read_current(7, &mut out[..512]).unwrap();
    assert_eq!(out[..512], [3; 512]);
}

/// A block that is written while others wait for it is read once more, and not by each of them.
#[test]
fn who_wait_while_a_block_is_written_wait_once_more() {
    const THREADS: usize = 16;
    let disk = Disk::new();
    let (cache, waiting) = (cache(&disk, 8), AtomicU64::new(0));
    let (reading, may_end) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let (begun, seen) = (Arc::clone(&reading), Arc::clone(&may_end));
    let mut is_first = true;
    disk.trouble(move |_| {
        if std::mem::take(&mut is_first) {
            begun.wait();
            while !seen.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        Ok(())
    });
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                waiting.fetch_add(1, SeqCst);
                assert!([0, 9].contains(&cache.get(7).unwrap()[0]));
            });
        }
        reading.wait();
        while waiting.load(SeqCst) < THREADS as u64 {
            std::thread::yield_now();
        }
        // Till the others must be waiting.
        std::thread::sleep(Duration::from_millis(300));
        cache.invalidate(7, 1);
        // Long enough for all of them to ask, if they do.
        disk.takes_ms.store(200, Relaxed);
        may_end.store(true, SeqCst);
    });
    assert!(disk.reads() <= 3, "one for the first, one for all who waited for it, and one for who was late");
}

/// Each block's contents are its version, so that whoever goes back is caught; whatever happens behind the cache's back.
#[test]
fn no_thread_sees_a_block_go_back() {
    const THREADS: u64 = 4;
    for capacity in [1, 3, 16] {
        let disk = Disk::new();
        let cache = cache(&disk, capacity);
        let stop = AtomicBool::new(false);
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cache, seen) = (&cache, &seen);
                scope.spawn(move || watch(cache, thread, seen));
            }
            scope.spawn(|| {
                // Another host.
                let mut lba = 0;
                while !stop.load(Relaxed) {
                    lba = (lba + 1) % 8;
                    bump(&disk.store, lba);
                    std::thread::yield_now();
                }
            });
            // The others end by themselves.
            while seen.load(Relaxed) < THREADS {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Relaxed);
        });
        let counts = cache.statistics();
        // A thread that stands still while it is pinned leaves the others few hits.
        assert!(counts.hits > 0 && counts.misses > 1000, "{counts:?}");
    }
}

fn version(block: &[u8]) -> u64 {
    let number = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
    assert_eq!(number(0), number(block.len() - 8), "torn");
    number(0)
}

fn block_of(version: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&version.to_le_bytes()));
    block
}

/// Raises a block's version on a device, whatever it is; what it is then.
fn bump(device: &dyn BlockDevice, lba: u64) -> u64 {
    let mut current = [0; 512];
    device.read(lba, &mut current).unwrap();
    loop {
        let next = version(&current) + 1;
        match device.compare_and_write(lba, &current, &block_of(next)) {
            Ok(()) => return next,
            Err(DeviceError::Miscompare(miscompare)) => {
                assert!(
                    version(&miscompare.found) > version(&current),
                    "the cache had what the device never has again"
                );
                current.copy_from_slice(&miscompare.found);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads and updates blocks at random, and keeps account of the versions it has seen.
fn watch(cache: &BlockCache<Disk>, thread: u64, done: &AtomicU64) {
    let mut dice = fastrand::Rng::with_seed(thread);
    let mut newest = [0; 8];
    for _ in 0..20_000 {
        let lba = dice.u64(0..8);
        let version = match dice.u32(0..20) {
            0..12 => version(&cache.get(lba).unwrap()),
            12 => version(&cache.get_as(lba, Consistency::Current).unwrap()),
            13..15 => {
                let mut out = [0; 1024];
                let first = lba.min(6);
                cache.read(first, &mut out).unwrap();
                version(&out[(lba - first) as usize * 512..][..512])
            }
            15 => {
                cache.invalidate(lba, 1);
                continue;
            }
            _ => bump(cache, lba),
        };
        assert!(version >= newest[lba as usize], "block {lba} went back from {} to {version}", newest[lba as usize]);
        newest[lba as usize] = version;
    }
    done.fetch_add(1, Relaxed);
}
