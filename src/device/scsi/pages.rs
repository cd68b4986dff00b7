//! What a disk says about itself: INQUIRY data, pages of vital product data, its capacity. No I/O.
//!
//! All of it comes from the wire: a page may be cut off anywhere, or be another one. What is not there is `None`, or 0 where
//! the standards let 0 mean "not said".

/// The pages of vital product data that are asked for (SPC-5, 7.7; SBC-4, 6.6).
pub mod page {
    /// Which pages there are.
    pub const SUPPORTED: u8 = 0x00;
    /// The serial number.
    pub const SERIAL_NUMBER: u8 = 0x80;
    /// Names of the disk.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Limits of transfers.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// The mode page about the write cache (SBC-4, 6.5.6).
    pub const CACHING_MODE: u8 = 0x08;
}

/// Standard INQUIRY data (SPC-5, 6.7.2), as much of it as is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    /// PERIPHERAL QUALIFIER: 0 if there is a device behind the number.
    pub qualifier: u8,
    /// PERIPHERAL DEVICE TYPE: 0 for a disk.
    pub device_type: u8,
    /// T10 VENDOR IDENTIFICATION, at most 8 characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, at most 16 characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, at most 4 characters.
    pub revision: String,
}

impl Inquiry {
    /// Reads it; `None` if it is too short to tell a disk from something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = 5 + usize::from(*bytes.get(4)?);
        let said = &bytes[..bytes.len().min(end)];
        let text = |from: usize, to: usize| text(said.get(from..said.len().min(to)).unwrap_or_default());
        Some(Self {
            qualifier: bytes[0] >> 5,
            device_type: bytes[0] & 0x1f,
            vendor: text(8, 16),
            product: text(16, 32),
            revision: text(32, 36),
        })
    }
}

/// Text without the blanks around it. What is no printable ASCII, and must not reach a terminal, becomes `?`.
fn text(bytes: &[u8]) -> String {
    let printable = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
    // Some targets end their text by zeros.
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes[..end].iter().map(printable).collect::<String>().trim().into()
}

