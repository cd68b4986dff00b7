//! `casblock import`: a disk image, or any file, becomes a store.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::{BlockSize, CreateOptions, Geometry, Store};
use clap::Args;
use rustix::fs::SeekFrom as Holes;
use rustix::io::Errno;
use serde::Serialize;

use crate::blocks::{CHUNK, write_blocks};
use crate::create_info::BlockSizeArg;
use crate::durable::DurabilityArg;
use crate::number::{bytes, grouped};
use crate::output::Output;
use crate::same_file::refuse_same_file;
use crate::signals::Interruptible;
use crate::target::{Consent, Target};

/// Makes a store that holds a disk image, or any file; or writes it to a disk
///
/// The last block is filled with zeros; export gives the exact length back. Holes, and blocks of zeros, are not
/// written and take no frame. A store whose image has holes for an eighth of its length or more is sparse, as create
/// --sparse makes it; otherwise all its space is allocated. The image may be a file or a disk, not a pipe. An empty
/// image becomes a store of one block. The store gets its name when it is complete: a failure, Ctrl-C or a kill leaves
/// nothing behind.
///
/// A disk gets the image from its first block on; what is behind the image's last block stays. Options that say what the
/// store is to be like mean nothing then; a failure or Ctrl-C leaves a part of the image.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The image
    image: PathBuf,
    /// The store to make, or scsi:/dev/sdX
    target: Target,
    /// Bytes in a block
    #[arg(long, value_name = "BYTES", default_value = "512")]
    block_size: BlockSizeArg,
    /// What it survives
    #[arg(long, value_name = "WHAT", default_value = "process")]
    durability: DurabilityArg,
    /// Make the store sparse also if the image has no holes
    #[arg(long)]
    sparse: bool,
    /// Replace a file of that name, unless it is a store in use
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

/// `casblock import`.
pub fn import(args: &ImportArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let image = Image::open(&args.image)?;
    refuse_same_file(args.target.path(), &args.image)?;
    match &args.target {
        Target::Store(path) => import_to_store(args, path, &image, output),
        Target::Scsi(_) => import_to_disk(args, &image, output),
    }
}

