//! Hosts and leases on a store: joining, leaving, being lost, and whose lease it is.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casblock::ats::Ats;
use casblock::device::{BlockDevice, DeviceError, Failure, Faults, Faulty, Link};
use casblock::environment::{Environment, Virtual};
use casblock::heartbeat::{
    Cluster, ClusterError, ClusterOptions, Host, HostConfig, HostError, HostName, Liveness, Loss, Observer, Timing,
};
use casblock::lease::{HOLDERS_MAX, LeaseError, Mode};
use casblock::{EventKind, Geometry, Store};

const SECOND: Duration = Duration::from_secs(1);

type Member<D> = Host<D, Arc<Virtual>>;

fn store() -> Store {
    Store::in_memory(Geometry::blocks(128)).unwrap()
}

/// A store with a cluster of eight hosts and sixteen leases.
fn cluster() -> Store {
    let store = store();
    Cluster::create(&Ats::new(&store), ClusterOptions { leases: 16, ..ClusterOptions::hosts(8) }, false).unwrap();
    store
}

fn name(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn join<D: BlockDevice>(device: D, its: &str, world: &Arc<Virtual>) -> Member<D> {
    Host::join_by_hand(device, HostConfig::new(name(its)), Arc::clone(world)).unwrap()
}

/// The cluster through something that is no store: hearts beat in blocks.
fn in_blocks(world: &Arc<Virtual>) -> Faulty<Store, Arc<Virtual>> {
    let faults = Faults { timeout: SECOND, ..Faults::none(1) };
    let device = Faulty::in_environment(store(), faults, Arc::clone(world));
    let options = ClusterOptions { leases: 16, ..ClusterOptions::hosts(8) };
    let cluster = Cluster::create(&Ats::in_environment(&device, world), options, false).unwrap();
    assert!(!cluster.is_in_words());
    device
}

#[test]
fn a_cluster_is_found_as_it_was_made() {
    let store = store();
    let options = ClusterOptions { first_lba: 5, hosts: 9, leases: 17, timing: Timing::default() };
    let made = Cluster::create(&Ats::new(&store), options, false).unwrap();
    assert_eq!(Cluster::open(&store, 5).unwrap(), made);
    assert!(made.is_in_words());
    assert!(matches!(Cluster::open(&store, 0), Err(ClusterError::None { lba: 0, .. })));
    assert!(matches!(Cluster::create(&Ats::new(&store), options, false), Err(ClusterError::InUse { lba: 5, .. })));
    let again = Cluster::create(&Ats::new(&store), options, true).unwrap();
    assert_ne!(again.id(), made.id());
}

#[test]
fn impossible_clusters_are_refused() {
    let store = store();
    let with = |options| Cluster::create(&Ats::new(&store), options, false).unwrap_err().to_string();
    assert!(with(ClusterOptions::hosts(0)).contains("1 to 65536"));
    assert!(with(ClusterOptions::hosts(257)).contains("256 heartbeat words"));
    assert!(with(ClusterOptions { leases: u64::MAX, ..ClusterOptions::hosts(1) }).contains("128 blocks"));
    assert!(with(ClusterOptions { first_lba: u64::MAX, ..ClusterOptions::hosts(1) }).contains("128 blocks"));
    let timing = Timing { stale: Duration::from_secs(13), ..Timing::default() };
    assert!(with(ClusterOptions { timing, ..ClusterOptions::hosts(1) }).contains("a longer stale time"));
}

#[test]
fn a_damaged_header_is_no_cluster() {
    let store = cluster();
    let mut header = [0; 512];
    store.read(0, &mut header).unwrap();
    for byte in [0, 10, 64, 72, 100, 511] {
        let mut damaged = header;
        damaged[byte] ^= 0x40;
        store.write(0, &damaged).unwrap();
        assert!(Cluster::open(&store, 0).is_err(), "byte {byte}");
    }
}

#[test]
fn hosts_take_slots_and_leave_them() {
    for words in [true, false] {
        let world = Arc::new(Virtual::new(1));
        let device: Arc<dyn BlockDevice> = if words { Arc::new(cluster()) } else { Arc::new(in_blocks(&world)) };
        let (one, two) = (join(Arc::clone(&device), "one", &world), join(Arc::clone(&device), "two", &world));
        assert_eq!(((one.slot(), one.generation()), (two.slot(), two.generation())), ((0, 1), (1, 1)));
        let views = two.hosts().unwrap();
        assert_eq!((views[0].name.as_ref().unwrap().as_str(), views[0].liveness), ("one", Liveness::Alive));
        assert_eq!(views[2].liveness, Liveness::Free);
        one.leave();
        assert_eq!(two.hosts().unwrap()[0].liveness, Liveness::Free);
        // Its own one, of before.
        let again = join(Arc::clone(&device), "one", &world);
        assert_eq!((again.slot(), again.generation()), (0, 2));
        drop(two);
        assert_eq!(again.hosts().unwrap()[1].liveness, Liveness::Free);
    }
}

#[test]
fn all_slots_are_taken_only_by_the_living() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let hosts: Vec<_> = (0..8).map(|host| join(store.clone(), &format!("host {host}"), &world)).collect();
    // They are dead, as nobody lets their hearts beat: the ninth finds out, and takes the first's slot.
    let ninth = join(store.clone(), "ninth", &world);
    assert_eq!((ninth.slot(), ninth.generation()), (0, 2));
    assert!(world.now() >= 16 * SECOND);
    assert!(matches!(hosts[0].beat(), Err(HostError::Lost(Loss::Overdue))));
    assert!(!hosts[0].is_current());
}

