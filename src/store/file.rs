//! The file under a store: making, opening and locking it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::geometry::{Durability, Geometry, Layout};
use super::state::Incarnation;
use super::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::error::OpenError;
use crate::sync::Patience;

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// To read and write it, beside others.
    Shared,
    /// To read it, beside others.
    ReadOnly,
    /// With nobody else.
    Exclusive,
}

/// An open store's file, locked, with what its superblock says.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: File,
    pub geometry: Geometry,
    pub layout: Layout,
    pub uuid: [u8; 16],
}

fn failed(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.into(), doing, source }
}

/// Opens and checks an existing store's file. With durability `power`, others who want to open or close it are held off
/// while the second result lives.
pub(super) fn open(path: &Path, access: Access) -> Result<(OpenFile, Option<HoldOff>), OpenError> {
    loop {
        let file = open_regular(path, access)?;
        let (lock, busy) = match access {
            Access::Exclusive => (Lock::Exclusive, OpenError::InUse { path: path.into() }),
            Access::Shared | Access::ReadOnly => (Lock::Shared, OpenError::Locked { path: path.into() }),
        };
        let metadata = file.metadata().map_err(failed(path, "reading its metadata"))?;
        let (geometry, layout, uuid) = read_superblock(&file, metadata.len(), path)?;
        refuse_shared_file_system(&file, path)?;
        let held_off = match geometry.durability_class() {
            Durability::Process => None,
            Durability::Power => {
                let kind = if access == Access::ReadOnly { Lock::Shared } else { Lock::Exclusive };
                let held_off = hold_off_others(&file, kind).map_err(failed(path, "locking"))?;
                Some(held_off.ok_or(OpenError::Locked { path: path.into() })?)
            }
        };
        if !try_lock(&file, 0, lock).map_err(failed(path, "locking"))? {
            return Err(busy);
        }
        // Between opening and locking it the file may have been replaced: then the path is another file's now.
        if is_still_at(&file, path)? {
            return Ok((OpenFile { file, geometry, layout, uuid }, held_off));
        }
    }
}

/// Holds off others who want to open or close a store of durability `power`, until it is dropped.
#[derive(Debug)]
pub(super) struct HoldOff {
    /// Another descriptor of the same open file description, which has the lock.
    file: File,
}

impl Drop for HoldOff {
    fn drop(&mut self) {
        // Dropping a lock fails only for a descriptor that is not open; this one is.
        let _ = try_lock(&self.file, HOLD_OFF_BYTE, Lock::Unlock);
    }
}

/// The byte of the file that is locked by whoever opens or closes it.
const HOLD_OFF_BYTE: u64 = 1;

/// How long to wait for somebody else who is opening or closing the store: both take a few writes to the disk.
const HOLD_OFF_PATIENCE: Duration = Duration::from_secs(10);

/// Holds off others who want to open or close the store; `None` if one of them took longer than we have patience, since
/// it was stopped in the middle or is recovering the store.
pub(super) fn hold_off_others(file: &File, kind: Lock) -> io::Result<Option<HoldOff>> {
    let file = file.try_clone()?;
    let mut patience = Patience::new(HOLD_OFF_PATIENCE);
    while !try_lock(&file, HOLD_OFF_BYTE, kind)? {
        if !patience.wait() {
            return Ok(None);
        }
    }
    Ok(Some(HoldOff { file }))
}

/// Asks the kernel to begin to read a part of the file.
pub(super) fn will_need(file: &File, offset: u64, bytes: u64) {
    // A hint: if it is not taken, what is read is waited for.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed);
}

/// This boot of this machine, and this file.
pub(super) fn incarnation(file: &File) -> io::Result<Incarnation> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = boot_halves(&text).ok_or_else(|| io::Error::other(format!("the boot id is {text:?}")))?;
    let metadata = file.metadata()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born_ns = born.map_or(0, |born| born.as_nanos() as u64);
    Ok(Incarnation { boot, device: metadata.dev(), inode: metadata.ino(), born_ns })
}

/// The 16 bytes of a UUID in its text form, as two little-endian halves.
fn boot_halves(text: &str) -> Option<[u64; 2]> {
    let digits: String = text.trim().chars().filter(|character| *character != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?.swap_bytes();
    Some([number as u64, (number >> 64) as u64])
}

/// Opens a regular file.
fn open_regular(path: &Path, access: Access) -> Result<File, OpenError> {
    let write = access != Access::ReadOnly;
    // O_NONBLOCK: opening a FIFO by mistake must not hang. It means nothing for the regular files that are let through.
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let file =
        OpenOptions::new().read(true).write(write).custom_flags(flags).open(path).map_err(|source| {
            match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ROFS | Errno::ACCESS) if write && File::open(path).is_ok() => {
                    OpenError::ReadOnlyFile { path: path.into(), source }
                }
                _ => failed(path, "opening")(source),
            }
        })?;
    let metadata = file.metadata().map_err(failed(path, "reading its metadata"))?;
    if !metadata.is_file() {
        return Err(OpenError::NotAStore { path: path.into(), reason: "it is not a regular file" });
    }
    Ok(file)
}

