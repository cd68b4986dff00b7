//! The protocol's memory in a mapping.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::geometry::{Durability, Geometry, Layout, SECTION_ALIGN};
use super::state::State;
use crate::protocol::cell::CellLayout;
use crate::protocol::copy::{BlockCopy, Words};
use crate::protocol::durable::{Epochs, Stamp};
use crate::protocol::memory::{Frame, Memory};
use crate::protocol::slot::Slot;
use crate::protocol::word::Word;
use crate::sync::{AtomicU16, AtomicU64};

const _: () = {
    assert!(size_of::<Frame<64>>() == 512);
    assert!(size_of::<Frame<512>>() == 4096);
    assert!(size_of::<Slot>() == 128 && align_of::<Slot>() <= SECTION_ALIGN as usize);
    assert!(size_of::<Word>() == 128 && align_of::<Word>() <= SECTION_ALIGN as usize);
    assert!(size_of::<AtomicU64>() == 8 && size_of::<AtomicU16>() == 2);
    assert!(size_of::<Stamp>() == 24);
    assert!(std::mem::offset_of!(Stamp, update) == 0);
    assert!(std::mem::offset_of!(Stamp, check) == 8);
    assert!(std::mem::offset_of!(Stamp, epoch) == 16);
    assert!(std::mem::offset_of!(Slot, spare) == 0);
    assert!(std::mem::offset_of!(Slot, reserve) == 8);
    assert!(std::mem::offset_of!(Slot, intent_block) == 16);
    assert!(std::mem::offset_of!(Slot, intent_cell) == 24);
    assert!(std::mem::offset_of!(Slot, freed) == 32);
    assert!(std::mem::offset_of!(Slot, miscompares) == 40);
};

/// An array of `T` in a mapping: a section of the file.
#[derive(Debug)]
pub(super) struct Section<T> {
    start: NonNull<T>,
    count: u64,
    items: PhantomData<T>,
}

impl<T> Clone for Section<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Section<T> {}

impl<T> Section<T> {
    /// The section of `count` items at `offset` from `base`.
    ///
    /// # Safety
    /// The section lies inside one mapping that starts at `base`; see [`Mapping::new`].
    pub unsafe fn new(base: NonNull<u8>, offset: u64, count: u64) -> Self {
        // SAFETY: the caller's promise; offsets fit in `usize`, as `Layout::of` checked.
        let start = unsafe { base.add(offset as usize) };
        Self { start: start.cast(), count, items: PhantomData }
    }

    /// The item at `index`, if there is one.
    #[inline(always)]
    pub fn get(&self, index: u64) -> Option<&T> {
        if index >= self.count {
            return None;
        }
        // SAFETY: the caller of `new` promised `count` items of `T` from `start`, and `index` is below that.
        let item = unsafe { self.start.add(index as usize) };
        // SAFETY: as above, aligned, since sections and their items are; every `T` here is made of atomics, for which
        // any bits are a value, and which may change under a shared reference.
        Some(unsafe { item.as_ref() })
    }
}

/// A mapped store, as memory for the protocol: blocks of `W` words, copied by `C`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping<const W: usize, C> {
    copies: C,
    layout: CellLayout,
    cells: Section<AtomicU64>,
    tags: Section<AtomicU16>,
    frames: Section<Frame<W>>,
    slots: Section<Slot>,
    /// Empty unless the durability is `power`.
    stamps: Section<Stamp>,
    /// Likewise.
    state: Section<State>,
}

// SAFETY: a section is a shared view of items, as `&[T]` is.
unsafe impl<T: Sync> Send for Section<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Section<T> {}

impl<const W: usize, C> Mapping<W, C> {
    /// The memory of a store of this geometry and layout that is mapped at `base`.
    ///
    /// # Safety
    /// `layout.end` bytes at `base` stay mapped and readable as long as this or a copy of it is used (and writable as
    /// long as anything is stored through it), are aligned to [`SECTION_ALIGN`], and are accessed only as atomics.
    unsafe fn new(base: NonNull<u8>, geometry: &Geometry, layout: &Layout, copies: C) -> Self {
        let power = geometry.durability_class() == Durability::Power;
        Self {
            copies,
            layout: CellLayout::for_frames(geometry.frame_count()),
            // SAFETY: the caller's promise; `layout` was made for `geometry`, so the section lies inside.
            cells: unsafe { Section::new(base, layout.cells, geometry.block_count()) },
            // SAFETY: as above.
            tags: unsafe { Section::new(base, layout.tags, geometry.frame_count()) },
            // SAFETY: as above.
            frames: unsafe { Section::new(base, layout.frames, geometry.frame_count()) },
            // SAFETY: as above.
            slots: unsafe { Section::new(base, layout.writers, geometry.writer_count().into()) },
            // SAFETY: as above.
            stamps: unsafe { Section::new(base, layout.stamps, if power { geometry.frame_count() } else { 0 }) },
            // SAFETY: as above.
            state: unsafe { Section::new(base, layout.state, power.into()) },
        }
    }
}

