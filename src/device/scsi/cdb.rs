//! Command descriptor blocks: what is asked of a disk, as bytes. No I/O.

use std::fmt;

/// Bytes of the longest command here.
pub const CDB_BYTES_MAX: usize = 16;

/// A command descriptor block (SPC-5, 4.2), ready to be sent. Numbers in it are big-endian.
///
/// ```
/// use casblock::device::scsi::{Caching, Cdb};
///
/// let command = Cdb::compare_and_write(0x0102, 1, Caching::THROUGH);
/// assert_eq!(command.bytes(), [0x89, 0x08, 0, 0, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 1, 0, 0]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cdb {
    bytes: [u8; CDB_BYTES_MAX],
    length: u8,
}

/// What a command asks of the disk's caches (SBC-4, 4.15): one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Caching {
    /// FUA, force unit access: a read comes from the medium, not from a cache that may be stale; a write is on the medium
    /// before the answer.
    pub force_unit_access: bool,
    /// DPO, disable page out: the blocks are not worth keeping in the cache.
    pub disable_page_out: bool,
}

impl Caching {
    /// Whatever the disk thinks best.
    pub const ALLOWED: Self = Self { force_unit_access: false, disable_page_out: false };

    /// FUA.
    pub const THROUGH: Self = Self { force_unit_access: true, disable_page_out: false };

    /// Byte 1 of READ, WRITE and COMPARE AND WRITE: without protection information.
    fn bits(self) -> u8 {
        u8::from(self.disable_page_out) << 4 | u8::from(self.force_unit_access) << 3
    }
}

/// The operation codes used here, and the service actions where one code has several.
pub mod opcode {
    /// SPC-5, 6.47.
    pub const TEST_UNIT_READY: u8 = 0x00;
    /// SPC-5, 6.7.
    pub const INQUIRY: u8 = 0x12;
    /// SPC-5, 6.15.
    pub const MODE_SENSE_10: u8 = 0x5a;
    /// SBC-4, 5.18.
    pub const READ_16: u8 = 0x88;
    /// SBC-4, 5.3.
    pub const COMPARE_AND_WRITE: u8 = 0x89;
    /// SBC-4, 5.40.
    pub const WRITE_16: u8 = 0x8a;
    /// SBC-4, 5.30.
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    /// SPC-5, 4.2.2.
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    /// SBC-4, 5.21: of [`SERVICE_ACTION_IN_16`].
    pub const READ_CAPACITY_16: u8 = 0x10;
    /// SPC-5, 4.2.2.
    pub const MAINTENANCE_IN: u8 = 0xa3;
    /// SPC-5, 6.35: of [`MAINTENANCE_IN`].
    pub const REPORT_SUPPORTED_OPERATION_CODES: u8 = 0x0c;
}

impl Cdb {
    fn new<const N: usize>(bytes: [u8; N]) -> Self {
        const { assert!(N <= CDB_BYTES_MAX) };
        let mut padded = [0; CDB_BYTES_MAX];
        padded[..N].copy_from_slice(&bytes);
        Self { bytes: padded, length: N as u8 }
    }

    /// The bytes to send: 6, 10, 12 or 16.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// TEST UNIT READY: whether the disk would take a read or a write now.
    pub fn test_unit_ready() -> Self {
        Self::new([opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0])
    }

    /// INQUIRY: what kind of device it is. At most `allocation_bytes` come back.
    pub fn inquiry(allocation_bytes: u16) -> Self {
        let [high, low] = allocation_bytes.to_be_bytes();
        Self::new([opcode::INQUIRY, 0, 0, high, low, 0])
    }

    /// INQUIRY with EVPD: a page of vital product data. At most `allocation_bytes` come back.
    pub fn vital_product_data(page: u8, allocation_bytes: u16) -> Self {
        let [high, low] = allocation_bytes.to_be_bytes();
        Self::new([opcode::INQUIRY, 0x01, page, high, low, 0])
    }

    /// MODE SENSE(10), the current values of a page, without block descriptors. At most `allocation_bytes` come back.
    pub fn mode_sense_10(page: u8, allocation_bytes: u16) -> Self {
        let [high, low] = allocation_bytes.to_be_bytes();
        Self::new([opcode::MODE_SENSE_10, 0x08, page & 0x3f, 0, 0, 0, 0, high, low, 0])
    }