fn read_superblock(file: &File, file_bytes: u64, path: &Path) -> Result<(Geometry, Layout, [u8; 16]), OpenError> {
    if file_bytes < SUPERBLOCK_BYTES as u64 {
        return Err(OpenError::NotAStore { path: path.into(), reason: "it is too short for a superblock" });
    }
    let mut bytes = [0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(failed(path, "reading its superblock"))?;
    Superblock::parse(&bytes, file_bytes, path)
}

/// Whether the path still leads to this file.
fn is_still_at(file: &File, path: &Path) -> Result<bool, OpenError> {
    let here = file.metadata().map_err(failed(path, "reading its metadata"))?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        // Removed altogether: opening it again says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, "reading its metadata")(error)),
    }
}

/// What [`NewFile::publish`] does, for errors.
const NAMING: &str = "giving the new store its name";

/// A new store's file that has no name yet, or a temporary one where the file system cannot do without. Unless it is
/// [published](Self::publish) it goes away again.
#[derive(Debug)]
pub(super) struct NewFile {
    pub open: OpenFile,
    target: PathBuf,
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Makes a store's file, of its full length, to become `target`.
    pub fn create(target: &Path, geometry: &Geometry, sparse: bool, mode: u32) -> Result<Self, OpenError> {
        let layout = Layout::of(geometry)?;
        let (file, temporary) = unnamed(target, mode)?;
        let mut uuid: [u8; 16] = random_bytes(target)?;
        // RFC 9562: version 4, variant 10.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let new = Self { open: OpenFile { file, geometry: *geometry, layout, uuid }, target: target.into(), temporary };
        let file = &new.open.file;
        refuse_shared_file_system(file, target)?;
        let room = |source: io::Error| match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                OpenError::DiskFull { path: target.into(), needed: layout.end, source }
            }
            Some(Errno::FBIG) => {
                OpenError::Geometry { reason: format!("{} bytes are too many for this file system", layout.end) }
            }
            _ => failed(target, "setting its length")(source),
        };
        file.set_len(layout.end).map_err(room)?;
        if !sparse {
            rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, layout.end))
                .map_err(|errno| room(errno.into()))?;
        }
        let superblock = Superblock::new(geometry, uuid);
        file.write_all_at(superblock.bytes(), 0).map_err(room)?;
        match try_lock(file, 0, Lock::Shared).map_err(failed(target, "locking"))? {
            true => Ok(new),
            false => Err(OpenError::InUse { path: new.temporary.clone().unwrap_or_default() }),
        }
    }

    /// Gives the file its name. A file that has the name already is replaced only if `replace` says so, and only if
    /// nobody has it open as a store.
    pub fn publish(mut self, replace: bool) -> Result<(), OpenError> {
        self.give_name(replace)?;
        match self.open.geometry.durability_class() {
            Durability::Process => Ok(()),
            Durability::Power => self.sync_name(),
        }
    }

    fn give_name(&mut self, replace: bool) -> Result<(), OpenError> {
        if !replace {
            return self.name_anew();
        }
        loop {
            // Whoever opens the old store from here on finds the lock taken, until the name is the new one's.
            if let Some(_old) = lock_old(&self.target)? {
                return self.rename_over();
            }
            match self.name_anew() {
                // Somebody made one meanwhile: that is the one to replace.
                Err(OpenError::Exists { .. }) => {}
                named => return named,
            }
        }
    }

    /// Puts the file's metadata and its name on the disk.
    fn sync_name(&self) -> Result<(), OpenError> {
        let synced = self.open.file.sync_all().and_then(|()| File::open(folder_of(&self.target))?.sync_all());
        synced.map_err(failed(&self.target, "syncing its folder"))
    }

    /// Gives the file its name, which nobody has.
    fn name_anew(&mut self) -> Result<(), OpenError> {
        let named = match &self.temporary {
            None => self.link(&self.target),
            Some(temporary) => rustix::fs::renameat_with(CWD, temporary, CWD, &self.target, RenameFlags::NOREPLACE),
        };
        match named {
            Ok(()) => {
                self.temporary = None;
                Ok(())
            }
            Err(Errno::EXIST) => Err(OpenError::Exists { path: self.target.clone() }),
            Err(errno) => Err(failed(&self.target, NAMING)(errno.into())),
        }
    }

    /// Gives the file its name, which the store has that is replaced.
    fn rename_over(&mut self) -> Result<(), OpenError> {
        if self.temporary.is_none() {
            let temporary = temporary_name(&self.target)?;
            self.link(&temporary).map_err(|errno| failed(&self.target, NAMING)(errno.into()))?;
            self.temporary = Some(temporary);
        }
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.target).map_err(failed(&self.target, NAMING))?;
            self.temporary = None;
        }
        Ok(())
    }

    /// Links the file, which has no name, to one.
    fn link(&self, to: &Path) -> Result<(), Errno> {
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.open.file.as_raw_fd()));
        rustix::fs::linkat(CWD, descriptor, CWD, to, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It was never anybody's but ours; if it cannot be removed, there is nobody to tell.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Locks the store that is to be replaced, so that nobody can be using it; `None` if there is no store.
pub(super) fn lock_old(target: &Path) -> Result<Option<File>, OpenError> {
    loop {
        match std::fs::symlink_metadata(target) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(OpenError::NotAStore { path: target.into(), reason: "it is not a regular file" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(target, "reading its metadata")(error)),
        }
        let old = open_regular(target, Access::Exclusive)?;
        if !try_lock(&old, 0, Lock::Exclusive).map_err(failed(target, "locking"))? {
            return Err(OpenError::InUse { path: target.into() });
        }
        if is_still_at(&old, target)? {
            return Ok(Some(old));
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens a file in `target`'s folder that nobody else can see, or one with a temporary name.
fn unnamed(target: &Path, mode: u32) -> Result<(File, Option<PathBuf>), OpenError> {
    let folder = folder_of(target);
    let mode = Mode::from_raw_mode(mode);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        Ok(descriptor) => return Ok((descriptor.into(), None)),
        // What kernels answer where the file system has no unnamed files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) if folder.is_dir() => {}
        Err(errno) => return Err(failed(folder, "making a file in this folder")(errno.into())),
    }
    let temporary = temporary_name(target)?;
    let descriptor = rustix::fs::open(&temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)
        .map_err(|errno| failed(&temporary, "making a temporary file")(errno.into()))?;
    Ok((descriptor.into(), Some(temporary)))
}

/// Random bytes, from the kernel.
fn random_bytes<const N: usize>(path: &Path) -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| failed(path, "asking for random bytes")(error.into()))?;
    Ok(bytes)
}

/// A name beside `target` that nobody has: hidden and random.
fn temporary_name(target: &Path) -> Result<PathBuf, OpenError> {
    let name = target
        .file_name()
        .ok_or_else(|| OpenError::NotAStore { path: target.into(), reason: "it has no file name" })?;
    let random = u64::from_ne_bytes(random_bytes(target)?);
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".new-{random:016x}"));
    Ok(target.with_file_name(hidden))
}

