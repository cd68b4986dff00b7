//! A child: threads that increment counters until they are told to stop, or killed.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use casblock::{Comparison, Durability, Error, Store, Writer};

use super::dice::Dice;
use super::image;
use super::ledger::{AT_WORK, ENDED, Header, Ledger, Note, Row};
use super::plant::Plant;
use crate::signals::Interruptible;

/// How often a planted fault happens: in one increment of so many.
const PLANT_ONE_IN: u64 = 50;

/// What a child is: which one, and which successor of it.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its rows in the ledger.
    pub process: usize,
    /// How many had the rows before it.
    pub generation: u64,
}

/// Does a child's work on the store at `path`; the ledger is standard input.
pub fn run(path: &Path, identity: Identity) -> anyhow::Result<()> {
    let ledger = std::io::stdin();
    let ledger = std::os::fd::AsFd::as_fd(&ledger).try_clone_to_owned().context("standard input")?;
    let ledger = Ledger::open(&ledger.into()).context("mapping the ledger")?;
    if identity.process >= ledger.shape().processes {
        bail!("the ledger has no row for child {}", identity.process);
    }
    // Ctrl-C, which the terminal sends children too, is the parent's business: it tells them to end.
    let _signals = Interruptible::new().context("catching signals")?;
    die_with_parent(&ledger)?;
    let store = Store::open(path)?;
    thread::scope(|scope| {
        let work = |index| {
            let mut worker = Worker::new(&store, &ledger, identity, index);
            move || worker.work()
        };
        let threads: Vec<_> = (0..ledger.shape().threads).map(|index| scope.spawn(work(index))).collect();
        let results = threads.into_iter().map(|thread| thread.join().expect("a thread of the torture panicked"));
        results.fold(Ok(()), anyhow::Result::and)
    })
}

/// Sees that this process goes when the parent goes, however it does.
fn die_with_parent(ledger: &Ledger) -> anyhow::Result<()> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).context("asking to die with the parent")?;
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    if u64::try_from(parent) != Ok(ledger.get(Header::Parent)) {
        bail!("the torture this child belongs to has ended");
    }
    Ok(())
}

/// One thread.
struct Worker<'a> {
    store: &'a Store,
    ledger: &'a Ledger,
    row: Row<'a>,
    dice: Dice,
    plant: Option<Plant>,
    /// Of 256 increments, so many go through the store's own writers, the others through this thread's.
    by_store: u64,
    writer: Option<Writer>,
    current: Vec<u8>,
    wanted: Vec<u8>,
}

/// What came of asking the store for something.
enum Answer<T> {
    Is(T),
    /// No slot or no frame was free.
    Refused(Error),
}

impl<T> Answer<T> {
    fn of(result: Result<T, Error>) -> Result<Self, Error> {
        match result {
            Ok(it) => Ok(Self::Is(it)),
            Err(error @ (Error::TooManyWriters { .. } | Error::NoSpace { .. })) => Ok(Self::Refused(error)),
            Err(error) => Err(error),
        }
    }
}

impl<'a> Worker<'a> {
    fn new(store: &'a Store, ledger: &'a Ledger, Identity { process, generation }: Identity, thread: usize) -> Self {
        let seed = ledger.get(Header::Seed);
        let bytes = store.geometry().size_of_block().bytes();
        let stuck = (process, thread, generation) == (0, 0, 0);
        // A store with a slot for each thread and no more has none for both ways at once: each child goes one way.
        let by_store = match ledger.get(Header::Roomy) {
            1 => 32,
            _ => 256 * Dice::new(seed, [process as u64, u64::MAX, generation]).roll(2),
        };
        Self {
            store,
            ledger,
            row: ledger.row(process, thread),
            dice: Dice::new(seed, [process as u64, thread as u64, generation]),
            plant: Plant::from_number(ledger.get(Header::Plant)).filter(|&plant| plant != Plant::Stuck || stuck),
            by_store,
            writer: None,
            current: vec![0; bytes],
            wanted: vec![0; bytes],
        }
    }

    fn work(&mut self) -> anyhow::Result<()> {
        self.row.set(Note::State, AT_WORK);
        let shape = self.ledger.shape();
        while !self.ledger.stopped() {
            let lba = self.dice.roll(shape.blocks as u64);
            match self.dice.roll(256) {
                0..200 => self.increment(lba)?,
                200..220 => self.look(lba)?,
                220..250 if shape.words > 0 => self.beat()?,
                252..254 if self.store.geometry().durability_class() == Durability::Power => self.store.sync()?,
                // The next increment claims one again: this one's slot, or that of a killed process.
                250..252 => self.writer = None,
                _ => self.increment(lba)?,
            }
            self.row.add(Note::Progress);
            if self.plant == Some(Plant::Stuck) && self.row.get(Note::Progress) > 100 {
                loop {
                    thread::park();
                }
            }
        }
        self.row.set(Note::State, ENDED);
        Ok(())
    }

