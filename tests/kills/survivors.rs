//! What those do who have the store open beside a victim: at once, whatever became of it.

use std::path::Path;

use casblock::{CreateOptions, Durability, Error, Geometry, Store, Writer};

use crate::operations::{BLOCKS, Effect, NEW, OLD, OTHER, Operation, UNWRITTEN, WORD, image, number};

/// What happens between a death and the adoption of the dead writer's slot. Each leaves other traces of what the dead
/// one did, by which its heir must tell what it owned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meanwhile {
    /// So many updates of the target.
    Updates(u64),
    /// An update of the target, and then one of another block.
    UpdateOfBoth,
    /// An update of the target by somebody who then lets go of its writer.
    UpdateAndLeave,
    /// A sync, and then an update of the target.
    Sync,
    /// The adoption comes first, then a sync, then an update of the target.
    AdoptAndSync,
}

impl Meanwhile {
    const ALL: [Self; 8] = [
        Self::Updates(0),
        Self::Updates(1),
        Self::Updates(2),
        Self::Updates(3),
        Self::UpdateOfBoth,
        Self::UpdateAndLeave,
        Self::Sync,
        Self::AdoptAndSync,
    ];

    /// What happens after victims at this place: each in its turn; all there is if `all` asks for it.
    pub fn at(place: usize, all: bool) -> &'static [Self] {
        if all { &Self::ALL } else { std::slice::from_ref(&Self::ALL[place % Self::ALL.len()]) }
    }
}

/// What a store must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    pub blocks: [u64; BLOCKS as usize],
    pub word: u64,
}

impl Contents {
    pub fn of(store: &Store) -> Self {
        let blocks = std::array::from_fn(|lba| read(store, lba as u64));
        Self { blocks, word: store.read_word(WORD).unwrap() }
    }
}

fn read(store: &Store, lba: u64) -> u64 {
    let mut block = image(99);
    store.read(lba, &mut block).unwrap();
    number(&block)
}

/// Somebody who has the store open, with a writer, and knows what the store holds.
pub struct Survivor {
    store: Store,
    writer: Option<Writer>,
    contents: Contents,
    /// The number of the last image it made.
    last: u64,
}

impl Survivor {
    /// Makes a store in place of the one before, and fills it.
    pub fn create(path: &Path, geometry: Geometry) -> Self {
        let store = CreateOptions::new(geometry).replace(true).create(path).unwrap();
        let mut writer = store.writer().unwrap();
        for lba in 0..UNWRITTEN {
            writer.write(lba, &image(OLD)).unwrap();
        }
        let contents = Contents::of(&store);
        Self { store, writer: Some(writer), contents, last: 9 }
    }

    /// One who opens the store that another has left.
    pub fn open(path: &Path, contents: Contents) -> Self {
        let store = Store::open(path).unwrap();
        let writer = store.writer().unwrap();
        Self { store, writer: Some(writer), contents, last: 9 }
    }

    /// Closes the store; gives what it holds.
    pub fn leave(self) -> Contents {
        self.contents
    }

    /// What the operation's block holds.
    pub fn target(&self, operation: &Operation) -> u64 {
        self.contents.blocks[operation.block() as usize]
    }

    /// Expects the operation's block to have been written by the victim by now.
    pub fn expect_effect(&mut self, operation: &Operation) {
        if let Effect::Block(lba) = operation.effect {
            self.contents.blocks[lba as usize] = NEW;
        }
    }

    /// Looks what became of the victim's operation: whether it took effect. All of the store must be as it was before
    /// it, or as after it.
    pub fn look(&mut self, operation: &Operation) -> bool {
        let before = self.contents.clone();
        let mut after = before.clone();
        match operation.effect {
            Effect::Nothing => {}
            Effect::Block(lba) => after.blocks[lba as usize] = NEW,
            Effect::Word => after.word = 1,
        }
        let found = Contents::of(&self.store);
        assert!(found == before || found == after, "neither {before:?} nor {after:?}: {found:?}");
        let took_effect = found != before;
        self.contents = found;
        took_effect
    }

    fn update_by(&mut self, writer: &mut Writer, lba: u64) {
        self.last += 1;
        let block = &mut self.contents.blocks[lba as usize];
        writer.compare_and_write(lba, &image(*block), &image(self.last)).unwrap();
        *block = self.last;
    }

