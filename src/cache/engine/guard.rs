//! A block's bytes, wherever they are.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crossbeam_epoch::Guard;

use super::frames::{Bytes, Frames, Own};

/// A block's contents, without a copy of them: it derefs to the block's bytes, which stay as they are as long as this exists,
/// whatever becomes of the block.
///
/// As long as it exists its thread is pinned ([`crossbeam_epoch`]): nothing that leaves any cache of this process comes back into
/// use. A cache goes on without, and keeps what it has; but it has little room for what is new. So copy what you want to keep.
pub struct BlockGuard<'c> {
    // In this order: the bytes go first.
    bytes: Bytes<'c>,
    pin: Option<Guard>,
}

impl<'c> BlockGuard<'c> {
    /// A published frame's.
    ///
    /// # Safety
    /// The frame was seen in an entry's state, or published, since `pin` is pinned.
    #[inline]
    pub(super) unsafe fn published(frames: &'c Frames, frame: u32, pin: Guard) -> Self {
        // SAFETY: the caller's promise; and the guard goes after the bytes.
        let bytes = unsafe { frames.published(frame) };
        Self { bytes, pin: Some(pin) }
    }

    /// Some bytes of their own.
    pub fn boxed(bytes: Box<[u8]>) -> Self {
        Self { bytes: Bytes::boxed(bytes), pin: None }
    }

    /// Whether they are the cache's, and not a copy that nobody else sees.
    pub fn is_cached(&self) -> bool {
        self.pin.is_some()
    }
}

impl Deref for BlockGuard<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for BlockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockGuard").field(&&**self).finish()
    }
}

/// Memory for a block, to be filled.
#[derive(Debug)]
pub enum Buffer<'c> {
    /// A frame: what is in it can be published.
    Own(Own<'c>),
    /// There was none.
    Boxed(Box<[u8]>),
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(own) => own,
            Self::Boxed(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(own) => own,
            Self::Boxed(bytes) => bytes,
        }
    }
}
