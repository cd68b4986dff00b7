//! What a lease's block holds.

use crate::ats::NotARecord;
use crate::ats::record::{Fields, payload};
use crate::device::{DeviceError, Failure};
use crate::heartbeat::region::{Reader, kind};

/// The most hosts that can share a lease.
pub const HOLDERS_MAX: usize = 8;

/// How a lease is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// By one host alone.
    Exclusive,
    /// By up to [`HOLDERS_MAX`] hosts.
    Shared,
}

impl Mode {
    /// Its name: `exclusive`, `shared`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// A host that has a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// Its slot.
    pub slot: u32,
    /// Which of the slot's owners it was.
    pub generation: u32,
    /// The token of its acquisition.
    pub token: u64,
}

/// A lease, as its block says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseView {
    /// Which.
    pub lease: u64,
    /// How it is held, if it is.
    pub mode: Option<Mode>,
    /// The greatest token given so far; 0 if it was never held.
    pub token: u64,
    /// When that was, by the clock of the host that got it, in milliseconds since 1970: for people only.
    pub acquired_unix_ms: u64,
    /// Who has it; nobody if it is free.
    pub holders: Vec<Holder>,
}

impl LeaseView {
    /// A lease that nobody has, or ever had.
    pub(crate) fn free(lease: u64) -> Self {
        Self { lease, mode: None, token: 0, acquired_unix_ms: 0, holders: Vec::new() }
    }

    /// What the block of a lease says. It is not trusted.
    pub(crate) fn of_block(lease: u64, lba: u64, block: &[u8]) -> Result<Self, DeviceError> {
        let damaged =
            |what: &str| DeviceError::failed(Failure::Corrupt, format!("block {lba} is to be lease {lease}: {what}"));
        match Fields::of_block(lba, block) {
            Ok(fields) if fields.kind == kind::LEASE => {}
            Ok(_) => return Err(damaged("it is another kind of record")),
            Err(NotARecord::Unwritten) => return Ok(Self::free(lease)),
            Err(error) => return Err(damaged(&error.to_string())),
        }
        let mut reader = Reader(payload(block));
        let (mode, count) = (reader.u32(), reader.u32() as usize);
        let (token, acquired_unix_ms) = (reader.u64(), reader.u64());
        let mode = match (mode, count) {
            (0, 0) => None,
            (1, 1) => Some(Mode::Exclusive),
            (2, 1..=HOLDERS_MAX) => Some(Mode::Shared),
            _ => return Err(damaged(&format!("mode {mode} with {count} holders"))),
        };
        let holders = (0..count).map(|_| {
            let (slot, generation, token) = (reader.u32(), reader.u32(), reader.u64());
            Holder { slot, generation, token }
        });
        Ok(Self { lease, mode, token, acquired_unix_ms, holders: holders.collect() })
    }

    /// The payload of its block.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mode: u32 = match self.mode {
            None => 0,
            Some(Mode::Exclusive) => 1,
            Some(Mode::Shared) => 2,
        };
        let mut payload = mode.to_le_bytes().to_vec();
        payload.extend((self.holders.len() as u32).to_le_bytes());
        payload.extend(self.token.to_le_bytes());
        payload.extend(self.acquired_unix_ms.to_le_bytes());
        for holder in &self.holders {
            payload.extend(holder.slot.to_le_bytes());
            payload.extend(holder.generation.to_le_bytes());
            payload.extend(holder.token.to_le_bytes());
        }
        payload
    }

    /// Without one holder; the mode with the last of them.
    pub(super) fn without(mut self, gone: &Holder) -> Self {
        self.holders.retain(|holder| holder != gone);
        if self.holders.is_empty() {
            self.mode = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ats::{Nonce, Owner, Record512};

    fn block(payload: &[u8], kind: u32) -> Vec<u8> {
        let mut bytes = [0; 440];
        bytes[..payload.len()].copy_from_slice(payload);
        bytemuck::bytes_of(&Record512::new(9, kind, Owner::default(), Nonce::new(1), Nonce::NONE, bytes)).to_vec()
    }

    fn view(holders: usize) -> LeaseView {
        let holder = |slot| Holder { slot, generation: slot + 1, token: u64::from(slot) + 2 };
        LeaseView {
            lease: 5,
            mode: Some(Mode::Shared).filter(|_| holders > 0),
            token: 77,
            acquired_unix_ms: 1,
            holders: (0..holders as u32).map(holder).collect(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for holders in 0..=HOLDERS_MAX {
            let view = view(holders);
            assert_eq!(LeaseView::of_block(5, 9, &block(&view.payload(), kind::LEASE)).unwrap(), view);
        }
        assert_eq!(LeaseView::of_block(5, 9, &[0; 512]).unwrap(), LeaseView::free(5));
    }

    #[test]
    fn nonsense_is_damage() {
        for (mode, holders) in [(0u32, 1u32), (1, 0), (1, 2), (2, 0), (2, 9), (3, 1), (u32::MAX, u32::MAX)] {
            let payload = [mode.to_le_bytes(), holders.to_le_bytes()].concat();
            let error = LeaseView::of_block(5, 9, &block(&payload, kind::LEASE)).unwrap_err();
            assert_eq!(error.failure(), Some(Failure::Corrupt), "mode {mode}, {holders} holders");
        }
        assert!(LeaseView::of_block(5, 9, &block(&view(1).payload(), kind::HOST)).is_err());
        assert!(LeaseView::of_block(5, 8, &block(&view(1).payload(), kind::LEASE)).is_err());
    }

    #[test]
    fn the_last_holder_frees_it() {
        let shared = view(2);
        let one = shared.clone().without(&shared.holders[0]);
        assert_eq!((one.mode, one.holders.len(), one.token), (Some(Mode::Shared), 1, 77));
        assert_eq!(one.without(&shared.holders[1]).mode, None);
    }
}
