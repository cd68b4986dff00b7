//! Where a cluster keeps its heartbeats and leases on a device.
//!
//! One block of header, one block for each host's slot, one for each lease, from block `first_lba` on. All are
//! [records](crate::ats::Record). On a [`Store`](crate::Store) the hearts beat in its words, one for each slot, and the slots'
//! blocks only say who has them.

use std::time::Duration;

use super::config::{Timing, TimingError};
use crate::ats::NotARecord;
use crate::ats::record::{Fields, payload};
use crate::device::{BlockDevice, DeviceError, Failure};

/// The kinds of a cluster's records.
pub(crate) mod kind {
    /// The header.
    pub const CLUSTER: u32 = u32::from_le_bytes(*b"clus");
    /// A host's slot.
    pub const HOST: u32 = u32::from_le_bytes(*b"host");
    /// A lease.
    pub const LEASE: u32 = u32::from_le_bytes(*b"leas");
}

/// The version of the layout.
const VERSION: u32 = 1;
/// The version in the header of a cluster while another is made in its place.
const BEING_REPLACED: u32 = 0;
/// The most hosts.
pub const HOSTS_MAX: u32 = 1 << 16;

/// What a cluster is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterOptions {
    /// The block of the header.
    pub first_lba: u64,
    /// How many hosts can be there at the same time: 1 to 65,536.
    pub hosts: u32,
    /// How many leases there are.
    pub leases: u64,
    /// How fast hearts beat.
    pub timing: Timing,
}

impl ClusterOptions {
    /// A cluster of so many hosts, with as many leases, from block 0 on, that beats as VMFS does.
    pub fn hosts(hosts: u32) -> Self {
        Self { first_lba: 0, hosts, leases: hosts.into(), timing: Timing::default() }
    }
}

/// A cluster on a device, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cluster {
    pub(super) first_lba: u64,
    pub(super) hosts: u32,
    pub(super) leases: u64,
    pub(super) timing: Timing,
    pub(super) in_words: bool,
    pub(super) id: u128,
}

/// Why a cluster cannot be made, or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The options are not possible.
    #[error("{reason}")]
    Options {
        /// Which number is out of which bounds.
        reason: String,
    },
    /// The timing is not possible.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// A block that the cluster would take is in use: perhaps by another.
    #[error("{device}: block {lba} holds something; a cluster needs blocks of zeros")]
    InUse {
        /// The device.
        device: String,
        /// The first such block.
        lba: u64,
    },
    /// A heartbeat word that the cluster would take is in use: by another cluster of the store, or by something else.
    #[error("{device}: word {word} holds something; a store's words serve one cluster, and it needs those to be zero")]
    WordInUse {
        /// The device.
        device: String,
        /// The first such word.
        word: u64,
    },
    /// There is none.
    #[error("{device} has no cluster at block {lba} ({source}); `casblock cluster init` makes one")]
    None {
        /// The device.
        device: String,
        /// The block looked at.
        lba: u64,
        /// What it holds.
        source: NotARecord,
    },
    /// The header makes no sense, or is of a newer version.
    #[error("the cluster's header on {device}: {reason}")]
    Header {
        /// The device.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// The device could not, or did not answer.
    #[error("{device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// What it answered.
        source: DeviceError,
    },
}

