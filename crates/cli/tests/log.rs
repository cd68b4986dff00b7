//! The log: its lines are as docs/events.schema.json says, and a storm of events is few lines with exact counts.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casblock::ats::{Ats, Draft, Owner, Retry};
use casblock::device::{Faults, Faulty, Link};
use casblock::environment::{Environment as _, Virtual};
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName};
use casblock::lease::Mode;
use casblock::{Durability, Error, Geometry, OpenOptions, Store};
use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

mod common;
use common::Folder;

#[path = "../../../tests/common/damage.rs"]
mod damage;
use damage::{SLOT_BYTES, SPARE, Sections};

/// Where the lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `work` logs, as `casblock --log json,trace` would print them.
fn logged(work: impl FnOnce()) -> Vec<Value> {
    logged_at(LevelFilter::TRACE, work)
}

/// As [`logged`], at another level.
fn logged_at(level: LevelFilter, work: impl FnOnce()) -> Vec<Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer.with_filter(level)), work);
    let bytes = lines.0.lock().unwrap();
    String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn store() -> Store {
    Store::in_memory(Geometry::blocks(8)).unwrap()
}

fn draft(host: u64) -> Draft<'static> {
    Draft { kind: 1, owner: Owner { host, generation: 1 }, payload: &[] }
}

/// Work in which everything comes up that is logged.
fn everything() {
    every_verdict();
    a_store_with_every_trouble();
    a_host_that_dies();
    a_lease_that_is_damaged();
}

/// From now on, whatever this process asks of `path`, which it has open, fails: its descriptor is a pipe's.
fn break_descriptor(path: &Path) {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let mut open = entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path));
    let number = open.next().expect("it is open").file_name().to_str().unwrap().parse().unwrap();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    // SAFETY: it is open, and it is given back below: the store closes it.
    let mut descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::dup2(&pipe, &mut descriptor).unwrap();
    let _ = descriptor.into_raw_fd();
}

fn a_store_with_every_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let geometry = Geometry::blocks(8).writers(4).words(4).durability(Durability::Power);
    drop(Store::create(&path, geometry).unwrap());
    drop(OpenOptions::new().recover().open(&path).unwrap());
    let at = Sections::of(&geometry);
    let file = File::options().write(true).open(&path).unwrap();
    // A writer that died with a spare, and a cell that names no frame.
    file.write_all_at(&(5u64 + 1).to_le_bytes(), at.writers + 2 * SLOT_BYTES + SPARE).unwrap();
    file.write_all_at(&3u16.to_le_bytes(), at.tags + 2 * 5).unwrap();
    file.write_all_at(&u64::MAX.to_le_bytes(), at.cells + 8 * 6).unwrap();
    let store = Store::open(&path).unwrap();
    drop(file);
    let _ = [(); 4].map(|()| store.writer().unwrap());
    assert!(store.read(6, &mut [0; 512]).is_err());
    drop(store);
    OpenOptions::new().exclusive().open(&path).unwrap().repair(|_| {}).unwrap();
    let store = Store::open(&path).unwrap();
    break_descriptor(&path);
    assert!(store.sync().is_err());
}

fn a_host_that_dies() {
    let (store, world) = (Store::in_memory(Geometry::blocks(64).words(16)).unwrap(), Arc::new(Virtual::new(1)));
    let options = ClusterOptions { leases: 4, ..ClusterOptions::hosts(4) };
    Cluster::create(&Ats::in_environment(store.clone(), &world), options, false).unwrap();
    let join = |name: &str| {
        let config = HostConfig::new(HostName::new(name).unwrap());
        Host::join_by_hand(store.clone(), config, Arc::clone(&world)).unwrap()
    };
    let (dies, lives) = (join("dies"), join("lives"));
    let _held = dies.try_acquire(3, Mode::Exclusive).unwrap();
    while lives.try_acquire(3, Mode::Exclusive).is_err() {
        world.sleep(Duration::from_secs(1));
        lives.beat().unwrap();
    }
}

