//! Traces: requests that a disk once had, from a file that may be packed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{table, vscsi, zstandard};

/// Bytes of a sector, the unit of traces.
pub const SECTOR_BYTES: u64 = 512;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// A request of a trace, in bytes of the disk it was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What it does.
    pub op: Op,
    /// Where it begins; `u64::MAX` if that is beyond what 64 bits can tell, so that it ends beyond, too.
    pub start: u64,
    /// How long it is; `u64::MAX` if it is longer.
    pub bytes: u64,
}

/// A trace.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Trace {
    /// Its requests, in their order.
    pub requests: Vec<Request>,
    /// Commands in it that neither read nor write.
    pub other_commands: u64,
}

/// How a trace is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Format {
    /// Records of VMware's vscsiStats, version 1 or 2
    Vscsi,
    /// Lines with commas, the first of which names the columns
    Csv,
}

/// As much of the beginning as tells what it is.
const HEAD_BYTES: usize = 512;

/// What some programs write before text, to say that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Trace {
    /// Reads a trace: from a file, or from stdin if that is `-`.
    pub fn open(path: &Path, format: Option<Format>) -> anyhow::Result<Self> {
        let failed = || format!("{}", path.display());
        let input: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(io::stdin().lock()),
            _ => Box::new(File::open(path).with_context(failed)?),
        };
        Self::read(input, format).with_context(failed)
    }

    /// Reads a trace, packed by gzip or Zstandard or plain.
    pub fn read(input: impl Read, format: Option<Format>) -> anyhow::Result<Self> {
        let (head, input) = peek(input)?;
        match head[..] {
            [0x1f, 0x8b, ..] => Self::unpacked(flate2::bufread::MultiGzDecoder::new(input), format),
            _ if zstandard::is_packed(&head) => Self::unpacked(zstandard::Unpacker::new(input), format),
            _ => Self::plain(&head, input, format),
        }
    }

    fn unpacked(input: impl Read, format: Option<Format>) -> anyhow::Result<Self> {
        let (head, input) = peek(input).context("unpacking")?;
        Self::plain(&head, input, format)
    }

    fn plain(head: &[u8], input: impl Read, format: Option<Format>) -> anyhow::Result<Self> {
        if head.is_empty() {
            bail!("it is empty");
        }
        let text = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
        let format = match format {
            Some(format) => format,
            None if vscsi::Version::of(head).is_some() => Format::Vscsi,
            None if text.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => Format::Csv,
            None => bail!("neither vscsi nor CSV can be told from its beginning; --format says which it is"),
        };
        match format {
            Format::Vscsi => vscsi::read(input),
            Format::Csv => table::read(input),
        }
    }
}

/// The beginning of an input, and all of it. A pipe may give less of it at a time than tells what it is.
fn peek(input: impl Read) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    input.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(input)))
}

/// What is not a whole trace: where.
pub fn broken<T>(record: u64, offset: Option<u64>, what: impl std::fmt::Display) -> anyhow::Result<T> {
    match offset {
        Some(offset) => bail!("record {record}, at byte {offset}: {what}"),
        None => bail!("record {record}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"op,lba,length_bytes\nr,8,4096\nw,0,512\n";

    fn requests() -> Vec<Request> {
        vec![Request { op: Op::Read, start: 4096, bytes: 4096 }, Request { op: Op::Write, start: 0, bytes: 512 }]
    }

    #[test]
    fn packed_or_not_it_is_the_same() {
        let mut packed = flate2::read::GzEncoder::new(TABLE, flate2::Compression::fast());
        let mut gzip = Vec::new();
        packed.read_to_end(&mut gzip).unwrap();
        let zstd = |text| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        // As pzstd does it: frames that hold a part each, and between them some that hold nothing.
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        let pzstd = [&skipped[..], &zstd(&TABLE[..25]), &skipped, &zstd(&TABLE[25..])].concat();
        for bytes in [TABLE, &gzip, &zstd(TABLE), &pzstd, &[BYTE_ORDER_MARK, TABLE].concat()] {
            assert_eq!(Trace::read(bytes, None).unwrap().requests, requests());
            assert_eq!(Trace::read(ByteByByte(bytes), None).unwrap().requests, requests());
        }
        for packed in [gzip, zstd(TABLE), pzstd] {
            for damaged in [&packed[..packed.len() / 2], &packed[..packed.len() - 1], &[&packed, TABLE].concat()] {
                let error = format!("{:#}", Trace::read(damaged, None).unwrap_err());
                assert!(error.starts_with("unpacking: "), "{error}");
            }
        }
    }

    /// An input that gives a byte at a time, as a pipe may.
    struct ByteByByte<'a>(&'a [u8]);

    impl Read for ByteByByte<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = buffer.len().min(1);
            self.0.read(&mut buffer[..bytes])
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let error = |bytes: &[u8], format| format!("{:#}", Trace::read(bytes, format).unwrap_err());
        assert_eq!(error(b"", None), "it is empty");
        assert!(error(&[0xff; 100], None).contains("--format"), "{}", error(&[0xff; 100], None));
        assert!(error(b"hello, world\n", None).contains("op"), "{}", error(b"hello, world\n", None));
        assert!(error(&[0xff; 100], Some(Format::Vscsi)).contains("version"));
    }
}
