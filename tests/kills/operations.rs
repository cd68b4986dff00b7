//! What victims do: each gets ready, marks, does one operation, marks again, and answers.

use std::hint::black_box;
use std::path::Path;

use casblock::{Durability, Error, Geometry, Store, Writer};

use crate::ptrace::mark;

/// The number in each block: in all of its 8-byte words. 0 is what a block holds that was never written.
pub type Image = [u8; 512];

pub fn image(number: u64) -> Image {
    let mut image = [0; 512];
    image.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
    image
}

/// The number of an image, which must be whole.
pub fn number(image: &[u8]) -> u64 {
    assert!(image.chunks_exact(8).all(|word| *word == image[..8]), "torn: {image:?}");
    u64::from_le_bytes(image[..8].try_into().unwrap())
}

/// The blocks of a store. All but the last are written before the victim starts.
pub const TARGET: u64 = 0;
pub const OTHER: u64 = 1;
pub const WARM: u64 = 2;
pub const UNWRITTEN: u64 = 3;
pub const BLOCKS: u64 = 4;

/// What the written blocks hold at first, and what the victim makes of its target.
pub const OLD: u64 = 1;
pub const NEW: u64 = 2;

/// The word that the victim exchanges from 0 to 1.
pub const WORD: u64 = 1;

/// What an operation changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Nothing,
    /// The block is [`NEW`] afterwards.
    Block(u64),
    /// [`WORD`] is 1 afterwards.
    Word,
}

/// What an operation's answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 0 in any case.
    Done,
    /// 0 if the block was replaced, else the number it found.
    Compared,
    /// 0 if the word was exchanged, else 1.
    Exchanged,
    /// The number it read.
    Read,
}

/// Something a victim does.
pub struct Operation {
    pub name: &'static str,
    pub durability: Durability,
    pub effect: Effect,
    pub answer: Answer,
    /// Fewer instructions than this cannot be all of it.
    pub instructions_least: usize,
    /// Whether it is the victim that opens the store first, or closes it last.
    pub alone: bool,
    /// Whether others may have to wait for it to go on or to die.
    pub holds_off_others: bool,
    /// Whether the store is so small that no frame is free.
    pub full: bool,
    /// Does it all; gives the answer.
    pub victim: fn(&Path) -> i32,
}

impl Operation {
    /// The block it works on.
    pub fn block(&self) -> u64 {
        match self.effect {
            Effect::Block(lba) => lba,
            Effect::Nothing | Effect::Word => TARGET,
        }
    }

    /// What that block holds before.
    pub fn before(&self) -> u64 {
        if self.block() == UNWRITTEN { 0 } else { OLD }
    }

    /// The store it works on, with no more frames than it takes if `narrow`.
    pub fn geometry(&self, writers: u16, narrow: bool) -> Geometry {
        let geometry = Geometry::blocks(BLOCKS).writers(writers).words(2).durability(self.durability);
        match self.durability {
            Durability::Process if narrow => geometry.frames(BLOCKS + u64::from(writers)),
            // The last block stays unwritten, and the only others to have a spare are the survivor and the victim.
            _ if self.full => geometry.frames(BLOCKS - 1 + 2),
            _ => geometry,
        }
    }
}

const fn operation(
    name: &'static str,
    effect: Effect,
    instructions_least: usize,
    victim: fn(&Path) -> i32,
) -> Operation {
    let durability = Durability::Process;
    Operation {
        name,
        durability,
        effect,
        answer: Answer::Done,
        instructions_least,
        alone: false,
        holds_off_others: false,
        full: false,
        victim,
    }
}

impl Operation {
    const fn power(mut self) -> Self {
        self.durability = Durability::Power;
        self
    }

    const fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    const fn full(mut self) -> Self {
        self.full = true;
        self
    }

    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    const fn holds_off_others(mut self) -> Self {
        self.holds_off_others = true;
        self
    }
}

use Effect::{Block, Nothing, Word};

const HIT: Effect = Block(TARGET);
const FIRST: Effect = Block(UNWRITTEN);

/// All operations, by the number that names them to the zygote.
pub const OPERATIONS: &[Operation] = &[
    operation("compare-and-write, a writer's first", HIT, 100, first_hit).answers(Answer::Compared),
    operation("compare-and-write after another block's", HIT, 100, hit).answers(Answer::Compared),
    operation("compare-and-write after the same block's", HIT, 100, hit_again).answers(Answer::Compared),
    operation("compare-and-write by the store, its first", HIT, 500, first_hit_by_store).answers(Answer::Compared),
    operation("compare-and-write, a miscompare", Nothing, 100, miscompare).answers(Answer::Compared),
    operation("compare-and-write of an unwritten block", FIRST, 200, compare_first).answers(Answer::Compared),
    operation("write", HIT, 100, write),
    operation("write of an unwritten block", FIRST, 150, write_first),
    operation("read", Nothing, 50, read).answers(Answer::Read),
    operation("exchange of a word", Word, 10, exchange_word).answers(Answer::Exchanged),
    operation("claiming a writer", Nothing, 300, claim),
    operation("dropping a writer", Nothing, 100, drop_writer),
    operation("opening the store", Nothing, 1000, open),
    operation("closing the store", Nothing, 200, close),
    operation("power: compare-and-write after another block's", HIT, 100, hit).power().answers(Answer::Compared),
    operation("power: compare-and-write after the same block's", HIT, 100, hit_again).power().answers(Answer::Compared),
    operation("power: compare-and-write, a miscompare", Nothing, 100, miscompare).power().answers(Answer::Compared),
    operation("power: write", HIT, 100, write).power(),
    operation("power: write of an unwritten block", FIRST, 150, write_first).power(),
    operation("power: write, the spare being in limbo", HIT, 150, write_from_limbo).power(),
    operation("power: write when all free frames are in limbo", HIT, 300, write_without_room).power().full(),
    operation("power: sync", Nothing, 100, sync).power(),
    operation("power: sync of an update", Nothing, 100, sync_update).power(),
    operation("power: durable compare-and-write", HIT, 200, durable_hit).power().answers(Answer::Compared),
    operation("power: claiming a writer", Nothing, 300, claim).power(),
    operation("power: dropping a writer", Nothing, 100, drop_writer).power(),
    operation("power: opening the store", Nothing, 1000, open).power().holds_off_others(),
    operation("power: closing the store", Nothing, 200, close).power().holds_off_others(),
    operation("power: opening the store, the first", Nothing, 1000, open).power().holds_off_others().alone(),
    operation("power: closing the store, the last", Nothing, 200, close).power().holds_off_others().alone(),
];

