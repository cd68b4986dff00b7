//! What a store with a damaged file must do: answer everything that is asked of it with an error or with correct data.
//!
//! What is correct depends on what is known of the damage.
//!
//! - **Opened without a recovery** a store believes its cells. Each block reads as the frame its cell names, or as zeros, or
//!   is corrupt, exactly as the byte map says. If tags and slots are whole and a check finds the store clean, it works as
//!   if nothing had been damaged. Else frames may have two owners, so an update of one block may show in another; still,
//!   whatever is read is, whole, what some frame held or what was written since, an update that succeeds is read back, and
//!   a miscompare tells what is there.
//! - **Recovered**, a store of durability `power` holds for each block the newest frame that proves itself, and works from
//!   then on as if nothing had been damaged. What it holds is a version of that block, never of another.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashSet;

use casblock::{Check, Comparison, Error, Event, EventKind, Miscompare, OpenError, OpenOptions, Repair, Store, Writer};

use super::damage::{COMPLETED, STARTED, Victim};
use super::dice::Dice;
use super::image::{Held, Image, contents, identify};

/// What was seen in a number of ordeals.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub files: u64,
    pub refused: u64,
    pub read_only: u64,
    pub recovered: u64,
    /// Stores that must work as if nothing had been damaged.
    pub sound: u64,
    /// Stores whose frames may have two owners.
    pub unclean: u64,
    /// Blocks that held something.
    pub data: u64,
    /// Blocks that did not.
    pub corrupt: u64,
}

impl Tally {
    pub fn counts(&self) -> [u64; 8] {
        let Self { files, refused, read_only, recovered, sound, unclean, data, corrupt } = *self;
        [files, refused, read_only, recovered, sound, unclean, data, corrupt]
    }

    pub fn add(&mut self, counts: [u64; 8]) {
        let mut sums = self.counts();
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        let [files, refused, read_only, recovered, sound, unclean, data, corrupt] = sums;
        *self = Self { files, refused, read_only, recovered, sound, unclean, data, corrupt };
    }
}

/// A way to open a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Shared,
    ReadOnly,
    Exclusive,
    Recover,
}

/// Gives `victim` the damaged file, and uses it in every way.
pub fn ordeal(victim: &Victim, sound: &Image, damaged: &Image, dice: &mut Dice<'_>, tally: &mut Tally) {
    victim.become_bytes(&damaged.bytes);
    tally.files += 1;
    let way = dice.choose(&[Way::Shared, Way::Shared, Way::ReadOnly, Way::Exclusive, Way::Recover]);
    let opened = match way {
        Way::Shared => Store::open(&victim.path),
        Way::ReadOnly => Store::open_read_only(&victim.path),
        Way::Exclusive => Store::open_exclusive(&victim.path),
        Way::Recover => OpenOptions::new().recover().open(&victim.path),
    };
    let can_be_opened = damaged.can_be_opened(sound);
    let needs_recovery = can_be_opened && damaged.is_cut_off(sound);
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            match error {
                OpenError::NeedsRecovery { .. } => assert!(needs_recovery && way == Way::ReadOnly),
                OpenError::NotAStore { .. }
                | OpenError::NewerVersion { .. }
                | OpenError::Superblock { .. }
                | OpenError::Truncated { .. } => assert!(!can_be_opened, "refused: {error}"),
                _ => panic!("refused: {error}"),
            }
            assert_eq!(std::fs::read(&victim.path).unwrap(), damaged.bytes, "a refused file was changed");
            tally.refused += 1;
            return;
        }
    };
    assert!(can_be_opened, "a file was opened whose superblock is damaged, or which is too short");
    assert!(!needs_recovery || way != Way::ReadOnly, "it needs a recovery and was opened read-only");
    let recovered = needs_recovery || way == Way::Recover && damaged.is_power();
    let known = if recovered { damaged.recovered() } else { damaged.as_it_stands() };
    let mut user = User::new(store, damaged, known, Ownership::of(damaged, sound, recovered));
    user.look_at_once(tally);
    if way == Way::ReadOnly {
        tally.read_only += 1;
        user.refuses_updates();
        drop(user);
        assert_eq!(std::fs::read(&victim.path).unwrap(), damaged.bytes, "a file opened read-only was changed");
        return;
    }
    if dice.once_in(2) {
        user.repair(victim, way == Way::Exclusive || way == Way::Recover);
        user.look();
    }
    while !dice.is_spent() && !dice.once_in(24) {
        user.step(victim, dice);
        user.look();
    }
    after(victim, user, dice);
}

