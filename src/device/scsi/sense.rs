//! Sense data: what a disk says about a command that it did not simply do. No I/O.
//!
//! It comes from the wire: every length in it is checked, and whatever is cut off counts as not said.

use std::fmt;

/// What a disk says about a command that ended in CHECK CONDITION (SPC-5, 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// Whether it is about an earlier command, which was answered with GOOD before it failed (response codes 71h and 73h).
    /// This command was not begun then (SPC-5, 4.4.5).
    pub deferred: bool,
    /// What kind of trouble.
    pub key: SenseKey,
    /// What exactly.
    pub code: AdditionalSense,
    /// INFORMATION, if it is marked as valid. For a miscompare it is where in the data sent the first byte lies that differs,
    /// in bytes (SBC-4, 5.3).
    pub information: Option<u64>,
}

impl Sense {
    /// Reads fixed or descriptor sense data; `None` if it is neither, or too short to have a sense key.
    ///
    /// ```
    /// use casblock::device::scsi::{Sense, SenseKey};
    ///
    /// let fixed = [0xf0, 0, 0x0e, 0, 0, 1, 0x02, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0];
    /// let sense = Sense::parse(&fixed).expect("has a sense key");
    /// assert_eq!(sense.key, SenseKey::Miscompare);
    /// assert_eq!(sense.information, Some(0x102));
    /// assert_eq!(Sense::parse(b"?"), None);
    /// ```
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? & 0x7f {
            0x70 | 0x71 => Self::parse_fixed(bytes),
            0x72 | 0x73 => Self::parse_descriptors(bytes),
            _ => None,
        }
    }

    /// SPC-5, table 54.
    fn parse_fixed(bytes: &[u8]) -> Option<Self> {
        let key = SenseKey::of(*bytes.get(2)?);
        let bytes = said(bytes);
        let at = |offset: usize| bytes.get(offset).copied().unwrap_or(0);
        let valid = bytes[0] & 0x80 != 0;
        let information = bytes.get(3..7).and_then(|field| field.try_into().ok()).map(u32::from_be_bytes);
        Some(Self {
            deferred: bytes[0] & 0x7f == 0x71,
            key,
            code: AdditionalSense { code: at(12), qualifier: at(13) },
            information: information.filter(|_| valid).map(u64::from),
        })
    }

    /// SPC-5, table 27.
    fn parse_descriptors(bytes: &[u8]) -> Option<Self> {
        let key = SenseKey::of(*bytes.get(1)?);
        let at = |offset: usize| bytes.get(offset).copied().unwrap_or(0);
        Some(Self {
            deferred: bytes[0] & 0x7f == 0x73,
            key,
            code: AdditionalSense { code: at(2), qualifier: at(3) },
            information: information_descriptor(said(bytes).get(8..).unwrap_or_default()),
        })
    }

    /// Whether it says that an earlier command failed after it had been answered with GOOD.
    pub fn tells_loss(&self) -> bool {
        self.deferred && self.key != SenseKey::RecoveredError
    }

    /// Whether it says this.
    pub fn is(&self, key: SenseKey, code: u8, qualifier: u8) -> bool {
        self.key == key && self.code == AdditionalSense { code, qualifier }
    }
}

/// The bytes that are there by the ADDITIONAL SENSE LENGTH, which counts those after itself. Without it, the first eight.
fn said(bytes: &[u8]) -> &[u8] {
    let additional = bytes.get(7).copied().unwrap_or(0);
    &bytes[..bytes.len().min(8 + usize::from(additional))]
}

/// The first valid information descriptor (SPC-5, 4.4.2.2) in a list of them.
fn information_descriptor(mut descriptors: &[u8]) -> Option<u64> {
    loop {
        let [kind, additional, rest @ ..] = descriptors else { return None };
        let content = rest.get(..usize::from(*additional))?;
        if let (0x00, [valid, _, information @ ..]) = (*kind, content)
            && valid & 0x80 != 0
        {
            return information.try_into().ok().map(u64::from_be_bytes);
        }
        descriptors = &rest[content.len()..];
    }
}

/// As in messages: `MISCOMPARE (0Eh), miscompare during verify operation (1D/00), information 512`.
impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.deferred {
            f.write_str("deferred, of an earlier command: ")?;
        }
        write!(f, "{}, {}", self.key, self.code)?;
        match self.information {
            Some(information) => write!(f, ", information {information}"),
            None => Ok(()),
        }
    }
}

