//! Events: what a flight recorder keeps, and how one is packed.

use bytemuck::{Pod, Zeroable};

use crate::protocol::events::PART_BITS;

/// Something notable that happened to a store, as its flight recorder keeps it.
///
/// Which fields mean something, [`EventKind`] says for each kind; the others are 0 or `None`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The event's number: they are counted from 0, in the order in which they were begun to be recorded. Given by the
    /// recorder.
    pub number: u64,
    /// When it was recorded: milliseconds since 1970-01-01 00:00 UTC, by a clock that may be ten of them late. Given by the
    /// recorder.
    pub at_unix_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// The process that recorded it. Given by the recorder.
    pub process: u32,
    /// The writer slot it is about.
    pub writer: Option<u16>,
    /// The block it is about.
    pub lba: Option<u64>,
    /// Offset in the block, in bytes.
    pub offset: u16,
    /// What was expected.
    pub expected: u64,
    /// What was found.
    pub found: u64,
    /// How many of its kind it stands for, at least 1.
    pub count: u32,
}

impl Event {
    /// An event of this kind, that stands for one, with nothing else known.
    pub const fn new(kind: EventKind) -> Self {
        Self {
            number: 0,
            at_unix_ms: 0,
            kind,
            process: 0,
            writer: None,
            lba: None,
            offset: 0,
            expected: 0,
            found: 0,
            count: 1,
        }
    }
}

/// What happened. The numbers in the file stay the same from version to version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A compare-and-write found something else: a sample, about one a second for the whole store, of what
    /// [`Store::miscompares`](crate::Store::miscompares) counts. `lba`, `writer`; `offset` of the first byte that differs;
    /// `expected` and `found` are the 8 bytes of the block, at a multiple of 8, that have it, as little-endian numbers;
    /// `count` is how many this writer met with since its last such event.
    Miscompare,
    /// A writer slot was claimed, or cleared, whose last user had died. `writer`; `lba` if that user may have been updating a
    /// block, which then holds its update or does not. (Or it had lost a race for the block, and was idle since.)
    WriterAdopted,
    /// A lease was taken from an owner that was dead or too late. `lba` of the lease; `expected` and `found` are the fencing
    /// tokens before and after. A host that takes many at once records 16, then one a second: `count` is how many it took since its
    /// last such event.
    LeaseBroken,
    /// A host was shut out of what it held. `lba` of its heartbeat; `found` is the host's number.
    HostFenced,
    /// The store was recovered when it was opened. `expected` is how many blocks hold an update, `found` how many updates
    /// were lost that had not been synced.
    Recovered,
    /// An operation met with damage: at most about one a second for the whole store. `lba` and `found`, the bits of its cell,
    /// if the cell names no frame; `lba` and `offset` 1 if the frame's stamp is another's, with the frame as `found`;
    /// `writer` if its slot names what does not exist. `count` is how many this handle met with since its last such event.
    Corruption,
    /// The store was repaired. `count` is how many things were mended, `found` how many could not be; `lba` of the first
    /// block concerned.
    Repaired,
    /// Writing to the disk failed: at most about one a second for the whole store. `found` is the system's error number;
    /// `count` is how often this handle met with that since its last such event.
    SyncFailed,
    /// What a newer version of this library recorded, by its number.
    Unknown(u8),
}

impl EventKind {
    /// The kinds that this version of the library knows, by their numbers in the file, from 1.
    pub const ALL: [Self; 8] = [
        Self::Miscompare,
        Self::WriterAdopted,
        Self::LeaseBroken,
        Self::HostFenced,
        Self::Recovered,
        Self::Corruption,
        Self::Repaired,
        Self::SyncFailed,
    ];

    /// The kind's number in the file.
    pub const fn number(self) -> u8 {
        match self {
            Self::Miscompare => 1,
            Self::WriterAdopted => 2,
            Self::LeaseBroken => 3,
            Self::HostFenced => 4,
            Self::Recovered => 5,
            Self::Corruption => 6,
            Self::Repaired => 7,
            Self::SyncFailed => 8,
            Self::Unknown(number) => number,
        }
    }

    /// The kind of this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1..=8 => Self::ALL[number as usize - 1],
            _ => Self::Unknown(number),
        }
    }

    /// A short name, which stays the same from version to version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Miscompare => "miscompare",
            Self::WriterAdopted => "writer-adopted",
            Self::LeaseBroken => "lease-broken",
            Self::HostFenced => "host-fenced",
            Self::Recovered => "recovered",
            Self::Corruption => "corruption",
            Self::Repaired => "repaired",
            Self::SyncFailed => "sync-failed",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Words of a record.
pub(super) const WORDS_OF_RECORD: usize = 8;

/// Bytes of a part: each word of a record carries one.
const PART_BYTES: usize = PART_BITS as usize / 8;