/// The store is closed and opened again, and then recovered, if it can be.
fn after(victim: &Victim, mut user: User, dice: &mut Dice<'_>) {
    user.writers.clear();
    let User { store, known, rigour, words, .. } = user;
    drop(store);
    let store = Store::open(&victim.path).unwrap();
    assert_eq!(store.recovery(), None, "it was closed, or is in use since this boot");
    assert_eq!(look(&store), known, "after it was opened again");
    assert_eq!(words, read_words(&store));
    look_at_events(&store);
    drop(store);
    if dice.once_in(2) {
        let store = Store::open_exclusive(&victim.path).unwrap();
        assert!(rigour != Rigour::Sound || store.check().is_clean(), "{:?}", store.check());
        repair(&store, victim, &known);
    }
    let store = OpenOptions::new().recover().open(&victim.path).unwrap();
    let found = look(&store);
    assert!(store.recovery().is_none() || store.check().is_clean());
    match rigour {
        _ if store.recovery().is_none() => {}
        Rigour::Sound => assert_eq!(found, known, "after it was recovered again"),
        Rigour::Exact | Rigour::Unclean => assert_own(&found),
    }
}

/// Repairs a store whose blocks hold what is `known`; gives what they hold then.
fn repair(store: &Store, victim: &Victim, known: &[Held]) -> Vec<Held> {
    let (was_clean, before) = (store.check().is_clean(), std::fs::read(&victim.path).unwrap());
    let mut told = Vec::new();
    let check = store.repair(|repair| told.push(repair)).unwrap();
    assert_eq!(check, store.check());
    if was_clean {
        assert!(told.is_empty() && std::fs::read(&victim.path).unwrap() == before, "it was well: {told:?}");
    }
    let count = |name| told.iter().filter(|repair| repair.name() == name).count() as u64;
    assert_eq!((check.slots_damaged, check.frames_leaked), (0, 0), "{told:?}");
    assert_eq!(check.is_clean(), told.iter().all(Repair::is_mended), "{check:?}, {told:?}");
    assert_eq!(check.cells_out_of_range, count("block-lost"), "{told:?}");
    assert_eq!(check.frames_doubly_owned > 0, count("block-shared") > 0, "{check:?}, {told:?}");

    let found = look(store);
    for ((block, found), known) in (0..).zip(&found).zip(known) {
        let is_rebuilt =
            told.iter().any(|it| matches!(it, Repair::BlockRebuilt { block: other, .. } if *other == block));
        let is_lost = told.contains(&Repair::BlockLost { block });
        let is_own = |held: &Held| match held {
            Held::Bytes(bytes) => identify(bytes).is_some_and(|(of, _)| of == block),
            _ => false,
        };
        // What may have been another's data need not be read any more.
        let may_be = match is_rebuilt {
            true => is_own(found),
            false => found == known || is_lost && *found == Held::Corrupt && !is_own(known),
        };
        assert!(may_be, "block {block} held {}, and now {}: {told:?}", named(known), named(found));
    }

    let mut again = Vec::new();
    assert_eq!(store.repair(|repair| again.push(repair)).unwrap(), check);
    assert!(!again.iter().any(Repair::is_mended), "{told:?}, and again {again:?}");
    assert_eq!(look(store), found);
    found
}

/// Each block holds a version of its own, whole.
fn assert_own(held: &[Held]) {
    for (block, held) in (0..).zip(held) {
        match held {
            Held::Nothing => {}
            Held::Bytes(bytes) => assert_eq!(identify(bytes).map(|(of, _)| of), Some(block), "another block's data"),
            Held::Corrupt => panic!("block {block} is corrupt after a recovery"),
        }
    }
}

