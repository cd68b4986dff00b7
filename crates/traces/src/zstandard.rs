//! Zstandard (RFC 8878): frames one after the other. Each is verified, and those that are to be skipped are.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::vscsi::read_up_to;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a frame that is to be skipped begins with; pzstd puts one before each of its own.
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;

/// The largest window, which must be kept in memory: what `zstd` itself takes, and makes, without being told to (128 MiB).
const WINDOW_BYTES_MAX: u64 = 1 << 27;

/// Whether an input that begins so is packed by Zstandard.
pub fn is_packed(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|magic| *magic == MAGIC || is_skippable(*magic))
}

fn is_skippable(magic: [u8; 4]) -> bool {
    SKIPPABLE.contains(&u32::from_le_bytes(magic))
}

/// Unpacks what it reads.
pub struct Unpacker<R> {
    input: Counted<R>,
    frame: Option<Frame>,
}

impl<R: Read> Unpacker<R> {
    /// Begins; nothing is read yet.
    pub fn new(input: R) -> Self {
        Self { input: Counted { inner: input, offset: 0, has_ended: false }, frame: None }
    }

    /// The next frame that holds something; `None` at the end.
    fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let offset = self.input.offset;
            let mut magic = [0; 4];
            let read = read_up_to(&mut self.input, &mut magic)?;
            match magic {
                _ if read == 0 => return Ok(None),
                MAGIC => return Frame::begin(&mut self.input, offset).map(Some),
                magic if read == magic.len() && is_skippable(magic) => self.skip(offset)?,
                _ => return Err(damaged(offset, "no frame begins here")),
            }
        }
    }

    fn skip(&mut self, offset: u64) -> io::Result<()> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes).map_err(|error| self.input.broken(offset, error))?;
        let bytes = u64::from(u32::from_le_bytes(bytes));
        match io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(()),
            _ => Err(self.input.broken(offset, "cut short")),
        }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.frame.is_none() {
                self.frame = self.next_frame()?;
            }
            let Some(frame) = &mut self.frame else { return Ok(0) };
            let read = frame.read(&mut self.input, buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            frame.verify()?;
            self.frame = None;
        }
    }
}

/// A frame that is being unpacked.
struct Frame {
    decoder: FrameDecoder,
    /// Where it begins.
    offset: u64,
    /// How many bytes it holds, if it says so.
    content_bytes: Option<u64>,
    unpacked_bytes: u64,
}

impl Frame {
    /// Reads a frame's header, but for the magic number.
    fn begin<R: Read>(input: &mut Counted<R>, offset: u64) -> io::Result<Self> {
        // The descriptor, and the window or the first byte of the content's size: each frame has both.
        let mut head = [0; 2];
        input.read_exact(&mut head).map_err(|error| input.broken(offset, error))?;
        let [descriptor, window] = head;
        let mut decoder = FrameDecoder::new();
        let from_its_beginning = MAGIC.as_slice().chain(&head[..]).chain(&mut *input);
        decoder.init(from_its_beginning).map_err(|error| input.broken(offset, error))?;
        let is_single_segment = descriptor & 0x20 != 0;
        let window_bytes = match is_single_segment {
            true => decoder.content_size(),
            false => ((8 + u64::from(window & 7)) << 7) << (window >> 3),
        };
        if window_bytes > WINDOW_BYTES_MAX {
            return Err(damaged(offset, format_args!("a window of {window_bytes} bytes is more than 128 MiB")));
        }
        let says_its_size = is_single_segment || descriptor >> 6 != 0;
        let content_bytes = says_its_size.then(|| decoder.content_size());
        Ok(Self { decoder, offset, content_bytes, unpacked_bytes: 0 })
    }

