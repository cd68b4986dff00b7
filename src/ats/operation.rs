//! One compare-and-write made certain, as a machine without a device: what to do next, given what was answered.
//!
//! [`Ats`](super::Ats) runs it on a device. It is apart, and public, for those who do their own I/O: asynchronous
//! programs, simulators, and the test that tries every placement of faults (`ambiguity.rs`).
//!
//! # Why its conclusions are right
//! Let `E` be the image that was expected, and let no image of the block ever come twice. A request of ours takes effect
//! only while the block holds `E`.
//! 1. Once the block has moved on from `E`, no request of ours that is still under way can take effect.
//! 2. So if an attempt is answered "written", no earlier one took effect, and none will.
//! 3. If the block holds an image of ours, that attempt took effect; by 1 no other did or will.
//! 4. If the block holds a record which says that it replaced an image of ours, the same.
//! 5. If the block holds a record which says that it replaced `E`, none of ours took effect, and by 1 none will.
//! 6. If no outcome is unknown, a miscompare says that none of ours took effect; by 1 none will.
//!
//! What is left open: the block still holds `E` and an attempt may be under way (then another attempt settles it, by 2), or
//! it holds a record that replaced neither `E` nor ours, so that two peers or more were there since.
//!
//! All of it needs that no image comes twice. Records see to that; of plain bytes only the caller can know it. Where he
//! does not promise it, an attempt whose outcome is unknown is not followed by another: if the first took effect and a peer
//! put `E` back, the second would do it again.

use super::record::{Fields, Nonce, OVERHEAD_BYTES, Owner, payload_mut, seal};
use crate::device::{DeviceError, Failure, first_difference};
use crate::error::Error;

/// What a record is to say, but for its nonces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Draft<'a> {
    /// The user's number for this kind of record.
    pub kind: u32,
    /// Who writes it.
    pub owner: Owner,
    /// The user's bytes: zeros fill the rest of the payload.
    pub payload: &'a [u8],
}

/// What images an operation writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Images {
    /// The same each time; it may have been there before, and come again.
    Plain,
    /// The same each time; it was never there before, nor will be again, nor will what was expected.
    Unique,
    /// A record with a nonce of its own each time.
    Records { kind: u32, owner: Owner, replaced: Nonce, nonces: Vec<Nonce> },
}

/// One compare-and-write, made certain. See the module's documentation for why.
///
/// Whoever runs it calls [`attempt`](Self::attempt), compares and writes what it gives, and tells
/// [`answered`](Self::answered); then does what [`Next`] says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    lba: u64,
    expected: Box<[u8]>,
    image: Box<[u8]>,
    images: Images,
    attempts: u32,
    /// An attempt's outcome is not known: it may have taken effect, or may yet.
    unknown: bool,
    /// Does without the looks at the block, to show that they are needed.
    #[cfg(test)]
    pub(super) careless: bool,
}

