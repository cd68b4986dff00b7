//! vscsi: the records of VMware's vscsiStats, as the CloudPhysics traces have them.
//!
//! All numbers are little-endian. Version 1, 32 bytes: serial number (4), length in bytes (4), scatter-gather elements (4), SCSI
//! command (2), version (2, the high byte is 1), block of 512 bytes (8), microseconds (8). Version 2, 40 bytes: command (2), version (2,
//! the high byte is 2), serial number (4), length in bytes (4), scatter-gather elements (4), block (8), microseconds (8), response time (8).

use std::io::{ErrorKind, Read};

use anyhow::Context as _;

use crate::trace::{Op, Request, SECTOR_BYTES, Trace, broken};

/// A version of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    One,
    Two,
}

impl Version {
    /// The version of which these first bytes are.
    pub fn of(head: &[u8]) -> Option<Self> {
        let is = |at: usize, version: u8| head.get(at + 1) == Some(&version);
        match (is(14, 1), is(2, 2)) {
            // A serial number of version 1 may look like version 2, and the other way round: the next record tells.
            (true, true) if head.get(32 + 15).is_some_and(|byte| *byte != 1) => Some(Self::Two),
            (true, _) => Some(Self::One),
            (false, true) => Some(Self::Two),
            (false, false) => None,
        }
    }

    fn record_bytes(self) -> usize {
        match self {
            Self::One => 32,
            Self::Two => 40,
        }
    }
}

/// READ(6), READ(10), READ(12), READ(16).
const READS: [u16; 4] = [0x08, 0x28, 0xa8, 0x88];
/// WRITE(6), (10), (12), (16); WRITE AND VERIFY(10), (12), (16); COMPARE AND WRITE.
const WRITES: [u16; 8] = [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x89];

/// Reads all records.
pub fn read(mut input: impl Read) -> anyhow::Result<Trace> {
    let mut trace = Trace::default();
    let mut record = [0; 40];
    let mut version = None;
    for number in 0u64.. {
        let bytes = version.map_or(Version::One.record_bytes(), Version::record_bytes);
        let offset = number * bytes as u64;
        let read = read_up_to(&mut input, &mut record[..bytes]).with_context(|| format!("record {number}"))?;
        if read == 0 {
            break;
        }
        if read < bytes {
            return broken(number, Some(offset), format_args!("it ends after {read} of {bytes} bytes"));
        }
        let its = match version {
            Some(version) => version,
            // The first: as much as both have is read, and the rest of it if it is longer.
            None => {
                let Some(found) = Version::of(&record[..bytes]) else {
                    return broken(number, Some(offset), "it is of no version that is known (1 or 2)");
                };
                let more = found.record_bytes() - bytes;
                if read_up_to(&mut input, &mut record[bytes..][..more])? < more {
                    return broken(number, Some(offset), "it ends before its first record does");
                }
                *version.insert(found)
            }
        };
        let Some((command, bytes, block)) = parse(its, &record) else {
            return broken(number, Some(offset), "it is of another version than the first");
        };
        let op = match command {
            command if READS.contains(&command) => Op::Read,
            command if WRITES.contains(&command) => Op::Write,
            _ => {
                trace.other_commands += 1;
                continue;
            }
        };
        // What lies beyond 64 bits lies beyond every disk, and is counted with the requests that do.
        trace.requests.push(Request { op, start: block.saturating_mul(SECTOR_BYTES), bytes: bytes.into() });
    }
    Ok(trace)
}

/// Command, length in bytes and block of a record; `None` if it is of another version.
fn parse(version: Version, record: &[u8; 40]) -> Option<(u16, u32, u64)> {
    let u16_at = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    match version {
        Version::One => (u16_at(14) >> 8 == 1).then(|| (u16_at(12), u32_at(4), u64_at(16))),
        Version::Two => (u16_at(2) >> 8 == 2).then(|| (u16_at(0), u32_at(8), u64_at(16))),
    }
}

/// Reads until the buffer is full, or there is no more.
pub fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match input.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(serial: u32, command: u16, block: u64, bytes: u32) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(serial.to_le_bytes());
        record.extend(bytes.to_le_bytes());
        record.extend(1u32.to_le_bytes());
        record.extend(command.to_le_bytes());
        record.extend(0x0100u16.to_le_bytes());
        record.extend(block.to_le_bytes());
        record.extend(77u64.to_le_bytes());
        record
    }

    fn two(serial: u32, command: u16, block: u64, bytes: u32) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(command.to_le_bytes());
        record.extend(0x0200u16.to_le_bytes());
        record.extend(serial.to_le_bytes());
        record.extend(bytes.to_le_bytes());
        record.extend(1u32.to_le_bytes());
        record.extend(block.to_le_bytes());
        record.extend(77u64.to_le_bytes());
        record.extend(5u64.to_le_bytes());
        record
    }

    #[test]
    fn both_versions_are_read() {
        for record in [one as fn(u32, u16, u64, u32) -> Vec<u8>, two] {
            // Serial numbers that look like a version.
            for serial in [0, 0x0200_0000, 0x0100_0000, u32::MAX] {
                let bytes: Vec<u8> = [
                    record(serial, 0x28, 8, 4096),
                    record(serial.wrapping_add(1), 0x8a, 1 << 40, 512),
                    record(serial.wrapping_add(2), 0x35, 0, 0),
                ]
                .concat();
                let trace = read(&bytes[..]).unwrap();
                let expected = [
                    Request { op: Op::Read, start: 4096, bytes: 4096 },
                    Request { op: Op::Write, start: 1 << 49, bytes: 512 },
                ];
                assert_eq!((&trace.requests[..], trace.other_commands), (&expected[..], 1), "{serial:#x}");
            }
        }
    }

    #[test]
    fn a_block_beyond_64_bits_ends_nothing() {
        let bytes = [one(0, 0x28, 1 << 55, 4096), one(1, 0x28, 8, 4096)].concat();
        let starts: Vec<u64> = read(&bytes[..]).unwrap().requests.iter().map(|request| request.start).collect();
        assert_eq!(starts, [u64::MAX, 4096]);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let good = [one(0, 0x28, 8, 4096), one(1, 0x28, 8, 4096)].concat();
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(error(&good[..50]), "record 1, at byte 32: it ends after 18 of 32 bytes");
        assert_eq!(error(&two(0, 0x28, 8, 512)[..36]), "record 0, at byte 0: it ends before its first record does");
        let mixed = [one(0, 0x28, 8, 4096), two(1, 0x28, 8, 4096)].concat();
        assert!(error(&mixed).starts_with("record 1, at byte 32: it is of another version"));
        assert!(error(&[0; 32]).contains("no version"));
    }
}
