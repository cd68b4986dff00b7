//! A device on which something happens just before a request, and a cluster on it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use casblock::ats::Ats;
use casblock::device::{BlockDevice, DeviceError, Faults, Faulty};
use casblock::environment::Virtual;
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName, Timing};
use casblock::{Geometry, Store};

pub const SECOND: Duration = Duration::from_secs(1);

pub type Member<D> = Host<D, Arc<Virtual>>;
/// A disk that hosts share, as one of them sees it.
pub type Disk = Faulty<Store, Arc<Virtual>>;

type Act<D> = Box<dyn FnOnce(&D) + Send>;

/// A device on which something happens once, just before a compare-and-write of this block.
pub struct Hooked<D> {
    pub device: D,
    /// How often it was flushed.
    pub flushes: AtomicU32,
    act: Mutex<Option<(u64, Act<D>)>>,
}

impl<D> Hooked<D> {
    pub fn new(device: D) -> Arc<Self> {
        Arc::new(Self { device, flushes: AtomicU32::new(0), act: Mutex::new(None) })
    }

    pub fn before_writing(&self, lba: u64, act: impl FnOnce(&D) + Send + 'static) {
        *self.act.lock().unwrap() = Some((lba, Box::new(act)));
    }

    /// Whether it has happened.
    pub fn is_done(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }
}

impl<D: BlockDevice> BlockDevice for Hooked<D> {
    fn name(&self) -> Cow<'_, str> {
        self.device.name()
    }

    fn block_bytes(&self) -> usize {
        self.device.block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.device.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.device.compare_and_write_blocks_max()
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read(lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.device.write(lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let act = self.act.lock().unwrap().take_if(|(its, _)| *its == lba);
        if let Some((_, act)) = act {
            act(&self.device);
        }
        self.device.compare_and_write(lba, expected, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Relaxed);
        self.device.flush()
    }

    fn as_store(&self) -> Option<&Store> {
        self.device.as_store()
    }
}

/// What becomes of requests for some blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gate {
    Open,
    /// They are not answered, as one hears at once.
    Unanswered(Range<u64>),
    /// They take so long.
    Slow(Range<u64>, Duration),
    /// They wait until the gate is opened.
    Closed(Range<u64>),
}

/// A device behind a gate, in real time.
pub struct Gated {
    device: Store,
    gate: Mutex<Gate>,
    changed: Condvar,
}

impl Gated {
    /// With a cluster of such timing on it; hearts beat in blocks.
    pub fn new(timing: Timing) -> Arc<Self> {
        let device = Arc::new(Self { device: store(), gate: Mutex::new(Gate::Open), changed: Condvar::new() });
        Cluster::create(&Ats::new(&device), ClusterOptions { timing, ..options() }, false).unwrap();
        device
    }

    pub fn set(&self, gate: Gate) {
        *self.gate.lock().unwrap() = gate;
        self.changed.notify_all();
    }

    /// As [`set`](Self::set), until what it gives is dropped: a test that fails must not wait at a closed gate.
    pub fn while_it_is(self: &Arc<Self>, gate: Gate) -> Until {
        self.set(gate);
        Until(Arc::clone(self))
    }

    fn pass(&self, lba: u64) -> Result<(), DeviceError> {
        let is_closed = |gate: &mut Gate| matches!(gate, Gate::Closed(range) if range.contains(&lba));
        let gate = self.changed.wait_while(self.gate.lock().unwrap(), is_closed).unwrap().clone();
        match gate {
            Gate::Unanswered(range) if range.contains(&lba) => return Err(DeviceError::unknown("no answer")),
            Gate::Slow(range, time) if range.contains(&lba) => std::thread::sleep(time),
            _ => {}
        }
        Ok(())
    }
}

/// Opens a gate when it is dropped.
pub struct Until(Arc<Gated>);

impl Drop for Until {
    fn drop(&mut self) {
        self.0.set(Gate::Open);
    }
}

impl BlockDevice for Gated {
    fn name(&self) -> Cow<'_, str> {
        "gated".into()
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
        self.pass(lba)?;
        BlockDevice::read(&self.device, lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.pass(lba)?;
        BlockDevice::write(&self.device, lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.pass(lba)?;
        BlockDevice::compare_and_write(&self.device, lba, expected, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

pub fn timing(interval_ms: u64, io_timeout_ms: u64, stale_ms: u64) -> Timing {
    let ms = Duration::from_millis;
    Timing { interval: ms(interval_ms), io_timeout: ms(io_timeout_ms), stale: ms(stale_ms) }
}

pub fn store() -> Store {
    Store::in_memory(Geometry::blocks(128)).unwrap()
}

/// Eight hosts and sixteen leases: slots from block 1 on, leases from block 9 on.
pub fn options() -> ClusterOptions {
    ClusterOptions { leases: 16, ..ClusterOptions::hosts(8) }
}

pub fn slot_lba(slot: u64) -> u64 {
    1 + slot
}

pub fn lease_lba(lease: u64) -> u64 {
    9 + lease
}

pub fn name(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub fn join<D: BlockDevice + 'static>(device: D, its: &str, world: &Arc<Virtual>) -> Member<D> {
    Host::join_by_hand(device, HostConfig::new(name(its)), Arc::clone(world)).unwrap()
}

/// A cluster on a disk: hearts beat in blocks.
pub fn disk(world: &Arc<Virtual>) -> Disk {
    let faults = Faults { timeout: SECOND, ..Faults::none(1) };
    let device = Faulty::in_environment(store(), faults, Arc::clone(world));
    let cluster = Cluster::create(&Ats::in_environment(&device, world), options(), false).unwrap();
    assert!(!cluster.is_in_words());
    device
}