/// A host that does not hear whether it has given a lease back, and then finds the lease's block damaged.
fn a_lease_that_is_damaged() {
    let (store, world) = (Store::in_memory(Geometry::blocks(16)).unwrap(), Arc::new(Virtual::new(1)));
    let options = ClusterOptions { leases: 4, ..ClusterOptions::hosts(4) };
    let disk = Faulty::in_environment(store.clone(), Faults::none(1), Arc::clone(&world));
    Cluster::create(&Ats::in_environment(&disk, &world), options, false).unwrap();
    let config = HostConfig::new(HostName::new("unheard").unwrap());
    let host = Host::join_by_hand(disk, config, Arc::clone(&world)).unwrap();
    let lease = host.try_acquire(3, Mode::Exclusive).unwrap();
    host.device().set_link(Link::AnswersLost);
    assert!(lease.release().is_err());
    host.device().set_link(Link::Up);
    // Behind the header, the slots, and three leases.
    store.write(1 + 4 + 3, &[7; 512]).unwrap();
    host.tidy();
}

/// Every verdict.
fn every_verdict() {
    let mut faults = Faults::none(3);
    (faults.request_lost, faults.answer_lost, faults.duplicate, faults.error) = (0.2, 0.2, 0.1, 0.2);
    (faults.timeout, faults.late_by) = (Duration::from_secs(1), Duration::ZERO..Duration::from_secs(30));
    let world = Arc::new(Virtual::new(3));
    let first = Faulty::in_environment(store(), faults, Arc::clone(&world));
    let hosts: Vec<_> = (0..2).map(|_| Ats::in_environment(first.another_host(), Arc::clone(&world))).collect();
    for round in 0..200 {
        for (host, ats) in (1..).zip(&hosts) {
            let _ = ats.update_record(7, |_| draft(host));
            // What the other wrote is not expected.
            let _ = ats.write_record(7, &[0; 512], draft(host));
        }
        let link = if round % 20 == 7 { Link::Down } else { Link::Up };
        hosts[0].device().set_link(link);
    }
    let broken = Ats::new(store());
    let _ = broken.write_record(9, &[0; 512], draft(1));
}

/// docs/events.schema.json
fn schema() -> (Value, jsonschema::Validator) {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/events.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    (schema, validator)
}

fn assert_valid(validator: &jsonschema::Validator, line: &Value) {
    let errors: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{line:#}: {errors:#?}");
}

#[test]
fn every_line_is_as_the_schema_says() {
    let (schema, validator) = schema();
    let lines = logged(everything);
    lines.iter().for_each(|line| assert_valid(&validator, line));
    // Every event that the schema names came up, so every one was checked.
    for name in schema["properties"]["event"]["enum"].as_array().unwrap() {
        assert!(lines.iter().any(|line| line["event"] == *name), "no {name} in {} lines", lines.len());
    }
    let mut wrong = lines[0].clone();
    wrong["surprise"] = 1.into();
    assert!(!validator.is_valid(&wrong), "the schema can refuse");
}

#[test]
fn a_miscompare_says_all_that_is_known() {
    let lines = logged(|| {
        let store = store();
        let (ours, theirs) = (Ats::new(store.clone()), Ats::new(store));
        let _ = theirs.update_record(7, |_| draft(2));
        let _ = ours.write_record(7, &[0; 512], draft(1));
    });
    let line = lines.iter().find(|line| line["event"] == "ats.miscompare").expect("a line");
    assert_eq!(line["level"], "INFO");
    assert_eq!((&line["device"], &line["lba"], &line["offset"]), (&"(memory)".into(), &7.into(), &0.into()));
    assert_eq!(line["expected"], "0000000000000000");
    assert_eq!(line["found"], "4341535201000000", "CASR, and the kind");
    assert_eq!((&line["host"], &line["found_host"]), (&1.into(), &2.into()));
    assert_ne!(line["nonce"], line["found_nonce"]);
    assert_eq!((&line["verdict"], &line["count"]), (&"peer_changed".into(), &1.into()));
}

#[test]
fn a_storm_is_few_lines_with_exact_counts() {
    const STORM: u64 = 100_000;
    let lines = logged(|| {
        let ats = Ats::in_environment(store(), Virtual::new(1)).retry(Retry::default());
        for _ in 0..STORM {
            let _ = ats.compare_and_write(7, &[1; 512], &[2; 512]);
        }
        assert_eq!(ats.counts().peer_changed, STORM);
    });
    let of_storm: Vec<&Value> = lines.iter().filter(|line| line["event"] == "ats.miscompare").collect();
    assert!(of_storm.len() <= 2, "{} lines", of_storm.len());
    let counted: u64 = of_storm.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, STORM);
}

