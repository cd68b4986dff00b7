//! Hearts that beat in their own threads, in real time: on devices that hang, and handlers of losses.

#[path = "hosts/device.rs"]
mod device;

use std::ops::Range;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casblock::ats::Ats;
use casblock::environment::{Environment as _, System, Virtual};
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, Loss};
use casblock::lease::Mode;
use device::{Gate, Gated, disk, lease_lba, name, options, timing};

const PATIENCE: Duration = Duration::from_secs(20);
const SLOTS: Range<u64> = 1..9;

type Member = Host<Arc<Gated>>;

/// A handler that tells of a loss, and does nothing else.
fn tells() -> (HostConfig, Receiver<Loss>) {
    let (send, told) = channel();
    (HostConfig::new(name("one")).on_loss(move |loss| send.send(*loss).unwrap()), told)
}

#[test]
fn a_heart_that_hangs_does_not_delay_the_handler() {
    let device = Gated::new(timing(50, 300, 1_000));
    let (config, told) = tells();
    let host = Host::join(Arc::clone(&device), config).unwrap();
    let started = Instant::now();
    let closed = device.while_it_is(Gate::Closed(SLOTS));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Loss::Overdue));
    let after = started.elapsed();
    // The deadline is 818 ms after a beat, which was 50 ms ago at most.
    assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&after), "{after:?}");
    assert!(!host.is_current() && host.valid_for().is_zero());
    drop(closed);
    host.leave();
    assert!(told.recv_timeout(PATIENCE).is_err(), "it is called once");
}

#[test]
fn a_handler_can_join_again_in_the_place_of_the_host_that_is_lost() {
    let device = Gated::new(timing(20, 300, 1_000));
    let current: Arc<Mutex<Option<Member>>> = Arc::default();
    let (send, told) = channel();
    let (place, its) = (Arc::clone(&current), Arc::clone(&device));
    let config = HostConfig::new(name("one")).on_loss(move |loss| {
        let again = Host::join(Arc::clone(&its), HostConfig::new(name("one"))).unwrap();
        // The old one is dropped here.
        *place.lock().unwrap() = Some(again);
        send.send(*loss).unwrap();
    });
    *current.lock().unwrap() = Some(Host::join(Arc::clone(&device), config).unwrap());
    let options = ClusterOptions { timing: timing(20, 300, 1_000), ..options() };
    Cluster::create(&Ats::new(&device), options, true).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Loss::Fenced));
    let current = current.lock().unwrap();
    assert!(current.as_ref().is_some_and(|host| host.is_current() && host.generation() == 2));
}

#[test]
fn a_handler_of_a_host_that_beats_by_hand_can_use_it() {
    let world = Arc::new(Virtual::new(1));
    let disk = disk(&world);
    let place: Arc<Mutex<Option<Arc<device::Member<_>>>>> = Arc::default();
    let (send, told) = channel();
    let its = Arc::clone(&place);
    let config = HostConfig::new(name("one")).on_loss(move |loss| {
        let host = its.lock().unwrap().take().unwrap();
        send.send((*loss, host.beat().is_err())).unwrap();
    });
    let host = Arc::new(Host::join_by_hand(disk, config, Arc::clone(&world)).unwrap());
    *place.lock().unwrap() = Some(Arc::clone(&host));
    world.sleep(Duration::from_secs(14));
    assert!(host.beat().is_err());
    assert_eq!(told.try_recv(), Ok((Loss::Overdue, true)));
    assert!(host.beat().is_err() && told.try_recv().is_err());
}

#[test]
fn a_host_that_leaves_is_not_lost() {
    let device = Gated::new(timing(20, 300, 1_000));
    let (config, told) = tells();
    Host::join(device, config).unwrap().leave();
    assert!(told.recv_timeout(PATIENCE).is_err());
}

#[test]
fn beats_that_all_take_nearly_half_the_deadline_come_in_time() {
    // The deadline is 1,227 ms; beats begin 500 ms after one another, not 500 ms and the interval.
    let device = Gated::new(timing(300, 800, 1_500));
    let host = Host::join(Arc::clone(&device), HostConfig::new(name("one"))).unwrap();
    device.set(Gate::Slow(SLOTS, Duration::from_millis(500)));
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert!(host.is_current(), "{:?}", host.loss());
        sleep(Duration::from_millis(5));
    }
    device.set(Gate::Open);
}

#[test]
fn a_lease_that_cannot_be_settled_keeps_no_heart_from_beating() {
    let device = Gated::new(timing(20, 100, 1_000));
    let host = Host::join(Arc::clone(&device), HostConfig::new(name("one"))).unwrap();
    let lease = host.try_acquire(3, Mode::Exclusive).unwrap();
    device.set(Gate::Unanswered(lease_lba(3)..lease_lba(4)));
    assert!(lease.release().is_err());
    // Whoever asks what became of it waits for long.
    let closed = device.while_it_is(Gate::Closed(lease_lba(3)..lease_lba(4)));
    let until = System.now() + Duration::from_secs(2);
    while System.now() < until {
        assert!(host.is_current(), "{:?}", host.loss());
        sleep(Duration::from_millis(5));
    }
    drop(closed);
    let until = Instant::now() + PATIENCE;
    while host.lease(3).unwrap().mode.is_some() {
        assert!(Instant::now() < until, "it is never given up");
        sleep(Duration::from_millis(5));
    }
}
