//! Record blocks: blocks that say who wrote them, and which of his attempts they are.
//!
//! A block of plain bytes cannot be told from another with the same bytes. So a host whose compare-and-write was not
//! answered, and that finds its own new image in the block, does not know whether it wrote that or a peer wrote the same; and a
//! late copy of its request takes effect whenever the expected image comes back. A record has a **nonce** drawn anew for each
//! attempt: no image of the block ever comes twice, so both are impossible. It also has the nonce of the record it
//! **replaced**: who finds a peer's record can tell whether the peer replaced the record that he did.

use std::fmt;

use bytemuck::{Pod, Zeroable};

/// The first bytes of every record.
const MAGIC: [u8; 4] = *b"CASR";

/// What tells one attempt to write a record from all others: 128 random bits, from
/// [`Environment::random`](crate::environment::Environment::random).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// No record's: that of a block which held no record.
    pub const NONE: Self = Self([0; 16]);

    /// The nonce of these bits; never [`NONE`](Self::NONE).
    pub fn new(bits: u128) -> Self {
        Self(bits.max(1).to_le_bytes())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_le_bytes(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who wrote a record: a host, and which of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Owner {
    /// The host's number, as the hosts of the cluster have agreed on it.
    pub host: u64,
    /// The host's generation: it grows each time the host starts anew.
    pub generation: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} generation {}", self.host, self.generation)
    }
}

/// What stands before a record's payload; numbers are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    kind: [u8; 4],
    lba: [u8; 8],
    nonce: Nonce,
    replaced: Nonce,
    host: [u8; 8],
    generation: [u8; 8],
}

/// What stands behind it.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug)]
#[repr(C)]
struct Trailer {
    reserved: [u8; 4],
    /// CRC-32C of all bytes of the block before it.
    checksum: [u8; 4],
}

/// Bytes of a record that are not payload: 64 before it, 8 behind.
pub const OVERHEAD_BYTES: usize = size_of::<Header>() + size_of::<Trailer>();

/// A record that fills one block: 72 bytes of its own, and the user's payload.
///
/// It is plain bytes (`bytemuck::Pod`), and valid only if [`verify`](Self::verify) says so: a block can hold anything.
///
/// ```
/// use casblock::ats::{Nonce, Owner, Record512};
///
/// let owner = Owner { host: 3, generation: 1 };
/// let record = Record512::new(7, 0x1ea5e, owner, Nonce::new(42), Nonce::NONE, [0; 440]);
/// let block: &[u8] = bytemuck::bytes_of(&record);
/// assert_eq!(block.len(), 512);
/// let read: Record512 = *Record512::of_block(7, block).expect("it is whole, and stands where it belongs");
/// assert_eq!(read.owner(), owner);
/// assert!(Record512::of_block(8, block).is_err(), "it is block 7's");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Record<const PAYLOAD: usize> {
    header: Header,
    payload: [u8; PAYLOAD],
    trailer: Trailer,
}

// SAFETY: all three fields are `Zeroable`.
unsafe impl<const PAYLOAD: usize> Zeroable for Record<PAYLOAD> {}

// SAFETY: it is `repr(C)`, `Copy` and 'static; all its fields are `Pod` and of alignment 1, as asserted below, so there is no
// padding.
unsafe impl<const PAYLOAD: usize> Pod for Record<PAYLOAD> {}

/// A record that fills a block of 512 bytes.
pub type Record512 = Record<{ 512 - OVERHEAD_BYTES }>;
/// A record that fills a block of 4,096 bytes.
pub type Record4096 = Record<{ 4096 - OVERHEAD_BYTES }>;

const _: () = {
    assert!(size_of::<Header>() == 64 && align_of::<Header>() == 1);
    assert!(size_of::<Trailer>() == 8 && align_of::<Trailer>() == 1);
    assert!(size_of::<Record512>() == 512 && align_of::<Record512>() == 1);
    assert!(size_of::<Record4096>() == 4096);
};

/// Why a block is not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotARecord {
    /// It is all zeros: nobody has written it.
    #[error("the block is all zeros")]
    Unwritten,
    /// It holds something else.
    #[error("the block holds no record")]
    Other,
    /// It begins like a record, but its checksum is wrong: half of it is another's, or it was damaged.
    #[error("the block holds a record with checksum {found:08x}, but its bytes give {computed:08x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// It is a record of another block: a misplaced write, or a copy.
    #[error("the block holds the record of block {lba}")]
    Misplaced {
        /// The block whose record it is.
        lba: u64,
    },
}

