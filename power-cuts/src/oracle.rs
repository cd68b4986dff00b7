//! All cuts of a run at once: whether there was a moment at which the disk could have lost something.
//!
//! A frame **stands** if it proves itself on the disk, and nothing was stored to it or its stamp since: no cut can spoil
//! it. At every moment each block must have one that stands, of the version that was synced last or of a later one. That
//! says nothing about how the library recovers, which real cuts must show; but it finds the moments that matter.

use crate::disk::Disk;
use crate::layout::{CLOSED, Layout, PAGE, PHASE, STAMP, Section, number_at};
use crate::log::{Change, Covers, Outcome, Promise};
use crate::recording::Recording;

/// A moment at which a cut could lose something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Danger {
    /// The step.
    pub time: u64,
    /// What could be lost.
    pub what: String,
}

/// What stands on the disk, as a run goes on.
struct Oracle<'a> {
    recording: &'a Recording,
    disk: Disk,
    image: Vec<u8>,
    /// For each page, the step up to which all stores are on the disk.
    on_disk: Vec<u64>,
    /// When each frame, or its stamp, changed last.
    changed: Vec<u64>,
    /// The block and the sequence that each frame proves on the disk, if nothing was stored to it since.
    stands: Vec<Option<(usize, u64)>>,
    /// The least sequence that each block must have.
    required: Vec<u64>,
    /// When each page changed last.
    page_changed: Vec<u64>,
    /// What the phase was from which step on.
    phases: Vec<(u64, u64)>,
}

/// The first moment of a run at which a cut could lose something.
pub fn danger(recording: &Recording, disk: Disk) -> Option<Danger> {
    let layout = &recording.layout;
    let mut oracle = Oracle {
        recording,
        disk,
        image: recording.base.clone(),
        on_disk: disk.on_disk(recording, 0),
        changed: vec![0; layout.frames()],
        stands: vec![None; layout.frames()],
        required: vec![0; layout.blocks()],
        page_changed: vec![0; layout.end() / PAGE],
        phases: vec![(0, number_at(&recording.base, PHASE))],
    };
    oracle.look_at_all();
    oracle.required = (0..layout.blocks()).map(|block| oracle.sequence_standing(block)).collect();
    oracle.go()
}

/// The block and the sequence that a frame proves to hold.
pub fn proven(image: &[u8], layout: &Layout, frame: usize) -> Option<(usize, u64)> {
    let at = layout.stamp(frame);
    let (update, check) = (number_at(image, at), number_at(image, at + 8));
    let (block, sequence) = update_of(update, check);
    let sum = checksum(&image[layout.frame(frame)], block, sequence, frame);
    (update & 1 != 0 && block < layout.blocks() as u64 && check >> 32 == u64::from(sum))
        .then_some((block as usize, sequence))
}

/// The block and the sequence that a stamp names.
pub fn update_of(update: u64, check: u64) -> (u64, u64) {
    let low = u64::from(u32::MAX);
    (update >> 32, (check & low) << 31 | (update & low) >> 1)
}

/// The checksum that a stamp must have.
pub fn checksum(contents: &[u8], block: u64, sequence: u64, frame: usize) -> u32 {
    let numbers = [block, sequence, frame as u64];
    numbers.iter().fold(crc32c::crc32c(contents), |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()))
}

