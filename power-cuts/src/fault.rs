//! Faults that are planted, each of which cuts must show.

use casblock::Geometry;

use crate::disk::Disk;
use crate::judge::Verdict;
use crate::layout::{Layout, PHASE, STAMP, Section, number_at, put_number};
use crate::oracle::{checksum, update_of};
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
        let (block, sequence) = update_of(update, check);
        let sum = checksum(&image[layout.frame(frame)], block, sequence, frame);
        put_number(image, at + 8, u64::from(sum) << 32 | check & u64::from(u32::MAX));
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
