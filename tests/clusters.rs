//! Clusters that are made beside others, and in the place of others.

#[path = "hosts/device.rs"]
mod device;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use casblock::ats::Ats;
use casblock::device::{BlockDevice, Failure};
use casblock::environment::{Environment as _, Virtual};
use casblock::heartbeat::{
    Cluster, ClusterError, ClusterOptions, Host, HostConfig, HostError, Liveness, Loss, Observer,
};
use casblock::lease::{LeaseError, Mode};
use casblock::{CreateOptions, Durability, Geometry};
use device::{Hooked, SECOND, disk, join, lease_lba, name, options, slot_lba, store};

fn replace<D: BlockDevice>(device: &D, world: &Arc<Virtual>, options: ClusterOptions) -> Cluster {
    Cluster::create(&Ats::in_environment(device, world), options, true).unwrap()
}

fn is_fenced<T>(answer: Result<T, HostError>) -> bool {
    matches!(answer, Err(HostError::Lost(Loss::Fenced)))
}

/// The greatest token and the generation that hosts of a cluster get now: of lease 3, and of slot 0.
fn next<D: BlockDevice + 'static>(device: D, world: &Arc<Virtual>) -> (u64, u32) {
    let host = join(device, "next", world);
    assert_eq!(host.slot(), 0);
    (host.try_acquire(3, Mode::Exclusive).unwrap().token(), host.generation())
}

#[test]
fn an_old_host_never_takes_a_new_ones_slot_for_its_own() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    let old = join(disk.another_host(), "old", &world);
    let held = old.try_acquire(3, Mode::Exclusive).unwrap();
    replace(&disk, &world, options());
    // It takes the same slot before the old one's next beat.
    let new = join(disk.another_host(), "new", &world);
    assert_eq!((old.slot(), old.generation(), new.slot(), new.generation()), (0, 1, 0, 2));
    let lease = new.try_acquire(3, Mode::Exclusive).unwrap();
    assert_eq!((held.token(), lease.token()), (1, 2));
    assert!(is_fenced(old.beat()));
    new.beat().unwrap();
    assert!(!held.is_valid() && lease.is_valid());
}

#[test]
fn a_beat_is_ones_own_by_more_than_its_generation() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    let old = join(disk.another_host(), "one", &world);
    // All is wiped, by something else than casblock: generations begin anew.
    for lba in 0..25 {
        disk.write(lba, &[0; 512]).unwrap();
    }
    Cluster::create(&Ats::in_environment(&disk, &world), options(), false).unwrap();
    let new = join(disk.another_host(), "one", &world);
    assert_eq!((old.generation(), new.generation()), (1, 1));
    new.beat().unwrap();
    assert!(is_fenced(old.beat()));
    new.beat().unwrap();
}

#[test]
fn generations_and_tokens_go_on_whatever_the_sizes() {
    for (hosts, leases) in [(8, 16), (4, 16), (12, 16), (8, 4), (30, 90), (1, 4)] {
        let world = Arc::new(Virtual::new(1));
        let disk = disk(&world);
        let old = join(disk.another_host(), "old", &world);
        for token in 1..=5 {
            assert_eq!(old.try_acquire(3, Mode::Exclusive).unwrap().token(), token);
        }
        let cluster = replace(&disk, &world, ClusterOptions { leases, ..ClusterOptions::hosts(hosts) });
        assert_eq!((cluster.host_count(), cluster.lease_count()), (hosts, leases));
        assert!(is_fenced(old.beat()), "{hosts} hosts");
        assert_eq!(next(disk.another_host(), &world), (6, 2), "{hosts} hosts, {leases} leases");
        // And back.
        replace(&disk, &world, options());
        assert_eq!(next(disk.another_host(), &world), (7, 3), "{hosts} hosts, {leases} leases");
    }
}

