//! What a recovered store must be like.

use std::path::Path;
use std::sync::Arc;

use casblock::{EventKind, Store};

use crate::contents;
use crate::layout::{PHASE, Section, number_at};
use crate::recording::{Recording, Required};
use crate::stage::place;

/// What a cut left, as the library recovered it.
#[derive(Debug)]
pub struct Verdict {
    /// What each block holds.
    pub contents: Vec<Arc<[u8]>>,
    /// Whether the store had to be recovered.
    pub recovered: bool,
    /// Blocks that hold a later version than the last sync put on the disk.
    pub newer: u64,
    /// Versions that were lost: there was no sync after them.
    pub discarded: u64,
    /// The file when it was open and recovered, and nothing had been updated.
    pub image: Vec<u8>,
}

/// What is wrong with a recovered store.
pub type Violation = String;

/// Opens `image` as the file at `path`, and judges what is in it against what may be there after a cut of `recording` at
/// step `time`.
pub fn judge(image: &[u8], path: &Path, recording: &Recording, time: u64) -> Result<Verdict, Violation> {
    place(image, path, true);
    let store = Store::open(path).map_err(|error| format!("it does not open: {error}"))?;
    let file = std::fs::read(path).map_err(|error| error.to_string())?;
    let recovery = store.recovery();
    let closed = number_at(image, PHASE) == 0;
    if recovery.is_none() != closed {
        return Err(format!("closed: {closed}; recovery: {recovery:?}"));
    }
    let required = recording.required(time);
    let mut verdict =
        Verdict { contents: Vec::new(), recovered: recovery.is_some(), newer: 0, discarded: 0, image: file };
    let mut written = 0;
    for block in 0..recording.layout.blocks() {
        let found = read(&store, block)?;
        let version = version_of(&found, recording, &required, block, time)?;
        verdict.newer += u64::from(version > required.blocks[block]);
        verdict.discarded += (recording.version_at(block, time) - version) as u64;
        written += u64::from(store.is_written(block as u64).map_err(|error| error.to_string())?);
        verdict.contents.push(found);
    }
    if let Some(recovery) = recovery.filter(|recovery| recovery.blocks != written) {
        return Err(format!("{written} blocks are written, but {recovery:?}"));
    }
    check_words(&store, image, recording, &required, time)?;
    check(&store)?;
    check_events(&store)?;
    drop(store);
    reopen_and_work(path, &verdict.contents)?;
    Ok(verdict)
}

fn read(store: &Store, block: usize) -> Result<Arc<[u8]>, Violation> {
    let mut found = vec![0; store.geometry().size_of_block().bytes()];
    store.read(block as u64, &mut found).map_err(|error| format!("reading block {block}: {error}"))?;
    Ok(found.into())
}

/// Which version of a block this is, the newest that it may be.
fn version_of(
    found: &[u8],
    recording: &Recording,
    required: &Required,
    block: usize,
    time: u64,
) -> Result<usize, Violation> {
    let versions = &recording.blocks[block];
    let (least, most) = (required.blocks[block], recording.version_at(block, time));
    let is_it = |version: &usize| *versions[*version].contents == *found;
    if let Some(version) = (least..=most).rev().find(is_it) {
        return Ok(version);
    }
    let what = match (0..versions.len()).rev().find(is_it) {
        Some(version) if version < least => {
            format!("version {version}, put in place at step {}", versions[version].time)
        }
        Some(version) => format!("version {version}, put in place only at step {}", versions[version].time),
        None if contents::id_of(found).is_some() => "what never took effect, or is another block's".into(),
        None => "torn contents".into(),
    };
    let [first, last] = [least, most].map(|version| versions[version].time);
    Err(format!(
        "block {block} holds {what}; versions {least} (step {first}) to {most} (step {last}) may be there after step {time}"
    ))
}

fn check_words(
    store: &Store,
    image: &[u8],
    recording: &Recording,
    required: &Required,
    time: u64,
) -> Result<(), Violation> {
    for word in 0..recording.layout.words() {
        let found = store.read_word(word as u64).map_err(|error| error.to_string())?;
        let on_disk = number_at(image, recording.layout.word(word));
        if found != on_disk {
            return Err(format!("word {word} is {found:#x}, but the disk had {on_disk:#x}"));
        }
        let allowed = required.words[word]..=recording.word_at(word, time);
        if !recording.words[word][allowed.clone()].iter().any(|version| version.value == found) {
            return Err(format!("word {word} is {found:#x}, which is none of its versions {allowed:?}"));
        }
    }
    Ok(())
}

/// The flight recorder has no event that nobody recorded, and tells of the recovery last.
fn check_events(store: &Store) -> Result<(), Violation> {
    let events = store.events();
    if let Some(event) = events.iter().find(|event| matches!(event.kind, EventKind::Unknown(_))) {
        return Err(format!("nobody recorded {event:?}"));
    }
    let tells = events.last().is_some_and(|event| event.kind == EventKind::Recovered);
    if store.recovery().is_some() && store.geometry().event_count() > 0 && !tells {
        return Err(format!("recovered, but the last event is {:?}", events.last()));
    }
    Ok(())
}

fn check(store: &Store) -> Result<(), Violation> {
    let check = store.check();
    if check.is_clean() { Ok(()) } else { Err(format!("{check:?}")) }
}

/// Opens the store once more, which must give the same contents without a recovery, and updates every block.
fn reopen_and_work(path: &Path, contents: &[Arc<[u8]>]) -> Result<(), Violation> {
    let store = Store::open(path).map_err(|error| format!("it does not open again: {error}"))?;
    if let Some(recovery) = store.recovery() {
        return Err(format!("it was closed, but recovered again: {recovery:?}"));
    }
    let failed = |error: casblock::Error| format!("it does not work: {error}");
    for (block, contents) in contents.iter().enumerate() {
        if read(&store, block)? != *contents {
            return Err(format!("block {block} changed when the store was closed and opened again"));
        }
        let new = contents::block(u64::MAX - block as u64, contents.len());
        store.compare_and_write(block as u64, contents, &new).map_err(failed)?;
        if *read(&store, block)? != *new {
            return Err(format!("block {block} does not hold what was written"));
        }
    }
    store.sync().map_err(failed)?;
    check(&store)
}

/// Sector-wise differences of two images, for messages.
pub fn sections_that_differ(recording: &Recording, a: &[u8], b: &[u8]) -> Vec<Section> {
    let differ = |section: &&Section| {
        let start = recording.layout.start(**section);
        let end = Section::ALL.get(**section as usize + 1).map_or(a.len(), |next| recording.layout.start(*next));
        a[start..end] != b[start..end]
    };
    Section::ALL.iter().filter(differ).copied().collect()
}
