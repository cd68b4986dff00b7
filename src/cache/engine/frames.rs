//! The memory that blocks are kept in: frames, all of one size, in one piece.
//!
//! A frame is free, or somebody's own ([`Own`]), or **published**: in an entry's state, from where anybody may read it who is
//! pinned. Nobody writes a published frame. It becomes free only when all who were pinned when it was taken out of the state are
//! gone; so who reads it never sees it change.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::allocated;
use super::stack::Stack;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

#[cfg(not(loom))]
pub use memory::Bytes;
#[cfg(not(loom))]
use memory::Memory;
#[cfg(loom)]
pub use modelled::Bytes;
#[cfg(loom)]
use modelled::Memory;

/// Frames, and which of them are free.
#[derive(Debug)]
pub struct Frames {
    memory: Memory,
    /// For a published frame, what its owner stamped it with; for a free one, the frame beneath it on the stack.
    stamps: Box<[AtomicU64]>,
    free: Stack,
}

impl Frames {
    /// So many free frames of so many bytes each; `None` if there is no memory for them.
    pub fn new(count: u32, frame_bytes: usize) -> Option<Self> {
        let memory = Memory::new(count, frame_bytes)?;
        let stamps = allocated(count as usize, |_| AtomicU64::new(0))?;
        let frames = Self { memory, stamps, free: Stack::default() };
        (0..count).rev().for_each(|frame| frames.put_back(frame));
        Some(frames)
    }

    /// Takes a free frame, if there is one.
    pub fn take(&self) -> Option<Own<'_>> {
        let frame = self.free.pop(|frame| self.stamps[frame as usize].load(Relaxed) as u32)?;
        Some(Own { frames: self, frame })
    }

    /// Gives back a frame that nobody can see.
    pub fn put_back(&self, frame: u32) {
        self.free.push(frame, |below| self.stamps[frame as usize].store(below.into(), Relaxed));
    }

    /// What a published frame was stamped with.
    #[inline]
    pub fn stamp(&self, frame: u32) -> Stamp<'_> {
        Stamp(&self.stamps[frame as usize])
    }

    /// The bytes of a published frame.
    ///
    /// # Safety
    /// The caller is pinned, saw the frame in an entry's state since, and stays pinned as long as it has the bytes.
    #[inline]
    pub unsafe fn published(&self, frame: u32) -> Bytes<'_> {
        // SAFETY: by the caller's promise nobody writes it meanwhile.
        unsafe { self.memory.shared(frame) }
    }
}

/// What a published frame was stamped with; it is loaded only if somebody asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a>(&'a AtomicU64);

impl Stamp<'_> {
    /// The stamp.
    #[inline]
    pub fn get(self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A frame of one's own: nobody else sees it. It goes back when dropped.
pub struct Own<'a> {
    frames: &'a Frames,
    frame: u32,
}

impl Own<'_> {
    /// Stamps it, and lets go of it: its number is about to be published, or comes back by [`Frames::take_back`].
    pub fn into_frame(self, stamp: u64) -> u32 {
        self.frames.stamps[self.frame as usize].store(stamp, Relaxed);
        let frame = self.frame;
        std::mem::forget(self);
        frame
    }
}

impl Frames {
    /// A frame of one's own, that [`Own::into_frame`] let go of, and that was not published.
    ///
    /// # Safety
    /// It is the one who let go of it that calls this, and once.
    pub unsafe fn take_back(&self, frame: u32) -> Own<'_> {
        Own { frames: self, frame }
    }
}

impl Deref for Own<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: it is ours alone.
        unsafe { self.frames.memory.own(self.frame) }
    }
}

impl DerefMut for Own<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: it is ours alone, and borrowed exclusively.
        unsafe { self.frames.memory.own_mut(self.frame) }
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.frames.put_back(self.frame);
    }
}

impl fmt::Debug for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("frame", &self.frame).finish_non_exhaustive()
    }
}

#[cfg(not(loom))]
mod memory {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::ptr::NonNull;