/// Writes the image to a disk, holes as zeros.
fn import_to_disk(args: &ImportArgs, image: &Image, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = args.target.open_to_write(args.consent, output)?;
    let disk = opened.as_device();
    let block_bytes = disk.block_bytes() as u64;
    let (blocks, room) = (image.length.div_ceil(block_bytes), disk.block_count());
    if blocks > room {
        bail!("{}: {} blocks are too few: the image needs {}", args.target, grouped(room), grouped(blocks));
    }
    let interrupt = Interruptible::new()?;
    let progress = output.progress("importing", image.length);
    let mut buffer = vec![0; CHUNK.next_multiple_of(disk.block_bytes())];
    let mut position = 0;
    while position < blocks * block_bytes {
        let done = || format!("{}: the first {} blocks were written", args.target, position / block_bytes);
        interrupt.check().with_context(done)?;
        let bytes = (buffer.len() as u64).min(blocks * block_bytes - position) as usize;
        image.read(position, &mut buffer[..bytes])?;
        disk.write(position / block_bytes, &buffer[..bytes]).with_context(done)?;
        position += bytes as u64;
        progress.set(position.min(image.length));
    }
    disk.flush().with_context(|| format!("{}: all blocks were written", args.target))?;
    drop(progress);
    let (store, length_bytes) = (args.target.to_string(), image.length);
    output.result(&Imported { store, length_bytes, blocks, blocks_written: blocks, sparse: false })?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a store of the image.
fn import_to_store(args: &ImportArgs, path: &Path, image: &Image, output: &Output) -> anyhow::Result<ExitCode> {
    let block_size = BlockSize::from(args.block_size);
    let block_bytes = block_size.bytes() as u64;
    let blocks = image.length.div_ceil(block_bytes).max(1);
    let extents = image.extents()?;
    let data: u64 = extents.iter().map(|extent| extent.end - extent.start).sum();
    let sparse = args.sparse || image.length - data >= image.length.div_ceil(8).max(1);
    tracing::info!(image_bytes = image.length, data_bytes = data, extents = extents.len(), sparse, "importing");

    let geometry =
        Geometry::blocks(blocks).block_size(block_size).length_bytes(image.length).durability(args.durability.into());
    let options = CreateOptions::new(geometry).sparse(sparse).replace(args.force);
    let interrupt = Interruptible::new()?;
    let mut blocks_written = 0;
    let made = options.create_filled::<anyhow::Error>(path, |store| {
        if sparse {
            require_room(path, data)?;
        }
        let fill = Fill { store, image, interrupt: &interrupt, output };
        blocks_written = fill.run(&extents, data)?;
        Ok(())
    });
    if made.is_err() {
        // Whatever a signal has interrupted may have its own name for that.
        interrupt.check().with_context(|| format!("{}: not made", path.display()))?;
    }
    made?;
    let (store, length_bytes) = (path.display().to_string(), image.length);
    output.result(&Imported { store, length_bytes, blocks, blocks_written, sparse })?;
    Ok(ExitCode::SUCCESS)
}

/// A sparse store's space is found missing only by SIGBUS: rather look before.
fn require_room(store: &Path, data: u64) -> anyhow::Result<()> {
    let folder = match store.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let statistics = rustix::fs::statvfs(folder).with_context(|| format!("{}: asking for room", folder.display()))?;
    let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
    if free < data {
        bail!(
            "{}: no room: the image's data are {}, and the file system has {} left; make room, or use another",
            store.display(),
            bytes(data),
            bytes(free)
        );
    }
    Ok(())
}

/// The file to import.
struct Image {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Image {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        // O_NONBLOCK: opening a pipe must not wait for its other end.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .with_context(|| format!("{name}: opening"))?;
        let kind = file.metadata().with_context(|| format!("{name}: reading its metadata"))?.file_type();
        if kind.is_dir() {
            bail!("{name}: is a folder; import takes a file or a disk");
        }
        if !kind.is_file() && !kind.is_block_device() {
            bail!("{name}: has no length (a pipe, or the like); save it to a file first, and import that");
        }
        let length = file.seek(SeekFrom::End(0)).with_context(|| format!("{name}: asking for its length"))?;
        Ok(Self { file, path: path.into(), length })
    }

    /// Reads whole blocks at `position`; zeros follow the image's end.
    fn read(&self, position: u64, chunk: &mut [u8]) -> anyhow::Result<()> {
        let length = (self.length - position).min(chunk.len() as u64) as usize;
        let (inside, beyond) = chunk.split_at_mut(length);
        beyond.fill(0);
        let name = self.path.display();
        self.file
            .read_exact_at(inside, position)
            .with_context(|| format!("{name}: reading {length} bytes at {position}; did it become shorter?"))
    }

    /// Where the image has data, in order. The rest is holes, which read as zeros.
    fn extents(&self) -> anyhow::Result<Vec<Range<u64>>> {
        let mut extents = Vec::new();
        let mut end = 0;
        while end < self.length {
            let start = match rustix::fs::seek(&self.file, Holes::Data(end)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                // A file system, or a disk, that knows nothing of holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => end,
                Err(errno) => return Err(errno).with_context(|| format!("{}: finding data", self.path.display())),
            };
            // After the last data comes a hole, if only the one beyond the end.
            end = rustix::fs::seek(&self.file, Holes::Hole(start)).unwrap_or(self.length).min(self.length);
            if start < end {
                extents.push(start..end);
            }
        }
        Ok(extents)
    }
}

/// Copying an image to a new store.
struct Fill<'a> {
    store: &'a Store,
    image: &'a Image,
    interrupt: &'a Interruptible,
    output: &'a Output,
}

impl Fill<'_> {
    /// Copies the extents and gives the number of blocks written.
    fn run(&self, extents: &[Range<u64>], data: u64) -> anyhow::Result<u64> {
        let block_bytes = self.store.geometry().size_of_block().bytes();
        let progress = self.output.progress("importing", data);
        let mut writer = self.store.writer()?;
        let mut buffer = vec![0; CHUNK];
        let (mut written, mut done, mut position) = (0, 0, 0);
        for extent in extents {
            // Whole blocks; two extents may have parts of one, which is read once.
            let start = position.max(extent.start - extent.start % block_bytes as u64);
            let end = extent.end.next_multiple_of(block_bytes as u64);
            position = start;
            while position < end {
                self.interrupt.check()?;
                let chunk = &mut buffer[..CHUNK.min((end - position) as usize)];
                self.image.read(position, chunk)?;
                written += write_unless_zero(&mut writer, position / block_bytes as u64, chunk, block_bytes)?;
                position += chunk.len() as u64;
                done += chunk.len() as u64;
                progress.set(done.min(data));
            }
        }
        Ok(written)
    }
}

/// Writes those blocks that are not all zeros, and gives their number.
fn write_unless_zero(
    writer: &mut casblock::Writer,
    lba: u64,
    blocks: &[u8],
    block_bytes: usize,
) -> anyhow::Result<u64> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut written = 0;
    for (lba, block) in (lba..).zip(blocks.chunks_exact(block_bytes)) {
        if block != &ZEROS[..block_bytes] {
            write_blocks(writer, lba, lba, block, block_bytes)?;
            written += 1;
        }
    }
    Ok(written)
}

#[derive(Serialize)]
struct Imported {
    store: String,
    length_bytes: u64,
    blocks: u64,
    blocks_written: u64,
    sparse: bool,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, blocks) = (grouped(self.blocks_written), grouped(self.blocks));
        let sparse = if self.sparse { ", sparse" } else { "" };
        write!(f, "{}: {} in {blocks} blocks, {written} of them written", self.store, bytes(self.length_bytes))?;
        f.write_str(sparse)
    }
}
