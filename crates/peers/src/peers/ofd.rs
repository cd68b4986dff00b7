//! A plain file, with locks of the open file description: what programs that share a file have always done.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Durability, Handle, Peer, SharedPeer};
use crate::block::{BLOCK, Block, FIRST};

/// A file, and a lock for each block.
pub struct Ofd(Shared);

/// The same with one lock for the whole file: what a SCSI reservation was.
pub struct OfdWhole(Shared);

struct Shared {
    path: PathBuf,
    durability: Durability,
}

impl Shared {
    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let this = Self::open(folder, durability);
        let file = File::create_new(&this.path)?;
        for block in 0..blocks {
            file.write_all_at(&FIRST, block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(this)
    }

    fn open(folder: &Path, durability: Durability) -> Self {
        Self { path: folder.join("blocks"), durability }
    }

    fn handle(&self, whole: bool) -> Result<OfdHandle> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        Ok(OfdHandle { file, whole, durability: self.durability })
    }
}

impl Peer for Ofd {
    const NAME: &'static str = "file + OFD lock";
    const USE: &'static str =
        "pread and pwrite under F_OFD_SETLKW of the block's bytes; fdatasync before the lock goes";
    const SURVIVES: &'static str = "yes; a block may be torn by a death in the middle of pwrite, or a cut of the power";
    type Handle<'p> = OfdHandle;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self(Shared::create(folder, blocks, durability)?))
    }

    fn handle(&self) -> Result<OfdHandle> {
        self.0.handle(false)
    }
}

impl SharedPeer for Ofd {
    fn open(folder: &Path, _blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self(Shared::open(folder, durability)))
    }
}

impl Peer for OfdWhole {
    const NAME: &'static str = "file + one OFD lock";
    const USE: &'static str = "as file + OFD lock, but each operation locks the whole file";
    const SURVIVES: &'static str = Ofd::SURVIVES;
    type Handle<'p> = OfdHandle;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self(Shared::create(folder, blocks, durability)?))
    }

    fn handle(&self) -> Result<OfdHandle> {
        self.0.handle(true)
    }
}

impl SharedPeer for OfdWhole {
    fn open(folder: &Path, _blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self(Shared::open(folder, durability)))
    }
}

/// An open file description of a thread's own: locks belong to it.
pub struct OfdHandle {
    file: File,
    whole: bool,
    durability: Durability,
}

impl OfdHandle {
    /// Waits for a lock of the block, or of the whole file; `kind` is that of `fcntl`.
    fn lock(&self, block: u64, kind: libc::c_int) -> io::Result<()> {
        // SAFETY: all zeros are a valid flock.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        if !self.whole {
            lock.l_start = (block * BLOCK as u64) as libc::off_t;
            lock.l_len = BLOCK as libc::off_t;
        }
        loop {
            // SAFETY: the descriptor is open, and the lock is a valid one.
            if unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLKW, &raw const lock) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn try_read(&self, block: u64, out: &mut Block) -> io::Result<()> {
        self.lock(block, libc::F_RDLCK)?;
        self.file.read_exact_at(out, block * BLOCK as u64)?;
        self.lock(block, libc::F_UNLCK)
    }

    fn try_compare_and_write(&self, block: u64, known: &mut Block, new: &Block) -> io::Result<bool> {
        let (at, mut found) = (block * BLOCK as u64, [0; BLOCK]);
        self.lock(block, libc::F_WRLCK)?;
        self.file.read_exact_at(&mut found, at)?;
        let holds = found == *known;
        if holds {
            self.file.write_all_at(new, at)?;
            if self.durability == Durability::Power {
                self.file.sync_data()?;
            }
        } else {
            *known = found;
        }
        self.lock(block, libc::F_UNLCK)?;
        Ok(holds)
    }
}

impl Handle for OfdHandle {
    fn read(&mut self, block: u64, out: &mut Block) {
        self.try_read(block, out).expect("a file that works");
    }

    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        self.try_compare_and_write(block, known, new).expect("a file that works")
    }
}
