//! What is on the disk: a store as a sync writes it out, word by word while others go on, and what a recovery would make
//! of it. It knows the stamps' format by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use casblock::Ordering::{Acquire, Relaxed};
use casblock::protocol::Fault;
use casblock::protocol::block::Writer;
use casblock::protocol::cell::Cell;
use casblock::protocol::durable::{Epochs, commit_all};
use casblock::protocol::memory::Memory;

use crate::heap::{Heap, WORDS, all, piece};

/// A frame and its stamp on the disk: `update`, `check`, the frame's words.
type Record = [u64; 2 + WORDS];

/// The contents of a store on the disk, without what a recovery does not look at.
#[derive(Clone, Debug)]
pub struct Image {
    records: Vec<Record>,
}

/// An update that took place: its block's, and by which number.
type Update = (u64, u64);

/// The checksum in the stamp of a frame with these words.
pub(crate) fn checksum(words: &[u64], block: u64, sequence: u64, frame: u64) -> u32 {
    let numbers = words.iter().chain([&block, &sequence, &frame]);
    numbers.fold(0, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()))
}

/// What a frame on the disk holds, if its stamp is committed and proves it.
fn proven(frame: u64, record: &Record) -> Option<(Update, u8)> {
    let [update, check, words @ ..] = record;
    let (block, sequence) = (update >> 32, (check & 0xffff_ffff) << 31 | (update & 0xffff_ffff) >> 1);
    if update & 1 == 0 || check >> 32 != u64::from(checksum(words, block, sequence, frame)) {
        return None;
    }
    let mut bytes = all(0);
    bytes.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    Some(((block, sequence), piece(&bytes)))
}

impl Image {
    /// Each word as it is at some moment from now on. The kernel may write them out in any order.
    pub fn of(heap: &Heap) -> Self {
        let record = |frame| {
            let (stamp, words) = (heap.stamp(frame).expect("durable"), &heap.frame(frame).expect("in range").0);
            let mut record = [stamp.update.load(Relaxed), stamp.check.load(Relaxed), 0, 0];
            record[2..].iter_mut().zip(words).for_each(|(copy, word)| *copy = word.load(Relaxed));
            record
        };
        Self { records: (0..heap.frames()).map(record).collect() }
    }

    /// What a recovery gives a block: the sequence and the byte it is made of. 0 and 0 if it was never written.
    pub fn newest(&self, block: u64) -> (u64, u8) {
        self.newest_but(block, |_| false)
    }

    /// As [`newest`](Self::newest), where the frames for which `is_lost` holds are.
    fn newest_but(&self, block: u64, is_lost: impl Fn(u64) -> bool) -> (u64, u8) {
        let kept = (0..).zip(&self.records).filter(|(frame, _)| !is_lost(*frame));
        let found = kept.filter_map(|(frame, record)| proven(frame, record));
        found
            .filter(|((of, _), _)| *of == block)
            .map(|((_, sequence), value)| (sequence, value))
            .max()
            .unwrap_or((0, 0))
    }

    /// Whether a frame or its stamp is another in `later`.
    fn has_changed(&self, later: &Self, frame: u64) -> bool {
        self.records[frame as usize] != later.records[frame as usize]
    }

    /// All that a frame on the disk may prove while it goes from what it is to what it is in `later`, word by word.
    fn provable(&self, later: &Self, frame: u64) -> impl Iterator<Item = (Update, u8)> {
        let [old, new] = [self, later].map(|image| image.records[frame as usize]);
        let mixtures = (0..1u32 << old.len()).map(move |taken| {
            let mut mixture = old;
            (0..).zip(mixture.iter_mut().zip(new)).for_each(|(bit, (word, new))| {
                if taken >> bit & 1 != 0 {
                    *word = new;
                }
            });
            mixture
        });
        mixtures.filter_map(move |record| proven(frame, &record))
    }
}

/// A sync that has begun.
#[derive(Clone, Debug)]
pub struct Sync {
    number: u64,
    /// The sequence that its thread saw of each block before it began.
    seen: Vec<u64>,
}

impl Sync {
    /// Does the rest of the sync; gives what was put on the disk.
    pub fn finish(self, history: &History, heap: &Heap) -> Image {
        commit_all(heap).expect("no damage");
        self.finish_without_commits(history, heap)
    }

    /// As [`finish`](Self::finish), but commits nothing on behalf of others.
    pub fn finish_without_commits(self, history: &History, heap: &Heap) -> Image {
        let image = Image::of(heap);
        epochs(heap).complete(self.number);
        history.past().syncs.push((self, image.clone()));
        image
    }
}

#[derive(Default)]
struct Past {
    /// The byte that each update wrote, and the epoch after which a sync must have it.
    updates: BTreeMap<Update, (u8, u64)>,
    /// Those that are done, and what they put on the disk.
    syncs: Vec<(Sync, Image)>,
}

/// What took place in one execution of a model. Loom does not see it.
#[derive(Clone, Default)]
pub struct History {
    past: Arc<Mutex<Past>>,
}