#[test]
fn a_name_is_one_hosts() {
    let store = cluster();
    let timing = Timing {
        interval: Duration::from_millis(20),
        io_timeout: Duration::from_millis(200),
        stale: Duration::from_millis(400),
    };
    let options = ClusterOptions { leases: 4, timing, ..ClusterOptions::hosts(8) };
    Cluster::create(&Ats::new(&store), options, true).unwrap();
    let one = Host::join(store.clone(), HostConfig::new(name("one"))).unwrap();
    let refused = Host::join(store.clone(), HostConfig::new(name("one"))).unwrap_err();
    assert!(matches!(refused, HostError::NameInUse { slot: 0, .. }), "{refused}");
    assert!(one.is_current());
}

#[test]
fn names_have_bounds() {
    assert!(HostName::new("").is_none() && HostName::new("x".repeat(65)).is_none() && HostName::new("a\nb").is_none());
    assert!(HostName::new("x".repeat(64)).is_some() && HostName::new("é").is_some());
}

#[test]
fn states_follow_from_the_watchers_clock() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let host = join(store.clone(), "one", &world);
    let observer = Observer::in_environment(store, 0, Arc::clone(&world)).unwrap();
    let state = || observer.look().unwrap()[0].liveness;
    assert_eq!(state(), Liveness::Alive);
    for (after, expected) in [(6, Liveness::Alive), (1, Liveness::Late), (8, Liveness::Late), (1, Liveness::Stale)] {
        world.sleep(after * SECOND);
        assert_eq!(state(), expected, "at {:?}", world.now());
    }
    // It is not dead before somebody says so, but it has stopped.
    assert!(!host.is_current());
}

#[test]
fn a_host_that_cannot_beat_stops_before_others_may_act() {
    let world = Arc::new(Virtual::new(1));
    let device = in_blocks(&world);
    let losses = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&losses);
    let config = HostConfig::new(name("one")).on_loss(move |loss| {
        assert_eq!(*loss, Loss::Overdue);
        counted.fetch_add(1, Relaxed);
    });
    let cut = device.another_host();
    let host = Host::join_by_hand(cut, config, Arc::clone(&world)).unwrap();
    host.beat().unwrap();
    host.device().set_link(Link::Down);
    let last = world.now();
    assert!(matches!(host.beat(), Err(HostError::Device(_))), "one missed beat is no loss");
    while host.is_current() {
        world.sleep(SECOND / 100);
    }
    let stopped = world.now() - last;
    assert!((13 * SECOND..13_200 * SECOND / 1000).contains(&stopped), "{stopped:?}");
    host.device().set_link(Link::Up);
    assert!(matches!(host.beat(), Err(HostError::Lost(Loss::Overdue))));
    assert!(matches!(host.beat(), Err(HostError::Lost(Loss::Overdue))));
    assert_eq!((losses.load(Relaxed), host.loss()), (1, Some(Loss::Overdue)));
}

#[test]
fn who_was_fenced_knows_it_at_the_next_beat() {
    let world = Arc::new(Virtual::new(1));
    let device = in_blocks(&world);
    let one = join(device.another_host(), "one", &world);
    // A cluster made anew fences all.
    let options = ClusterOptions { leases: 16, ..ClusterOptions::hosts(8) };
    Cluster::create(&Ats::in_environment(&device, &world), options, true).unwrap();
    assert!(one.is_current(), "nobody has told it");
    assert!(matches!(one.beat(), Err(HostError::Lost(Loss::Fenced))));
    assert!(!one.is_current());
    let store = cluster();
    let word = join(store.clone(), "one", &world);
    Cluster::create(&Ats::new(&store), options, true).unwrap();
    assert!(matches!(word.beat(), Err(HostError::Lost(Loss::Fenced))));
}