    /// READ CAPACITY(16): how many blocks of what length. At most `allocation_bytes` come back.
    pub fn read_capacity_16(allocation_bytes: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[0] = opcode::SERVICE_ACTION_IN_16;
        bytes[1] = opcode::READ_CAPACITY_16;
        bytes[10..14].copy_from_slice(&allocation_bytes.to_be_bytes());
        Self::new(bytes)
    }

    /// REPORT SUPPORTED OPERATION CODES for one operation code that has no service actions. At most `allocation_bytes` come
    /// back.
    pub fn report_supported_operation_code(operation_code: u8, allocation_bytes: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[0] = opcode::MAINTENANCE_IN;
        bytes[1] = opcode::REPORT_SUPPORTED_OPERATION_CODES;
        bytes[2] = 0x01; // REPORTING OPTIONS: one command, by its operation code.
        bytes[3] = operation_code;
        bytes[6..10].copy_from_slice(&allocation_bytes.to_be_bytes());
        Self::new(bytes)
    }

    /// READ(16) of `blocks` blocks from `lba` on. None are no error.
    pub fn read_16(lba: u64, blocks: u32, caching: Caching) -> Self {
        Self::blocks_16(opcode::READ_16, lba, blocks, caching.bits())
    }

    /// WRITE(16) of `blocks` blocks from `lba` on. None are no error.
    pub fn write_16(lba: u64, blocks: u32, caching: Caching) -> Self {
        Self::blocks_16(opcode::WRITE_16, lba, blocks, caching.bits())
    }

    /// COMPARE AND WRITE of `blocks` blocks from `lba` on. What to compare with is sent first, then what to write, `blocks`
    /// blocks each. None are no error, and do nothing.
    pub fn compare_and_write(lba: u64, blocks: u8, caching: Caching) -> Self {
        let mut bytes = [0; 16];
        bytes[0] = opcode::COMPARE_AND_WRITE;
        bytes[1] = caching.bits();
        bytes[2..10].copy_from_slice(&lba.to_be_bytes());
        bytes[13] = blocks;
        Self::new(bytes)
    }

    /// SYNCHRONIZE CACHE(16) of all blocks; the answer comes when it is done.
    pub fn synchronize_cache_16() -> Self {
        Self::blocks_16(opcode::SYNCHRONIZE_CACHE_16, 0, 0, 0)
    }

    fn blocks_16(operation_code: u8, lba: u64, blocks: u32, flags: u8) -> Self {
        let mut bytes = [0; 16];
        bytes[0] = operation_code;
        bytes[1] = flags;
        bytes[2..10].copy_from_slice(&lba.to_be_bytes());
        bytes[10..14].copy_from_slice(&blocks.to_be_bytes());
        Self::new(bytes)
    }

    /// What the standards call it.
    pub fn name(&self) -> &'static str {
        match self.bytes[0] {
            opcode::TEST_UNIT_READY => "TEST UNIT READY",
            opcode::INQUIRY => "INQUIRY",
            opcode::MODE_SENSE_10 => "MODE SENSE(10)",
            opcode::READ_16 => "READ(16)",
            opcode::COMPARE_AND_WRITE => "COMPARE AND WRITE",
            opcode::WRITE_16 => "WRITE(16)",
            opcode::SYNCHRONIZE_CACHE_16 => "SYNCHRONIZE CACHE(16)",
            opcode::SERVICE_ACTION_IN_16 => "READ CAPACITY(16)",
            _ => "REPORT SUPPORTED OPERATION CODES",
        }
    }

    /// Whether it may change what the blocks hold.
    pub fn changes_blocks(&self) -> bool {
        matches!(self.bytes[0], opcode::COMPARE_AND_WRITE | opcode::WRITE_16)
    }

    /// How many blocks it is about: 0 if it is about none in particular.
    pub fn blocks(&self) -> u32 {
        let [.., a, b, c, d, _, _] = self.bytes;
        match self.bytes[0] {
            opcode::READ_16 | opcode::WRITE_16 => u32::from_be_bytes([a, b, c, d]),
            opcode::COMPARE_AND_WRITE => d.into(),
            _ => 0,
        }
    }

    /// The first block it is about.
    pub fn lba(&self) -> Option<u64> {
        let [_, _, lba @ .., _, _, _, _, _, _] = self.bytes;
        (self.blocks() > 0).then_some(u64::from_be_bytes(lba))
    }
}