/// An event as a record carries it; all numbers are little-endian.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Payload {
    /// All ones for none.
    lba: u64,
    expected: u64,
    found: u64,
    process: u32,
    count: u32,
    /// All ones for none.
    writer: u16,
    offset: u16,
    at_unix_ms: [u8; PART_BYTES],
    kind: u8,
    zero: u8,
    /// CRC-32C of all bytes before it, then of the event's number.
    checksum: u32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Payload>() == WORDS_OF_RECORD * PART_BYTES);
    assert!(offset_of!(Payload, lba) == 0);
    assert!(offset_of!(Payload, expected) == 8);
    assert!(offset_of!(Payload, found) == 16);
    assert!(offset_of!(Payload, process) == 24);
    assert!(offset_of!(Payload, count) == 28);
    assert!(offset_of!(Payload, writer) == 32);
    assert!(offset_of!(Payload, offset) == 34);
    assert!(offset_of!(Payload, at_unix_ms) == 36);
    assert!(offset_of!(Payload, kind) == 42);
    assert!(offset_of!(Payload, zero) == 43);
    assert!(offset_of!(Payload, checksum) == 44);
};

impl Payload {
    fn expected_checksum(&self, number: u64) -> u32 {
        let head = crc32c::crc32c(&bytemuck::bytes_of(self)[..std::mem::offset_of!(Self, checksum)]);
        crc32c::crc32c_append(head, &number.to_le_bytes())
    }
}

impl Event {
    /// The parts of the event's record, under this number.
    pub(super) fn pack(&self, number: u64) -> [u64; WORDS_OF_RECORD] {
        let mut at_unix_ms = [0; PART_BYTES];
        at_unix_ms.copy_from_slice(&self.at_unix_ms.to_le_bytes()[..PART_BYTES]);
        let mut payload = Payload {
            lba: self.lba.unwrap_or(u64::MAX),
            expected: self.expected,
            found: self.found,
            process: self.process,
            count: self.count,
            writer: self.writer.unwrap_or(u16::MAX),
            offset: self.offset,
            at_unix_ms,
            kind: self.kind.number(),
            zero: 0,
            checksum: 0,
        };
        payload.checksum = payload.expected_checksum(number);
        let bytes = bytemuck::bytes_of(&payload);
        std::array::from_fn(|part| number_of(&bytes[PART_BYTES * part..][..PART_BYTES]))
    }

    /// The event of this number that these are the parts of; `None` if they are not: the checksum is wrong.
    pub(super) fn unpack(number: u64, parts: [u64; WORDS_OF_RECORD]) -> Option<Self> {
        let mut bytes = [0; size_of::<Payload>()];
        for (bytes, part) in bytes.chunks_exact_mut(PART_BYTES).zip(parts) {
            bytes.copy_from_slice(&part.to_le_bytes()[..PART_BYTES]);
        }
        let payload: Payload = bytemuck::pod_read_unaligned(&bytes);
        (payload.checksum == payload.expected_checksum(number)).then(|| Self {
            number,
            at_unix_ms: number_of(&payload.at_unix_ms),
            kind: EventKind::from_number(payload.kind),
            process: payload.process,
            writer: Some(payload.writer).filter(|writer| *writer != u16::MAX),
            lba: Some(payload.lba).filter(|lba| *lba != u64::MAX),
            offset: payload.offset,
            expected: payload.expected,
            found: payload.found,
            count: payload.count,
        })
    }
}

/// The number that these little-endian bytes are, at most 8.
fn number_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Event {
        Event {
            number: 0x0102_0304_0506_0708,
            at_unix_ms: (1 << 48) - 2,
            kind: EventKind::Miscompare,
            process: 0xfedc_ba98,
            writer: Some(65_534),
            lba: Some(u64::MAX - 1),
            offset: 4095,
            expected: 0x1122_3344_5566_7788,
            found: 0x99aa_bbcc_ddee_ff00,
            count: u32::MAX - 1,
        }
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let all = (0..=u8::MAX).map(|number| Event { kind: EventKind::from_number(number), ..any() });
        for event in all.chain([Event::new(EventKind::Recovered)]) {
            let parts = event.pack(event.number);
            assert!(parts.iter().all(|part| part >> PART_BITS == 0));
            assert_eq!(Event::unpack(event.number, parts), Some(event));
        }
    }

    #[test]
    fn a_bit_more_or_less_or_another_number_is_no_event() {
        let event = any();
        let parts = event.pack(event.number);
        assert_eq!(Event::unpack(event.number + 1, parts), None);
        for bit in 0..WORDS_OF_RECORD as u32 * PART_BITS {
            let mut damaged = parts;
            damaged[(bit / PART_BITS) as usize] ^= 1 << (bit % PART_BITS);
            assert_eq!(Event::unpack(event.number, damaged), None, "bit {bit}");
        }
        assert_eq!(Event::unpack(0, [0; WORDS_OF_RECORD]), None);
    }

    #[test]
    fn kinds_have_their_numbers_and_names() {
        let numbers: Vec<u8> = EventKind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(EventKind::ALL.iter().all(|kind| EventKind::from_number(kind.number()) == *kind));
        assert_eq!(EventKind::from_number(0), EventKind::Unknown(0));
        assert_eq!(EventKind::from_number(9), EventKind::Unknown(9));
    }
}
