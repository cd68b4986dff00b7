//! `casblock read` and `casblock write`.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::device::BlockDevice;
use casblock::{Error, Writer};
use clap::Args;
use serde::Serialize;

use crate::durable;
use crate::hexdump::Hexdump;
use crate::number::{self, grouped};
use crate::output::{Output, ignore_broken_pipe};
use crate::same_file::refuse_same_file;
use crate::target::{Consent, Device, Target};

/// Bytes read or written at a time: a whole number of blocks of either size.
pub const CHUNK: usize = 1 << 20;

/// Bytes of piped input kept in memory; more go to a temporary file.
const SPOOL: usize = 64 << 20;

/// Reads blocks: a hexdump on a terminal, raw bytes elsewhere
///
/// The offsets of the hexdump are bytes from the beginning of block 0. With --json, one object a block. A block never
/// written reads as zeros. Works on read-only files.
#[derive(Args, Debug)]
pub struct ReadArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The first block, from 0
    #[arg(value_parser = number::count)]
    lba: u64,
    /// How many blocks
    #[arg(long, value_name = "N", default_value = "1", value_parser = number::positive)]
    count: u64,
    /// Write the raw bytes to a file, or with `-` to stdout
    #[arg(long, short, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
}

/// Writes blocks, whatever they held
///
/// As many as the input is long. Each block changes at once; others may see some changed and some not yet. The whole
/// input is read before the first block is written: input of a wrong length changes nothing.
#[derive(Args, Debug)]
pub struct WriteArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The first block, from 0
    #[arg(value_parser = number::count)]
    lba: u64,
    /// Where the bytes come from [default: stdin]
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Fill the last block with zeros; without this, input that is not a whole number of blocks is refused
    #[arg(long)]
    pad: bool,
    /// Return only when all is on the disk, and survives a cut of the power
    #[arg(long)]
    durable: bool,
    #[command(flatten)]
    consent: Consent,
}

/// `casblock read`.
pub fn read(args: &ReadArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = args.target.open_to_read()?;
    let device = opened.as_device();
    check_range(device, &args.target, args.lba, args.count)?;
    let block_size = device.block_bytes();
    let to_stdout = args.output.as_ref().is_none_or(|path| path.as_os_str() == "-");
    if let Some(path) = args.output.as_ref().filter(|_| !to_stdout) {
        refuse_same_file(path, args.target.path())?;
        let failed = || format!("{}: writing", path.display());
        let mut file = File::create(path).with_context(failed)?;
        return each_chunk(device, args, output, |_, bytes| file.write_all(bytes).with_context(failed));
    }
    let mut stdout = io::stdout().lock();
    let done = if output.is_json() {
        each_chunk(device, args, output, |lba, bytes| {
            for (lba, bytes) in (lba..).zip(bytes.chunks_exact(block_size)) {
                let written = opened.as_store().map(|store| store.is_written(lba)).transpose()?;
                let block = Block { lba, written, hex: hex(bytes) };
                writeln!(stdout, "{}", serde_json::to_string(&block)?)?;
            }
            Ok(())
        })
    } else if output.is_terminal() && args.output.is_none() {
        let mut dump = Hexdump::new(&mut stdout, args.lba * block_size as u64);
        each_chunk(device, args, output, |_, bytes| Ok(dump.rows(bytes)?))
            .and_then(|code| dump.finish().map(|()| code).map_err(Into::into))
    } else {
        each_chunk(device, args, output, |_, bytes| Ok(stdout.write_all(bytes)?))
    };
    match done.and_then(|code| stdout.flush().map(|()| code).map_err(Into::into)) {
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => ignore_broken_pipe(Err(error)).context("writing to stdout").map(|()| ExitCode::SUCCESS),
            Err(error) => Err(error),
        },
        done => done,
    }
}

/// Reads the blocks chunk by chunk.
fn each_chunk(
    device: &dyn BlockDevice,
    args: &ReadArgs,
    output: &Output,
    mut consume: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let block_size = device.block_bytes();
    let at_once = (CHUNK / block_size).max(1) as u64;
    let mut buffer = vec![0; block_size * args.count.min(at_once) as usize];
    let progress = output.progress("reading", args.count);
    let mut done = 0;
    while done < args.count {
        let blocks = at_once.min(args.count - done);
        let bytes = &mut buffer[..blocks as usize * block_size];
        device.read(args.lba + done, bytes).with_context(|| args.target.to_string())?;
        consume(args.lba + done, bytes)?;
        done += blocks;
        progress.set(done);
    }
    Ok(ExitCode::SUCCESS)
}

