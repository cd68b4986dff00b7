//! A robust pthread mutex beside each block, in memory that processes share.

use std::cell::UnsafeCell;
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::Path;

use anyhow::{Result, ensure};
use memmap2::{MmapOptions, MmapRaw};

use super::{Durability, Handle, Peer, SharedPeer};
use crate::block::{Block, FIRST};

/// A block and its lock, on cache lines of their own.
#[repr(C, align(64))]
struct Locked {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    block: UnsafeCell<Block>,
}

/// A file of them, mapped.
pub struct Robust {
    map: MmapRaw,
    blocks: u64,
}

// SAFETY: blocks are accessed only under their mutexes, which are made for threads and processes.
unsafe impl Sync for Robust {}

impl Robust {
    fn map(file: &File, blocks: u64) -> Result<Self> {
        let bytes = blocks as usize * size_of::<Locked>();
        ensure!(file.metadata()?.len() == bytes as u64, "the file has another length");
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(file)?, blocks })
    }

    fn locked(&self, block: u64) -> &Locked {
        assert!(block < self.blocks);
        // SAFETY: the mapping has so many, is aligned to a page, and stays while `self` does.
        let locked = unsafe { self.map.as_mut_ptr().cast::<Locked>().add(block as usize) };
        // SAFETY: as above; what changes is in cells.
        unsafe { &*locked }
    }

    /// Initializes a mutex nobody uses yet.
    fn initialize(&self, block: u64) -> Result<()> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: it initializes what it is given.
        let done = unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        ensure!(done == 0, "no attributes: {done}");
        // SAFETY: initialized above.
        let done = unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED) };
        ensure!(done == 0, "not shared: {done}");
        // SAFETY: initialized above.
        let done = unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) };
        ensure!(done == 0, "not robust: {done}");
        let locked = self.locked(block);
        // SAFETY: the memory is ours alone as yet; the attributes are initialized.
        let done = unsafe { libc::pthread_mutex_init(locked.mutex.get(), attributes.as_ptr()) };
        ensure!(done == 0, "no mutex: {done}");
        // SAFETY: as above.
        unsafe { *locked.block.get() = FIRST };
        Ok(())
    }
}

/// A mutex that is held.
struct Guard<'l>(&'l Locked);

impl<'l> Guard<'l> {
    #[inline]
    fn lock(locked: &'l Locked) -> Self {
        // SAFETY: the mutex was initialized when the store was made.
        let done = unsafe { libc::pthread_mutex_lock(locked.mutex.get()) };
        if done == libc::EOWNERDEAD {
            // Its owner died; what it left of the block is what there is.
            // SAFETY: we hold it.
            let done = unsafe { libc::pthread_mutex_consistent(locked.mutex.get()) };
            assert_eq!(done, 0, "pthread_mutex_consistent");
        } else {
            assert_eq!(done, 0, "pthread_mutex_lock");
        }
        Self(locked)
    }

    #[inline]
    fn block(&mut self) -> &mut Block {
        // SAFETY: the mutex is held, so nobody else accesses the block.
        unsafe { &mut *self.0.block.get() }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is held by this thread.
        unsafe { libc::pthread_mutex_unlock(self.0.mutex.get()) };
    }
}

impl Peer for Robust {
    const NAME: &'static str = "robust pthread mutex";
    const USE: &'static str =
        "a robust, process-shared pthread mutex beside each block, on cache lines of their own, in a mapped file";
    const SURVIVES: &'static str = "yes; a block may be torn by a death in the middle of an update";
    type Handle<'p> = &'p Self;

    fn create(folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(folder.join("blocks"))?;
        file.set_len(blocks * size_of::<Locked>() as u64)?;
        let this = Self::map(&file, blocks)?;
        (0..blocks).try_for_each(|block| this.initialize(block))?;
        Ok(this)
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl SharedPeer for Robust {
    fn open(folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Self::map(&File::options().read(true).write(true).open(folder.join("blocks"))?, blocks)
    }
}

impl Handle for &Robust {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        *out = *Guard::lock(self.locked(block)).block();
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        super::compare_and_write_here(Guard::lock(self.locked(block)).block(), known, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::numbered;

    #[test]
    fn a_block_outlives_its_lock_s_owner() {
        let folder = tempfile::tempdir().unwrap();
        let peer = std::sync::Arc::new(Robust::create(folder.path(), 1, Durability::Process).unwrap());
        let of_owner = std::sync::Arc::clone(&peer);
        std::thread::spawn(move || std::mem::forget(Guard::lock(of_owner.locked(0)))).join().unwrap();
        let (mut handle, mut known) = (peer.handle().unwrap(), FIRST);
        assert!(handle.compare_and_write(0, &mut known, &numbered(2)), "the first who finds its owner dead");
        handle.read(0, &mut known);
        assert!(known == numbered(2), "those after it");
    }
}