/// File systems whose files another host may map at the same time, by the number statfs(2) gives.
const SHARED_FILE_SYSTEMS: [(u32, &str); 14] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x6573_5546, "FUSE (which may be remote)"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x786f_4256, "a VirtualBox shared folder"),
];

/// The name of the shared file system that has this number.
fn shared_file_system(number: u32) -> Option<&'static str> {
    SHARED_FILE_SYSTEMS.iter().find(|(shared, _)| *shared == number).map(|(_, name)| *name)
}

fn refuse_shared_file_system(file: &File, path: &Path) -> Result<(), OpenError> {
    let statistics =
        rustix::fs::fstatfs(file).map_err(|errno| failed(path, "asking for its file system")(errno.into()))?;
    match shared_file_system(statistics.f_type as u32) {
        Some(file_system) => Err(OpenError::SharedFileSystem { path: path.into(), file_system }),
        None => Ok(()),
    }
}

/// A lock on one byte of a file, held by the open file description: the kernel drops it when the last descriptor of
/// the process goes, and its last mapping of the file, however the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lock {
    Shared,
    Exclusive,
    Unlock,
}

/// Takes, changes or drops the lock on the byte at `offset`; `false` if another open file description is in the way.
pub(super) fn try_lock(file: &File, offset: u64, lock: Lock) -> io::Result<bool> {
    let kind = match lock {
        Lock::Shared => libc::F_RDLCK,
        Lock::Exclusive => libc::F_WRLCK,
        Lock::Unlock => libc::F_UNLCK,
    };
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(offset).map_err(io::Error::other)?,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open while `file` is borrowed, and F_OFD_SETLK reads one `flock`, which `range` is.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_bytes() {
        let text = "00010203-0405-0607-0809-0a0b0c0d0eff\n";
        assert_eq!(boot_halves(text), Some([0x0706_0504_0302_0100, 0xff0e_0d0c_0b0a_0908]));
        for wrong in ["", "00010203", "000102030405060708-0a0b0c0d0eff000", "zz010203-0405-0607-0809-0a0b0c0d0eff"] {
            assert_eq!(boot_halves(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not() {
        for (number, name) in [(0x6969, "NFS"), (0x517b, "SMB"), (0xff53_4d42, "CIFS")] {
            assert_eq!(shared_file_system(number), Some(name));
        }
        assert!(shared_file_system(0x6573_5546).is_some_and(|name| name.starts_with("FUSE")));
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
            assert_eq!(shared_file_system(local), None, "ext4, XFS, Btrfs, tmpfs, overlayfs");
        }
    }
}