impl<const PAYLOAD: usize> Record<PAYLOAD> {
    /// The record for block `lba` with these contents; `kind` is the user's.
    pub fn new(lba: u64, kind: u32, owner: Owner, nonce: Nonce, replaced: Nonce, payload: [u8; PAYLOAD]) -> Self {
        let mut record = Self { payload, ..Self::zeroed() };
        seal(bytemuck::bytes_of_mut(&mut record), lba, &Fields { kind, owner, nonce, replaced });
        record
    }

    /// The record that a block holds.
    ///
    /// # Errors
    /// See [`NotARecord`]; a block of another length is [`NotARecord::Other`].
    pub fn of_block(lba: u64, block: &[u8]) -> Result<&Self, NotARecord> {
        let record: &Self = bytemuck::try_from_bytes(block).map_err(|_| NotARecord::Other)?;
        record.verify(lba).map(|()| record)
    }

    /// Whether it is a whole record of block `lba`.
    ///
    /// # Errors
    /// See [`NotARecord`].
    pub fn verify(&self, lba: u64) -> Result<(), NotARecord> {
        Fields::of_block(lba, bytemuck::bytes_of(self)).map(|_| ())
    }

    /// The user's number for this kind of record.
    pub fn kind(&self) -> u32 {
        u32::from_le_bytes(self.header.kind)
    }

    /// The block it belongs in.
    pub fn lba(&self) -> u64 {
        u64::from_le_bytes(self.header.lba)
    }

    /// Who wrote it.
    pub fn owner(&self) -> Owner {
        self.header.owner()
    }

    /// The attempt that wrote it.
    pub fn nonce(&self) -> Nonce {
        self.header.nonce
    }

    /// The nonce of the record it replaced; [`Nonce::NONE`] if that was none.
    pub fn replaced(&self) -> Nonce {
        self.header.replaced
    }

    /// The user's bytes.
    pub fn payload(&self) -> &[u8; PAYLOAD] {
        &self.payload
    }
}

impl<const PAYLOAD: usize> fmt::Debug for Record<PAYLOAD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("lba", &self.lba())
            .field("kind", &self.kind())
            .field("owner", &self.owner())
            .field("nonce", &self.nonce())
            .field("replaced", &self.replaced())
            .finish_non_exhaustive()
    }
}

impl Header {
    fn owner(&self) -> Owner {
        Owner { host: u64::from_le_bytes(self.host), generation: u64::from_le_bytes(self.generation) }
    }
}

/// What a record says of itself, whatever the size of its block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fields {
    /// The user's number for this kind of record.
    pub kind: u32,
    /// Who wrote it.
    pub owner: Owner,
    /// The attempt that wrote it.
    pub nonce: Nonce,
    /// The nonce of the record it replaced.
    pub replaced: Nonce,
}

impl Fields {
    /// What the record in a block says of itself.
    ///
    /// # Errors
    /// See [`NotARecord`].
    pub fn of_block(lba: u64, block: &[u8]) -> Result<Self, NotARecord> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(NotARecord::Unwritten);
        }
        if block.len() < OVERHEAD_BYTES {
            return Err(NotARecord::Other);
        }
        let (header, rest) = block.split_at(size_of::<Header>());
        let header: Header = bytemuck::pod_read_unaligned(header);
        let trailer: Trailer = bytemuck::pod_read_unaligned(&rest[rest.len() - size_of::<Trailer>()..]);
        if header.magic != MAGIC || header.nonce == Nonce::NONE {
            return Err(NotARecord::Other);
        }
        let (found, computed) = (u32::from_le_bytes(trailer.checksum), checksum(block));
        if found != computed {
            return Err(NotARecord::Checksum { found, computed });
        }
        match u64::from_le_bytes(header.lba) {
            its if its != lba => Err(NotARecord::Misplaced { lba: its }),
            _ => Ok(Self {
                kind: u32::from_le_bytes(header.kind),
                owner: header.owner(),
                nonce: header.nonce,
                replaced: header.replaced,
            }),
        }
    }
}

/// The payload of the record in a block, whatever the size of the block; nothing of one that is too short to hold any.
pub fn payload(block: &[u8]) -> &[u8] {
    block.get(size_of::<Header>()..block.len().saturating_sub(size_of::<Trailer>())).unwrap_or(&[])
}

