//! `casblock export`: a store becomes a disk image again.

use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::Store;
use casblock::device::BlockDevice;
use clap::Args;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use tempfile::TempPath;

use crate::blocks::CHUNK;
use crate::number::bytes;
use crate::output::Output;
use crate::same_file::refuse_same_file;
use crate::signals::Interruptible;
use crate::target::{Device, Target};

/// Writes a store's contents to a file: of an imported image, exactly its bytes and length
///
/// Blocks never written become holes; of a disk, blocks of zeros do. The file gets its name when it is complete: a failure, Ctrl-C or a kill leaves
/// nothing behind. It may be read and written by whom the store may. If others write to the store meanwhile, each block
/// is of one moment, but not all of the same. Works on read-only files.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The file to write
    image: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
}

/// `casblock export`.
pub fn export(args: &ExportArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = args.target.open_to_read()?;
    refuse_same_file(&args.image, args.target.path())?;
    refuse_existing(&args.image, args.force)?;
    let mode = args.target.path().metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o666);
    let interrupt = Interruptible::new()?;
    let new = NewFile::create(&args.image, mode)?;
    let (length_bytes, data_bytes) = match &opened {
        Device::Store(store) => (store.geometry().length(), copy(store, &new.file, &interrupt, output)),
        Device::Disk(disk) => {
            let length_bytes = disk.block_count().saturating_mul(disk.block_bytes() as u64);
            (length_bytes, copy_disk(disk.as_ref(), length_bytes, &new.file, &interrupt, output))
        }
    };
    let data_bytes = data_bytes.with_context(|| format!("{}: not made", args.image.display()))?;
    interrupt.check()?;
    new.publish(args.force)?;
    output.result(&Exported { image: args.image.display().to_string(), length_bytes, data_bytes })?;
    Ok(ExitCode::SUCCESS)
}

fn refuse_existing(path: &Path, force: bool) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) if !force => bail!("{}: exists; --force replaces it", path.display()),
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => bail!("{}: exists and is no regular file; --force replaces only those", path.display()),
    }
}

/// Writes the contents of all written blocks to `file`, and gives how many bytes they are.
fn copy(store: &Store, file: &File, interrupt: &Interruptible, output: &Output) -> anyhow::Result<u64> {
    let length = store.geometry().length();
    let block_bytes = store.geometry().size_of_block().bytes() as u64;
    let blocks = length.div_ceil(block_bytes);
    file.set_len(length).context("setting its length")?;
    let progress = output.progress("exporting", blocks);
    let mut buffer = vec![0; CHUNK];
    let (mut data, mut lba) = (0, 0);
    while lba < blocks {
        interrupt.check()?;
        progress.set(lba);
        let limit = blocks.min(lba + CHUNK as u64 / block_bytes);
        // The first run of written blocks in this chunk, or nothing at its end.
        let start = first(store, lba..limit, true)?;
        let end = first(store, start..limit, false)?;
        let run = &mut buffer[..((end - start) * block_bytes) as usize];
        store.read(start, run)?;
        let run = &run[..run.len().min((length - (start * block_bytes).min(length)) as usize)];
        file.write_all_at(run, start * block_bytes).context("writing")?;
        data += run.len() as u64;
        lba = end;
    }
    Ok(data)
}

/// Writes a disk's blocks to `file`, but for those of zeros, and gives how many bytes were not.
fn copy_disk(
    disk: &dyn BlockDevice,
    length: u64,
    file: &File,
    interrupt: &Interruptible,
    output: &Output,
) -> anyhow::Result<u64> {
    file.set_len(length).context("setting its length")?;
    let progress = output.progress("exporting", disk.block_count());
    let at_once = (CHUNK / disk.block_bytes()).max(1) as u64;
    let mut buffer = vec![0; at_once as usize * disk.block_bytes()];
    let (mut data, mut lba) = (0, 0);
    while lba < disk.block_count() {
        interrupt.check()?;
        progress.set(lba);
        let blocks = at_once.min(disk.block_count() - lba);
        let chunk = &mut buffer[..blocks as usize * disk.block_bytes()];
        disk.read(lba, chunk)?;
        for (lba, block) in (lba..).zip(chunk.chunks_exact(disk.block_bytes())) {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, lba * disk.block_bytes() as u64).context("writing")?;
                data += block.len() as u64;
            }
        }
        lba += blocks;
    }
    Ok(data)
}

/// The first block in the range that is written, or is not; else the range's end.
fn first(store: &Store, range: std::ops::Range<u64>, written: bool) -> Result<u64, casblock::Error> {
    for lba in range.clone() {
        if store.is_written(lba)? == written {
            return Ok(lba);
        }
    }
    Ok(range.end)
}

/// A file that has no name yet, or a temporary one where the file system cannot do without.
struct NewFile {
    file: File,
    target: PathBuf,
    temporary: Option<TempPath>,
}

impl NewFile {
    fn create(target: &Path, mode: u32) -> anyhow::Result<Self> {
        let folder = folder_of(target);
        let failed = || format!("{}: making a file in this folder", folder.display());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::TMPFILE;
        match rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)) {
            Ok(descriptor) => Ok(Self { file: descriptor.into(), target: target.into(), temporary: None }),
            // What kernels answer where the file system has no unnamed files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) if folder.is_dir() => {
                let named = temporary_name().permissions(Permissions::from_mode(mode)).tempfile_in(folder);
                let (file, path) = named.with_context(failed)?.into_parts();
                Ok(Self { file, target: target.into(), temporary: Some(path) })
            }
            Err(errno) => Err(errno).with_context(failed),
        }
    }

    /// Gives the file its name.
    fn publish(self, replace: bool) -> anyhow::Result<()> {
        let Self { file, target, temporary } = self;
        let failed = || format!("{}: giving the file its name", target.display());
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &Path| Ok(rustix::fs::linkat(CWD, &descriptor, CWD, to, AtFlags::SYMLINK_FOLLOW)?);
        let linked: io::Result<()> = match (temporary, replace) {
            (None, false) => link(&target),
            (None, true) => temporary_name()
                .make_in(folder_of(&target), link)
                .and_then(|named| named.into_temp_path().persist(&target).map_err(Into::into)),
            (Some(path), false) => path.persist_noclobber(&target).map_err(Into::into),
            (Some(path), true) => path.persist(&target).map_err(Into::into),
        };
        linked.with_context(failed)
    }
}

fn temporary_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".casblock-export-");
    builder
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[derive(Serialize)]
struct Exported {
    image: String,
    length_bytes: u64,
    data_bytes: u64,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} of them data", self.image, bytes(self.length_bytes), bytes(self.data_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new file that has a temporary name, or none.
    fn new_file(target: &Path, named: bool) -> NewFile {
        if !named {
            return NewFile::create(target, 0o600).unwrap();
        }
        let (file, path) = temporary_name().tempfile_in(folder_of(target)).unwrap().into_parts();
        NewFile { file, target: target.into(), temporary: Some(path) }
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_replaced_only_when_told_to() {
        for named in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("image");
            new_file(&target, named).publish(false).unwrap();
            std::fs::write(&target, b"precious").unwrap();
            let error = new_file(&target, named).publish(false).unwrap_err();
            assert!(format!("{error:#}").contains("exists"), "{error:#}");
            assert_eq!(std::fs::read(&target).unwrap(), b"precious");
            new_file(&target, named).publish(true).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"");
            drop(new_file(&target, named));
            assert_eq!(folder.path().read_dir().unwrap().count(), 1, "no temporary file stays");
        }
    }
}