/// The epochs of a store of durability `power`.
pub fn epochs(heap: &Heap) -> &Epochs {
    heap.epochs().expect("durable")
}

/// The sequence of a block now, as far as the calling thread knows.
pub fn sequence(heap: &Heap, block: u64) -> u64 {
    heap.layout().sequence(Cell::from_bits(heap.cell(block).expect("in range").load(Acquire)))
}

impl History {
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().expect("not poisoned")
    }

    /// Writes a block made of one byte, and notes the update.
    pub fn write(&self, heap: &Heap, writer: &mut Writer, block: u64, value: u8) -> Result<(), Fault> {
        heap.write(writer, block, value)?;
        self.note(heap, writer, block, value);
        Ok(())
    }

    /// Compares and writes a block made of one byte, and notes the update; whether there was one.
    pub fn compare_and_write(
        &self,
        heap: &Heap,
        writer: &mut Writer,
        block: u64,
        expected: u8,
        new: u8,
    ) -> Result<bool, Fault> {
        let written = heap.compare_and_write(writer, block, expected, new)?.is_ok();
        if written {
            self.note(heap, writer, block, new);
        }
        Ok(written)
    }

    /// Notes the update that the writer has just made: its slot tells which it followed.
    fn note(&self, heap: &Heap, writer: &Writer, block: u64, value: u8) {
        let expected = heap.slot(writer.index()).expect("in range").intent_cell.load(Relaxed);
        let sequence = heap.layout().sequence(Cell::from_bits(expected)) + 1;
        self.note_update(block, sequence, value, writer.updated());
    }

    /// Notes an update: which, what it wrote, and the epoch from after it.
    pub fn note_update(&self, block: u64, sequence: u64, value: u8, updated: u64) {
        let before = self.past().updates.insert((block, sequence), (value, updated));
        assert_eq!(before, None, "two updates of block {block} have sequence {sequence}");
    }

    /// Notes an update of a writer that died, which is in place: a sync whose thread has seen it must have it.
    pub fn note_of_the_dead(&self, block: u64, sequence: u64, value: u8) {
        self.past().updates.entry((block, sequence)).or_insert((value, u64::MAX));
    }

    /// Writes a block; if that needs a sync, syncs and does it again. How many syncs it took.
    pub fn write_or_sync(&self, heap: &Heap, writer: &mut Writer, block: u64, value: u8) -> u32 {
        for syncs in 0.. {
            match self.write(heap, writer, block, value) {
                Ok(()) => return syncs,
                Err(Fault::AllInLimbo) => self.sync(heap),
                Err(fault) => panic!("{fault:?}"),
            };
        }
        unreachable!()
    }

    /// Syncs the store; gives what was put on the disk.
    pub fn sync(&self, heap: &Heap) -> Image {
        self.begin(heap).finish(self, heap)
    }

    /// Begins a sync.
    pub fn begin(&self, heap: &Heap) -> Sync {
        let seen = (0..heap.blocks()).map(|block| sequence(heap, block)).collect();
        Sync { seen, number: epochs(heap).begin() }
    }

    /// The numbers of the syncs that are done, in that order.
    pub fn syncs(&self) -> Vec<u64> {
        self.past().syncs.iter().map(|(sync, _)| sync.number).collect()
    }

    /// Verifies, when all threads are done, what every sync put on the disk, and what has become of the last one's since.
    pub fn verify(&self, heap: &Heap) {
        let past = self.past();
        let now = Image::of(heap);
        for (sync, image) in &past.syncs {
            past.verify_durable(sync, image, |_| false);
            past.verify_true(heap, image, image);
        }
        // Since the last sync the disk may have taken any words of what changed.
        if let Some((sync, image)) = past.syncs.iter().max_by_key(|(sync, _)| sync.number) {
            past.verify_durable(sync, image, |frame| image.has_changed(&now, frame));
            past.verify_true(heap, image, &now);
        }
    }
}

impl Past {
    /// The disk has, for each block, the update that the sync was to find or a later one, in a frame that is not lost.
    fn verify_durable(&self, sync: &Sync, image: &Image, is_lost: impl Fn(u64) -> bool) {
        for (block, &seen) in (0..).zip(&sync.seen) {
            let before = |&(&(of, _), &(_, epoch)): &(&Update, &(u8, u64))| of == block && epoch < sync.number;
            let promised = self.updates.iter().filter(before).map(|(&(_, sequence), _)| sequence).max().unwrap_or(0);
            let (found, _) = image.newest_but(block, &is_lost);
            let number = sync.number;
            assert!(found >= promised, "sync {number} lost block {block}: {found} on the disk, {promised} promised");
            assert!(found >= seen, "sync {number} lost block {block}: {found} on the disk, {seen} seen before");
        }
    }

    /// Whatever a frame on the disk proves took place.
    fn verify_true(&self, heap: &Heap, old: &Image, new: &Image) {
        for frame in 0..heap.frames() {
            for (update, value) in old.provable(new, frame) {
                let known = self.updates.get(&update).map(|(value, _)| *value);
                assert_eq!(known, Some(value), "frame {frame} proves {update:?}, which never took place");
            }
        }
    }
}