/// What follows the header of a page of vital product data, if it is this page.
fn content(bytes: &[u8], page: u8) -> Option<&[u8]> {
    let [_, found, high, low, content @ ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (*found == page).then_some(&content[..content.len().min(length)])
}

/// The pages of vital product data that there are: page 00h (SPC-5, 7.7.17).
pub fn supported_pages(bytes: &[u8]) -> Option<&[u8]> {
    content(bytes, page::SUPPORTED)
}

/// The serial number: page 80h (SPC-5, 7.7.19). `None` if it is blank.
pub fn serial_number(bytes: &[u8]) -> Option<String> {
    Some(text(content(bytes, page::SERIAL_NUMBER)?)).filter(|serial| !serial.is_empty())
}

/// The best name of the disk: page 83h (SPC-5, 7.7.6). Of those for the disk, not the port, the first of `naa.`, `eui.`, `uuid.`,
/// a SCSI name, and `t10.`; of several `naa.` the longest, which is as unique as the others, and has the vendor's own number.
pub fn designator(bytes: &[u8]) -> Option<String> {
    let mut rest = content(bytes, page::IDENTIFICATION)?;
    let mut best: Option<((u8, usize), String)> = None;
    while let [_code_set, kind, _, length, after @ ..] = rest {
        // One that is cut off could be taken for another.
        let Some(value) = after.get(..usize::from(*length)) else { break };
        rest = &after[value.len()..];
        let (association, kind) = (kind >> 4 & 0x3, kind & 0x0f);
        let found = match kind {
            _ if association != 0 || value.is_empty() => continue,
            0x3 if matches!(value.len(), 8 | 16) => ((5, value.len()), format!("naa.{}", hex(value))),
            0x2 if matches!(value.len(), 8 | 12 | 16) => ((4, value.len()), format!("eui.{}", hex(value))),
            0xa if value.len() == 18 => ((3, 0), format!("uuid.{}", hex(&value[2..]))),
            0x8 => ((2, 0), text(value)),
            0x1 => ((1, 0), format!("t10.{}", text(value))),
            _ => continue,
        };
        if best.as_ref().is_none_or(|(rank, _)| found.0 > *rank) {
            best = Some(found);
        }
    }
    best.map(|(_, name)| name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Limits of transfers: page B0h (SBC-4, 6.6.4). Numbers of blocks, all of them; 0 where no limit is reported.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BlockLimits {
    /// MAXIMUM COMPARE AND WRITE LENGTH. By the standard 0 means that there is no such command; not all targets keep to that.
    pub compare_and_write_blocks_max: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY.
    pub transfer_blocks_granularity: u16,
    /// MAXIMUM TRANSFER LENGTH.
    pub transfer_blocks_max: u32,
    /// OPTIMAL TRANSFER LENGTH.
    pub transfer_blocks_optimal: u32,
}

impl BlockLimits {
    /// Reads the page; `None` if it is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let content = content(bytes, page::BLOCK_LIMITS)?;
        Some(Self {
            compare_and_write_blocks_max: content.get(1).copied().unwrap_or(0),
            transfer_blocks_granularity: field(content, 2).map_or(0, u16::from_be_bytes),
            transfer_blocks_max: field(content, 4).map_or(0, u32::from_be_bytes),
            transfer_blocks_optimal: field(content, 8).map_or(0, u32::from_be_bytes),
        })
    }
}

/// `N` bytes from an offset on, if they are there.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

/// Bytes of all that READ CAPACITY(16) answers.
pub const CAPACITY_BYTES: usize = 32;

/// How many blocks of what length: READ CAPACITY(16) (SBC-4, 5.21.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last block.
    pub last_lba: u64,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_bytes: u32,
    /// The type of protection information, 1 to 3; `None` without.
    pub protection_type: Option<u8>,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: a physical block is `1 << this` blocks.
    pub physical_block_exponent: u8,
    /// LBPME: blocks can be unmapped, so there may be less room than blocks.
    pub thin: bool,
    /// LBPRZ: unmapped blocks read as zeros.
    pub unmapped_reads_zeros: bool,
}

impl Capacity {
    /// Reads it; `None` if it is too short for the two numbers.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = |offset: usize| bytes.get(offset).copied().unwrap_or(0);
        Some(Self {
            last_lba: u64::from_be_bytes(field(bytes, 0)?),
            block_bytes: u32::from_be_bytes(field(bytes, 8)?),
            protection_type: (at(12) & 0x01 != 0).then(|| (at(12) >> 1 & 0x07) + 1),
            physical_block_exponent: at(13) & 0x0f,
            thin: at(14) & 0x80 != 0,
            unmapped_reads_zeros: at(14) & 0x40 != 0,
        })
    }
}

/// What MODE SENSE(10) says about writing: its header (SPC-5, 7.5.6; SBC-4, 6.5.1), and the caching page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// WP: the disk is write-protected.
    pub write_protected: bool,
    /// DPOFUA: it takes the bits DPO and FUA.
    pub takes_force_unit_access: bool,
    /// WCE: a write may be answered while it is in a volatile cache only. `None` without the caching page.
    pub write_cache: Option<bool>,
}

impl Mode {
    /// Reads it; `None` if it is too short for the header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [_, _, _, flags, _, _, high, low, rest @ ..] = bytes else { return None };
        let descriptors = usize::from(u16::from_be_bytes([*high, *low]));
        let write_cache = match rest.get(descriptors..) {
            Some([code, _, flags, ..]) if code & 0x7f == page::CACHING_MODE => Some(flags & 0x04 != 0),
            _ => None,
        };
        Some(Self { write_protected: flags & 0x80 != 0, takes_force_unit_access: flags & 0x10 != 0, write_cache })
    }
}

