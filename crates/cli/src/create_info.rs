//! `casblock create` and `casblock info`.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use casblock::device::BlockDevice;
use casblock::{BlockSize, CreateOptions, Geometry, Recovery, Store};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::durable::DurabilityArg;
use crate::number;
use crate::output::Output;
use crate::target::{Target, store_file};

/// Makes a new store
///
/// All its space is allocated at once, so that a full disk is an error now and not later; see --sparse. The file is
/// its owner's alone (mode 0600). If anything fails, no file is left behind.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The file to make
    #[arg(value_parser = store_file())]
    store: PathBuf,
    /// How many blocks it has
    #[arg(long, value_name = "N", value_parser = number::count)]
    blocks: u64,
    /// Bytes in a block
    #[arg(long, value_name = "BYTES", default_value = "512")]
    block_size: BlockSizeArg,
    /// Room for how many blocks, and one for each writer at work [default: blocks and writers together]
    ///
    /// With fewer frames than blocks, not all blocks can be written: what is too much ends in "no space".
    #[arg(long, value_name = "N", value_parser = number::count)]
    frames: Option<u64>,
    /// What it survives
    #[arg(long, value_name = "WHAT", default_value = "process")]
    durability: DurabilityArg,
    /// How many 8-byte heartbeat words it has [default: 256]
    #[arg(long, value_name = "N", value_parser = number::count)]
    words: Option<u64>,
    /// How many threads, of all processes together, may update it at the same time [default: 128]
    #[arg(long, value_name = "N", value_parser = number::count_u16)]
    writers: Option<u16>,
    /// How many events it keeps: a power of two, 0 for none [default: 4096]
    ///
    /// What is made with 0 can be used by casblocks that do not know of events.
    #[arg(long, value_name = "N", value_parser = number::count_u32)]
    events: Option<u32>,
    /// Take space only as blocks are written
    ///
    /// A disk that is full then ends the process that writes.
    #[arg(long)]
    sparse: bool,
    /// Replace a file of that name, unless it is a store in use
    #[arg(long)]
    force: bool,
}

/// Shows what a store has, and what it takes
///
/// Counting the blocks written takes a while in a store of billions. Works on read-only files. Of a disk, `casblock probe`
/// tells more.
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
}

/// `--block-size`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BlockSizeArg {
    /// A disk's logical block
    #[value(name = "512")]
    B512,
    /// A 4K-native disk's block
    #[value(name = "4096", alias = "4K", alias = "4k")]
    B4096,
}

impl From<BlockSizeArg> for BlockSize {
    fn from(size: BlockSizeArg) -> Self {
        match size {
            BlockSizeArg::B512 => Self::B512,
            BlockSizeArg::B4096 => Self::B4096,
        }
    }
}