/// SENSE KEY (SPC-5, table 57).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SenseKey {
    /// 0h: nothing is said.
    NoSense = 0x0,
    /// 1h: it was done, with some recovery on the way.
    RecoveredError = 0x1,
    /// 2h: the disk cannot be accessed now.
    NotReady = 0x2,
    /// 3h: the medium is bad there.
    MediumError = 0x3,
    /// 4h: the disk is broken.
    HardwareError = 0x4,
    /// 5h: the command makes no sense to it.
    IllegalRequest = 0x5,
    /// 6h: something happened to the disk since the last command; this one was not begun.
    UnitAttention = 0x6,
    /// 7h: the blocks are protected.
    DataProtect = 0x7,
    /// 8h: a blank medium.
    BlankCheck = 0x8,
    /// 9h: the vendor's own.
    VendorSpecific = 0x9,
    /// Ah: of a copy.
    CopyAborted = 0xa,
    /// Bh: the disk gave up on the command.
    AbortedCommand = 0xb,
    /// Ch: reserved.
    Reserved = 0xc,
    /// Dh: the end of the medium came first.
    VolumeOverflow = 0xd,
    /// Eh: what was sent differs from what is there.
    Miscompare = 0xe,
    /// Fh: it was done.
    Completed = 0xf,
}

impl SenseKey {
    /// Of the low four bits.
    fn of(byte: u8) -> Self {
        match byte & 0x0f {
            0x0 => Self::NoSense,
            0x1 => Self::RecoveredError,
            0x2 => Self::NotReady,
            0x3 => Self::MediumError,
            0x4 => Self::HardwareError,
            0x5 => Self::IllegalRequest,
            0x6 => Self::UnitAttention,
            0x7 => Self::DataProtect,
            0x8 => Self::BlankCheck,
            0x9 => Self::VendorSpecific,
            0xa => Self::CopyAborted,
            0xb => Self::AbortedCommand,
            0xc => Self::Reserved,
            0xd => Self::VolumeOverflow,
            0xe => Self::Miscompare,
            _ => Self::Completed,
        }
    }
}

impl fmt::Display for SenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::NoSense => "NO SENSE",
            Self::RecoveredError => "RECOVERED ERROR",
            Self::NotReady => "NOT READY",
            Self::MediumError => "MEDIUM ERROR",
            Self::HardwareError => "HARDWARE ERROR",
            Self::IllegalRequest => "ILLEGAL REQUEST",
            Self::UnitAttention => "UNIT ATTENTION",
            Self::DataProtect => "DATA PROTECT",
            Self::BlankCheck => "BLANK CHECK",
            Self::VendorSpecific => "VENDOR SPECIFIC",
            Self::CopyAborted => "COPY ABORTED",
            Self::AbortedCommand => "ABORTED COMMAND",
            Self::Reserved => "RESERVED",
            Self::VolumeOverflow => "VOLUME OVERFLOW",
            Self::Miscompare => "MISCOMPARE",
            Self::Completed => "COMPLETED",
        };
        write!(f, "{name} ({:02X}h)", *self as u8)
    }
}

/// ADDITIONAL SENSE CODE and its QUALIFIER (SPC-5, annex F).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AdditionalSense {
    /// ASC.
    pub code: u8,
    /// ASCQ.
    pub qualifier: u8,
}