/// What each block holds. Not written is told from corrupt and from zeros.
fn look(store: &Store) -> Vec<Held> {
    let mut out = vec![0; store.geometry().size_of_block().bytes()];
    let mut held = |lba| match (store.is_written(lba).unwrap(), store.read(lba, &mut out)) {
        (false, Ok(())) => {
            assert!(out.iter().all(|byte| *byte == 0), "block {lba} was never written");
            Held::Nothing
        }
        (true, Ok(())) => Held::Bytes(out.clone()),
        (true, Err(Error::Corrupt { .. })) => Held::Corrupt,
        other => panic!("block {lba}: {other:?}"),
    };
    (0..store.geometry().block_count()).map(&mut held).collect()
}

fn read_words(store: &Store) -> Vec<u64> {
    (0..store.geometry().word_count()).map(|index| store.read_word(index).unwrap()).collect()
}

/// The flight recorder gives events, whatever it holds: in their order, no more than it has room for, and none that was
/// never recorded. Its checksums would let one through in four thousand million.
fn look_at_events(store: &Store) {
    let (events, room) = (store.events(), store.geometry().event_count());
    assert!(events.len() <= room as usize, "{events:?}");
    assert!(events.is_sorted_by(|a, b| a.number < b.number), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::Unknown(_))), "{events:?}");
    assert_eq!((store.miscompares().is_some(), store.events_recorded().is_some()), (room > 0, room > 0));
}

/// An event that is recorded is there, whatever the recorder held before.
fn record_an_event(store: &Store) {
    if store.geometry().event_count() == 0 {
        return;
    }
    let mut event = Event::new(EventKind::HostFenced);
    (event.lba, event.found) = (Some(7), store.events_recorded().unwrap());
    store.record_event(&event).unwrap();
    let events = store.events();
    let found = events.iter().any(|it| (it.lba, it.found) == (event.lba, event.found));
    // A head that wraps begins anew.
    let wraps = store.events_recorded().is_none_or(|recorded| recorded < store.geometry().event_count().into());
    assert!(found || wraps, "{event:?} is not in {events:?}");
}

/// What is known of tags and slots, which say who owns which frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ownership {
    /// A recovery made them.
    MadeAnew,
    /// They are as they were.
    Whole,
    /// They are damaged.
    Damaged,
}

impl Ownership {
    fn of(damaged: &Image, sound: &Image, recovered: bool) -> Self {
        let range = sound.at.writers as usize..sound.at.cells as usize;
        match recovered {
            true => Self::MadeAnew,
            false if damaged.bytes[range.clone()] == sound.bytes[range] => Self::Whole,
            false => Self::Damaged,
        }
    }
}

/// How much must be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rigour {
    /// It is a sound store: nothing is corrupt, and each block holds what was last written to it.
    Sound,
    /// Each frame has one owner: each block holds what was last written to it. But something may be corrupt: a stamp, a
    /// cell that names no frame.
    Exact,
    /// Frames may have two owners.
    Unclean,
}

/// Whether each frame that the store knows of has one owner.
fn has_one_owner_each(check: &Check) -> bool {
    (check.frames_leaked, check.frames_doubly_owned, check.slots_damaged) == (0, 0, 0)
}

/// Somebody who uses a store and knows what to expect.
struct User {
    store: Store,
    writers: Vec<Writer>,
    rigour: Rigour,
    /// Whether there is a frame for everything.
    roomy: bool,
    known: Vec<Held>,
    words: Vec<u64>,
    /// All that a block may come to hold.
    ever: HashSet<Vec<u8>>,
    version: u64,
    block_bytes: usize,
}

impl User {
    fn new(store: Store, image: &Image, known: Vec<Held>, ownership: Ownership) -> Self {
        let blocks = image.geometry.block_count();
        let check = store.check();
        let rigour = match ownership {
            Ownership::MadeAnew => {
                assert!(check.is_clean(), "recovered, but {check:?}");
                Rigour::Sound
            }
            Ownership::Whole if check.is_clean() && !image.is_power() => Rigour::Sound,
            Ownership::Whole if has_one_owner_each(&check) => Rigour::Exact,
            _ => Rigour::Unclean,
        };
        if ownership != Ownership::MadeAnew {
            let found = (check.blocks_misstamped, check.blocks_damaged);
            assert_eq!(found, image.misstamped_and_damaged(), "{check:?}");
        }
        assert_eq!(store.recovery().is_some(), ownership == Ownership::MadeAnew);
        if let Some(recovery) = store.recovery() {
            let held = known.iter().filter(|held| **held != Held::Nothing).count();
            assert_eq!((recovery.blocks, Some(recovery)), (held as u64, store.last_recovery()));
            assert_own(&known);
        }
        let word = |index| image.number(image.at.words + 128 * index);
        let frames = (0..image.geometry.frame_count()).map(|frame| image.frame(frame).to_vec());
        Self {
            writers: Vec::new(),
            rigour,
            roomy: image.geometry.frame_count() >= blocks + 2 * u64::from(image.geometry.writer_count()),
            known,
            words: (0..image.geometry.word_count()).map(word).collect(),
            ever: frames.collect(),
            version: 1 << 16,
            block_bytes: image.block_bytes(),
            store,
        }
    }

