//! The disk: what a cut of the power may leave of a run.
//!
//! A flush that has ended has put on the disk what the file held when it began. What was stored since then the kernel may
//! have written back or not, sector by sector and in any order: each sector holds what it held at some moment between
//! the beginning of the last such flush and the cut, whatever moments the others are from. A flush that failed may have
//! left pages that the kernel takes for written; no later flush writes them until they are stored to again.

use fastrand::Rng;

use crate::layout::{PAGE, SECTOR, Section};
use crate::log::{Change, Outcome};
use crate::recording::Recording;

/// Which of its contents a sector has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// Those from when the last flush began.
    Oldest,
    /// Those from the moment of the cut.
    Newest,
    /// One of these two.
    Either,
    /// Any that it had in between.
    Any,
    /// Those it had after this step.
    At(u64),
    /// Each of its 8-byte words any that it had in between: more than a disk does, but what a page that is stored to
    /// while the disk reads it may come to.
    Torn,
}

/// How the sectors of a cut are chosen.
#[derive(Clone, Debug)]
pub struct Mix {
    /// What is common to it, for messages.
    pub name: &'static str,
    sections: [Pick; Section::ALL.len()],
    /// A sector that differs from all others.
    odd: Option<(usize, Pick)>,
}

impl Mix {
    /// All sectors alike.
    pub const fn all(name: &'static str, pick: Pick) -> Self {
        Self { name, sections: [pick; Section::ALL.len()], odd: None }
    }

    fn with(mut self, section: Section, pick: Pick) -> Self {
        self.sections[section as usize] = pick;
        self
    }

    /// A random mix for a cut at `time`; `between` is the range of steps whose stores may be missing.
    pub fn random(rng: &mut Rng, recording: &Recording, between: std::ops::RangeInclusive<u64>) -> Self {
        use Pick::{Any, At, Either, Newest, Oldest, Torn};
        let moment = At(rng.u64(between.clone()));
        match rng.u32(0..16) {
            0 => Self::all("all oldest", Oldest),
            1 => Self::all("all newest", Newest),
            2 => Self::all("all of one moment", moment),
            3 | 4 => Self::all("each oldest or newest", Either),
            5 | 6 => Self::all("each of any moment", Any),
            7 => Self::all("each word of any moment", Torn),
            8 => Self::all("stamps newest, frames oldest", Either)
                .with(Section::Stamps, Newest)
                .with(Section::Frames, Oldest),
            9 => Self::all("frames newest, stamps oldest", Either)
                .with(Section::Frames, Newest)
                .with(Section::Stamps, Oldest),
            10 => Self::all("cells newest, the rest oldest", Oldest).with(Section::Cells, Newest),
            11 => Self::all("state newest, the rest oldest", Oldest).with(Section::State, Newest),
            12 | 13 => {
                let sector = rng.usize(0..recording.layout.end() / SECTOR);
                let (most, odd) = if rng.bool() { (Newest, Oldest) } else { (Oldest, Newest) };
                Self { odd: Some((sector, odd)), ..Self::all("one sector unlike the rest", most) }
            }
            _ => {
                let mut mix = Self::all("each section in its own way", Any);
                for pick in &mut mix.sections {
                    let moment = At(rng.u64(between.clone()));
                    *pick = [Oldest, Newest, Either, Any, moment, moment, Torn][rng.usize(0..7)];
                }
                mix
            }
        }
    }

    fn of(&self, sector: usize, section: Section) -> Pick {
        match self.odd {
            Some((odd, pick)) if odd == sector => pick,
            _ => self.sections[section as usize],
        }
    }
}

/// A disk, or one that does not do what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// Flushes write everything.
    Sound,
    /// Flushes leave out a section.
    Skips(Section),
}

impl Disk {
    /// For each page, the step up to which all stores are on the disk at step `time`.
    pub fn on_disk(self, recording: &Recording, time: u64) -> Vec<u64> {
        let page = |page| self.page_on_disk(recording, page, time);
        (0..recording.page_stores.len()).map(page).collect()
    }

    fn page_on_disk(self, recording: &Recording, page: usize, time: u64) -> u64 {
        if let Self::Skips(section) = self
            && recording.layout.section(page * PAGE) == section
        {
            return 0;
        }
        let stores = &recording.page_stores[page];
        let stored_between = |after: u64, to: u64| {
            let next = stores.partition_point(|store| *store <= after);
            stores.get(next).is_some_and(|store| *store <= to)
        };
        let good = recording.flushes.iter().filter(|flush| flush.outcome == Outcome::Done && flush.end <= time);
        let covers = good.filter(|good| {
            let lost =
                recording.flushes.iter().filter(|flush| flush.outcome == Outcome::Lost && flush.end <= good.begin);
            let last = lost.map(|flush| flush.end).max();
            last.is_none_or(|last| stored_between(last, good.begin))
        });
        covers.map(|flush| flush.begin).max().unwrap_or(0)
    }

    /// What is on the disk after a cut at step `time`.
    pub fn cut(self, recording: &Recording, time: u64, mix: &Mix, rng: &mut Rng) -> Vec<u8> {
        let on_disk = self.on_disk(recording, time);
        let mut image = recording.base.clone();
        let mut later: Vec<Vec<Change>> = vec![Vec::new(); image.len() / SECTOR];
        for change in recording.changes.iter().take_while(|change| change.time <= time) {
            let offset = change.offset as usize;
            if change.time <= on_disk[offset / PAGE] {
                change.apply(&mut image);
            } else {
                later[offset / SECTOR].push(*change);
            }
        }
        for (sector, later) in later.iter().enumerate().filter(|(_, later)| !later.is_empty()) {
            let pick = mix.of(sector, recording.layout.section(sector * SECTOR));
            apply(&mut image, later, pick, rng);
        }
        image
    }
}

/// Makes those of a sector's changes that `pick` says.
fn apply(image: &mut [u8], later: &[Change], pick: Pick, rng: &mut Rng) {
    let count = match pick {
        Pick::Oldest => 0,
        Pick::Newest => later.len(),
        Pick::Either => rng.choice([0, later.len()]).expect("there are two"),
        Pick::Any => rng.usize(0..=later.len()),
        Pick::At(moment) => later.partition_point(|change| change.time <= moment),
        Pick::Torn => {
            let mut counts = [0; SECTOR / 8];
            counts.fill_with(|| rng.usize(0..=later.len()));
            let word = |change: &Change| change.offset as usize % SECTOR / 8;
            let kept = later.iter().enumerate().filter(|(number, change)| *number < counts[word(change)]);
            return kept.for_each(|(_, change)| change.apply(image));
        }
    };
    later[..count].iter().for_each(|change| change.apply(image));
}
