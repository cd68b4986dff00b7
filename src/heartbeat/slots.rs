//! A cluster's slots: reading one's heartbeat, and exchanging it.
//!
//! The one place that knows whether hearts beat in a store's words or in the slots' blocks.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::beat::{Beat, State};
use super::journal;
use super::region::{Cluster, Reader, kind};
use crate::Durability;
use crate::ats::record::{Fields, payload};
use crate::ats::{Ats, Draft, NotARecord, Owner, Verdict};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;

/// Bytes of a host's name.
pub const NAME_BYTES_MAX: usize = 64;

/// A host's name: 1 to 64 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostName(String);

impl HostName {
    /// The name, if it is one.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        is_name.then_some(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a slot was seen to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// The heartbeat.
    pub beat: Beat,
    /// Who has the slot, as its block says: of the same generation as the beat.
    pub name: Option<HostName>,
    /// Which join of a host wrote the block: drawn anew for each. 0 where nobody knows.
    pub join: u128,
    /// What is wrong with the block, if that hides the heartbeat.
    pub damage: Option<String>,
    /// The slot's block: what an exchange expects, where hearts beat in blocks.
    block: Box<[u8]>,
}

impl Seen {
    /// What changes whenever the slot does.
    pub fn pulse(&self) -> (Beat, u32) {
        (self.beat, if self.damage.is_some() { crc32c::crc32c(&self.block) } else { 0 })
    }
}

/// What an exchange of a heartbeat came to.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// It was done: what the slot holds now.
    Done(Seen),
    /// It was not: what the slot holds instead. Or it was, and somebody has replaced it since.
    Found(Seen),
    /// It was not, or nobody knows.
    Failed(DeviceError),
}

/// The slots of a cluster on a device.
#[derive(Debug)]
pub(crate) struct Slots<D, E> {
    pub cluster: Cluster,
    pub ats: Ats<D, E>,
}

impl<D: BlockDevice, E: Environment> Slots<D, E> {
    /// Reads a slot.
    pub fn read(&self, slot: u32) -> Result<Seen, DeviceError> {
        let lba = self.cluster.slot_lba(slot)?;
        // The word first: a name that was read later is of the same generation, or else not shown.
        let word = self.word(slot)?;
        let mut block = vec![0; self.ats.device().block_bytes()].into_boxed_slice();
        self.ats.device().read_current(lba, &mut block)?;
        Ok(self.parse(lba, block, word))
    }

    /// Reads all slots, many at a time.
    pub fn read_all(&self) -> Result<Vec<Seen>, DeviceError> {
        let words = (0..self.cluster.host_count()).map(|slot| self.word(slot)).collect::<Result<Vec<_>, _>>()?;
        let mut words = words.into_iter();
        let mut all = Vec::new();
        let range = self.cluster.slot_lba(0)?..self.cluster.slot_lba(self.cluster.host_count() - 1)? + 1;
        read_blocks(self.ats.device(), range, |lba, block| {
            all.push(self.parse(lba, block.into(), words.next().flatten()));
            Ok(())
        })?;
        Ok(all)
    }

    /// The heartbeat in a store's word, where hearts beat there.
    fn word(&self, slot: u32) -> Result<Option<Beat>, DeviceError> {
        match (self.cluster.is_in_words(), self.ats.device().as_store()) {
            (true, Some(store)) => Ok(Some(Beat::from_bits(store.read_word(slot.into())?))),
            (true, None) => Err(DeviceError::failed(Failure::Unsupported, "the device has no heartbeat words")),
            (false, _) => Ok(None),
        }
    }

    fn parse(&self, lba: u64, block: Box<[u8]>, word: Option<Beat>) -> Seen {
        let written = slot_of_block(lba, &block);
        // A beat is whole in its word, and who takes the slot writes the block anew.
        let damage = written.as_ref().err().filter(|_| word.is_none()).cloned();
        let (written, name, join) = written.unwrap_or_default();
        let beat = word.unwrap_or(written);
        let name = name.filter(|_| written.generation() == beat.generation());
        Seen { beat, name, join, damage, block }
    }

    /// Takes a slot for a new owner.
    pub fn take(&self, slot: u32, seen: &Seen, name: &HostName) -> Exchange {
        let owner = Seen {
            damage: None,
            name: Some(name.clone()),
            join: self.ats.environment().random().max(1),
            ..seen.clone()
        };
        self.exchange(slot, seen, seen.beat.taken(), Some(&owner))
    }

    /// Exchanges a slot's heartbeat from what was seen to `beat`. A new owner's name is given; others keep the one that is there.
    pub fn exchange(&self, slot: u32, seen: &Seen, beat: Beat, owner: Option<&Seen>) -> Exchange {
        match self.try_exchange(slot, seen, beat, owner) {
            Ok(exchange) => exchange,
            Err(error) => Exchange::Failed(error),
        }
    }

    /// Shuts a slot's owner out, whose heart was seen to stand still at `seen`; whether it is out now.
    pub fn fence(&self, slot: u32, seen: &Seen) -> Result<bool, DeviceError> {
        match self.exchange(slot, seen, seen.beat.fenced(), None) {
            Exchange::Done(_) => {
                let lba = self.cluster.slot_lba(slot)?;
                journal::host_fenced(self.ats.device(), lba, slot, seen.beat.generation());
                Ok(true)
            }
            Exchange::Found(found) => {
                Ok(found.beat.generation() != seen.beat.generation() || found.beat.state() != State::Taken)
            }
            Exchange::Failed(error) => Err(error),
        }
    }