fn store(path: &Path) -> Store {
    Store::open(path).unwrap()
}

/// The operation itself, and nothing else, between two marks.
fn marked<T>(operate: impl FnOnce() -> T) -> T {
    mark();
    let result = black_box(operate());
    mark();
    result
}

fn answer(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Error::Miscompare(miscompare)) => number(&miscompare.found) as i32,
        Err(other) => panic!("{other}"),
    }
}

/// A writer that has updated a block before, and left it as it was.
fn warm_writer(store: &Store, lba: u64) -> Writer {
    let mut writer = store.writer().unwrap();
    writer.compare_and_write(lba, &image(OLD), &image(OLD)).unwrap();
    writer
}

fn first_hit(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, old, new) = (store.writer().unwrap(), image(OLD), image(NEW));
    answer(marked(|| writer.compare_and_write(TARGET, &old, &new)))
}

fn hit(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, old, new) = (warm_writer(&store, WARM), image(OLD), image(NEW));
    answer(marked(|| writer.compare_and_write(TARGET, &old, &new)))
}

fn hit_again(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, old, new) = (warm_writer(&store, TARGET), image(OLD), image(NEW));
    answer(marked(|| writer.compare_and_write(TARGET, &old, &new)))
}

fn first_hit_by_store(path: &Path) -> i32 {
    let (store, old, new) = (store(path), image(OLD), image(NEW));
    answer(marked(|| store.compare_and_write(TARGET, &old, &new)))
}

fn miscompare(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, other, new) = (warm_writer(&store, WARM), image(99), image(NEW));
    answer(marked(|| writer.compare_and_write(TARGET, &other, &new)))
}

fn compare_first(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, old, new) = (warm_writer(&store, WARM), image(0), image(NEW));
    answer(marked(|| writer.compare_and_write(UNWRITTEN, &old, &new)))
}

fn write(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, new) = (warm_writer(&store, WARM), image(NEW));
    answer(marked(|| writer.write(TARGET, &new)))
}

fn write_first(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, new) = (warm_writer(&store, WARM), image(NEW));
    answer(marked(|| writer.write(UNWRITTEN, &new)))
}

fn read(path: &Path) -> i32 {
    let (store, mut out) = (store(path), image(99));
    marked(|| store.read(TARGET, &mut out)).unwrap();
    number(&out) as i32
}

fn exchange_word(path: &Path) -> i32 {
    let store = store(path);
    let word = store.word(WORD).unwrap();
    i32::from(marked(|| word.compare_exchange(0, 1)).is_err())
}

fn claim(path: &Path) -> i32 {
    let store = store(path);
    drop(warm_writer(&store, WARM));
    let writer = marked(|| store.writer());
    i32::from(writer.is_err())
}

fn drop_writer(path: &Path) -> i32 {
    let store = store(path);
    // Its last update is of a block that others will update.
    let writer = warm_writer(&store, TARGET);
    marked(|| drop(writer));
    0
}

fn open(path: &Path) -> i32 {
    let store = marked(|| Store::open(path));
    i32::from(store.is_err())
}

/// Closing it while the store itself has a writer.
fn close(path: &Path) -> i32 {
    let store = store(path);
    store.write(WARM, &image(OLD)).unwrap();
    marked(|| drop(store));
    0
}

/// A write when the writer's spare is a frame that the last sync may need, and so goes into limbo.
fn write_from_limbo(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, new) = (warm_writer(&store, WARM), image(NEW));
    store.sync().unwrap();
    writer.write(WARM, &image(OLD)).unwrap();
    answer(marked(|| writer.write(TARGET, &new)))
}

/// A write that has to sync first, as all frames but those of the blocks are in limbo.
fn write_without_room(path: &Path) -> i32 {
    write_from_limbo(path)
}

fn sync(path: &Path) -> i32 {
    let store = store(path);
    store.sync().unwrap();
    answer(marked(|| store.sync()))
}

/// A sync that finds an update of its own.
fn sync_update(path: &Path) -> i32 {
    let store = store(path);
    let _writer = warm_writer(&store, WARM);
    answer(marked(|| store.sync()))
}

fn durable_hit(path: &Path) -> i32 {
    let store = store(path);
    let (mut writer, old, new) = (warm_writer(&store, WARM), image(OLD), image(NEW));
    let mut durable = writer.durable().unwrap();
    answer(marked(|| durable.compare_and_write(TARGET, &old, &new)))
}