/// `casblock create`.
pub fn create(args: &CreateArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let mut geometry =
        Geometry::blocks(args.blocks).block_size(args.block_size.into()).durability(args.durability.into());
    if let Some(frames) = args.frames {
        geometry = geometry.frames(frames);
    }
    if let Some(words) = args.words {
        geometry = geometry.words(words);
    }
    if let Some(writers) = args.writers {
        geometry = geometry.writers(writers);
    }
    if let Some(events) = args.events {
        geometry = geometry.events(events);
    }
    let options = CreateOptions::new(geometry).sparse(args.sparse).replace(args.force);
    let store = options.create(&args.store)?;
    tracing::info!(path = %args.store.display(), bytes = store.region_bytes(), "created");
    output.result(&Info::of(&store, &args.store, 0)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `casblock info`.
pub fn info(args: &InfoArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = args.target.open_to_read()?;
    let Some(store) = opened.as_store() else {
        output.result(&DiskInfo::of(opened.as_device()))?;
        return Ok(ExitCode::SUCCESS);
    };
    let blocks = store.geometry().block_count();
    let progress = output.progress("counting", blocks);
    let mut written = 0;
    for lba in 0..blocks {
        written += u64::from(store.is_written(lba).with_context(|| args.target.to_string())?);
        if lba.is_multiple_of(1 << 16) {
            progress.set(lba);
        }
    }
    drop(progress);
    output.result(&Info::of(store, args.target.path(), written)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What is known about a disk, as a device.
#[derive(Serialize)]
struct DiskInfo {
    name: String,
    block_size: usize,
    blocks: u64,
    length_bytes: u64,
}

impl DiskInfo {
    fn of(device: &dyn BlockDevice) -> Self {
        Self {
            name: device.name().into_owned(),
            block_size: device.block_bytes(),
            blocks: device.block_count(),
            length_bytes: device.block_count().saturating_mul(device.block_bytes() as u64),
        }
    }
}

impl fmt::Display for DiskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "disk               {}", self.name)?;
        writeln!(f, "blocks             {} of {} bytes", number::grouped(self.blocks), self.block_size)?;
        write!(f, "length             {}", number::bytes(self.length_bytes))
    }
}

/// What is known about a store.
#[derive(Serialize)]
struct Info {
    path: String,
    uuid: String,
    block_size: usize,
    blocks: u64,
    blocks_written: u64,
    frames: u64,
    words: u64,
    writers: u16,
    events: u32,
    /// `None` without a flight recorder.
    miscompares: Option<u64>,
    durability: &'static str,
    /// What the last recovery did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_recovery: Option<LastRecovery>,
    contents_bytes: u64,
    file_bytes: u64,
    allocated_bytes: u64,
    beside_blocks_percent: f64,
}

impl Info {
    fn of(store: &Store, path: &Path, blocks_written: u64) -> anyhow::Result<Self> {
        let metadata = path.metadata().with_context(|| format!("{}: reading its metadata", path.display()))?;
        let geometry = store.geometry();
        let block_size = geometry.size_of_block().bytes();
        let in_blocks = (geometry.block_count() * block_size as u64) as f64;
        Ok(Self {
            path: path.display().to_string(),
            uuid: hyphenated(store.uuid()),
            block_size,
            blocks: geometry.block_count(),
            blocks_written,
            frames: geometry.frame_count(),
            words: geometry.word_count(),
            writers: geometry.writer_count(),
            events: geometry.event_count(),
            miscompares: store.miscompares(),
            durability: DurabilityArg::name(geometry.durability_class()),
            last_recovery: store.last_recovery().map(LastRecovery::of),
            contents_bytes: geometry.length(),
            file_bytes: metadata.len(),
            // stat(2) counts in 512 bytes whatever the file system's blocks are.
            allocated_bytes: metadata.blocks() * 512,
            beside_blocks_percent: (store.region_bytes() as f64 - in_blocks) * 100.0 / in_blocks,
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes| format!("{} ({} bytes)", number::bytes(bytes), number::grouped(bytes));
        writeln!(f, "store              {}", self.path)?;
        writeln!(f, "uuid               {}", self.uuid)?;
        writeln!(f, "blocks             {} of {} bytes", number::grouped(self.blocks), self.block_size)?;
        writeln!(f, "blocks written     {}", number::grouped(self.blocks_written))?;
        writeln!(f, "frames             {}", number::grouped(self.frames))?;
        writeln!(f, "heartbeat words    {}", number::grouped(self.words))?;
        writeln!(f, "writer slots       {}", number::grouped(self.writers.into()))?;
        match self.miscompares {
            Some(miscompares) => {
                writeln!(f, "events kept        {}", number::grouped(self.events.into()))?;
                writeln!(f, "miscompares        {} since it was made", number::grouped(miscompares))?;
            }
            None => writeln!(f, "events kept        none: it has no flight recorder")?,
        }
        let survives = match self.durability {
            "process" => "survives any process's death, not a power cut",
            _ => "what is synced survives a cut of the power",
        };
        writeln!(f, "durability         {} ({survives})", self.durability)?;
        if let Some(recovery) = &self.last_recovery {
            writeln!(f, "last recovery      {recovery}")?;
        }
        writeln!(f, "length of contents {}", bytes(self.contents_bytes))?;
        writeln!(f, "length of file     {}", bytes(self.file_bytes))?;
        writeln!(f, "allocated on disk  {}", bytes(self.allocated_bytes))?;
        write!(f, "beside the blocks  {:.2} % of their size", self.beside_blocks_percent)
    }
}

/// What the last recovery of a store did.
#[derive(Serialize)]
struct LastRecovery {
    at_unix_seconds: u64,
    blocks: u64,
    blocks_rolled_back: u64,
    updates_discarded: u64,
    frames_discarded: u64,
    duration_us: u64,
}

impl LastRecovery {
    fn of(recovery: Recovery) -> Self {
        Self {
            at_unix_seconds: recovery.at_unix_seconds,
            blocks: recovery.blocks,
            blocks_rolled_back: recovery.blocks_rolled_back,
            updates_discarded: recovery.updates_discarded,
            frames_discarded: recovery.frames_discarded,
            duration_us: recovery.duration_us,
        }
    }
}

impl fmt::Display for LastRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        write!(
            f,
            "{} ago, in {:.1} s: {} blocks\n                   \
             {} updates of {} blocks were lost; {} frames were torn",
            number::duration(now.saturating_sub(self.at_unix_seconds)),
            self.duration_us as f64 / 1e6,
            number::grouped(self.blocks),
            number::grouped(self.updates_discarded),
            number::grouped(self.blocks_rolled_back),
            number::grouped(self.frames_discarded),
        )
    }
}

/// A UUID as RFC 9562 writes it.
fn hyphenated(uuid: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(uuid));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_has_its_hyphens() {
        let uuid = std::array::from_fn(|index| index as u8);
        assert_eq!(super::hyphenated(uuid), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