/// The events of that name in lines of stderr, each as the schema says. Lines for people are passed over, as docs/events.md does.
fn events_in(stderr: &str, name: &str) -> Vec<Value> {
    let (_, validator) = schema();
    let events = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events: Vec<Value> = events.filter(|line| line.get("event").is_some()).collect();
    events.iter().for_each(|line| assert_valid(&validator, line));
    events.into_iter().filter(|line| line["event"] == name).collect()
}

/// What the command itself prints: of stores, too, which it tells people of in other words.
#[test]
fn the_command_logs_what_befalls_a_store() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    let at = Sections::of(&Geometry::blocks(64));
    common::patch(&path, at.cells + 8, &u64::MAX.to_le_bytes());
    for (log, expected) in [("--log json ", 1), ("--log json,error ", 1), ("--log json,off ", 0), ("", 0)] {
        let done = folder.casblock(&format!("{log}read a.casb 1"));
        assert_eq!(done.status, 1);
        let events = events_in(&done.stderr, "store.corruption");
        assert_eq!(events.len(), expected, "{log}: {}", done.stderr);
        assert!(events.iter().all(|line| (&line["lba"], &line["count"]) == (&1.into(), &1.into())), "{events:?}");
        // Nor in other words, where people are told of it once.
        assert_eq!(done.stderr.matches("the store is damaged").count(), 1 + expected, "{}", done.stderr);
    }
    // As docs/events.md shows.
    let done = folder.casblock("--log json check a.casb --exclusive --repair");
    assert_eq!(events_in(&done.stderr, "store.repaired").len(), 1, "{}", done.stderr);
}

#[test]
fn faults_add_up_where_only_warnings_are_shown() {
    const FAULTS: u64 = 1000;
    let lines = logged_at(LevelFilter::WARN, || {
        let ats = Ats::in_environment(store(), Virtual::new(1));
        for _ in 0..FAULTS / 2 {
            // There is no block 9: neither to write, nor to read before an update.
            let _ = ats.write_record(9, &[0; 512], draft(1));
            let _ = ats.update_record(9, |_| draft(1));
            let _ = ats.compare_and_write(7, &[1; 512], &[2; 512]);
        }
        assert_eq!(ats.counts().unwritten, FAULTS);
    });
    assert!(lines.iter().all(|line| line["event"] == "ats.unwritten"), "{lines:#?}");
    let counted: u64 = lines.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!((lines.len(), counted), (2, FAULTS));
    let of_update = logged(|| drop(Ats::new(store()).update(9, |_| ())));
    assert!(of_update.iter().any(|line| line["event"] == "ats.unwritten" && line["attempts"] == 0), "{of_update:#?}");
}

/// Stores without a recorder, and handles that may only read, tell as others do.
#[test]
fn who_cannot_record_logs_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let geometry = Geometry::blocks(8).writers(4).words(4).events(0);
    let at = Sections::of(&geometry);
    drop(Store::create(&path, geometry).unwrap());
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&(5u64 + 1).to_le_bytes(), at.writers + 2 * SLOT_BYTES + SPARE).unwrap();
    file.write_all_at(&3u16.to_le_bytes(), at.tags + 2 * 5).unwrap();
    file.write_all_at(&u64::MAX.to_le_bytes(), at.cells + 8 * 6).unwrap();
    let events = |work: &dyn Fn()| -> Vec<String> {
        logged(work).iter().map(|line| line["event"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let fails = |store: &Store| {
        (0..1000).for_each(|_| assert!(matches!(store.read(6, &mut [0; 512]), Err(Error::Corrupt { .. }))))
    };
    let adopted = events(&|| {
        let store = Store::open(&path).unwrap();
        let _ = [(); 4].map(|()| store.writer().unwrap());
        fails(&store);
    });
    // The second may come a second later.
    assert!(adopted.len() <= 3 && adopted[..2] == ["store.writer_adopted", "store.corruption"], "{adopted:?}");
    let read = events(&|| fails(&Store::open_read_only(&path).unwrap()));
    assert!(read.len() <= 2 && read[0] == "store.corruption", "{read:?}");
}