/// Those met with disks. A name with qualifier `None` is for all of a code that have no name of their own.
const NAMES: [(u8, Option<u8>, &str); 52] = [
    (0x00, Some(0x00), "no additional information"),
    (0x04, Some(0x00), "not ready, cause not reportable"),
    (0x04, Some(0x01), "becoming ready"),
    (0x04, Some(0x02), "not ready, initializing command required"),
    (0x04, Some(0x03), "not ready, manual intervention required"),
    (0x04, Some(0x04), "not ready, format in progress"),
    (0x04, Some(0x0a), "asymmetric access state transition"),
    (0x04, Some(0x0b), "target port in standby state"),
    (0x04, Some(0x0c), "target port in unavailable state"),
    (0x04, None, "not ready"),
    (0x08, None, "logical unit communication failure"),
    (0x0b, None, "warning"),
    (0x0c, None, "write error"),
    (0x10, Some(0x01), "logical block guard check failed"),
    (0x10, Some(0x02), "logical block application tag check failed"),
    (0x10, Some(0x03), "logical block reference tag check failed"),
    (0x11, None, "unrecovered read error"),
    (0x17, None, "recovered data"),
    (0x18, None, "recovered data with error correction"),
    (0x1a, None, "parameter list length error"),
    (0x1d, Some(0x00), "miscompare during verify operation"),
    (0x20, Some(0x00), "invalid command operation code"),
    (0x21, Some(0x00), "logical block address out of range"),
    (0x24, Some(0x00), "invalid field in CDB"),
    (0x25, None, "logical unit not supported"),
    (0x26, None, "invalid field in parameter list"),
    (0x27, Some(0x00), "write protected"),
    (0x27, Some(0x01), "hardware write protected"),
    (0x27, Some(0x02), "logical unit software write protected"),
    (0x27, Some(0x07), "space allocation failed, write protect"),
    (0x27, None, "write protected"),
    (0x28, None, "not ready to ready change, medium may have changed"),
    (0x29, Some(0x01), "power on occurred"),
    (0x29, Some(0x02), "SCSI bus reset occurred"),
    (0x29, Some(0x03), "bus device reset function occurred"),
    (0x29, Some(0x07), "I_T nexus loss occurred"),
    (0x29, None, "power on, reset, or bus device reset occurred"),
    (0x2a, Some(0x03), "reservations preempted"),
    (0x2a, Some(0x04), "reservations released"),
    (0x2a, Some(0x06), "asymmetric access state changed"),
    (0x2a, Some(0x09), "capacity data has changed"),
    (0x2a, None, "parameters changed"),
    (0x2f, None, "commands cleared by another initiator"),
    (0x38, Some(0x07), "thin provisioning soft threshold reached"),
    (0x3a, None, "medium not present"),
    (0x3f, Some(0x03), "INQUIRY data has changed"),
    (0x3f, Some(0x0e), "reported LUNs data has changed"),
    (0x44, None, "internal target failure"),
    (0x47, None, "SCSI parity error"),
    (0x4b, None, "data phase error"),
    (0x55, None, "system resource failure"),
    (0x74, None, "security error"),
];

