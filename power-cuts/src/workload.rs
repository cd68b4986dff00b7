//! What the processes of a run do with the store.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use casblock::{Comparison, Error, Geometry, OpenError, OpenOptions, Store, Writer};
use fastrand::Rng;

use crate::contents;
use crate::log::{Covers, Promise};
use crate::world::Seat;

/// How likely each operation is, and what may happen.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Operations of each thread.
    pub operations: u32,
    /// How likely each [`Operation`] is, in their order.
    pub weights: [u32; Operation::ALL.len()],
    /// Most updates go to blocks below this.
    pub favourites: u64,
    /// Different contents that are written; 0 for new ones each time.
    pub alphabet: u64,
    /// Whether the library may say that there is no space.
    pub tight: bool,
    /// Whether flushes may fail.
    pub failures: bool,
}

/// What a thread may do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read a block.
    Read,
    /// Write one.
    Write,
    /// Write several.
    WriteMany,
    /// Compare with what it holds, and write.
    CompareAndWrite,
    /// Compare with what it does not hold.
    Miscompare,
    /// Exchange a word.
    Word,
    /// Sync.
    Sync,
    /// Write, and return when it is on the disk.
    DurableWrite,
    /// Compare, write, and return when it is on the disk.
    DurableCompareAndWrite,
    /// Claim a writer, or drop it.
    Writer,
    /// Close the store and open it again.
    Reopen,
    /// Close it, and open it alone to recover it.
    Recover,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Write,
        Self::WriteMany,
        Self::CompareAndWrite,
        Self::Miscompare,
        Self::Word,
        Self::Sync,
        Self::DurableWrite,
        Self::DurableCompareAndWrite,
        Self::Writer,
        Self::Reopen,
        Self::Recover,
    ];
}

/// What the processes share.
pub struct Workload {
    path: PathBuf,
    /// Where the store is not there yet, what it is to be.
    create: Option<Geometry>,
    habits: Habits,
    /// Tells this run's contents from those of others.
    salt: u64,
    processes: Mutex<Vec<Process>>,
    /// How often a process began to open or close the store.
    transitions: Mutex<u64>,
}

/// A process, as its threads and the others see it.
#[derive(Clone, Default)]
struct Process {
    /// For its other threads to clone.
    store: Option<Store>,
    /// Handles of its threads.
    handles: usize,
    /// Whether it has the store open, or is opening or closing it.
    open: bool,
    /// Whether its first thread has ended.
    ended: bool,
}

/// A thread at work.
struct Actor<'a> {
    seat: &'a Seat,
    workload: &'a Workload,
    /// Whether it is the first thread of its process, which opens the store.
    first: bool,
    rng: Rng,
    store: Option<Store>,
    writer: Option<Writer>,
    written: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workload {
    /// A workload on the store at `path`, which is made first if `create` says so, by `processes` processes.
    pub fn new(path: &Path, create: Option<Geometry>, habits: Habits, salt: u64, processes: usize) -> Self {
        let processes = Mutex::new(vec![Process::default(); processes]);
        Self { path: path.into(), create, habits, salt, processes, transitions: Mutex::new(0) }
    }

    /// What a thread does.
    pub fn act(&self, seat: &Seat, first: bool) {
        let rng = Rng::with_seed(contents::mixed(self.salt ^ (seat.thread as u64) << 32));
        let mut actor = Actor { seat, workload: self, first, rng, store: None, writer: None, written: 0 };
        actor.live();
        actor.close();
        if first {
            lock(&self.processes)[seat.process].ended = true;
        }
    }

    fn begin_transition(&self) -> u64 {
        let mut transitions = lock(&self.transitions);
        *transitions += 1;
        *transitions
    }
}