/// `casblock write`.
pub fn write(args: &WriteArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = args.target.open_to_write(args.consent, output)?;
    let device = opened.as_device();
    if args.durable {
        durable::require_power(&opened, &args.target)?;
    }
    let block_size = device.block_bytes() as u64;
    check_range(device, &args.target, args.lba, 1)?;
    let room = (device.block_count() - args.lba).saturating_mul(block_size);
    let mut input = Input::open(args.input.as_deref(), room)?;
    if input.length == 0 {
        bail!("{}: empty; there is nothing to write", input.name);
    }
    let rest = input.length % block_size;
    if rest != 0 && !args.pad {
        bail!(
            "{}: {} bytes are not a whole number of blocks of {block_size} bytes; --pad fills the last one with zeros",
            input.name,
            input.length
        );
    }
    if input.length > room {
        check_range(device, &args.target, args.lba, input.length.div_ceil(block_size))?;
    }
    let mut writer = BlockWriter::new(&opened).with_context(|| args.target.to_string())?;
    let progress = output.progress("writing", input.length);
    let mut lba = args.lba;
    let mut buffer = vec![0; CHUNK];
    let mut left = input.length;
    while left > 0 {
        let bytes = left.min(CHUNK as u64);
        input.read_exact(&mut buffer[..bytes as usize])?;
        let padded = bytes.next_multiple_of(block_size) as usize;
        buffer[bytes as usize..padded].fill(0);
        lba = writer.write(args.lba, lba, &buffer[..padded]).with_context(|| args.target.to_string())?;
        left -= bytes;
        progress.set(input.length - left);
    }
    if args.durable {
        device.flush().with_context(|| format!("{}: all blocks were written", args.target))?;
    }
    drop(progress);
    let padded_bytes = if rest == 0 { 0 } else { block_size - rest };
    output.result(&Written { lba: args.lba, blocks: lba - args.lba, padded_bytes })?;
    Ok(ExitCode::SUCCESS)
}

/// Writes blocks from `lba` on, and gives the block after them. An error tells which were written since `first`.
pub fn write_blocks(
    writer: &mut Writer,
    first: u64,
    mut lba: u64,
    data: &[u8],
    block_size: usize,
) -> anyhow::Result<u64> {
    for block in data.chunks_exact(block_size) {
        writer.write(lba, block).with_context(|| match lba - first {
            0 => format!("writing block {lba}; nothing was changed"),
            1 => format!("writing block {lba}; block {first} before it was written"),
            _ => format!("writing block {lba}; blocks {first} to {} before it were written", lba - 1),
        })?;
        lba += 1;
    }
    Ok(lba)
}

/// How blocks get to a target: by a store's writer, or in whole chunks to a disk.
enum BlockWriter<'a> {
    Store(Writer, usize),
    Disk(&'a dyn BlockDevice),
}

impl<'a> BlockWriter<'a> {
    fn new(device: &'a Device) -> Result<Self, Error> {
        match device.as_store() {
            Some(store) => Ok(Self::Store(store.writer()?, device.as_device().block_bytes())),
            None => Ok(Self::Disk(device.as_device())),
        }
    }

    /// Writes blocks from `lba` on, and gives the block after them. An error tells which were written since `first`.
    fn write(&mut self, first: u64, lba: u64, data: &[u8]) -> anyhow::Result<u64> {
        match self {
            Self::Store(writer, block_bytes) => write_blocks(writer, first, lba, data, *block_bytes),
            Self::Disk(disk) => {
                let end = lba + (data.len() / disk.block_bytes()) as u64;
                disk.write(lba, data).with_context(|| match lba - first {
                    0 => format!("writing blocks {lba} to {}", end - 1),
                    _ => format!("writing blocks {lba} to {}; blocks {first} to {} were written", end - 1, lba - 1),
                })?;
                Ok(end)
            }
        }
    }
}

/// An error unless the blocks are all the target's.
pub fn check_range(device: &dyn BlockDevice, target: &Target, lba: u64, count: u64) -> anyhow::Result<()> {
    let blocks = device.block_count();
    if lba >= blocks || count > blocks - lba {
        return Err(Error::LbaOutOfRange { lba, count, blocks }).with_context(|| target.to_string());
    }
    Ok(())
}

/// Bytes in hexadecimal, two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Input of known length.
struct Input {
    reader: Box<dyn Read>,
    length: u64,
    name: String,
}

impl Input {
    /// A file, or else stdin. A pipe is read to its end, or till it has brought more than `room` bytes.
    fn open(path: Option<&Path>, room: u64) -> anyhow::Result<Self> {
        let (name, file) = match path.filter(|path| path.as_os_str() != "-") {
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("{name}: opening"))?;
                (name, file)
            }
            None => {
                if io::stdin().is_terminal() {
                    eprintln!("casblock: reading from the terminal; Ctrl-D on a line of its own ends it");
                }
                ("stdin".into(), File::from(rustix::io::dup(io::stdin()).context("stdin")?))
            }
        };
        let failed = || format!("{name}: reading");
        let metadata = file.metadata().with_context(failed)?;
        if metadata.is_dir() {
            bail!("{name}: is a folder; a file or a pipe is needed");
        }
        if metadata.is_file() {
            // stdin may be a file that somebody has read a part of.
            let position = (&file).stream_position().with_context(failed)?;
            return Ok(Self { length: metadata.len().saturating_sub(position), reader: Box::new(file), name });
        }
        let mut spool = tempfile::spooled_tempfile(SPOOL);
        let length = io::copy(&mut file.take(room + 1), &mut spool).with_context(failed)?;
        spool.rewind().with_context(failed)?;
        Ok(Self { length, reader: Box::new(spool), name })
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> anyhow::Result<()> {
        self.reader.read_exact(bytes).with_context(|| format!("{}: reading; did it become shorter?", self.name))
    }
}

#[derive(Serialize)]
struct Block {
    lba: u64,
    /// Not known of a disk's.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<bool>,
    hex: String,
}

#[derive(Serialize)]
struct Written {
    lba: u64,
    blocks: u64,
    padded_bytes: u64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blocks {
            1 => write!(f, "wrote block {}", self.lba)?,
            blocks => write!(f, "wrote {} blocks, {} to {}", grouped(blocks), self.lba, self.lba + blocks - 1)?,
        }
        match self.padded_bytes {
            0 => Ok(()),
            bytes => write!(f, "; the last {bytes} bytes are zeros that fill the last block"),
        }
    }
}