    /// The bytes of a frame that is published, or some of their own. Its fields go from registers to registers: an enumeration would go
    /// through memory, and who reads the bytes would wait for that.
    pub struct Bytes<'a> {
        bytes: NonNull<[u8]>,
        is_box: bool,
        _memory: PhantomData<&'a [u8]>,
    }

    // SAFETY: it is a shared slice, or a box.
    unsafe impl Send for Bytes<'_> {}
    // SAFETY: as above.
    unsafe impl Sync for Bytes<'_> {}

    impl Bytes<'_> {
        /// Some of their own.
        pub fn boxed(bytes: Box<[u8]>) -> Self {
            let bytes = NonNull::from(Box::leak(bytes));
            Self { bytes, is_box: true, _memory: PhantomData }
        }
    }

    impl<'a> From<&'a [u8]> for Bytes<'a> {
        #[inline]
        fn from(bytes: &'a [u8]) -> Self {
            Self { bytes: NonNull::from(bytes), is_box: false, _memory: PhantomData }
        }
    }

    impl Deref for Bytes<'_> {
        type Target = [u8];

        #[inline]
        fn deref(&self) -> &[u8] {
            // SAFETY: it was made of a slice that lives as long, or of a box that is freed only below.
            unsafe { self.bytes.as_ref() }
        }
    }

    impl Drop for Bytes<'_> {
        #[inline]
        fn drop(&mut self) {
            if self.is_box {
                // SAFETY: it was leaked by `boxed`, and nobody else knows it.
                drop(unsafe { Box::from_raw(self.bytes.as_ptr()) });
            }
        }
    }

    /// Where a frame begins that devices may want to transfer to or from directly.
    const ALIGNMENT: usize = 4096;

    /// The frames' memory.
    #[derive(Debug)]
    pub struct Memory {
        start: NonNull<u8>,
        layout: Layout,
        frame_bytes: usize,
    }

    // SAFETY: it owns the memory; who reads and writes which frame when, the callers of its methods promise.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub fn new(frames: u32, frame_bytes: usize) -> Option<Self> {
            let bytes = (frames as usize).checked_mul(frame_bytes).filter(|bytes| *bytes > 0)?;
            let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
            // SAFETY: the layout has more than no bytes.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some(Self { start, layout, frame_bytes })
        }

        #[inline]
        fn frame(&self, frame: u32) -> NonNull<u8> {
            let offset = frame as usize * self.frame_bytes;
            assert!(offset < self.layout.size(), "no such frame");
            // SAFETY: the offset lies in the memory, as was just seen.
            unsafe { self.start.add(offset) }
        }

        /// The bytes of a frame.
        ///
        /// # Safety
        /// Nobody writes it while the caller has them.
        #[inline]
        pub unsafe fn shared(&self, frame: u32) -> Bytes<'_> {
            // SAFETY: the caller's promise.
            unsafe { self.own(frame) }.into()
        }

        /// As [`shared`](Self::shared), of a frame that is the caller's own.
        ///
        /// # Safety
        /// As there.
        #[inline]
        pub unsafe fn own(&self, frame: u32) -> &[u8] {
            // SAFETY: a frame is `frame_bytes` long, and was zeroed when allocated; the rest is the caller's promise.
            unsafe { std::slice::from_raw_parts(self.frame(frame).as_ptr(), self.frame_bytes) }
        }

        /// The bytes of a frame, to change.
        ///
        /// # Safety
        /// Nobody else reads or writes it while the caller has them.
        #[allow(clippy::mut_from_ref, reason = "the caller promises that it is the only one")]
        pub unsafe fn own_mut(&self, frame: u32) -> &mut [u8] {
            // SAFETY: as in `shared`.
            unsafe { std::slice::from_raw_parts_mut(self.frame(frame).as_ptr(), self.frame_bytes) }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: it was allocated with this layout; nobody has bytes of it, which borrow it.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

/// The same for a model: loom watches that nobody writes what another reads.
#[cfg(loom)]
mod modelled {
    use std::fmt;
    use std::marker::PhantomData;
    use std::ops::Deref;

    use loom::cell::{ConstPtr, UnsafeCell};

    /// The bytes of a frame that is published, or some of their own. Whoever writes the former while this exists is caught.
    pub enum Bytes<'a> {
        Published(ConstPtr<Box<[u8]>>, PhantomData<&'a Memory>),
        Boxed(Box<[u8]>),
    }

    impl Bytes<'_> {
        /// Some of their own.
        pub fn boxed(bytes: Box<[u8]>) -> Self {
            Self::Boxed(bytes)
        }
    }

    impl Deref for Bytes<'_> {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            match self {
                // SAFETY: nobody writes it while `bytes` exists: loom looks.
                Self::Published(bytes, _) => unsafe { bytes.deref() },
                Self::Boxed(bytes) => bytes,
            }
        }
    }

    /// The frames' memory.
    pub struct Memory(Vec<UnsafeCell<Box<[u8]>>>);

    impl fmt::Debug for Memory {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Memory")
        }
    }

    // SAFETY: as for the memory in production.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub fn new(frames: u32, frame_bytes: usize) -> Option<Self> {
            Some(Self((0..frames).map(|_| UnsafeCell::new(vec![0; frame_bytes].into())).collect()))
        }

        /// The bytes of a frame.
        ///
        /// # Safety
        /// Nobody writes it while the caller has them.
        pub unsafe fn shared(&self, frame: u32) -> Bytes<'_> {
            Bytes::Published(self.0[frame as usize].get(), PhantomData)
        }

        /// The bytes of a frame that is the caller's own.
        ///
        /// # Safety
        /// As there.
        pub unsafe fn own(&self, frame: u32) -> &[u8] {
            // SAFETY: the caller's promise.
            self.0[frame as usize].with(|bytes| unsafe { &**bytes })
        }

        /// The bytes of a frame, to change.
        ///
        /// # Safety
        /// Nobody else reads or writes it while the caller has them.
        #[allow(clippy::mut_from_ref, reason = "the caller promises that it is the only one")]
        pub unsafe fn own_mut(&self, frame: u32) -> &mut [u8] {
            // SAFETY: the caller's promise.
            self.0[frame as usize].with_mut(|bytes| unsafe { &mut **bytes })
        }
    }
}