impl Oracle<'_> {
    fn go(&mut self) -> Option<Danger> {
        let recording = self.recording;
        let done = recording.flushes.iter().filter(|flush| flush.outcome == Outcome::Done);
        let mut events: Vec<(u64, Option<Promise>)> = done.map(|flush| (flush.end, None)).collect();
        events.extend(recording.promises.iter().map(|promise| (promise.since, Some(*promise))));
        // A flush that ends comes before what is promised then.
        events.sort_by_key(|(time, promise)| (*time, promise.is_some()));
        let mut events = events.into_iter().peekable();
        for change in &recording.changes {
            while let Some((time, promise)) = events.next_if(|(time, _)| *time < change.time) {
                match promise {
                    Some(promise) => self.require(promise),
                    None => {
                        self.on_disk = self.disk.on_disk(recording, time);
                        self.look_at_all();
                    }
                }
                if let Some(danger) = self.lost(time) {
                    return Some(danger);
                }
            }
            if let Some(danger) = self.note(change) {
                return Some(danger);
            }
        }
        None
    }

    fn look_at_all(&mut self) {
        for frame in 0..self.stands.len() {
            self.stands[frame] = self.standing(frame);
        }
    }

    fn standing(&self, frame: usize) -> Option<(usize, u64)> {
        let layout = &self.recording.layout;
        let (stamp, bytes) = (layout.stamp(frame), layout.frame(frame));
        let pages = [stamp, stamp + 15, bytes.start, bytes.end - 1].map(|at| self.on_disk[at / PAGE]);
        let unchanged = pages.iter().all(|on_disk| self.changed[frame] <= *on_disk);
        if unchanged { proven(&self.image, layout, frame) } else { None }
    }

    /// The newest sequence of a block that stands.
    fn sequence_standing(&self, block: usize) -> u64 {
        let its = self.stands.iter().flatten().filter(|(of, _)| *of == block);
        its.map(|(_, sequence)| *sequence).max().unwrap_or(0)
    }

    fn require(&mut self, promise: Promise) {
        for block in 0..self.required.len() {
            let covered = match promise.covers {
                Covers::All(since) => Some(self.recording.version_at(block, since)),
                Covers::Block(of, since) if of == block as u64 => {
                    self.recording.version_by(block, since, promise.thread)
                }
                Covers::Block(..) => None,
            };
            if let Some(version) = covered {
                let sequence = self.recording.blocks[block][version].sequence;
                self.required[block] = self.required[block].max(sequence);
            }
        }
    }

    fn lost(&self, time: u64) -> Option<Danger> {
        (0..self.required.len()).find_map(|block| self.lost_of(block, time))
    }

    fn lost_of(&self, block: usize, time: u64) -> Option<Danger> {
        let (required, standing) = (self.required[block], self.sequence_standing(block));
        let what = || format!("block {block}: sequence {required} was synced, but only {standing} stands on the disk");
        (standing < required).then(|| Danger { time, what: what() })
    }

    fn note(&mut self, change: &Change) -> Option<Danger> {
        change.apply(&mut self.image);
        let layout = &self.recording.layout;
        let (offset, time) = (change.offset as usize, change.time);
        if change.old == change.new {
            return None;
        }
        if layout.is_recorder(offset) {
            return None;
        }
        self.page_changed[offset / PAGE] = time;
        if offset == PHASE {
            self.phases.push((time, change.new));
        }
        let stamp_at = offset.wrapping_sub(layout.start(Section::Stamps));
        let frame = match layout.section(offset) {
            Section::Frames => Some(layout.frame_at(offset)),
            // The epoch in a stamp proves nothing.
            Section::Stamps if stamp_at % STAMP < 16 => Some(stamp_at / STAMP),
            _ => None,
        };
        let spoilt = frame.and_then(|frame| {
            self.changed[frame] = time;
            self.stands[frame].take()
        });
        let danger = spoilt.and_then(|(block, _)| self.lost_of(block, time));
        danger.or_else(|| self.unsafely_closed(time))
    }

    /// If the disk may say that the store was closed, there must be nothing that it may or may not have.
    fn unsafely_closed(&self, time: u64) -> Option<Danger> {
        let state = PHASE / PAGE;
        let later = self.phases.partition_point(|(since, _)| *since <= self.on_disk[state]);
        let may_be_closed = self.phases[later - 1..].iter().any(|(_, phase)| *phase == CLOSED);
        if time <= self.recording.entered || !may_be_closed {
            return None;
        }
        let pages = self.page_changed.iter().zip(&self.on_disk).enumerate();
        let (page, _) = pages.into_iter().find(|(page, (changed, on_disk))| *page != state && changed > on_disk)?;
        let section = self.recording.layout.section(page * PAGE);
        let what = format!("the disk may say that the store was closed, and lack some of its {section:?}");
        Some(Danger { time, what })
    }
}