impl Actor<'_> {
    fn live(&mut self) {
        if self.seat.thread == 0
            && let Some(geometry) = self.workload.create
        {
            self.create(geometry);
        } else if self.workload.create.is_some() {
            while !self.workload.path.exists() {
                if self.seat.is_over() {
                    return;
                }
                casblock::Watch::wait(self.seat);
            }
        }
        for _ in 0..self.workload.habits.operations {
            if self.seat.is_over() || !self.have_store() {
                return;
            }
            self.operate();
        }
    }

    fn trouble(&self, what: impl std::fmt::Display) {
        let thread = self.seat.thread;
        self.seat.note(|log| log.troubles.push(format!("step {}: thread {thread}: {what}", log.time)));
    }

    fn create(&mut self, geometry: Geometry) {
        use std::os::unix::fs::MetadataExt;
        self.process(|process| process.open = true);
        let made = self.seat.sheltered(|| {
            let make = || {
                let made = Store::create(&self.workload.path, geometry);
                if let Ok(metadata) = std::fs::metadata(&self.workload.path) {
                    self.seat.made(metadata.ino());
                }
                made
            };
            self.seat.opens(make)
        });
        match made {
            Ok(store) => self.entered(store),
            Err(error) => self.trouble(format_args!("creating: {error}")),
        }
    }

    fn process<T>(&self, f: impl FnOnce(&mut Process) -> T) -> T {
        f(&mut lock(&self.workload.processes)[self.seat.process])
    }

    fn entered(&mut self, store: Store) {
        self.process(|process| {
            process.handles = 1;
            process.store = Some(store.clone());
        });
        self.store = Some(store);
        self.seat.note(|log| {
            log.entered.get_or_insert(log.time);
        });
    }

    /// Sees that there is a store; `false` if there will be none.
    fn have_store(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        if self.first {
            // Another thread may have got a handle before this one dropped its own.
            while self.process(|process| process.handles) > 0 && !self.seat.is_over() {
                casblock::Watch::wait(self.seat);
            }
            return self.open();
        }
        while !self.seat.is_over() {
            let found = self.process(|process| {
                let store = process.store.clone();
                process.handles += usize::from(store.is_some());
                (store, process.ended)
            });
            match found {
                (Some(store), _) => {
                    self.store = Some(store);
                    return true;
                }
                (None, true) => return false,
                (None, false) => casblock::Watch::wait(self.seat),
            }
        }
        false
    }

    fn open(&mut self) -> bool {
        for _ in 0..4 {
            self.process(|process| process.open = true);
            self.workload.begin_transition();
            match self.seat.opens(|| Store::open(&self.workload.path)) {
                Ok(store) => {
                    self.entered(store);
                    return true;
                }
                Err(OpenError::Locked { .. }) => {}
                Err(OpenError::Io { .. }) if self.workload.habits.failures => {}
                Err(error) => self.trouble(format_args!("opening: {error}")),
            }
            self.process(|process| process.open = false);
            self.seat.note(|log| log.operations[1] += 1);
            casblock::Watch::wait(self.seat);
        }
        false
    }

    /// Drops this thread's handle; the last of the last process closes the store.
    fn close(&mut self) {
        self.writer = None;
        let Some(store) = self.store.take() else { return };
        let (last, kept) = self.process(|process| {
            process.handles -= 1;
            let last = process.handles == 0;
            (last, if last || self.first { process.store.take() } else { None })
        });
        drop(kept);
        if !last {
            return drop(store);
        }
        let alone = self.alone();
        let transition = self.workload.begin_transition();
        let begin = self.seat.now();
        self.seat.closes(|| drop(store));
        self.process(|process| process.open = false);
        if alone && *lock(&self.workload.transitions) == transition && !self.workload.habits.failures {
            self.promise(Covers::All(begin));
        }
    }

    /// Whether no other process has the store open.
    fn alone(&self) -> bool {
        let processes = lock(&self.workload.processes);
        let open = processes.iter().enumerate().filter(|(_, process)| process.open).map(|(number, _)| number);
        open.into_iter().all(|other| other == self.seat.process || self.seat.was_killed(other))
    }

    fn promise(&self, covers: Covers) {
        let thread = self.seat.thread;
        self.seat.note(|log| log.promises.push(Promise { since: log.time, covers, thread }));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("there is one")
    }

    fn operate(&mut self) {
        let weights = &self.workload.habits.weights;
        let mut at = self.rng.u32(0..weights.iter().sum());
        let chosen = weights.iter().position(|weight| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let operation = Operation::ALL[chosen.expect("below the sum")];
        let begin = self.seat.now();
        match self.do_it(operation, begin) {
            Ok(()) => self.seat.note(|log| log.operations[0] += 1),
            Err(error) => {
                let habits = &self.workload.habits;
                let expected = match error {
                    Error::NoSpace { .. } | Error::TooManyWriters { .. } => habits.tight,
                    Error::Sync { .. } | Error::NotSynced { .. } => habits.failures,
                    _ => false,
                };
                if !expected {
                    self.trouble(format_args!("{operation:?}: {error}"));
                }
                self.seat.note(|log| log.operations[1] += 1);
            }
        }
    }

    fn do_it(&mut self, operation: Operation, begin: u64) -> Result<(), Error> {
        let lba = self.lba();
        match operation {
            Operation::Read => self.read(lba).map(drop),
            Operation::Write => self.write(lba, false),
            Operation::DurableWrite => self.write(lba, true),
            Operation::WriteMany => self.write_many(lba),
            Operation::CompareAndWrite => self.compare_and_write(lba, false),
            Operation::DurableCompareAndWrite => self.compare_and_write(lba, true),
            Operation::Miscompare => self.miscompare(lba),
            Operation::Word => self.word(),
            Operation::Sync => self.store().sync().map(|()| self.promise(Covers::All(begin))),
            Operation::Writer if self.writer.is_some() => {
                self.writer = None;
                Ok(())
            }
            Operation::Writer => {
                self.writer = Some(self.store().writer()?);
                Ok(())
            }
            Operation::Reopen | Operation::Recover => {
                if self.first && self.process(|process| process.handles) == 1 {
                    self.close();
                    if operation == Operation::Recover {
                        self.recover();
                    }
                    // For a while, so that at times nobody has it open.
                    for _ in 0..self.rng.u32(0..16) {
                        casblock::Watch::wait(self.seat);
                    }
                }
                Ok(())
            }
        }
    }

    /// Recovers the store, if nobody has it open.
    fn recover(&mut self) {
        if self.process(|process| process.handles) > 0 {
            return;
        }
        self.process(|process| process.open = true);
        self.workload.begin_transition();
        let begin = self.seat.now();
        match self.seat.opens(|| OpenOptions::new().recover().open(&self.workload.path)) {
            Ok(store) => {
                self.seat.note(|log| log.recoveries.push((begin, log.time)));
                self.entered(store);
                self.close();
            }
            Err(OpenError::Locked { .. } | OpenError::InUse { .. }) => self.process(|process| process.open = false),
            Err(OpenError::Io { .. }) if self.workload.habits.failures => self.process(|process| process.open = false),
            Err(error) => self.trouble(format_args!("recovering: {error}")),
        }
    }

    fn lba(&mut self) -> u64 {
        let blocks = self.store().geometry().block_count();
        match self.rng.u32(0..4) {
            0 => self.rng.u64(0..blocks),
            _ => self.rng.u64(0..self.workload.habits.favourites.min(blocks)),
        }
    }

    fn bytes(&self) -> usize {
        self.store().geometry().size_of_block().bytes()
    }

    /// Contents to write.
    fn new_contents(&mut self) -> Vec<u8> {
        let id = match self.workload.habits.alphabet {
            0 => {
                self.written += 1;
                contents::mixed(self.workload.salt ^ (self.seat.thread as u64) << 32 ^ self.written << 40)
            }
            letters => self.rng.u64(1..=letters),
        };
        contents::block(id, self.bytes())
    }

    fn read(&self, lba: u64) -> Result<Vec<u8>, Error> {
        let mut found = vec![0; self.bytes()];
        self.store().read(lba, &mut found)?;
        if contents::id_of(&found).is_none() {
            self.trouble(format_args!("block {lba} was read torn"));
        }
        Ok(found)
    }

    fn write(&mut self, lba: u64, durable: bool) -> Result<(), Error> {
        let new = self.new_contents();
        match (&mut self.writer, durable) {
            (Some(writer), false) => writer.write(lba, &new)?,
            (Some(writer), true) => writer.durable()?.write(lba, &new)?,
            (None, false) => self.store().write(lba, &new)?,
            (None, true) => self.store().durable()?.write(lba, &new)?,
        }
        if durable {
            self.promise(Covers::Block(lba, self.seat.now()));
        }
        Ok(())
    }

    fn write_many(&mut self, lba: u64) -> Result<(), Error> {
        let most = (self.store().geometry().block_count() - lba).min(4);
        let count = self.rng.u64(1..=most);
        let new: Vec<u8> = (0..count).flat_map(|_| self.new_contents()).collect();
        let durable = self.workload.may_be_durable() && self.rng.u32(0..4) == 0;
        if !durable {
            return self.store().write(lba, &new);
        }
        self.store().durable()?.write(lba, &new)?;
        (lba..lba + count).for_each(|lba| self.promise(Covers::Block(lba, self.seat.now())));
        Ok(())
    }

    fn compare_and_write(&mut self, lba: u64, durable: bool) -> Result<(), Error> {
        let mut expected = self.read(lba)?;
        let new = self.new_contents();
        let attempt = match (&mut self.writer, durable) {
            (Some(writer), true) => writer.durable()?.compare_and_write(lba, &expected, &new),
            (Some(writer), false) => match writer.compare_and_write_or_load(lba, &mut expected, &new)? {
                Comparison::Written => Ok(()),
                Comparison::Miscompare { .. } => return Ok(()),
            },
            (None, true) => self.store().durable()?.compare_and_write(lba, &expected, &new),
            (None, false) => self.store().compare_and_write(lba, &expected, &new),
        };
        match attempt {
            Ok(()) if durable => self.promise(Covers::Block(lba, self.seat.now())),
            Ok(()) | Err(Error::Miscompare(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn miscompare(&mut self, lba: u64) -> Result<(), Error> {
        let mut expected = self.read(lba)?;
        let at = self.rng.usize(0..expected.len());
        expected[at] ^= 1;
        let new = self.new_contents();
        match self.store().compare_and_write(lba, &expected, &new) {
            Err(Error::Miscompare(_)) => {}
            Err(error) => return Err(error),
            Ok(()) => self.trouble(format_args!("block {lba} was replaced though it held something else")),
        }
        Ok(())
    }

    fn word(&mut self) -> Result<(), Error> {
        let words = self.store().geometry().word_count();
        if words == 0 {
            return Ok(());
        }
        let index = self.rng.u64(0..words);
        let word = self.store().word(index)?;
        // If another was faster, so be it.
        let _ = word.compare_exchange(word.load(), contents::mixed(self.workload.salt ^ self.seat.now() << 8));
        Ok(())
    }
}

impl Workload {
    fn may_be_durable(&self) -> bool {
        self.habits.weights[Operation::DurableWrite as usize] > 0
    }
}