#[test]
fn a_lost_answer_costs_no_life() {
    let world = Arc::new(Virtual::new(1));
    let device = in_blocks(&world);
    let host = join(device.another_host(), "one", &world);
    for round in 0..5 {
        host.device().set_link(Link::AnswersLost);
        assert!(host.beat().is_err(), "round {round}");
        host.device().set_link(Link::Up);
        host.beat().unwrap();
    }
    assert!(host.is_current());
}

#[test]
fn a_lease_is_one_hosts_or_shared() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let hosts: Vec<_> = (0..3).map(|host| join(store.clone(), &format!("host {host}"), &world)).collect();
    let first = hosts[0].try_acquire(3, Mode::Exclusive).unwrap();
    assert_eq!((first.token(), first.is_valid(), first.number()), (1, true, 3));
    for mode in [Mode::Exclusive, Mode::Shared] {
        let LeaseError::Held(view) = hosts[1].try_acquire(3, mode).unwrap_err() else { panic!("it is held") };
        assert_eq!((view.holders[0].slot, view.mode), (0, Some(Mode::Exclusive)));
    }
    assert!(matches!(hosts[0].try_acquire(3, Mode::Exclusive), Err(LeaseError::Held(_))), "nor twice by one host");
    first.release().unwrap();
    let mut shared = hosts[0].try_acquire(3, Mode::Shared).unwrap();
    let other = hosts[1].try_acquire(3, Mode::Shared).unwrap();
    assert_eq!((shared.token(), other.token()), (2, 3));
    assert!(matches!(hosts[2].try_acquire(3, Mode::Exclusive), Err(LeaseError::Held(_))));
    assert!(matches!(shared.try_upgrade(), Err(LeaseError::Held(_))));
    drop(other);
    shared.try_upgrade().unwrap();
    assert_eq!((shared.mode(), shared.token()), (Mode::Exclusive, 4));
    shared.downgrade().unwrap();
    assert_eq!(shared.token(), 4);
    let third = hosts[2].try_acquire(3, Mode::Shared).unwrap();
    assert_eq!(hosts[0].lease(3).unwrap().holders.len(), 2);
    drop((shared, third));
    let free = hosts[0].lease(3).unwrap();
    assert_eq!((free.mode, free.token), (None, 5));
    let error = hosts[0].try_acquire(16, Mode::Shared).unwrap_err();
    let LeaseError::Device(DeviceError::Failed { failure: Failure::Invalid, .. }) = error else { panic!("{error}") };
}

#[test]
fn eight_share_a_lease() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let host = join(store, "one", &world);
    let mut leases: Vec<_> = (0..HOLDERS_MAX).map(|_| host.try_acquire(0, Mode::Shared).unwrap()).collect();
    assert!(matches!(host.try_acquire(0, Mode::Shared), Err(LeaseError::TooManyHolders { lease: 0 })));
    // Each of them is given back on its own.
    leases.remove(3).release().unwrap();
    assert_eq!(host.lease(0).unwrap().holders.len(), HOLDERS_MAX - 1);
    let _ninth = host.try_acquire(0, Mode::Shared).unwrap();
}

#[test]
fn the_leases_of_who_leaves_are_free_at_once() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let (one, two) = (join(store.clone(), "one", &world), join(store, "two", &world));
    let lease = one.try_acquire(3, Mode::Exclusive).unwrap();
    one.leave();
    assert!(!lease.is_valid());
    assert_eq!(two.try_acquire(3, Mode::Exclusive).unwrap().token(), 2);
    assert!(matches!(lease.release(), Err(LeaseError::Host(HostError::Lost(_)))));
}

#[test]
fn the_leases_of_the_dead_are_taken_after_the_stale_time_and_no_earlier() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let dead = join(store.clone(), "dead", &world);
    let lease = dead.try_acquire(3, Mode::Exclusive).unwrap();
    let died = world.now();
    let two = join(store.clone(), "two", &world);
    loop {
        two.beat().unwrap();
        match two.try_acquire(3, Mode::Exclusive) {
            Ok(taken) => {
                assert_eq!(taken.token(), 2);
                break;
            }
            Err(LeaseError::Held(_)) => world.sleep(SECOND),
            Err(error) => panic!("{error}"),
        }
    }
    let waited = world.now() - died;
    assert!((16 * SECOND..=18 * SECOND).contains(&waited), "{waited:?}");
    assert!(!lease.is_valid());
    assert_eq!(two.hosts().unwrap()[0].liveness, Liveness::Fenced);
    let events = store.events();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.expected, event.found)).collect();
    assert_eq!(told, [(EventKind::HostFenced, 0, 0), (EventKind::LeaseBroken, 1, 2)]);
}