    /// What is there before anything is updated is known exactly.
    fn look_at_once(&mut self, tally: &mut Tally) {
        assert_eq!(look(&self.store), self.known, "{:?}", self.rigour);
        assert_eq!(read_words(&self.store), self.words);
        tally.recovered += u64::from(self.store.recovery().is_some());
        tally.sound += u64::from(self.rigour == Rigour::Sound);
        tally.unclean += u64::from(self.rigour == Rigour::Unclean);
        tally.data += self.known.iter().filter(|held| matches!(held, Held::Bytes(_))).count() as u64;
        tally.corrupt += self.known.iter().filter(|held| **held == Held::Corrupt).count() as u64;
        self.check();
        let all = self.store.read(0, &mut vec![0; self.known.len() * self.block_bytes]);
        assert_eq!(all.is_err(), self.known.contains(&Held::Corrupt), "{all:?}");
        self.store.last_recovery();
        look_at_events(&self.store);
    }

    fn check(&self) {
        let check = self.store.check();
        let count = |wanted: &dyn Fn(&Held) -> bool| self.known.iter().filter(|held| wanted(held)).count() as u64;
        assert_eq!(check.blocks_written, count(&|held| *held != Held::Nothing), "{check:?}");
        assert_eq!(check.cells_out_of_range, count(&|held| *held == Held::Corrupt), "{check:?}");
        match self.rigour {
            Rigour::Sound => assert!(check.is_clean(), "{check:?}"),
            Rigour::Exact => assert!(has_one_owner_each(&check), "{check:?}"),
            Rigour::Unclean => {}
        }
    }

    fn refuses_updates(&self) {
        let block = vec![0; self.block_bytes];
        assert!(matches!(self.store.write(0, &block), Err(Error::ReadOnly)));
        assert!(matches!(self.store.compare_and_write(0, &block, &block), Err(Error::ReadOnly)));
        assert!(matches!(self.store.sync(), Err(Error::ReadOnly)));
        assert!(matches!(self.store.writer(), Err(Error::ReadOnly)));
        assert!(matches!(self.store.word(0), Err(Error::ReadOnly)));
        assert!(matches!(self.store.record_event(&Event::new(EventKind::Repaired)), Err(Error::ReadOnly)));
    }

    /// After a step: every block holds what it may.
    fn look(&mut self) {
        let found = look(&self.store);
        for ((block, found), known) in (0..).zip(&found).zip(&self.known) {
            let may_be = match (self.rigour, found) {
                (Rigour::Unclean, Held::Bytes(bytes)) => self.ever.contains(bytes),
                (Rigour::Unclean, _) => true,
                _ => found == known,
            };
            assert!(may_be, "{:?}: block {block} holds {}, not {}", self.rigour, named(found), named(known));
        }
        self.known = found;
    }

    fn any_lba(&self, dice: &mut Dice<'_>) -> u64 {
        dice.below(self.known.len() as u64)
    }

    /// A new version of a block.
    fn new_version(&mut self, lba: u64) -> Vec<u8> {
        self.version += 1;
        let new = contents(lba, self.version, self.block_bytes);
        self.ever.insert(new.clone());
        new
    }

    /// What the block reads as.
    fn current(&self, lba: u64) -> Option<Vec<u8>> {
        match &self.known[lba as usize] {
            Held::Nothing => Some(vec![0; self.block_bytes]),
            Held::Bytes(bytes) => Some(bytes.clone()),
            Held::Corrupt => None,
        }
    }