/// As in messages: `COMPARE AND WRITE of block 7`.
impl fmt::Display for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match (self.lba(), self.blocks()) {
            (None, _) => Ok(()),
            (Some(lba), 1) => write!(f, " of block {lba}"),
            (Some(lba), blocks) => write!(f, " of blocks {lba} to {}", lba.saturating_add(u64::from(blocks) - 1)),
        }
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cdb({self}: {:02x?})", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command, its bytes as the standard's table has them, and its text.
    fn table() -> Vec<(Cdb, &'static [u8], &'static str)> {
        const LBA: u64 = 0x0102_0304_0506_0708;
        let both = Caching { force_unit_access: true, disable_page_out: true };
        let page_out = Caching { disable_page_out: true, ..Caching::ALLOWED };
        vec![
            (Cdb::test_unit_ready(), &[0x00, 0, 0, 0, 0, 0], "TEST UNIT READY"),
            (Cdb::inquiry(0x0124), &[0x12, 0x00, 0x00, 0x01, 0x24, 0], "INQUIRY"),
            (Cdb::vital_product_data(0x00, 252), &[0x12, 0x01, 0x00, 0x00, 0xfc, 0], "INQUIRY"),
            (Cdb::vital_product_data(0x80, 252), &[0x12, 0x01, 0x80, 0x00, 0xfc, 0], "INQUIRY"),
            (Cdb::vital_product_data(0x83, 0x1000), &[0x12, 0x01, 0x83, 0x10, 0x00, 0], "INQUIRY"),
            (Cdb::vital_product_data(0xb0, 64), &[0x12, 0x01, 0xb0, 0x00, 0x40, 0], "INQUIRY"),
            (Cdb::mode_sense_10(0x08, 0x0102), &[0x5a, 0x08, 0x08, 0, 0, 0, 0, 1, 2, 0], "MODE SENSE(10)"),
            (Cdb::read_capacity_16(32), &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], "READ CAPACITY(16)"),
            (
                Cdb::report_supported_operation_code(0x89, 0x0102_0304),
                &[0xa3, 0x0c, 0x01, 0x89, 0, 0, 1, 2, 3, 4, 0, 0],
                "REPORT SUPPORTED OPERATION CODES",
            ),
            (
                Cdb::read_16(LBA, 0x0a0b_0c0d, Caching::ALLOWED),
                &[0x88, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0],
                "READ(16) of blocks 72623859790382856 to 72623859958878996",
            ),
            (
                Cdb::read_16(5, 1, Caching::THROUGH),
                &[0x88, 0x08, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0],
                "READ(16) of block 5",
            ),
            (
                Cdb::write_16(LBA, 0x0a0b_0c0d, both),
                &[0x8a, 0x18, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0],
                "WRITE(16) of blocks 72623859790382856 to 72623859958878996",
            ),
            (
                Cdb::compare_and_write(LBA, 0xfe, page_out),
                &[0x89, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0xfe, 0, 0],
                "COMPARE AND WRITE of blocks 72623859790382856 to 72623859790383109",
            ),
            (
                Cdb::compare_and_write(u64::MAX, 255, Caching::THROUGH),
                &[0x89, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 255, 0, 0],
                "COMPARE AND WRITE of blocks 18446744073709551615 to 18446744073709551615",
            ),
            (
                Cdb::compare_and_write(0, 0, Caching::ALLOWED),
                &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                "COMPARE AND WRITE",
            ),
            (
                Cdb::synchronize_cache_16(),
                &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                "SYNCHRONIZE CACHE(16)",
            ),
        ]
    }

    #[test]
    fn commands_are_the_bytes_of_the_standard() {
        for (command, bytes, text) in table() {
            assert_eq!(command.bytes(), bytes, "{command:?}");
            assert_eq!(command.to_string(), text);
        }
    }

    #[test]
    fn only_writes_change_blocks_and_commands_know_their_blocks() {
        let changing = table().into_iter().filter(|(command, ..)| command.changes_blocks()).count();
        assert_eq!(changing, 4, "one write and three compare-and-writes");
        for (command, blocks) in [
            (Cdb::compare_and_write(9, 200, Caching::ALLOWED), 200),
            (Cdb::write_16(9, 70_000, Caching::ALLOWED), 70_000),
            (Cdb::read_16(9, 1, Caching::ALLOWED), 1),
        ] {
            assert_eq!((command.lba(), command.blocks()), (Some(9), blocks));
        }
        assert_eq!((Cdb::inquiry(36).lba(), Cdb::synchronize_cache_16().blocks()), (None, 0));
    }
}
