//! What a fencing token is for: a writer that was stopped while it held a lease, and a log that refuses it afterwards.
//!
//! ```text
//! cargo run --example lease
//! ```

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use casblock::ats::Ats;
use casblock::environment::System;
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName, Timing};
use casblock::lease::Mode;
use casblock::{Geometry, Store};

/// Something that hosts write to over a network: it can know nothing of leases but the tokens it is given.
#[derive(Default)]
struct Log {
    greatest_token: u64,
    lines: Vec<String>,
}

impl Log {
    /// Takes a line, unless somebody has written with a greater token: then the writer has lost its lease.
    fn append(&mut self, token: u64, line: &str) -> Result<(), String> {
        if token < self.greatest_token {
            return Err(format!("token {token} is too old: {} was seen", self.greatest_token));
        }
        self.greatest_token = token;
        self.lines.push(line.to_owned());
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = Store::in_memory(Geometry::blocks(64))?;
    let ms = Duration::from_millis;
    let timing = Timing { interval: ms(20), io_timeout: ms(50), stale: ms(150) };
    Cluster::create(&Ats::new(store.clone()), ClusterOptions { timing, ..ClusterOptions::hosts(8) }, false)?;
    let config = |name| HostName::new(name).map(HostConfig::new).ok_or("a name");
    let mut log = Log::default();

    // Its heart does not beat by itself here: as if the whole machine were stopped.
    let slow = Host::join_by_hand(store.clone(), config("slow")?, System)?;
    let lease = slow.try_acquire(3, Mode::Exclusive)?;
    println!("slow holds lease 3 with token {}", lease.token());
    log.append(lease.token(), "written by slow")?;

    // Another host waits for the lease, sees the heart stand still, fences the host, and takes the lease.
    let quick = Host::join(store, config("quick")?)?;
    let taken = quick.acquire(3, Mode::Exclusive, Duration::from_secs(5))?;
    println!("quick took it over with token {}", taken.token());
    log.append(taken.token(), "written by quick")?;

    // The first host goes on. It knows better, if it asks ...
    assert!(!lease.is_valid());
    println!("slow knows that its lease is no longer valid: {}", slow.beat().expect_err("it was fenced"));
    // ... but what it had sent before it was stopped may arrive only now. The log refuses it.
    let refused = log.append(lease.token(), "sent by slow, long ago").expect_err("its token is too old");
    println!("the log refuses what arrives late: {refused}");
    taken.release()?;
    sleep(ms(1));
    println!("the log: {:?}", log.lines);
    Ok(())
}