    fn step(&mut self, victim: &Victim, dice: &mut Dice<'_>) {
        let lba = self.any_lba(dice);
        match dice.below(16) {
            0..3 => self.write(lba, dice),
            3 => self.write_many(lba, dice),
            4..8 => self.compare_and_write(lba, dice),
            8 => self.compare_and_write_or_load(lba, dice),
            9 | 10 => self.claim(),
            11 if !self.writers.is_empty() => drop(self.writers.remove(dice.below(self.writers.len() as u64) as usize)),
            12 => self.word(dice),
            13 => self.sync(victim),
            14 => self.open_another(),
            _ => {
                self.check();
                record_an_event(&self.store);
                look_at_events(&self.store);
            }
        }
    }

    /// Has the store repaired, if that may be.
    fn repair(&mut self, victim: &Victim, is_alone: bool) {
        if is_alone {
            self.known = repair(&self.store, victim, &self.known);
            let check = self.store.check();
            self.rigour = match self.rigour {
                Rigour::Sound => Rigour::Sound,
                _ if self.store.durable().is_err() && check.is_clean() => Rigour::Sound,
                _ if has_one_owner_each(&check) => Rigour::Exact,
                _ => Rigour::Unclean,
            };
        } else {
            assert!(matches!(self.store.repair(|_| {}), Err(Error::NotExclusive)));
        }
    }

    /// A sync that succeeds has taken place.
    fn sync(&self, victim: &Victim) {
        if self.store.durable().is_err() {
            self.judge(self.store.sync());
            return;
        }
        let before = victim.state(STARTED);
        if self.judge(self.store.sync()).is_some() {
            let (started, completed) = (victim.state(STARTED), victim.state(COMPLETED));
            assert_eq!(started, before.wrapping_add(1), "it says that it synced, and did not");
            assert!(self.rigour != Rigour::Sound || completed == started);
        }
    }

    /// Whether an operation succeeded; that it did not is only right where it must be expected.
    fn judge<T>(&self, result: Result<T, Error>) -> Option<T> {
        let error = match result {
            Ok(it) => return Some(it),
            Err(error) => error,
        };
        let expected = match &error {
            Error::Corrupt { .. } => self.rigour != Rigour::Sound,
            // On a sound store a sync frees what is in limbo; damage may keep it there.
            Error::NoSpace { .. } => self.rigour != Rigour::Sound || !self.roomy,
            Error::TooManyWriters { writers } => {
                self.rigour != Rigour::Sound || self.writers.len() == usize::from(*writers)
            }
            Error::NotPower => self.store.durable().is_err(),
            _ => false,
        };
        assert!(expected, "{:?}, {} writers: {error:?}", self.rigour, self.writers.len());
        None
    }

    /// Writes by one way or another.
    fn write(&mut self, lba: u64, dice: &mut Dice<'_>) {
        let new = self.new_version(lba);
        let written = match (self.writers.last_mut(), dice.below(4)) {
            (Some(writer), 0 | 1) => writer.write(lba, &new),
            (Some(writer), 2) => writer.durable().and_then(|mut durable| durable.write(lba, &new)),
            (None, 2) => self.store.durable().and_then(|durable| durable.write(lba, &new)),
            _ => self.store.write(lba, &new),
        };
        self.took_effect(lba, written, new);
    }

    /// Notes an update, if it succeeded. One that may have taken effect without that is found by looking.
    fn took_effect(&mut self, lba: u64, result: Result<(), Error>, new: Vec<u8>) {
        let durable_and_corrupt = self.store.durable().is_ok() && matches!(result, Err(Error::Corrupt { .. }));
        let succeeded = self.judge(result).is_some();
        let found = look(&self.store).swap_remove(lba as usize);
        let new = Held::Bytes(new);
        if succeeded || durable_and_corrupt && found == new {
            assert!(found == new, "block {lba} holds {}, not {}", named(&found), named(&new));
            self.known[lba as usize] = new;
        } else {
            assert!(
                found == self.known[lba as usize],
                "an update failed, and changed block {lba} to {}",
                named(&found)
            );
        }
    }

