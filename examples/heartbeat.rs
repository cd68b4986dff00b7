//! A host that is alive, and sees who else is: start it several times on one store, kill one, and watch the others notice.
//!
//! ```text
//! cargo run --example heartbeat -- alpha /tmp/cluster.casb &
//! cargo run --example heartbeat -- beta /tmp/cluster.casb
//! ```
//!
//! Without arguments it plays both hosts itself, on a store in memory, for two seconds.

use std::error::Error;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use casblock::ats::Ats;
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName, Timing};
use casblock::{Geometry, Store};

/// Fast hearts, so that there is something to see.
const TIMING: Timing = Timing {
    interval: Duration::from_millis(100),
    io_timeout: Duration::from_millis(200),
    stale: Duration::from_millis(500),
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => by_oneself(),
        [name, path] => forever(name, Path::new(path)),
        _ => Err("two arguments are needed, a name and a store's path, or none".into()),
    }
}

/// Makes the store and its cluster, unless they are there.
fn open(path: &Path) -> Result<Store, Box<dyn Error>> {
    if path.exists() {
        return Ok(Store::open(path)?);
    }
    let store = Store::create(path, Geometry::blocks(64))?;
    make_cluster(&store)?;
    Ok(store)
}

fn make_cluster(store: &Store) -> Result<(), Box<dyn Error>> {
    let options = ClusterOptions { timing: TIMING, ..ClusterOptions::hosts(8) };
    Cluster::create(&Ats::new(store.clone()), options, false)?;
    Ok(())
}

fn join(store: &Store, name: &str) -> Result<Host<Store>, Box<dyn Error>> {
    let name = HostName::new(name).ok_or("a name of 1 to 64 bytes is needed")?;
    let config = HostConfig::new(name.clone()).on_loss(move |loss| eprintln!("{name} stops all work: {loss}"));
    Ok(Host::join(store.clone(), config)?)
}

fn tell(host: &Host<Store>) -> Result<(), Box<dyn Error>> {
    for slot in host.hosts()?.into_iter().filter(|slot| slot.generation > 0) {
        let name = slot.name.map_or_else(|| "?".into(), |name| name.to_string());
        print!("{name}: {} ({} beats)   ", slot.liveness.name(), slot.beats);
    }
    println!();
    Ok(())
}

fn forever(name: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    let host = join(&open(path)?, name)?;
    // Killed, stopped for too long, or cut off from the disk: others see it within half a second.
    while host.is_current() {
        tell(&host)?;
        sleep(Duration::from_millis(500));
    }
    Err("this host is taken for dead; it may join again".into())
}

fn by_oneself() -> Result<(), Box<dyn Error>> {
    let store = Store::in_memory(Geometry::blocks(64))?;
    make_cluster(&store)?;
    let alpha = join(&store, "alpha")?;
    let beta = join(&store, "beta")?;
    for _ in 0..2 {
        sleep(Duration::from_millis(300));
        tell(&alpha)?;
    }
    println!("beta leaves");
    beta.leave();
    tell(&alpha)?;
    println!("gamma takes its slot, and dies: its heart stands still");
    let gamma = Host::join_by_hand(
        store,
        HostConfig::new(HostName::new("gamma").ok_or("a name")?),
        casblock::environment::System,
    )?;
    std::mem::forget(gamma);
    for _ in 0..4 {
        tell(&alpha)?;
        sleep(Duration::from_millis(200));
    }
    Ok(())
}