    /// Counts a block that no increment makes.
    fn verify(&self, block: &[u8], lba: u64) {
        if image::count(block, lba).is_none() {
            self.row.add(Note::Torn);
        }
    }

    fn look(&mut self, lba: u64) -> anyhow::Result<()> {
        self.store.read(lba, &mut self.current)?;
        self.verify(&self.current, lba);
        self.row.add(Note::Reads);
        Ok(())
    }

    /// Reads a block and replaces it by its successor, again and again until that succeeds.
    fn increment(&mut self, lba: u64) -> anyhow::Result<()> {
        let by_store = self.dice.roll(256) < self.by_store;
        if !by_store && self.writer.is_none() {
            let claimed = self.patiently(|worker| Answer::of(worker.store.writer()))?;
            let Some(writer) = claimed else { return Ok(()) };
            self.writer = Some(writer);
            self.row.add(Note::Claims);
        }
        self.store.read(lba, &mut self.current)?;
        self.verify(&self.current, lba);
        loop {
            let attempt = self.patiently(|worker| worker.attempt(lba, by_store));
            match attempt.with_context(|| format!("incrementing block {lba}"))? {
                Some(Comparison::Written) | None => return Ok(()),
                Some(Comparison::Miscompare { .. }) => {
                    self.row.add(Note::Miscompares);
                    // What it found is what the next attempt expects.
                    self.verify(&self.current, lba);
                    if self.ledger.stopped() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One compare-and-write of `current` for its successor, noted in the ledger before and after.
    fn attempt(&mut self, lba: u64, by_store: bool) -> Result<Answer<Comparison>, Error> {
        image::fill(&mut self.wanted, lba, image::front(&self.current).wrapping_add(1));
        self.row.begin(lba as usize);
        let begun = Instant::now();
        let result = match self.plant {
            Some(plant @ (Plant::Lost | Plant::Torn)) if self.dice.roll(PLANT_ONE_IN) == 0 => self.faulty(plant, lba),
            _ if by_store => self.by_store(lba),
            _ => {
                let writer = self.writer.as_mut().expect("claimed before the attempt");
                writer.compare_and_write_or_load(lba, &mut self.current, &self.wanted)
            }
        };
        let ns = begun.elapsed().as_nanos();
        self.row.end(lba as usize, matches!(result, Ok(Comparison::Written)));
        if result.is_ok() {
            self.row.took(u64::try_from(ns).unwrap_or(u64::MAX));
        }
        Answer::of(result)
    }

    /// The way any thread can go, with no writer of its own.
    fn by_store(&mut self, lba: u64) -> Result<Comparison, Error> {
        match self.store.compare_and_write(lba, &self.current, &self.wanted) {
            Ok(()) => Ok(Comparison::Written),
            Err(Error::Miscompare(found)) => {
                self.current.copy_from_slice(&found.found);
                Ok(Comparison::Miscompare { offset: found.offset })
            }
            Err(error) => Err(error),
        }
    }

    /// What a fault in the library would do.
    fn faulty(&mut self, plant: Plant, lba: u64) -> Result<Comparison, Error> {
        if plant == Plant::Torn {
            let half = self.wanted.len() / 2;
            self.wanted[half..].copy_from_slice(&self.current[half..]);
        }
        self.store.write(lba, &self.wanted)?;
        Ok(Comparison::Written)
    }

    /// Counts one further in a heartbeat word.
    fn beat(&mut self) -> anyhow::Result<()> {
        let index = self.dice.roll(self.ledger.shape().words as u64);
        let counter = self.ledger.shape().blocks + index as usize;
        let word = self.store.word(index)?;
        let mut found = word.load();
        loop {
            let Some(count) = image::beat_count(found) else {
                self.row.add(Note::Torn);
                return Ok(());
            };
            self.row.begin(counter);
            let result = word.compare_exchange(found, image::beat(count + 1));
            self.row.end(counter, result.is_ok());
            match result {
                Ok(()) => return Ok(()),
                Err(other) => found = other,
            }
        }
    }

    /// Asks until it is not refused. A killed process's slot is free as soon as the kernel has closed its files, which
    /// may be a moment after its successor has begun. `None` if told to stop meanwhile.
    fn patiently<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Result<Answer<T>, Error>,
    ) -> anyhow::Result<Option<T>> {
        let mut refused_since = None;
        loop {
            let error = match ask(self)? {
                Answer::Is(it) => return Ok(Some(it)),
                Answer::Refused(error) => error,
            };
            self.row.add(Note::Refused);
            let patience = Duration::from_millis(self.ledger.get(Header::PatienceMs));
            if refused_since.get_or_insert_with(Instant::now).elapsed() > patience {
                return Err(anyhow::Error::new(error).context(format!("refused for {patience:?}")));
            }
            if self.ledger.stopped() {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