    fn write_many(&mut self, lba: u64, dice: &mut Dice<'_>) {
        let count = 1 + dice.below(self.known.len() as u64 - lba);
        let news: Vec<Vec<u8>> = (lba..lba + count).map(|lba| self.new_version(lba)).collect();
        let written = self.store.write(lba, &news.concat());
        let succeeded = self.judge(written).is_some();
        if self.rigour == Rigour::Sound || self.rigour == Rigour::Exact && succeeded {
            // Unless it was written, nothing was: all of it is there, or there was no writer.
            if succeeded {
                (lba..).zip(news).for_each(|(lba, new)| self.known[lba as usize] = Held::Bytes(new));
            } else if !self.roomy {
                self.known = look(&self.store);
            }
        } else {
            let found = look(&self.store);
            let last = (lba + count - 1) as usize;
            assert!(!succeeded || Some(&found[last]) == news.last().cloned().map(Held::Bytes).as_ref());
            self.known = found;
        }
    }

    fn compare_and_write(&mut self, lba: u64, dice: &mut Dice<'_>) {
        let current = self.current(lba);
        let new = self.new_version(lba);
        let expected = match &current {
            Some(current) if dice.below(3) > 0 => current.clone(),
            _ => contents(lba, 1 + dice.below(8), self.block_bytes),
        };
        let result = match (self.writers.last_mut(), dice.below(4)) {
            (Some(writer), 0 | 1) => writer.compare_and_write(lba, &expected, &new),
            (Some(writer), 2) => {
                writer.durable().and_then(|mut durable| durable.compare_and_write(lba, &expected, &new))
            }
            (None, 2) => self.store.durable().and_then(|durable| durable.compare_and_write(lba, &expected, &new)),
            _ => self.store.compare_and_write(lba, &expected, &new),
        };
        match result {
            Err(Error::Miscompare(miscompare)) => {
                let current = current.expect("a corrupt block was compared");
                let offset = current.iter().zip(&expected).position(|(a, b)| a != b);
                let offset = offset.expect("a miscompare of what is equal");
                assert_eq!(*miscompare, Miscompare { lba, offset, found: current.into() });
            }
            result => {
                assert!(result.is_err() || current.as_ref() == Some(&expected), "written, but it held something else");
                self.took_effect(lba, result, new);
            }
        }
    }

    fn compare_and_write_or_load(&mut self, lba: u64, dice: &mut Dice<'_>) {
        let (current, new) = (self.current(lba), self.new_version(lba));
        let Some(writer) = self.writers.last_mut() else { return };
        let mut expected = contents(lba, 1 + dice.below(8), self.block_bytes);
        let as_expected = current.as_ref() == Some(&expected);
        match writer.compare_and_write_or_load(lba, &mut expected, &new) {
            Ok(Comparison::Miscompare { .. }) => assert!(!as_expected && Some(expected) == current),
            result => {
                assert!(result.is_err() || as_expected);
                self.took_effect(lba, result.map(|_| ()), new);
            }
        }
    }

    fn claim(&mut self) {
        let claimed = self.store.writer();
        if self.rigour == Rigour::Sound && self.roomy {
            let all = usize::from(self.store.geometry().writer_count());
            assert_eq!(claimed.is_ok(), self.writers.len() < all, "{:?}", claimed.err());
        }
        let writer = self.judge(claimed);
        self.writers.extend(writer);
    }

    fn word(&mut self, dice: &mut Dice<'_>) {
        let index = dice.below(self.words.len() as u64);
        let (expected, new) = (self.words[index as usize], dice.number(8));
        let word = self.store.word(index).unwrap();
        assert_eq!(word.compare_exchange(!expected, new), Err(expected));
        assert_eq!(word.compare_exchange(expected, new), Ok(()));
        self.words[index as usize] = new;
        assert_eq!(read_words(&self.store), self.words);
    }

    /// Opens the store a second time, beside the first.
    fn open_another(&self) {
        match Store::open(self.store.path().unwrap()) {
            Ok(other) => {
                assert_eq!(other.recovery(), None, "it is in use");
                assert_eq!(look(&other), self.known);
            }
            Err(OpenError::Locked { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a block holds, for a person to read.
fn named(held: &Held) -> String {
    match held {
        Held::Nothing => "nothing".into(),
        Held::Corrupt => "what is corrupt".into(),
        Held::Bytes(bytes) => match identify(bytes) {
            Some((block, version)) => format!("version {version} of block {block}"),
            None => format!("{:02x?}…", &bytes[..16]),
        },
    }
}