/// As [`payload`], to change it: before the block is sealed.
pub fn payload_mut(block: &mut [u8]) -> &mut [u8] {
    let end = block.len().saturating_sub(size_of::<Trailer>());
    block.get_mut(size_of::<Header>()..end).unwrap_or_default()
}

/// Makes a block whose payload is in place a record of block `lba`.
///
/// # Panics
/// If the block is shorter than [`OVERHEAD_BYTES`].
pub fn seal(block: &mut [u8], lba: u64, fields: &Fields) {
    let header = Header {
        magic: MAGIC,
        kind: fields.kind.to_le_bytes(),
        lba: lba.to_le_bytes(),
        nonce: fields.nonce,
        replaced: fields.replaced,
        host: fields.owner.host.to_le_bytes(),
        generation: fields.owner.generation.to_le_bytes(),
    };
    let end = block.len().checked_sub(size_of::<Trailer>()).expect("a block has room for a record");
    block[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
    block[end..].fill(0);
    let trailer = Trailer { reserved: [0; 4], checksum: checksum(block).to_le_bytes() };
    block[end..].copy_from_slice(bytemuck::bytes_of(&trailer));
}

/// CRC-32C of all but the last four bytes.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c(&block[..block.len() - 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record512 {
        let owner = Owner { host: 0x0102_0304_0506_0708, generation: 9 };
        Record512::new(7, 0xa, owner, Nonce::new(0xb), Nonce::new(0xc), std::array::from_fn(|byte| byte as u8))
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let record = record();
        let block = bytemuck::bytes_of(&record);
        assert_eq!(&block[..4], b"CASR");
        assert_eq!(block[4..8], [0xa, 0, 0, 0]);
        assert_eq!(block[8..16], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((block[16], block[32]), (0xb, 0xc));
        assert_eq!(block[48..56], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(block[56], 9);
        assert_eq!(block[64..68], [0, 1, 2, 3]);
        assert_eq!(block[508..], crc32c::crc32c(&block[..508]).to_le_bytes());
    }

    #[test]
    fn what_was_written_is_read() {
        let record = record();
        let read = Record512::of_block(7, bytemuck::bytes_of(&record)).unwrap();
        assert_eq!((read.kind(), read.lba(), read.nonce(), read.replaced()), (10, 7, Nonce::new(11), Nonce::new(12)));
        assert_eq!(read.owner(), Owner { host: 0x0102_0304_0506_0708, generation: 9 });
        assert_eq!(read.payload()[..3], [0, 1, 2]);
        let big = Record4096::new(1, 0, Owner::default(), Nonce::new(1), Nonce::NONE, [5; 4024]);
        assert_eq!(payload(bytemuck::bytes_of(&big)), [5; 4024]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = record();
        for bit in 0..512 * 8 {
            let mut block = bytemuck::bytes_of(&record).to_vec();
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(Record512::of_block(7, &block).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn half_of_one_and_half_of_another_never_parse() {
        let (old, new) = (record(), Record512::new(7, 0xa, Owner::default(), Nonce::new(2), Nonce::new(3), [9; 440]));
        for at in 1..512 {
            let mut block = bytemuck::bytes_of(&old).to_vec();
            block[at..].copy_from_slice(&bytemuck::bytes_of(&new)[at..]);
            let parsed = Fields::of_block(7, &block);
            // Where the two have the same bytes up to there, it is the new one.
            let is_new = block == bytemuck::bytes_of(&new);
            assert_eq!(parsed.is_ok(), is_new, "torn at byte {at}");
        }
    }

    #[test]
    fn other_blocks_are_told_apart() {
        assert_eq!(Fields::of_block(7, &[0; 512]), Err(NotARecord::Unwritten));
        assert_eq!(Fields::of_block(7, &[1; 512]), Err(NotARecord::Other));
        assert_eq!(Fields::of_block(7, b"CASR"), Err(NotARecord::Other));
        assert_eq!(Fields::of_block(7, &[]), Err(NotARecord::Unwritten));
        assert_eq!(Record512::of_block(7, &[0; 4096]).unwrap_err(), NotARecord::Other);
        let record = record();
        assert_eq!(record.verify(8), Err(NotARecord::Misplaced { lba: 7 }));
        assert!(payload(&[0; 8]).is_empty() && payload_mut(&mut [0; 71]).is_empty());
    }
}