#[test]
fn hosts_beyond_the_new_clusters_slots_are_fenced() {
    let (store, world) = (store(), Arc::new(Virtual::new(1)));
    Cluster::create(&Ats::new(&store), options(), false).unwrap();
    let hosts: Vec<_> = (0..3).map(|host| join(store.clone(), &format!("host {host}"), &world)).collect();
    replace(&store, &world, ClusterOptions { leases: 2, ..ClusterOptions::hosts(1) });
    assert!(hosts.iter().all(|host| is_fenced(host.beat())));
    let mut block = [0; 512];
    for lba in 4..25 {
        store.read(lba, &mut block).unwrap();
        assert_eq!(block, [0; 512], "block {lba} is no cluster's any more");
    }
    let disk = disk(&world);
    let hosts: Vec<_> = (0..3).map(|host| join(disk.another_host(), &format!("host {host}"), &world)).collect();
    replace(&disk, &world, ClusterOptions { leases: 2, ..ClusterOptions::hosts(1) });
    assert!(hosts.iter().all(|host| is_fenced(host.beat())));
}

#[test]
fn a_lease_that_is_taken_meanwhile_keeps_its_token() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    let old = join(disk.another_host(), "old", &world);
    drop(old.try_acquire(3, Mode::Exclusive).unwrap());
    let hooked = Hooked::new(disk.another_host());
    hooked.before_writing(lease_lba(3), move |_| {
        // It has been fenced, and does not know yet.
        assert_eq!(old.try_acquire(3, Mode::Exclusive).unwrap().token(), 2);
    });
    replace(&hooked, &world, options());
    assert!(hooked.is_done());
    let observer = Observer::in_environment(disk.another_host(), 0, Arc::clone(&world)).unwrap();
    let (view, slots) = (observer.lease(3).unwrap(), observer.look().unwrap());
    assert_eq!((view.mode, view.token, slots[0].liveness), (None, 2, Liveness::Fenced));
}

#[test]
fn what_was_interrupted_is_no_cluster_until_it_is_made_again() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    assert_eq!(next(disk.another_host(), &world), (1, 1));
    let hooked = Hooked::new(disk.another_host());
    hooked.before_writing(lease_lba(3), |disk| disk.set_link(casblock::device::Link::Down));
    let made = Cluster::create(&Ats::in_environment(&hooked, &world), options(), true);
    assert!(matches!(made, Err(ClusterError::Device { .. })), "{made:?}");
    let refused = Cluster::open(&disk, 0).unwrap_err();
    assert!(matches!(refused, ClusterError::Header { .. }) && refused.to_string().contains("--force"), "{refused}");
    replace(&disk, &world, options());
    assert_eq!(next(disk.another_host(), &world), (2, 2));
}

#[test]
fn what_a_header_says_is_not_trusted() {
    let world = Arc::new(Virtual::new(1));
    for byte in 0..512 {
        let disk = disk(&world);
        let mut header = [0; 512];
        disk.read(0, &mut header).unwrap();
        header[byte] ^= 0xff;
        // With a checksum that is right: as written by somebody who means ill.
        let checksum = crc32c::crc32c(&header[..508]);
        header[508..].copy_from_slice(&checksum.to_le_bytes());
        disk.write(0, &header).unwrap();
        disk.write(3, &[7; 512]).unwrap();
        replace(&disk, &world, options());
        assert_eq!(next(disk, &world), (1, 1), "byte {byte}");
    }
}

#[test]
fn a_second_cluster_on_a_store_leaves_the_words_of_the_first_alone() {
    let (store, world) = (store(), Arc::new(Virtual::new(1)));
    Cluster::create(&Ats::new(&store), options(), false).unwrap();
    let host = join(store.clone(), "one", &world);
    let second = ClusterOptions { first_lba: 40, ..options() };
    let refused = Cluster::create(&Ats::new(&store), second, false).unwrap_err();
    assert!(matches!(refused, ClusterError::WordInUse { word: 0, .. }), "{refused}");
    assert!(refused.to_string().contains("serve one cluster"), "{refused}");
    host.beat().unwrap();
    let mut block = [0; 512];
    store.read(40, &mut block).unwrap();
    assert_eq!(block, [0; 512]);
}