    /// Unpacks as much as there is room for; nothing at its end.
    fn read<R: Read>(&mut self, input: &mut Counted<R>, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
            let more = BlockDecodingStrategy::UptoBytes(buffer.len() - self.decoder.can_collect());
            self.decoder.decode_blocks(&mut *input, more).map_err(|error| input.broken(self.offset, error))?;
        }
        let read = self.decoder.read(buffer)?;
        self.unpacked_bytes += read as u64;
        Ok(read)
    }

    /// Compares what was unpacked, which is all, with what the frame says of it.
    fn verify(&self) -> io::Result<()> {
        let unpacked = self.unpacked_bytes;
        if let Some(expected) = self.content_bytes.filter(|bytes| *bytes != unpacked) {
            let what = format_args!("the frame that begins here holds {unpacked} bytes, and says {expected}");
            return Err(damaged(self.offset, what));
        }
        let checksum = self.decoder.get_checksum_from_data();
        if checksum.is_some() && checksum != self.decoder.get_calculated_checksum() {
            return Err(damaged(self.offset, "the frame that begins here does not have its checksum"));
        }
        Ok(())
    }
}

/// An input, how many bytes of it were read, and whether more were wanted than it has.
struct Counted<R> {
    inner: R,
    offset: u64,
    has_ended: bool,
}