/// Whether the disk says that it has the one command it was asked for: REPORT SUPPORTED OPERATION CODES (SPC-5, 6.35.3).
/// `None` if it does not say.
pub fn command_supported(bytes: &[u8]) -> Option<bool> {
    match bytes.get(1)? & 0x07 {
        0b001 => Some(false),
        0b011 | 0b101 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux's LIO answers, in the layout of SPC-5, table 142.
    fn inquiry() -> Vec<u8> {
        [&[0x00, 0x00, 0x05, 0x02, 31, 0, 0, 0x02][..], b"LIO-ORG ", b"f0              ", b"4.0 "].concat()
    }

    #[test]
    fn inquiry_data_is_read_as_far_as_it_goes() {
        let whole = inquiry();
        let inquiry = Inquiry::parse(&whole).unwrap();
        assert_eq!((inquiry.qualifier, inquiry.device_type), (0, 0));
        assert_eq!((&*inquiry.vendor, &*inquiry.product, &*inquiry.revision), ("LIO-ORG", "f0", "4.0"));
        for bytes in 0..5 {
            assert_eq!(Inquiry::parse(&whole[..bytes]), None);
        }
        let cut = Inquiry::parse(&whole[..10]).unwrap();
        assert_eq!((&*cut.vendor, &*cut.product, &*cut.revision), ("LI", "", ""));
        // What lies beyond the length that it gives itself is not its.
        let mut short = whole.clone();
        short[4] = 11;
        assert_eq!(
            Inquiry::parse(&short).unwrap(),
            Inquiry { product: String::new(), revision: String::new(), ..inquiry }
        );
        let tape = Inquiry::parse(&[0x61, 0x80, 5, 2, 0]).unwrap();
        assert_eq!((tape.qualifier, tape.device_type), (3, 1));
    }

    #[test]
    fn text_that_a_terminal_would_obey_is_not_passed_on() {
        let mut bytes = inquiry();
        bytes[8..12].copy_from_slice(b"\x1b[2J");
        assert_eq!(Inquiry::parse(&bytes).unwrap().vendor, "?[2JORG");
        assert_eq!(text(b"abc\0\x1b\xff"), "abc");
        assert_eq!(text(b" \xe4 "), "?");
    }

    #[test]
    fn a_page_is_taken_only_for_itself_and_to_its_end() {
        let serial = [&[0x00, 0x80, 0x00, 0x06][..], b"  8fe8 and more"].concat();
        assert_eq!(serial_number(&serial).as_deref(), Some("8fe8"));
        assert_eq!(serial_number(&serial[..7]).as_deref(), Some("8"));
        assert_eq!(serial_number(&[0, 0x80, 0, 4, b' ', b' ', b' ', b' ']), None);
        assert_eq!(serial_number(&[0, 0x80, 0]), None);
        assert_eq!((supported_pages(&serial), designator(&serial), BlockLimits::parse(&serial)), (None, None, None));
        assert_eq!(supported_pages(&[0, 0, 0, 3, 0x00, 0x80, 0xb0, 0xff]), Some(&[0x00, 0x80, 0xb0][..]));
    }

    /// A designation descriptor: SPC-5, table 581.
    fn descriptor(association: u8, kind: u8, value: &[u8]) -> Vec<u8> {
        [&[0x01, association << 4 | kind, 0, value.len() as u8], value].concat()
    }

    fn identification(descriptors: &[Vec<u8>]) -> Vec<u8> {
        let content = descriptors.concat();
        [&[0x00, 0x83, 0x00, content.len() as u8], &content[..]].concat()
    }

    #[test]
    fn the_best_name_of_the_disk_is_chosen() {
        let vendor = descriptor(0, 1, b"LIO-ORG f0:8fe8");
        let name = descriptor(0, 8, b"iqn.2003-01.org:f0\0\0");
        let uuid = descriptor(0, 0xa, &[&[0x10, 0][..], &[0xab; 16]].concat());
        let eui = descriptor(0, 2, &[0x02; 8]);
        let short = descriptor(0, 3, &[0x50, 1, 2, 3, 4, 5, 6, 7]);
        let long = descriptor(0, 3, &[0x60, 1, 0x40, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let port = descriptor(1, 3, &[0x61; 16]);
        let wrong = descriptor(0, 3, &[0x62; 15]);
        let none = descriptor(0, 1, b"");
        let mut all = vec![port, wrong, none, vendor, name, uuid, eui, short, long];
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(designator(&identification(&reversed)), designator(&identification(&all)));
        let mut found = Vec::new();
        while let Some(best) = designator(&identification(&all)) {
            found.push(best);
            all.pop();
        }
        let naa = "naa.60014005000000000000000000000009";
        let uuid = format!("uuid.{}", "ab".repeat(16));
        let expected =
            [naa, "naa.5001020304050607", "eui.0202020202020202", &uuid, "iqn.2003-01.org:f0", "t10.LIO-ORG f0:8fe8"];
        assert_eq!(found, expected);
        assert_eq!(all.len(), 3, "a port's name, a wrong length and an empty name are none");
    }

    #[test]
    fn a_name_that_is_cut_off_is_none() {
        let whole = identification(&[descriptor(0, 1, b"t"), descriptor(0, 3, &[0x60; 16])]);
        for bytes in 0..whole.len() {
            let expected = (bytes >= 9).then_some("t10.t");
            assert_eq!(designator(&whole[..bytes]).as_deref(), expected, "{bytes} bytes");
        }
    }

    #[test]
    fn block_limits_are_where_the_standard_has_them() {
        let mut page = vec![0x00, 0xb0, 0x00, 0x3c];
        page.extend([0x01, 0x07, 0x00, 0x08, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07]);
        page.resize(64, 0xff);
        let whole = BlockLimits {
            compare_and_write_blocks_max: 7,
            transfer_blocks_granularity: 8,
            transfer_blocks_max: 0x0001_0203,
            transfer_blocks_optimal: 0x0405_0607,
        };
        assert_eq!(BlockLimits::parse(&page), Some(whole));
        assert_eq!(BlockLimits::parse(&page[..15]), Some(BlockLimits { transfer_blocks_optimal: 0, ..whole }));
        assert_eq!(BlockLimits::parse(&page[..4]), Some(BlockLimits::default()));
    }

    #[test]
    fn the_capacity_is_where_the_standard_has_it() {
        let mut bytes = vec![0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x00, 0x00, 0x10, 0x00, 0x03, 0x53, 0xc0];
        bytes.resize(CAPACITY_BYTES, 0);
        let whole = Capacity {
            last_lba: 0x0102_0304_0506_0708,
            block_bytes: 4096,
            protection_type: Some(2),
            physical_block_exponent: 3,
            thin: true,
            unmapped_reads_zeros: true,
        };
        assert_eq!(Capacity::parse(&bytes), Some(whole));
        bytes[12] = 0x02;
        bytes[14] = 0x80;
        assert_eq!(
            Capacity::parse(&bytes),
            Some(Capacity { protection_type: None, unmapped_reads_zeros: false, ..whole })
        );
        bytes[14] = 0x40;
        assert!(!Capacity::parse(&bytes).unwrap().thin);
        assert_eq!(Capacity::parse(&bytes[..11]), None);
        assert!(Capacity::parse(&bytes[..12]).is_some());
    }

    #[test]
    fn the_mode_is_behind_the_block_descriptors() {
        let parse = |bytes: &[u8]| {
            Mode::parse(bytes).map(|mode| (mode.write_protected, mode.takes_force_unit_access, mode.write_cache))
        };
        assert_eq!(parse(&[0, 26, 0, 0x90, 0, 0, 0, 0, 0x88, 0x12, 0x04]), Some((true, true, Some(true))));
        assert_eq!(
            parse(&[0, 26, 0, 0x10, 0, 0, 0, 2, 0xff, 0xff, 0x08, 0x12, 0xfb]),
            Some((false, true, Some(false)))
        );
        assert_eq!(parse(&[0, 26, 0, 0x80, 0, 0, 0, 0, 0x0a, 0x12, 0x04]), Some((true, false, None)));
        assert_eq!(parse(&[0, 26, 0, 0x80, 0, 0, 0xff, 0xff, 0x08, 0x12, 0x04]), Some((true, false, None)));
        assert_eq!(parse(&[0, 26, 0, 0x80, 0, 0, 0]), None);
    }

    #[test]
    fn whether_a_command_is_supported_is_three_bits() {
        for (bytes, expected) in [
            (&[0, 0x01][..], Some(false)),
            (&[0, 0x03], Some(true)),
            (&[0, 0x83], Some(true)),
            (&[0, 0x05], Some(true)),
            (&[0, 0x00], None),
            (&[0, 0x02], None),
            (&[0], None),
        ] {
            assert_eq!(command_supported(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut parsed = 0;
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = (0..random.usize(0..80)).map(|_| random.u8(0..64)).collect();
            if let Some(second) = bytes.get_mut(1) {
                *second = *random.choice([0x00, 0x80, 0x83, 0xb0].iter()).unwrap_or(&0);
            }
            parsed += usize::from(Inquiry::parse(&bytes).is_some());
            parsed += usize::from(supported_pages(&bytes).is_some());
            parsed += usize::from(serial_number(&bytes).is_some());
            parsed += usize::from(designator(&bytes).is_some());
            parsed += usize::from(BlockLimits::parse(&bytes).is_some());
            parsed += usize::from(Capacity::parse(&bytes).is_some());
            parsed += usize::from(Mode::parse(&bytes).is_some());
            parsed += usize::from(command_supported(&bytes).is_some());
        }
        assert!(parsed > 400_000, "only {parsed}");
    }
}
