//! Faults that are planted, each of which cuts must show.

use casblock::Geometry;

use crate::disk::Disk;
use crate::judge::Verdict;
use crate::layout::{Layout, PHASE, STAMP, Section, number_at, put_number};
use crate::world::Meddle;

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None.
    None,
    /// Frames that were replaced are free at once.
    NoLimbo,
    /// Every committed stamp's checksum is right, whatever its frame holds.
    NoChecksum,
    /// Flushes leave out a section.
    SyncSkips(Section),
    /// Stamps of updates that did not take effect, or may not have, are believed.
    UncommittedBelieved,
    /// Recovery leaves the stamps of frames that hold nothing.
    OldStampsStay,
}

impl Fault {
    /// The disk that goes with it.
    pub fn disk(self) -> Disk {
        match self {
            Self::SyncSkips(section) => Disk::Skips(section),
            _ => Disk::Sound,
        }
    }

    /// What it changes while processes work.
    pub fn meddle(self) -> Option<Meddle> {
        let limbo = u64::from(u16::MAX);
        match self {
            Self::NoLimbo => Some(Box::new(move |_, stored| (stored.bytes == 2 && stored.new == limbo).then_some(0))),
            _ => None,
        }
    }

    /// What it changes on the disk.
    pub fn damage(self, image: &mut [u8], layout: &Layout) {
        match self {
            Self::NoChecksum => correct_checksums(image, layout),
            Self::UncommittedBelieved => commit_all(image, layout),
            _ => {}
        }
    }

    /// What its recovery of `image` leaves, where that is not what the library's does.
    pub fn leaves(self, image: &[u8], verdict: &Verdict, geometry: Geometry) -> Option<Vec<u8>> {
        if self != Self::OldStampsStay || number_at(image, PHASE) == 0 {
            return None;
        }
        // As recovered, but with the stamps that were there before.
        let layout = Layout::of(geometry);
        let mut recovered = verdict.image.clone();
        for frame in 0..layout.frames() {
            let at = layout.stamp(frame);
            if recovered[at..at + STAMP] == [0; STAMP] {
                recovered[at..at + STAMP].copy_from_slice(&image[at..at + STAMP]);
            }
        }
        Some(recovered)
    }
}

/// Makes each committed stamp match whatever its frame holds.
fn correct_checksums(image: &mut [u8], layout: &Layout) {
    for frame in 0..layout.frames() {
        let at = layout.stamp(frame);
        let (update, check) = (number_at(image, at), number_at(image, at + 8));
        if update & 1 == 0 {
            continue;
        }
        let low = u64::from(u32::MAX);
        let (block, sequence) = (update >> 32, (check & low) << 31 | (update & low) >> 1);
        let bytes = crc32c::crc32c(&image[layout.frame(frame)]);
        let numbers = [block, sequence, frame as u64];
        let sum = numbers.iter().fold(bytes, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()));
        put_number(image, at + 8, u64::from(sum) << 32 | check & low);
    }
}

/// Commits every stamp.
fn commit_all(image: &mut [u8], layout: &Layout) {
    for frame in 0..layout.frames() {
        let at = layout.stamp(frame);
        let update = number_at(image, at);
        if update != 0 {
            put_number(image, at, update | 1);
        }
    }
}
