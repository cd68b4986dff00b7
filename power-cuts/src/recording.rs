//! A run, told from its log: what each block held when, and what a cut at any moment must leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::layout::{COMPLETED, Layout, PAGE, STARTED, Section, number_at};
use crate::log::{Change, Covers, Flush, Log, Promise};

/// What a block held from some step on.
#[derive(Clone, Debug)]
pub struct Version {
    /// The step of the exchange that put it in place; 0 for what was there at first.
    pub time: u64,
    /// Whose exchange it was.
    pub thread: u8,
    /// Its sequence; 0 for what was there at first.
    pub sequence: u64,
    /// The block's bytes.
    pub contents: Arc<[u8]>,
}

/// What a word held from some step on.
#[derive(Clone, Copy, Debug)]
pub struct WordVersion {
    /// The step.
    pub time: u64,
    /// The value.
    pub value: u64,
}

/// A run.
#[derive(Debug)]
pub struct Recording {
    /// Where everything lies.
    pub layout: Layout,
    /// What was on the disk when it began.
    pub base: Vec<u8>,
    /// The file as it was at the end.
    pub last: Vec<u8>,
    /// Every store to the file.
    pub changes: Vec<Change>,
    /// The file's flushes.
    pub flushes: Vec<Flush>,
    /// Steps at which each page was stored to.
    pub page_stores: Vec<Vec<u64>>,
    /// What each block held.
    pub blocks: Vec<Vec<Version>>,
    /// What each word held.
    pub words: Vec<Vec<WordVersion>>,
    /// What was promised.
    pub promises: Vec<Promise>,
    /// The step at which the store was made, or opened and recovered.
    pub entered: u64,
    /// The last step.
    pub end: u64,
    /// Processes that were stopped and that were killed.
    pub deaths: [u64; 2],
    /// Operations that were done, and those that the library refused.
    pub operations: [u64; 2],
    /// What went wrong in the run itself.
    pub troubles: Vec<String>,
}

/// What must be there after a cut: for each block, and each word, the first of its versions that may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Required {
    /// Of each block.
    pub blocks: Vec<usize>,
    /// Of each word.
    pub words: Vec<usize>,
}

/// The last of `versions` that was in place after step `time`.
fn last_at<T>(versions: &[T], time: u64, time_of: impl Fn(&T) -> u64) -> usize {
    versions.partition_point(|version| time_of(version) <= time) - 1
}

impl Recording {
    /// Tells a run from its log. Before it each block held what `first` has, or zeros in a new store.
    pub fn of(log: Log, layout: Layout, inode: u64, first: Option<&[Arc<[u8]>]>) -> Self {
        let changes: Vec<Change> = log.stores.iter().filter(|(of, _)| *of == inode).map(|(_, it)| *it).collect();
        let flushes: Vec<Flush> = log.flushes.iter().filter(|flush| flush.inode == inode).copied().collect();
        assert_eq!(log.last.len(), layout.end(), "the file's length");
        assert!(first.is_some() || !changes.is_empty(), "no store to the new file was recorded");
        let mut base = log.last.clone();
        changes.iter().rev().for_each(|change| change.undo(&mut base));
        let mut page_stores = vec![Vec::new(); layout.end() / PAGE];
        for change in &changes {
            page_stores[change.offset as usize / PAGE].push(change.time);
        }
        let zeros: Arc<[u8]> = vec![0; layout.frame(0).len()].into();
        let version =
            |contents: &Arc<[u8]>| vec![Version { time: 0, thread: 0, sequence: 0, contents: Arc::clone(contents) }];
        let blocks = match first {
            Some(first) => first.iter().map(version).collect(),
            None => (0..layout.blocks()).map(|_| version(&zeros)).collect(),
        };
        let word = |index| vec![WordVersion { time: 0, value: number_at(&base, layout.word(index)) }];
        let killed = log.deaths.iter().filter(|(_, _, killed)| *killed).count() as u64;
        let mut recording = Self {
            words: (0..layout.words()).map(word).collect(),
            layout,
            base,
            last: log.last,
            changes,
            flushes,
            page_stores,
            blocks,
            promises: log.promises,
            entered: log.entered.unwrap_or(u64::MAX),
            end: log.time,
            deaths: [log.deaths.len() as u64 - killed, killed],
            operations: log.operations,
            troubles: log.troubles,
        };
        recording.replay(&zeros, log.recoveries);
        recording
    }