impl<const W: usize, C: BlockCopy<W>> Memory<W> for Mapping<W, C> {
    type Copies = C;

    #[inline(always)]
    fn copies(&self) -> C {
        self.copies
    }

    #[inline(always)]
    fn layout(&self) -> CellLayout {
        self.layout
    }

    #[inline(always)]
    fn blocks(&self) -> u64 {
        self.cells.count
    }

    #[inline(always)]
    fn frames(&self) -> u64 {
        self.frames.count
    }

    #[inline(always)]
    fn writers(&self) -> u16 {
        self.slots.count as u16
    }

    #[inline(always)]
    fn cell(&self, block: u64) -> Option<&AtomicU64> {
        self.cells.get(block)
    }

    #[inline(always)]
    fn tag(&self, frame: u64) -> Option<&AtomicU16> {
        self.tags.get(frame)
    }

    #[inline(always)]
    fn frame(&self, frame: u64) -> Option<&Frame<W>> {
        self.frames.get(frame)
    }

    #[inline(always)]
    fn stamp(&self, frame: u64) -> Option<&Stamp> {
        self.stamps.get(frame)
    }

    #[inline(always)]
    fn epochs(&self) -> Option<&Epochs> {
        self.state.get(0).map(|state| &state.epochs)
    }

    #[inline(always)]
    fn slot(&self, writer: u16) -> Option<&Slot> {
        self.slots.get(writer.into())
    }
}

/// The memory of a store, for its block size and for what this machine can do: chosen once, when it is opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Words512(Mapping<64, Words>),
    Words4096(Mapping<512, Words>),
    #[cfg(target_arch = "x86_64")]
    Avx2By512(Mapping<64, crate::protocol::copy::Avx2>),
    #[cfg(target_arch = "x86_64")]
    Avx2By4096(Mapping<512, crate::protocol::copy::Avx2>),
    #[cfg(target_arch = "x86_64")]
    Avx512By512(Mapping<64, crate::protocol::copy::Avx512>),
    #[cfg(target_arch = "x86_64")]
    Avx512By4096(Mapping<512, crate::protocol::copy::Avx512>),
}

/// Runs an expression with the memory of an [`Engine`], compiled once for each kind.
macro_rules! with_memory {
    ($engine:expr, $memory:ident => $body:expr) => {
        match $engine {
            #[cfg(target_arch = "x86_64")]
            $crate::store::mapping::Engine::Avx512By512($memory) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::store::mapping::Engine::Avx512By4096($memory) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::store::mapping::Engine::Avx2By512($memory) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::store::mapping::Engine::Avx2By4096($memory) => $body,
            $crate::store::mapping::Engine::Words512($memory) => $body,
            $crate::store::mapping::Engine::Words4096($memory) => $body,
        }
    };
}
pub(super) use with_memory;

impl Engine {
    /// The memory of a store that is mapped at `base`.
    ///
    /// # Safety
    /// As for [`Mapping::new`].
    pub unsafe fn new(base: NonNull<u8>, geometry: &Geometry, layout: &Layout) -> Self {
        use super::geometry::BlockSize::{B512, B4096};
        // The recorder of the power cuts sees what is stored word by word.
        #[cfg(target_arch = "x86_64")]
        if !cfg!(power_cuts)
            && let Some(avx512) = crate::protocol::copy::Avx512::detect()
        {
            return match geometry.size_of_block() {
                // SAFETY: the caller's promise.
                B512 => Self::Avx512By512(unsafe { Mapping::new(base, geometry, layout, avx512) }),
                // SAFETY: the caller's promise.
                B4096 => Self::Avx512By4096(unsafe { Mapping::new(base, geometry, layout, avx512) }),
            };
        }
        #[cfg(target_arch = "x86_64")]
        if !cfg!(power_cuts)
            && let Some(avx2) = crate::protocol::copy::Avx2::detect()
        {
            return match geometry.size_of_block() {
                // SAFETY: the caller's promise.
                B512 => Self::Avx2By512(unsafe { Mapping::new(base, geometry, layout, avx2) }),
                // SAFETY: the caller's promise.
                B4096 => Self::Avx2By4096(unsafe { Mapping::new(base, geometry, layout, avx2) }),
            };
        }
        match geometry.size_of_block() {
            // SAFETY: the caller's promise.
            B512 => Self::Words512(unsafe { Mapping::new(base, geometry, layout, Words) }),
            // SAFETY: the caller's promise.
            B4096 => Self::Words4096(unsafe { Mapping::new(base, geometry, layout, Words) }),
        }
    }
}