/// What was answered to an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// It took effect.
    Written,
    /// It did not, for the block held something else; these are the bytes found.
    Miscompare(&'a [u8]),
    /// It did not, for another reason.
    Failed,
    /// There was no answer.
    Unknown,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Next {
    /// It is decided.
    Done(Conclusion),
    /// Read the block, and call [`Operation::saw`].
    Look,
    /// Make another attempt, or [give up](Operation::give_up).
    Attempt,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Conclusion {
    /// The last attempt was answered: it took effect.
    Written,
    /// An attempt that was not answered took effect.
    OwnWriteLanded {
        /// Whether a peer has replaced it since.
        replaced: bool,
    },
    /// A peer has changed the block: no attempt took effect, and none will.
    PeerChanged {
        /// The first byte in which the block differs from what was expected, in bytes.
        offset: usize,
        /// Who wrote it, if it is a record.
        owner: Option<Owner>,
    },
    /// No attempt took effect, and none will.
    Unwritten,
    /// It cannot be known whether an attempt took effect.
    Indeterminate {
        /// Whether an attempt may yet take effect: the block holds what it expects, for all that is known, or may come to
        /// hold it again.
        may_still_land: bool,
    },
}

impl Operation {
    /// Replaces plain bytes. Both are equally long; they may be several blocks.
    pub fn plain(lba: u64, expected: &[u8], new: &[u8]) -> Self {
        Self::new(lba, expected, new.into(), Images::Plain)
    }

    /// Replaces bytes by others of which the caller promises that the block never held them before and never will again, by
    /// whomever, and the same of what is expected.
    pub fn unique(lba: u64, expected: &[u8], new: &[u8]) -> Self {
        Self::new(lba, expected, new.into(), Images::Unique)
    }

    /// Replaces a block by a record. The caller promises that all who change the block write records.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if the payload does not fit.
    pub fn record(lba: u64, expected: &[u8], draft: Draft<'_>) -> Result<Self, DeviceError> {
        let replaced = Fields::of_block(lba, expected).map_or(Nonce::NONE, |fields| fields.nonce);
        let (bytes, mut image) = (draft.payload.len(), vec![0; expected.len()].into_boxed_slice());
        if image.len() < OVERHEAD_BYTES || bytes > image.len() - OVERHEAD_BYTES {
            let (expected, block_size) = ("a block less the 72 bytes of a record, at most,", image.len());
            return Err(DeviceError::failed(Failure::Invalid, Error::BufferLength { bytes, expected, block_size }));
        }
        payload_mut(&mut image)[..bytes].copy_from_slice(draft.payload);
        let (kind, owner) = (draft.kind, draft.owner);
        Ok(Self::new(lba, expected, image, Images::Records { kind, owner, replaced, nonces: Vec::new() }))
    }

    fn new(lba: u64, expected: &[u8], image: Box<[u8]>, images: Images) -> Self {
        Self {
            lba,
            expected: expected.into(),
            image,
            images,
            attempts: 0,
            unknown: false,
            #[cfg(test)]
            careless: false,
        }
    }

    /// The first block.
    pub fn lba(&self) -> u64 {
        self.lba
    }

    /// What the block must hold.
    pub fn expected(&self) -> &[u8] {
        &self.expected
    }

    /// What the last attempt was to write.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// How many attempts were begun.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins an attempt: what it is to write instead of what is expected. `nonce` was never used before; plain bytes do
    /// without.
    pub fn attempt(&mut self, nonce: Nonce) -> &[u8] {
        self.attempts += 1;
        if let Images::Records { kind, owner, replaced, nonces } = &mut self.images {
            nonces.push(nonce);
            let fields = Fields { kind: *kind, owner: *owner, nonce, replaced: *replaced };
            seal(&mut self.image, self.lba, &fields);
        }
        &self.image
    }

    /// Takes the answer to the last attempt.
    pub fn answered(&mut self, answer: Answer<'_>) -> Next {
        match answer {
            Answer::Written => Next::Done(Conclusion::Written),
            Answer::Miscompare(found) => self.judge(found),
            Answer::Unknown => {
                self.unknown = true;
                if self.is_careless() { Next::Attempt } else { Next::Look }
            }
            Answer::Failed if self.unknown && !self.is_careless() => Next::Look,
            Answer::Failed => Next::Attempt,
        }
    }

    /// Takes what a look at the block showed; `None` if it could not be read. If it says [`Next::Look`] again, the block is to be
    /// read again, some time later.
    pub fn saw(&mut self, found: Option<&[u8]>) -> Next {
        match (found, &self.images) {
            (Some(found), _) => self.judge(found),
            (None, Images::Plain) => Next::Look,
            (None, _) => Next::Attempt,
        }
    }

    /// How it stands, if nothing more is done.
    pub fn give_up(&self) -> Conclusion {
        match self.unknown {
            true => Conclusion::Indeterminate { may_still_land: true },
            false => Conclusion::Unwritten,
        }
    }

    /// What it means that the block holds `found`. The numbers are those of the module's documentation.
    fn judge(&self, found: &[u8]) -> Next {
        let Some(offset) = first_difference(&self.expected, found) else {
            return match (self.unknown, &self.images) {
                (true, Images::Plain) => Next::Done(self.give_up()),
                _ => Next::Attempt,
            };
        };
        let fields = Fields::of_block(self.lba, found).ok();
        let owner = fields.map(|fields| fields.owner);
        let peer = Conclusion::PeerChanged { offset, owner };
        let unclear = Conclusion::Indeterminate { may_still_land: false };
        if self.is_careless() {
            return Next::Done(peer);
        }
        Next::Done(match (&self.images, fields) {
            (Images::Records { nonces, .. }, Some(its)) if nonces.contains(&its.nonce) => {
                Conclusion::OwnWriteLanded { replaced: false } // 3
            }
            (Images::Records { nonces, .. }, Some(its)) if nonces.contains(&its.replaced) => {
                Conclusion::OwnWriteLanded { replaced: true } // 4
            }
            (Images::Unique, _) if *found == *self.image && self.attempts > 0 => {
                Conclusion::OwnWriteLanded { replaced: false } // 3
            }
            _ if !self.unknown => peer, // 6
            (Images::Records { replaced, .. }, Some(its)) if its.replaced == *replaced => peer, // 5
            // Plain bytes come back: what is under way may take effect then.
            (Images::Plain, _) => self.give_up(),
            _ => unclear,
        })
    }

    fn is_careless(&self) -> bool {
        #[cfg(test)]
        return self.careless;
        #[cfg(not(test))]
        false
    }
}