impl fmt::Display for AdditionalSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, qualifier } = *self;
        // The named qualifiers of a code stand before the name for all others.
        let of_code = NAMES.iter().filter(|(named, ..)| *named == code);
        let name = of_code.clone().find(|(_, named, _)| named.is_none_or(|named| named == qualifier));
        match name {
            Some((.., name)) => write!(f, "{name} ({code:02X}/{qualifier:02X})"),
            None => write!(f, "additional sense {code:02X}/{qualifier:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixed sense as SPC-5, table 54, lays it out: a miscompare at byte 0x0102.
    const FIXED: [u8; 18] = [0xf0, 0, 0x0e, 0, 0, 1, 2, 10, 0, 0, 0, 0, 0x1d, 0x00, 0, 0, 0, 0];

    /// Descriptor sense as SPC-5, table 27, lays it out: a field replaceable unit first, then the information.
    const DESCRIPTORS: [u8; 24] = [
        0x72, 0x0e, 0x1d, 0x00, 0, 0, 0, 16, //
        0x03, 2, 0, 9, //
        0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2,
    ];

    const MISCOMPARE: Sense = Sense {
        deferred: false,
        key: SenseKey::Miscompare,
        code: AdditionalSense { code: 0x1d, qualifier: 0 },
        information: Some(0x102),
    };

    #[test]
    fn both_formats_say_the_same() {
        assert_eq!(Sense::parse(&FIXED), Some(MISCOMPARE));
        assert_eq!(Sense::parse(&DESCRIPTORS), Some(MISCOMPARE));
        assert!(MISCOMPARE.is(SenseKey::Miscompare, 0x1d, 0) && !MISCOMPARE.is(SenseKey::Miscompare, 0x1d, 1));
        assert_eq!(
            MISCOMPARE.to_string(),
            "MISCOMPARE (0Eh), miscompare during verify operation (1D/00), information 258"
        );
    }

    #[test]
    fn information_that_is_not_marked_valid_is_none() {
        let (mut fixed, mut descriptors) = (FIXED, DESCRIPTORS);
        fixed[0] = 0x70;
        descriptors[14] = 0;
        for bytes in [&fixed[..], &descriptors] {
            assert_eq!(Sense::parse(bytes), Some(Sense { information: None, ..MISCOMPARE }));
        }
    }

    #[test]
    fn the_whole_of_the_information_counts() {
        let (mut fixed, mut descriptors) = (FIXED, DESCRIPTORS);
        fixed[3] = 0x80;
        descriptors[16] = 0x80;
        assert_eq!(Sense::parse(&fixed).and_then(|sense| sense.information), Some(0x8000_0102));
        assert_eq!(Sense::parse(&descriptors).and_then(|sense| sense.information), Some(0x8000_0000_0000_0102));
    }

    #[test]
    fn deferred_errors_are_told_apart() {
        for (code, deferred) in [(0xf0, false), (0x70, false), (0xf1, true), (0x71, true)] {
            let bytes = [&[code], &FIXED[1..]].concat();
            assert_eq!(Sense::parse(&bytes).map(|sense| sense.deferred), Some(deferred));
        }
        for (code, deferred) in [(0x72, false), (0x73, true)] {
            let bytes = [&[code], &DESCRIPTORS[1..]].concat();
            assert_eq!(Sense::parse(&bytes).map(|sense| sense.deferred), Some(deferred));
        }
        let later = Sense { deferred: true, information: None, ..MISCOMPARE };
        assert!(later.to_string().starts_with("deferred, of an earlier command: MISCOMPARE"));
    }

    #[test]
    fn what_is_cut_off_was_not_said() {
        let fixed = |bytes: usize| Sense::parse(&FIXED[..bytes]);
        let nothing = AdditionalSense { code: 0, qualifier: 0 };
        for bytes in 0..3 {
            assert_eq!(fixed(bytes), None, "no sense key in {bytes} bytes");
        }
        for bytes in 3..7 {
            assert_eq!(fixed(bytes), Some(Sense { code: nothing, information: None, ..MISCOMPARE }));
        }
        for bytes in 7..13 {
            assert_eq!(fixed(bytes), Some(Sense { code: nothing, ..MISCOMPARE }));
        }
        assert_eq!(fixed(13), Some(MISCOMPARE));
        // The length byte cuts as well: here after the first 12 bytes.
        let mut short = FIXED;
        short[7] = 4;
        assert_eq!(Sense::parse(&short), Some(Sense { code: nothing, ..MISCOMPARE }));

        let descriptors = |bytes: usize| Sense::parse(&DESCRIPTORS[..bytes]);
        assert_eq!(descriptors(1), None);
        assert_eq!(descriptors(2), Some(Sense { code: nothing, information: None, ..MISCOMPARE }));
        for bytes in 4..24 {
            assert_eq!(descriptors(bytes), Some(Sense { information: None, ..MISCOMPARE }), "{bytes} bytes");
        }
        // Lengths that lead beyond the end, and an information descriptor too short for its number.
        for (offset, wrong) in [(7, 15), (9, 200), (13, 11), (13, 9), (13, 1), (13, 0)] {
            let mut damaged = DESCRIPTORS;
            damaged[offset] = wrong;
            assert_eq!(Sense::parse(&damaged), Some(Sense { information: None, ..MISCOMPARE }), "{offset}: {wrong}");
        }
    }

    #[test]
    fn random_bytes_never_panic_and_some_of_them_make_sense() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut sense, mut information) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
            if let (Some(first), true) = (bytes.first_mut(), random.bool()) {
                *first = random.u8(0x70..0x74) | random.u8(..) & 0x80;
            }
            if let Some(parsed) = Sense::parse(&bytes) {
                sense += 1;
                information += usize::from(parsed.information.is_some());
                assert!(!parsed.to_string().is_empty());
            }
        }
        assert!(sense > 50_000 && information > 10_000, "{sense} made sense, {information} had information");
    }

    #[test]
    fn every_key_keeps_its_number_and_every_name_can_be_found() {
        for number in 0..=255_u8 {
            assert_eq!(SenseKey::of(number) as u8, number & 0x0f);
        }
        for (code, qualifier, name) in NAMES {
            let sense = AdditionalSense { code, qualifier: qualifier.unwrap_or(0xee) };
            assert!(sense.to_string().starts_with(name), "{sense}");
        }
        assert_eq!(AdditionalSense { code: 0xfe, qualifier: 1 }.to_string(), "additional sense FE/01");
    }
}