    /// Shuts out whoever has a slot whose block is damaged, and stood still as it was seen; of no later generation than this.
    /// Whether he is out now.
    pub fn fence_damaged(&self, slot: u32, seen: &Seen, generation: u32) -> Result<bool, DeviceError> {
        match self.exchange(slot, seen, Beat::of_generation(generation).fenced(), None) {
            Exchange::Done(_) => {
                journal::host_fenced(self.ats.device(), self.cluster.slot_lba(slot)?, slot, generation);
                Ok(true)
            }
            // It is looked at anew.
            Exchange::Found(_) => Ok(false),
            Exchange::Failed(error) => Err(error),
        }
    }

    fn try_exchange(&self, slot: u32, seen: &Seen, beat: Beat, owner: Option<&Seen>) -> Result<Exchange, DeviceError> {
        let lba = self.cluster.slot_lba(slot)?;
        let Some(store) = self.ats.device().as_store().filter(|_| self.cluster.is_in_words()) else {
            return self.exchange_block(lba, slot, seen, beat, owner.unwrap_or(seen));
        };
        if let Err(found) = store.word(slot.into())?.compare_exchange(seen.beat.bits(), beat.bits()) {
            let found = self.parse(lba, seen.block.clone(), Some(Beat::from_bits(found)));
            return Ok(Exchange::Found(found));
        }
        // The word decides; the block is for people. Its name counts only with the word's generation.
        let Some(owner) = owner else { return Ok(Exchange::Done(Seen { beat, ..seen.clone() })) };
        let payload = slot_payload(beat, owner.name.as_ref(), owner.join);
        let draft = Draft { kind: kind::HOST, owner: record_owner(slot, beat), payload: &payload };
        let block = self.ats.update_record(lba, |_| draft).block;
        Ok(Exchange::Done(Seen { beat, block, ..owner.clone() }))
    }

    fn exchange_block(
        &self,
        lba: u64,
        slot: u32,
        seen: &Seen,
        beat: Beat,
        owner: &Seen,
    ) -> Result<Exchange, DeviceError> {
        let payload = slot_payload(beat, owner.name.as_ref(), owner.join);
        let draft = Draft { kind: kind::HOST, owner: record_owner(slot, beat), payload: &payload };
        let outcome = self.ats.write_record(lba, &seen.block, draft);
        Ok(match outcome.verdict {
            Verdict::Written | Verdict::OwnWriteLanded { replaced: false, .. } => {
                Exchange::Done(self.parse(lba, outcome.block, None))
            }
            Verdict::OwnWriteLanded { replaced: true, .. } | Verdict::PeerChanged { .. } => {
                Exchange::Found(self.parse(lba, outcome.block, None))
            }
            Verdict::Unwritten { source } | Verdict::Indeterminate { source, .. } => Exchange::Failed(source),
        })
    }
}

/// Puts on stable storage what was done, where the device is a store that is to survive a cut of the power: a disk does by itself.
pub(crate) fn make_durable(device: &(impl BlockDevice + ?Sized)) -> Result<(), DeviceError> {
    let durability = device.as_store().map(|store| store.geometry().durability_class());
    if durability == Some(Durability::Power) { device.flush() } else { Ok(()) }
}

/// Reads blocks, many at a time, and calls `look` with each.
pub(crate) fn read_blocks(
    device: &(impl BlockDevice + ?Sized),
    range: Range<u64>,
    mut look: impl FnMut(u64, &[u8]) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    const AT_ONCE: u64 = 128;
    let mut blocks = vec![0; AT_ONCE as usize * device.block_bytes()];
    let mut lba = range.start;
    while lba < range.end {
        let count = AT_ONCE.min(range.end - lba);
        let chunk = &mut blocks[..count as usize * device.block_bytes()];
        device.read_current(lba, chunk)?;
        for (lba, block) in (lba..).zip(chunk.chunks_exact(device.block_bytes())) {
            look(lba, block)?;
        }
        lba += count;
    }
    Ok(())
}

fn record_owner(slot: u32, beat: Beat) -> Owner {
    Owner { host: slot.into(), generation: beat.generation().into() }
}

/// What a slot's block says: the heartbeat, who has it, and by which join; what is wrong with it otherwise.
pub(super) fn slot_of_block(lba: u64, block: &[u8]) -> Result<(Beat, Option<HostName>, u128), String> {
    match Fields::of_block(lba, block) {
        Ok(fields) if fields.kind == kind::HOST => {}
        Ok(_) => return Err("it is a record, but no host's".into()),
        Err(NotARecord::Unwritten) => return Ok(Default::default()),
        Err(error) => return Err(error.to_string()),
    }
    let mut reader = Reader(payload(block));
    let (beat, bytes) = (Beat::from_bits(reader.u64()), reader.u32() as usize);
    let name: [u8; NAME_BYTES_MAX] = reader.bytes();
    let name = name.get(..bytes).map(String::from_utf8_lossy).map(Cow::into_owned);
    Ok((beat, name.and_then(HostName::new), u128::from_le_bytes(reader.bytes())))
}

/// The beat, the length of the name, the name: of one who left, too, which helps people who ask who it was; and the join.
pub(super) fn slot_payload(beat: Beat, name: Option<&HostName>, join: u128) -> Vec<u8> {
    let name = name.map_or("", HostName::as_str);
    let mut payload = beat.bits().to_le_bytes().to_vec();
    payload.extend((name.len() as u32).to_le_bytes());
    payload.extend(name.as_bytes());
    payload.resize(8 + 4 + NAME_BYTES_MAX, 0);
    payload.extend(join.to_le_bytes());
    payload
}