impl<R> Counted<R> {
    /// Why a frame that begins at a byte cannot be unpacked: most often since the input is cut short.
    fn broken(&self, offset: u64, error: impl Display) -> io::Error {
        if self.has_ended {
            return damaged(self.offset, format_args!("it ends within the frame that begins at byte {offset}"));
        }
        damaged(offset, format_args!("the frame that begins here cannot be unpacked: {error}"))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.offset += read as u64;
        self.has_ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

fn damaged(offset: u64, what: impl Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("Zstandard, byte {offset}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `zstd -19` makes of [`text`]: a compressed block, with the content's size and checksum.
    #[rustfmt::skip]
    const PACKED: [u8; 138] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x64, 0xf4, 0x00, 0xe5, 0x03, 0x00, 0xf2, 0xc7, 0x15, 0x14, 0xa0, 0xab, 0x03, 0x70,
        0x9b, 0x6e, 0xfc, 0x73, 0xac, 0x7f, 0xb3, 0x26, 0x9f, 0x7e, 0xda, 0x09, 0xdd, 0x7f, 0x37, 0x79, 0xc0, 0x17,
        0x9d, 0x6a, 0xca, 0x54, 0x5f, 0x77, 0xbc, 0x0a, 0xfe, 0x83, 0x33, 0x5d, 0xe5, 0xde, 0x7a, 0x24, 0xdb, 0xe5,
        0xbb, 0x70, 0xe7, 0x1b, 0xd8, 0x57, 0x57, 0xd6, 0x6a, 0xa6, 0x7d, 0xdd, 0xf1, 0x2a, 0xf8, 0x0f, 0xce, 0x74,
        0x95, 0x0b, 0xdd, 0x8e, 0xb4, 0xd4, 0x00, 0x5f, 0x74, 0x22, 0x69, 0x09, 0x02, 0x1c, 0xe3, 0x89, 0x8a, 0x01,
        0x79, 0x0e, 0xc5, 0x48, 0x12, 0x51, 0x24, 0x89, 0x59, 0x02, 0x27, 0xa8, 0x11, 0x30, 0xd8, 0xdd, 0xff, 0x0e,
        0xa0, 0x1b, 0x3a, 0x20, 0x42, 0x22, 0x54, 0x3e, 0xdd, 0xa2, 0x9d, 0x45, 0x7d, 0x41, 0x47, 0x56, 0x0b, 0x9e,
        0x68, 0xd6, 0xa1, 0x20, 0x1a, 0x7c, 0xb1, 0xab, 0xf3, 0x37, 0x6e, 0xe2,
    ];

    fn text() -> String {
        let line =
            |number: u32| format!("{},{},4096\n", if number.is_multiple_of(3) { 'w' } else { 'r' }, 1000 + 8 * number);
        (0..40).fold(String::from("op,lba,length_bytes\n"), |text, number| text + &line(number))
    }

    fn unpacked(packed: &[u8]) -> Result<String, String> {
        let mut text = String::new();
        Unpacker::new(packed).read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    }

    /// As pzstd has it before each frame: how long that is.
    fn skippable(frame: &[u8]) -> Vec<u8> {
        [0x184d_2a50_u32, 4, frame.len() as u32].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn frames_are_unpacked_one_after_the_other() {
        assert_eq!(unpacked(&PACKED).unwrap(), text());
        assert_eq!(unpacked(&[PACKED, PACKED, PACKED].concat()).unwrap(), text().repeat(3));
        // Who reads little at a time gets the same.
        let mut bytes = Vec::new();
        let both = [PACKED, PACKED].concat();
        let mut unpacker = Unpacker::new(&both[..]);
        let mut byte = [0];
        while unpacker.read(&mut byte).unwrap() == 1 {
            bytes.extend(byte);
        }
        assert_eq!(bytes, text().repeat(2).as_bytes());
    }

    #[test]
    fn what_is_to_be_skipped_is() {
        let skip = skippable(&PACKED);
        assert!(is_packed(&skip) && is_packed(&PACKED) && !is_packed(b"op,lba") && !is_packed(&PACKED[..3]));
        let packed = [&skip[..], &PACKED, &skip, &skip, &PACKED, &skip].concat();
        assert_eq!(unpacked(&packed).unwrap(), text().repeat(2));
        assert_eq!(unpacked(&skip).unwrap(), "");
        for cut in 1..skip.len() {
            let error = unpacked(&packed[..packed.len() - cut]).unwrap_err();
            let offset = packed.len() - skip.len();
            assert!(error.contains(&format!("byte {offset}")), "{cut}: {error}");
        }
    }

    #[test]
    fn a_flipped_bit_changes_nothing_unseen() {
        let mut refused = 0;
        for bit in 0..8 * PACKED.len() {
            let mut packed = PACKED;
            packed[bit / 8] ^= 1 << (bit % 8);
            match unpacked(&packed) {
                Ok(other) => assert_eq!(other, text(), "bit {bit}"),
                Err(error) => {
                    assert!(error.starts_with("Zstandard, byte "), "bit {bit}: {error}");
                    refused += 1;
                }
            }
        }
        // A few mean nothing, or say the same in another way.
        assert!(refused > 8 * PACKED.len() * 19 / 20, "{refused}");
        let mut packed = PACKED;
        packed[PACKED.len() - 1] ^= 1;
        let error = unpacked(&packed).unwrap_err();
        assert_eq!(error, "Zstandard, byte 0: the frame that begins here does not have its checksum");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for cut in 4..PACKED.len() {
            let packed = [&PACKED, &PACKED[..cut]].concat();
            let (begin, end) = (PACKED.len(), packed.len());
            let expected = format!("Zstandard, byte {end}: it ends within the frame that begins at byte {begin}");
            assert_eq!(unpacked(&packed), Err(expected));
        }
    }

    #[test]
    fn what_follows_must_be_frames() {
        for garbage in [&b"\0"[..], b"\0\0\0\0\0", &PACKED[..3], &PACKED[1..]] {
            let packed = [&PACKED, garbage].concat();
            let expected = format!("Zstandard, byte {}: no frame begins here", PACKED.len());
            assert_eq!(unpacked(&packed), Err(expected));
        }
    }

    #[test]
    fn a_frame_holds_what_it_says() {
        // One block of four bytes as they are, without a checksum, in a frame that says its size in a byte.
        let frame = |size| [&MAGIC[..], &[0x20, size, 0x21, 0, 0], b"text"].concat();
        assert_eq!(unpacked(&frame(4)).unwrap(), "text");
        let expected = "Zstandard, byte 0: the frame that begins here holds 4 bytes, and says 5";
        assert_eq!(unpacked(&frame(5)), Err(expected.into()));
    }

    #[test]
    fn a_window_that_would_take_all_memory_is_refused() {
        let frame = |window| [&MAGIC[..], &[0, window, 0x21, 0, 0], b"text"].concat();
        assert_eq!(unpacked(&frame(17 << 3)).unwrap(), "text");
        let expected = "Zstandard, byte 0: a window of 150994944 bytes is more than 128 MiB";
        assert_eq!(unpacked(&frame(17 << 3 | 1)), Err(expected.into()));
        let of_all = [&MAGIC[..], &[0xe0], &u64::MAX.to_le_bytes(), &[0x21, 0, 0], b"text"].concat();
        assert!(unpacked(&of_all).unwrap_err().contains("18446744073709551615"));
    }
}