    /// Updates a block by compare-and-write.
    fn update(&mut self, lba: u64) {
        let mut writer = self.writer.take().unwrap();
        self.update_by(&mut writer, lba);
        self.writer = Some(writer);
    }

    /// Goes on as if nothing had been, at once.
    pub fn go_on(&mut self, operation: &Operation, meanwhile: Meanwhile) {
        let lba = operation.block();
        match meanwhile {
            Meanwhile::Updates(updates) => (0..updates).for_each(|_| self.update(lba)),
            Meanwhile::UpdateOfBoth => [lba, OTHER].into_iter().for_each(|lba| self.update(lba)),
            Meanwhile::UpdateAndLeave => {
                self.update(lba);
                self.writer = None;
                self.writer = Some(self.store.writer().unwrap());
            }
            Meanwhile::Sync => {
                self.sync();
                self.update(lba);
            }
            Meanwhile::AdoptAndSync => {
                drop(self.claim_all(operation));
                self.sync();
                self.update(lba);
            }
        }
        let word = self.contents.word + 10;
        self.store.word(WORD).unwrap().compare_exchange(self.contents.word, word).unwrap();
        self.contents.word = word;
    }

    /// Claims all writer slots that nobody has, and updates blocks by them; gives their number.
    pub fn use_all_slots(&mut self, operation: &Operation) -> usize {
        let mut claimed = self.claim_all(operation);
        for lba in [operation.block(), OTHER, operation.block()] {
            claimed.iter_mut().for_each(|writer| self.update_by(writer, lba));
            self.update(lba);
        }
        self.assert_holds_contents(&self.store);
        claimed.len()
    }

    fn claim_all(&self, operation: &Operation) -> Vec<Writer> {
        let claim = || match self.store.writer() {
            Ok(writer) => Some(writer),
            Err(Error::TooManyWriters { .. }) => None,
            Err(Error::NoSpace { .. }) if operation.full => None,
            Err(other) => panic!("{other}"),
        };
        std::iter::from_fn(claim).collect()
    }

    fn assert_holds_contents(&self, store: &Store) {
        assert_eq!(Contents::of(store), self.contents);
        assert!(store.check().is_clean(), "{:?}", store.check());
    }

    /// With durability `power`: recovers a copy of the store as it is, which is what a cut of the power would leave now
    /// if all had been written back. It must hold what the store does, except that an update which no sync covers may
    /// be undone: the victim's.
    pub fn cut(&self, operation: &Operation) {
        if operation.durability == Durability::Process {
            return;
        }
        let recovered = self.recovered_copy();
        let mut contents = Contents::of(&recovered);
        let block = &mut contents.blocks[operation.block() as usize];
        if *block == operation.before() {
            *block = self.contents.blocks[operation.block() as usize];
        }
        assert_eq!(contents, self.contents, "recovered");
        assert!(recovered.check().is_clean(), "{:?}", recovered.check());
    }

    /// Syncs. With durability `power` a copy must then hold all that the store does.
    pub fn sync(&self) {
        self.store.sync().unwrap();
        if self.store.geometry().durability_class() == Durability::Process {
            return;
        }
        self.assert_holds_contents(&self.recovered_copy());
    }

    fn recovered_copy(&self) -> Store {
        let path = self.store.path().unwrap();
        let copy = path.with_extension("copy");
        std::fs::copy(path, &copy).unwrap();
        let store = Store::open(&copy).unwrap();
        assert!(store.recovery().is_some(), "a copy of a store in use is recovered");
        store
    }

    /// Closes the store. Then nobody has it open any more, and each frame must have its place.
    pub fn close(mut self, operation: &Operation) {
        self.writer = None;
        let writers = self.claim_all(operation);
        assert!(operation.full || writers.len() == usize::from(self.store.geometry().writer_count()), "all are free");
        drop(writers);
        let Self { store, contents, .. } = self;
        let path = store.path().unwrap().to_owned();
        drop(store);
        let store = Store::open_exclusive(path).unwrap();
        assert_eq!(Contents::of(&store), contents);
        let check = store.check();
        assert!(check.is_clean() && check.frames_in_use == check.blocks_written, "{check:?}");
    }
}