#[test]
fn a_damaged_slot_harms_nobody_else() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    let (_one, two) = (join(disk.another_host(), "one", &world), join(disk.another_host(), "two", &world));
    let held = two.try_acquire(3, Mode::Exclusive).unwrap();
    let again = two.try_acquire(4, Mode::Exclusive).unwrap();
    disk.write(slot_lba(1), &[7; 512]).unwrap();
    disk.write(lease_lba(5), &[7; 512]).unwrap();
    let three = join(disk.another_host(), "three", &world);
    assert_eq!(three.slot(), 2);
    let views = three.hosts().unwrap();
    assert_eq!((views[0].liveness, views[1].liveness), (Liveness::Alive, Liveness::Damaged));
    let observer = Observer::in_environment(disk.another_host(), 0, Arc::clone(&world)).unwrap();
    let mut seen = Vec::new();
    observer
        .leases(|lease, view| {
            seen.push((lease, view.map(|view| view.token).map_err(|error| error.failure())));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(3, Ok(1)), (4, Ok(1)), (5, Err(Some(Failure::Corrupt)))]);
    // Its owner cannot tell either, and stops.
    assert!(is_fenced(two.beat()) && !held.is_valid() && !again.is_valid());
    // What it held is had when the block has stood still for the stale time.
    let started = world.now();
    let taken = loop {
        three.beat().unwrap();
        match three.try_acquire(3, Mode::Exclusive) {
            Ok(lease) => break lease,
            Err(LeaseError::Held(_)) => world.sleep(SECOND),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(world.now() - started >= 15 * SECOND && taken.token() == 2);
    assert_eq!(three.try_acquire(4, Mode::Exclusive).unwrap().token(), 2);
    let next = join(disk.another_host(), "next", &world);
    assert_eq!((next.slot(), next.generation()), (1, 2), "it can be taken again, by a new generation");
}

#[test]
fn a_name_is_one_hosts_in_words_too() {
    let (store, world) = (store(), Arc::new(Virtual::new(1)));
    Cluster::create(&Ats::new(&store), options(), false).unwrap();
    let hooked = Hooked::new(store.clone());
    let (place, its) = (Arc::new(Mutex::new(None)), Arc::clone(&world));
    let second = Arc::clone(&place);
    // The first has its slot, and has not written its name yet.
    hooked.before_writing(slot_lba(0), move |store| *second.lock().unwrap() = Some(join(store.clone(), "one", &its)));
    let first = Host::join_by_hand(Arc::clone(&hooked), HostConfig::new(name("one")), Arc::clone(&world));
    assert!(matches!(first, Err(HostError::NameInUse { slot: 1, .. })), "{first:?}");
    let second = place.lock().unwrap().take().expect("it has joined");
    second.beat().unwrap();
    let views = second.hosts().unwrap();
    assert_eq!((views[0].liveness, views[1].liveness), (Liveness::Free, Liveness::Alive));
}

#[test]
fn slots_take_turns() {
    let (store, world) = (store(), Arc::new(Virtual::new(1)));
    Cluster::create(&Ats::new(&store), options(), false).unwrap();
    let slots: Vec<_> =
        (0..5_000).map(|number| join(store.clone(), &format!("host {number}"), &world).slot()).collect();
    assert!(slots[..4_096].iter().all(|slot| *slot == 0) && slots[4_096..].iter().all(|slot| *slot == 1));
}

#[test]
fn what_must_not_come_again_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    for (durability, expected) in [(Durability::Power, [1, 1, 1, 1, 0]), (Durability::Process, [0; 5])] {
        let geometry = Geometry::blocks(128).durability(durability);
        let store = CreateOptions::new(geometry).create(folder.path().join(format!("{durability:?}"))).unwrap();
        let (device, world) = (Hooked::new(store), Arc::new(Virtual::new(1)));
        let flushes = || device.flushes.swap(0, Relaxed);
        Cluster::create(&Ats::new(&device), options(), false).unwrap();
        let made = flushes();
        let host = join(Arc::clone(&device), "one", &world);
        let joined = flushes();
        let mut lease = host.try_acquire(3, Mode::Shared).unwrap();
        let acquired = flushes();
        lease.try_upgrade().unwrap();
        let upgraded = flushes();
        host.beat().unwrap();
        lease.release().unwrap();
        assert_eq!([made, joined, acquired, upgraded, flushes()], expected, "{durability:?}");
    }
}