/// Reads integers from a payload, one after the other.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    /// The next `N` bytes; zeros after the end.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Cluster {
    /// Finds a device's cluster.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn open(device: &(impl BlockDevice + ?Sized), first_lba: u64) -> Result<Self, ClusterError> {
        let name = || device.name().into_owned();
        let mut header = vec![0; device.block_bytes()];
        device
            .read_current(first_lba, &mut header)
            .map_err(|source| ClusterError::Device { device: name(), source })?;
        let none = |source| ClusterError::None { device: name(), lba: first_lba, source };
        let fields = Fields::of_block(first_lba, &header).map_err(none)?;
        if fields.kind != kind::CLUSTER {
            return Err(none(NotARecord::Other));
        }
        let wrong = |reason| ClusterError::Header { device: name(), reason };
        let (version, cluster) = Self::parse(first_lba, payload(&header)).map_err(wrong)?;
        if version == BEING_REPLACED {
            let what = "another cluster is being made in its place; if that was interrupted, make it again: --force";
            return Err(wrong(what.into()));
        }
        let has_words = device.as_store().is_some_and(|store| store.geometry().word_count() >= cluster.hosts.into());
        if cluster.in_words && !has_words {
            return Err(wrong("hearts beat in a store's words, which this device has not, or too few".into()));
        }
        cluster.check_room(device)?;
        Ok(cluster)
    }

    /// What the header of a device's cluster says, whether it can be joined or is being replaced; `None` if it makes no sense.
    pub(super) fn of_header(device: &(impl BlockDevice + ?Sized), first_lba: u64, header: &[u8]) -> Option<Self> {
        let fields = Fields::of_block(first_lba, header).ok().filter(|fields| fields.kind == kind::CLUSTER);
        let (_, cluster) = fields.and_then(|_| Self::parse(first_lba, payload(header)).ok())?;
        cluster.check_room(device).ok().map(|()| cluster)
    }

    /// The payload of its header.
    pub(super) fn payload(&self) -> Vec<u8> {
        self.payload_of(VERSION)
    }

    /// The same while another cluster is made in its place.
    pub(super) fn payload_being_replaced(&self) -> Vec<u8> {
        self.payload_of(BEING_REPLACED)
    }

    fn payload_of(&self, version: u32) -> Vec<u8> {
        let Timing { interval, io_timeout, stale } = self.timing;
        let mut payload = Vec::new();
        payload.extend(version.to_le_bytes());
        payload.extend(u32::from(self.in_words).to_le_bytes());
        payload.extend(self.hosts.to_le_bytes());
        payload.extend([0; 4]);
        for number in [self.leases, micros(interval), micros(io_timeout), micros(stale)] {
            payload.extend(number.to_le_bytes());
        }
        payload.extend(self.id.to_le_bytes());
        payload
    }

    /// What a header says, and its version; it is not trusted.
    fn parse(first_lba: u64, payload: &[u8]) -> Result<(u32, Self), String> {
        let mut reader = Reader(payload);
        let (version, in_words, hosts) = (reader.u32(), reader.u32(), reader.u32());
        reader.u32();
        let leases = reader.u64();
        let mut time = || Duration::from_micros(reader.u64());
        let timing = Timing { interval: time(), io_timeout: time(), stale: time() };
        let id = u128::from_le_bytes(reader.bytes());
        if ![VERSION, BEING_REPLACED].contains(&version) {
            return Err(format!("version {version}; this casblock knows {VERSION}"));
        }
        if in_words > 1 || hosts == 0 || hosts > HOSTS_MAX {
            return Err(format!("{hosts} hosts, words {in_words}"));
        }
        timing.check().map_err(|error| error.to_string())?;
        Ok((version, Self { first_lba, hosts, leases, timing, in_words: in_words == 1, id }))
    }

    pub(super) fn check_room(&self, device: &(impl BlockDevice + ?Sized)) -> Result<(), ClusterError> {
        let blocks = device.block_count();
        let end = self.first_lba.checked_add(1 + u64::from(self.hosts)).and_then(|end| end.checked_add(self.leases));
        if end.is_some_and(|end| end <= blocks) {
            return Ok(());
        }
        let reason = format!(
            "a header, {} hosts and {} leases from block {} on; the device has {blocks} blocks",
            self.hosts, self.leases, self.first_lba
        );
        Err(ClusterError::Options { reason })
    }

    /// How many hosts there can be.
    pub fn host_count(&self) -> u32 {
        self.hosts
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> u64 {
        self.leases
    }

    /// How fast hearts beat.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Whether hearts beat in a store's words; else in the slots' blocks.
    pub fn is_in_words(&self) -> bool {
        self.in_words
    }

    /// What tells the cluster from others: drawn when it was made.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// The block of a slot.
    ///
    /// # Errors
    /// [`Failure::Invalid`].
    pub(crate) fn slot_lba(&self, slot: u32) -> Result<u64, DeviceError> {
        match slot < self.hosts {
            true => Ok(self.first_lba + 1 + u64::from(slot)),
            false => {
                Err(DeviceError::failed(Failure::Invalid, format!("there is no slot {slot}: {} slots", self.hosts)))
            }
        }
    }

    /// The block of a lease.
    ///
    /// # Errors
    /// [`Failure::Invalid`].
    pub(crate) fn lease_lba(&self, lease: u64) -> Result<u64, DeviceError> {
        match lease < self.leases {
            true => Ok(self.first_lba + 1 + u64::from(self.hosts) + lease),
            false => {
                Err(DeviceError::failed(Failure::Invalid, format!("there is no lease {lease}: {} leases", self.leases)))
            }
        }
    }

    /// The block behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.first_lba + 1 + u64::from(self.hosts) + self.leases
    }
}