    /// Goes through the changes and notes what each block and word held, and which syncs were done.
    fn replay(&mut self, zeros: &Arc<[u8]>, recoveries: Vec<(u64, u64)>) {
        let mut recoveries = recoveries.into_iter().peekable();
        let mut image = self.base.clone();
        let mut begun = BTreeMap::new();
        let mut owners: Option<Vec<u64>> = None;
        for change in std::mem::take(&mut self.changes) {
            let (offset, time) = (change.offset as usize, change.time);
            while let Some(recovery) = recoveries.next_if(|(_, end)| *end < time) {
                self.note_recovery(recovery, &image, zeros);
                owners = None;
            }
            change.apply(&mut image);
            if time > self.entered && owners.is_none() {
                owners = Some(self.owners(&image));
            }
            let updated = change.exchanged && change.old != change.new;
            match self.layout.section(offset) {
                Section::Cells if updated => self.note_update(&change, &image, zeros, owners.as_deref_mut()),
                Section::Words if updated => {
                    let index = self.layout.word_at(offset).expect("a word, not the space beside it");
                    self.words[index].push(WordVersion { time, value: change.new });
                }
                Section::State if offset == STARTED && change.exchanged => {
                    begun.insert(change.new, time);
                }
                Section::State if offset == COMPLETED && updated => {
                    // What the library itself relies on, whether or not anybody was told.
                    if let Some(&begin) = begun.get(&change.new) {
                        let covers = Covers::All(begin);
                        self.promises.push(Promise { since: time, covers, thread: usize::from(change.thread) });
                    }
                }
                Section::Frames if change.old != change.new => {
                    let frame = self.layout.frame_at(offset);
                    if owners.as_ref().is_some_and(|owners| owners[frame] > 0) {
                        self.troubles.push(format!("step {time}: frame {frame} changed while a cell named it"));
                    }
                }
                _ => {}
            }
            self.changes.push(change);
        }
        assert_eq!(image, self.last, "the changes, made again, give the file");
    }

    /// How many cells name each frame.
    fn owners(&self, image: &[u8]) -> Vec<u64> {
        let mut owners = vec![0; self.layout.frames()];
        let cells = self.layout.start(Section::Cells);
        for block in 0..self.layout.blocks() {
            if let Some(frame) = self.layout.frame_of_cell(number_at(image, cells + 8 * block)) {
                owners[frame] += 1;
            }
        }
        owners
    }

    fn note_update(&mut self, change: &Change, image: &[u8], zeros: &Arc<[u8]>, owners: Option<&mut [u64]>) {
        let block = self.layout.block_of_cell(change.offset as usize);
        let frames = [change.old, change.new].map(|cell| self.layout.frame_of_cell(cell));
        let [before, contents] = frames.map(|frame| match frame {
            Some(frame) => Arc::from(&image[self.layout.frame(frame)]),
            None => Arc::clone(zeros),
        });
        let versions = &mut self.blocks[block];
        if versions.last().is_none_or(|version| version.contents != before) {
            let time = change.time;
            self.troubles.push(format!("step {time}: block {block} held what nobody had put in place"));
        }
        let sequence = self.layout.sequence_of_cell(change.new);
        versions.push(Version { time: change.time, thread: change.thread, sequence, contents });
        if let (Some(owners), [old, new]) = (owners, frames) {
            old.into_iter().for_each(|frame| owners[frame] -= 1);
            new.into_iter().for_each(|frame| owners[frame] += 1);
        }
    }

    /// Notes what blocks hold that were recovered while the machine went on: what was not committed is lost.
    fn note_recovery(&mut self, (begin, end): (u64, u64), image: &[u8], zeros: &Arc<[u8]>) {
        let required = self.required(begin);
        for block in 0..self.blocks.len() {
            let cell = number_at(image, self.layout.start(Section::Cells) + 8 * block);
            let contents: Arc<[u8]> = match self.layout.frame_of_cell(cell) {
                Some(frame) => Arc::from(&image[self.layout.frame(frame)]),
                None => Arc::clone(zeros),
            };
            let versions = &mut self.blocks[block];
            if versions.last().is_some_and(|last| last.contents == contents) {
                continue;
            }
            if !versions[required.blocks[block]..].iter().any(|version| version.contents == contents) {
                self.troubles.push(format!("step {end}: block {block} was recovered to what it may not hold"));
            }
            let sequence = self.layout.sequence_of_cell(cell);
            versions.push(Version { time: end, thread: u8::MAX, sequence, contents });
        }
        self.promises.push(Promise { since: end, covers: Covers::All(end), thread: usize::MAX });
    }

    /// What must be there after a cut at step `time`.
    pub fn required(&self, time: u64) -> Required {
        let mut blocks = vec![0; self.blocks.len()];
        let mut words = vec![0; self.words.len()];
        for promise in self.promises.iter().filter(|promise| promise.since <= time) {
            match promise.covers {
                Covers::All(since) => {
                    for (least, versions) in blocks.iter_mut().zip(&self.blocks) {
                        *least = last_at(versions, since, |it| it.time).max(*least);
                    }
                    for (least, versions) in words.iter_mut().zip(&self.words) {
                        *least = last_at(versions, since, |it| it.time).max(*least);
                    }
                }
                Covers::Block(block, since) => {
                    let updated = self.version_by(block as usize, since, promise.thread);
                    blocks[block as usize] = updated.unwrap_or(0).max(blocks[block as usize]);
                }
            }
        }
        Required { blocks, words }
    }

    /// Which version of a block was in place after step `time`.
    pub fn version_at(&self, block: usize, time: u64) -> usize {
        last_at(&self.blocks[block], time, |it| it.time)
    }

    /// Which version of a block a thread put in place last, up to step `time`.
    pub fn version_by(&self, block: usize, time: u64, thread: usize) -> Option<usize> {
        self.blocks[block].iter().rposition(|it| it.time <= time && usize::from(it.thread) == thread)
    }

    /// Which version of a word was.
    pub fn word_at(&self, word: usize, time: u64) -> usize {
        last_at(&self.words[word], time, |it| it.time)
    }
}