#[test]
fn the_living_keep_their_leases() {
    let (store, world) = (cluster(), Arc::new(Virtual::new(1)));
    let (one, two) = (join(store.clone(), "one", &world), join(store.clone(), "two", &world));
    let lease = one.try_acquire(3, Mode::Exclusive).unwrap();
    let observer = Observer::in_environment(store.clone(), 0, Arc::clone(&world)).unwrap();
    for _ in 0..20 {
        world.sleep(3 * SECOND);
        one.beat().unwrap();
        two.beat().unwrap();
        assert!(matches!(two.try_acquire(3, Mode::Exclusive), Err(LeaseError::Held(_))));
        assert!(matches!(observer.try_break(3), Err(LeaseError::Held(_))));
    }
    assert!(lease.is_valid());
    assert_eq!(store.events(), [], "nobody was shut out");
}

#[test]
fn a_lease_of_which_nobody_knows_is_given_up() {
    let world = Arc::new(Virtual::new(1));
    let device = in_blocks(&world);
    let (one, two) = (join(device.another_host(), "one", &world), join(device.another_host(), "two", &world));
    one.device().set_link(Link::AnswersLost);
    assert!(one.try_acquire(3, Mode::Exclusive).is_err());
    one.device().set_link(Link::Up);
    // The read was not answered, so nothing was sent. Now only the answer to the compare-and-write is lost.
    assert!(two.lease(3).unwrap().mode.is_none());
    let lease = one.try_acquire(3, Mode::Exclusive).unwrap();
    one.device().set_link(Link::AnswersLost);
    assert!(matches!(lease.release(), Err(LeaseError::Device(_))));
    one.device().set_link(Link::Up);
    one.beat().unwrap();
    one.tidy();
    let free = two.lease(3).unwrap();
    assert_eq!((free.mode, free.token), (None, 1), "given up");
}

/// A device that loses the answer to one compare-and-write, and counts all.
struct LosesOne {
    store: Store,
    lose: Mutex<bool>,
    requests: Mutex<(u32, u32)>,
}

impl BlockDevice for LosesOne {
    fn name(&self) -> std::borrow::Cow<'_, str> {
        "loses one".into()
    }

    fn block_bytes(&self) -> usize {
        512
    }

    fn block_count(&self) -> u64 {
        128
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.requests.lock().unwrap().0 += 1;
        BlockDevice::read(&self.store, lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        BlockDevice::write(&self.store, lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.requests.lock().unwrap().1 += 1;
        let answer = BlockDevice::compare_and_write(&self.store, lba, expected, new);
        match std::mem::take(&mut *self.lose.lock().unwrap()) {
            true => Err(DeviceError::unknown("lost")),
            false => answer,
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn what_a_lease_costs() {
    let world = Arc::new(Virtual::new(1));
    let device = Arc::new(LosesOne { store: store(), lose: Mutex::new(false), requests: Mutex::default() });
    let options = ClusterOptions { leases: 16, ..ClusterOptions::hosts(8) };
    Cluster::create(&Ats::in_environment(&device, &world), options, false).unwrap();
    let (one, two) = (join(Arc::clone(&device), "one", &world), join(Arc::clone(&device), "two", &world));
    let requests = || std::mem::take(&mut *device.requests.lock().unwrap());
    requests();
    let lease = one.try_acquire(3, Mode::Exclusive).unwrap();
    assert_eq!(requests(), (1, 1), "a read and a compare-and-write for a free one");
    assert!(two.try_acquire(3, Mode::Exclusive).is_err());
    assert_eq!(requests(), (2, 0), "a read of the lease, and one of its holder's heart");
    assert!(lease.is_valid());
    assert_eq!(requests(), (0, 0));
    // One beat keeps them all.
    let more: Vec<_> = (4..16).map(|lease| one.try_acquire(lease, Mode::Exclusive).unwrap()).collect();
    requests();
    one.beat().unwrap();
    assert_eq!(requests(), (0, 1));
    // A lost answer is found in the block.
    drop(more);
    *device.lose.lock().unwrap() = true;
    assert_eq!(one.try_acquire(5, Mode::Exclusive).unwrap().token(), 2);
}
