//! The log: its lines are as docs/events.schema.json says, and a storm of events is few lines with exact counts.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casblock::ats::{Ats, Draft, Owner, Retry};
use casblock::device::{Faults, Faulty, Link};
use casblock::environment::Virtual;
use casblock::{Geometry, Store};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

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
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let bytes = lines.0.lock().unwrap();
    String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn store() -> Store {
    Store::in_memory(Geometry::blocks(8)).unwrap()
}

fn draft(host: u64) -> Draft<'static> {
    Draft { kind: 1, owner: Owner { host, generation: 1 }, payload: &[] }
}

/// Work in which every verdict comes up.
fn everything() {
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

#[test]
fn every_line_is_as_the_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/events.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let lines = logged(everything);
    for line in &lines {
        let errors: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line:#}: {errors:#?}");
    }
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
