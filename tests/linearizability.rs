//! Recorded histories of concurrent clients, threads and processes, are linearizable.
//!
//! Each round a few clients read, write and compare-and-write two blocks that nobody has used before, with so few
//! values that compares fail and values come back often. Every operation is stamped before and after by one shared
//! counter, a heartbeat word of another store, whose exchanges order the stamps and the operation between them. A
//! search (stateright's tester) then looks for an order of the operations, one after the other, that explains all
//! results and respects the stamps. Two planted faults show that it finds none where there is none.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use casblock::cache::{BlockCache, Config, Consistency};
use casblock::device::{BlockDevice, DeviceError, Faults, Faulty};
use casblock::{BlockSize, Geometry, Store};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

#[path = "common/children.rs"]
mod children;

const CLIENTS: u64 = 4;
const OPERATIONS: usize = 5;
/// Rounds of one batch: each uses two blocks.
const ROUNDS: u64 = 500;
/// A batch is repeated until enough was seen, but no more often than this.
const BATCHES_MOST: u64 = 40;
/// What must be seen, in all batches together, before the result counts: rounds, pairs of operations of two clients
/// that overlap in time, and operations with each kind of result.
const OVERLAPS_LEAST: u64 = 1000;
const ROUNDS_LEAST: u64 = 3000;
const OUTCOMES_LEAST: u64 = 500;

/// How often a client looks for the others before it lets them run.
const SPINS: u32 = 200;

/// The clock of the control store, and where clients meet before a round.
const CLOCK: u64 = 0;
const ARRIVALS: u64 = 1;

/// A block that is not one value all through reads as this: no operation writes it.
const TORN: u8 = 255;
const VALUES: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Read,
    Write(u8),
    CompareAndWrite(u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Value(u8),
    Done,
    Written,
    Miscompare(u8),
}

/// Two blocks, used by one client at a time: what a history must look the same as.
#[derive(Clone, Debug)]
struct Blocks([u8; 2]);

impl SequentialSpec for Blocks {
    type Op = (usize, Op);
    type Ret = Outcome;

    fn invoke(&mut self, &(block, op): &Self::Op) -> Outcome {
        let value = &mut self.0[block];
        match op {
            Op::Read => Outcome::Value(*value),
            Op::Write(new) => {
                *value = new;
                Outcome::Done
            }
            Op::CompareAndWrite(expected, new) if *value == expected => {
                *value = new;
                Outcome::Written
            }
            Op::CompareAndWrite(..) => Outcome::Miscompare(*value),
        }
    }
}

/// One operation of one client, with the stamps before and after it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Event {
    round: u64,
    client: u64,
    block: usize,
    op: Op,
    outcome: Outcome,
    invoked: u64,
    returned: u64,
}

/// How clients operate: as the library does, or with a fault that the checker must reject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Sound,
    /// A compare-and-write that writes what it compared a moment ago, without looking again.
    Unvalidated,
    /// A read of one half, then of the other.
    Torn,
    /// A cached read that nobody has said must be current.
    Hint,
}

fn value_of(block: &[u8]) -> u8 {
    if block.iter().all(|&byte| byte == block[0]) { block[0] } else { TORN }
}

/// Adds one to a heartbeat word and gives what it was.
fn tick(control: &Store, index: u64) -> u64 {
    let word = control.word(index).unwrap();
    let mut value = word.load();
    while let Err(found) = word.compare_exchange(value, value + 1) {
        value = found;
    }
    value
}

/// Waits until all clients have come to this round.
fn meet(control: &Store, round: u64) {
    tick(control, ARRIVALS);
    let began = Instant::now();
    while control.read_word(ARRIVALS).unwrap() < (round + 1) * CLIENTS {
        // Spinning a little makes clients on different cores begin together.
        if (0..SPINS).all(|_| control.read_word(ARRIVALS).unwrap() < (round + 1) * CLIENTS) {
            assert!(began.elapsed() < Duration::from_secs(120), "a client is missing");
            std::thread::yield_now();
        }
    }
}

fn operate(device: &dyn BlockDevice, kind: Kind, lba: u64, op: Op) -> Outcome {
    let bytes = device.block_bytes();
    let image = |value| vec![value; bytes];
    let mut found = image(0);
    match op {
        Op::Read if kind == Kind::Torn => {
            device.read(lba, &mut found).unwrap();
            let half = found.clone();
            std::thread::yield_now();
            device.read(lba, &mut found).unwrap();
            found[..bytes / 2].copy_from_slice(&half[..bytes / 2]);
            Outcome::Value(value_of(&found))
        }
        Op::Read => {
            device.read(lba, &mut found).unwrap();
            Outcome::Value(value_of(&found))
        }
        Op::Write(new) => {
            device.write(lba, &image(new)).unwrap();
            Outcome::Done
        }
        Op::CompareAndWrite(expected, new) if kind == Kind::Unvalidated => {
            device.read(lba, &mut found).unwrap();
            std::thread::yield_now();
            if value_of(&found) != expected {
                return Outcome::Miscompare(value_of(&found));
            }
            device.write(lba, &image(new)).unwrap();
            Outcome::Written
        }
        Op::CompareAndWrite(expected, new) => match device.compare_and_write(lba, &image(expected), &image(new)) {
            Ok(()) => Outcome::Written,
            Err(DeviceError::Miscompare(miscompare)) => Outcome::Miscompare(value_of(&miscompare.found)),
            Err(error) => panic!("{error}"),
        },
    }
}

fn random_op(random: &mut fastrand::Rng) -> Op {
    match random.u8(..8) {
        0..2 => Op::Read,
        2 => Op::Write(random.u8(..VALUES)),
        _ => Op::CompareAndWrite(random.u8(..VALUES), random.u8(..VALUES)),
    }
}

/// One client's part in all rounds of a batch.
fn client(control: &Store, device: &dyn BlockDevice, kind: Kind, client: u64, seed: u64) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed ^ client << 32);
    let mut events = Vec::new();
    for round in 0..ROUNDS {
        meet(control, round);
        for _ in 0..OPERATIONS {
            // Most operations go to one block, so that they meet.
            let block = usize::from(random.u8(..4) == 0);
            let op = random_op(&mut random);
            let invoked = tick(control, CLOCK);
            let outcome = operate(device, kind, 2 * round + block as u64, op);
            let returned = tick(control, CLOCK);
            events.push(Event { round, client, block, op, outcome, invoked, returned });
            if random.u8(..4) == 0 {
                std::thread::yield_now();
            }
        }
    }
    events
}

/// Whether some order of these operations, which are of one round, explains their results.
fn is_linearizable(events: &[Event]) -> bool {
    let mut moments: Vec<(u64, bool, &Event)> =
        events.iter().flat_map(|event| [(event.invoked, false, event), (event.returned, true, event)]).collect();
    moments.sort_by_key(|&(stamp, returned, _)| (stamp, returned));
    let mut tester = LinearizabilityTester::new(Blocks([0; 2]));
    for (_, returned, event) in moments {
        match returned {
            false => tester.on_invoke(event.client, (event.block, event.op)).unwrap(),
            true => tester.on_return(event.client, event.outcome).unwrap(),
        };
    }
    tester.is_consistent()
}

/// What was seen.
#[derive(Default, Debug)]
struct Tally {
    rounds: u64,
    overlaps: u64,
    reads: u64,
    writes: u64,
    written: u64,
    miscompares: u64,
    /// The first history that no order explains. To find that there is none takes long, so it is the last one tried.
    rejected: Option<Vec<Event>>,
}

impl Tally {
    fn add_batch(&mut self, events: Vec<Event>) {
        let mut rounds = BTreeMap::<u64, Vec<Event>>::new();
        for event in events {
            rounds.entry(event.round).or_default().push(event);
        }
        assert_eq!(rounds.len() as u64, ROUNDS);
        for events in rounds.into_values() {
            assert_eq!(events.len() as u64, CLIENTS * OPERATIONS as u64);
            self.add_round(events);
        }
    }

    fn add_round(&mut self, events: Vec<Event>) {
        self.rounds += 1;
        for (index, a) in events.iter().enumerate() {
            match a.outcome {
                Outcome::Value(_) => self.reads += 1,
                Outcome::Done => self.writes += 1,
                Outcome::Written => self.written += 1,
                Outcome::Miscompare(_) => self.miscompares += 1,
            }
            let others = events[index + 1..].iter().filter(|b| b.client != a.client && b.block == a.block);
            self.overlaps += others.filter(|b| a.invoked < b.returned && b.invoked < a.returned).count() as u64;
        }
        if self.rejected.is_none() && !is_linearizable(&events) {
            self.rejected = Some(events);
        }
    }

    fn saw_enough(&self) -> bool {
        let outcomes = [self.reads, self.writes, self.written, self.miscompares];
        let enough = self.rounds >= ROUNDS_LEAST && self.overlaps >= OVERLAPS_LEAST;
        enough && outcomes.iter().all(|&count| count >= OUTCOMES_LEAST)
    }

    fn summary(&self) -> String {
        let Self { rounds, overlaps, reads, writes, written, miscompares, rejected } = self;
        format!(
            "{rounds} rounds: {overlaps} overlaps, {reads} reads, {writes} writes, {written} written, \
             {miscompares} miscompares, one rejected: {}",
            rejected.is_some()
        )
    }
}

/// The stores of a batch: the one under test, in which every other round finds its blocks written before, and the
/// one that holds the clock.
fn make_stores(folder: &Path, size: BlockSize) {
    // A slot for each client's handle, and hardly more frames than blocks: they are recycled all the time.
    let geometry = Geometry::blocks(2 * ROUNDS).block_size(size).writers(8);
    let store = Store::create(folder.join("store"), geometry).unwrap();
    for round in (0..ROUNDS).step_by(2) {
        store.write(2 * round, &vec![0; 2 * size.bytes()]).unwrap();
    }
    Store::create(folder.join("control"), Geometry::blocks(1).words(2).writers(1)).unwrap();
}

fn open_stores(folder: &Path) -> (Store, Store) {
    (Store::open(folder.join("control")).unwrap(), Store::open(folder.join("store")).unwrap())
}

fn batch_of_threads(folder: &Path, kind: Kind, seed: u64) -> Vec<Event> {
    let (control, store) = open_stores(folder);
    batch_through(&control, &[&store], kind, seed)
}

/// Two hosts, each with a cache of its own before a disk that they share: half the clients go through one, half through the other.
fn batch_of_cached_threads(folder: &Path, kind: Kind, seed: u64) -> Vec<Event> {
    let (control, store) = open_stores(folder);
    let disk = Faulty::new(store, Faults::none(1));
    let consistency = if kind == Kind::Hint { Consistency::Hint } else { Consistency::Current };
    // So small that blocks are evicted all the time, or large enough for all.
    let capacity = if seed.is_multiple_of(2) { 1 } else { 2 * ROUNDS as u32 };
    let config = Config::blocks(capacity).consistency(consistency);
    let caches = [(); 2].map(|()| BlockCache::new(disk.another_host(), config).unwrap());
    batch_through(&control, &caches.each_ref().map(|cache| cache as &dyn BlockDevice), kind, seed)
}

/// The same over a store, whose blocks' versions the caches see: a hint is current there.
fn batch_of_threads_cached_over_a_store(folder: &Path, kind: Kind, seed: u64) -> Vec<Event> {
    let (control, store) = open_stores(folder);
    let capacity = if seed.is_multiple_of(2) { 1 } else { 2 * ROUNDS as u32 };
    let caches = [(); 2].map(|()| BlockCache::new(store.clone(), Config::blocks(capacity)).unwrap());
    batch_through(&control, &caches.each_ref().map(|cache| cache as &dyn BlockDevice), kind, seed)
}

/// A batch whose clients go through these devices in turn.
fn batch_through(control: &Store, devices: &[&dyn BlockDevice], kind: Kind, seed: u64) -> Vec<Event> {
    std::thread::scope(|scope| {
        let start = |id| {
            let device = devices[id as usize % devices.len()];
            scope.spawn(move || client(control, device, kind, id, seed))
        };
        let threads: Vec<_> = (0..CLIENTS).map(start).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn batch_of_processes(folder: &Path, kind: Kind, seed: u64) -> Vec<Event> {
    let children: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let settings = format!("{kind:?} {id} {seed}");
            children::Child::start("child_client", &[("CLIENT", &settings)], folder)
        })
        .collect();
    children.into_iter().flat_map(|child| child.finish()).map(|line| parse(&line)).collect()
}

/// One client as a process: prints its events.
#[test]
#[ignore = "a child of the tests here"]
fn child_client() {
    let Some((folder, settings)) = children::settings("CLIENT") else { return };
    let mut settings = settings.split(' ');
    let kind = match settings.next().unwrap() {
        "Unvalidated" => Kind::Unvalidated,
        "Torn" => Kind::Torn,
        "Hint" => Kind::Hint,
        _ => Kind::Sound,
    };
    let mut number = || settings.next().unwrap().parse().unwrap();
    let (id, seed) = (number(), number());
    let (control, store) = open_stores(&folder);
    let lines: Vec<String> = client(&control, &store, kind, id, seed).iter().map(print).collect();
    children::say(&lines.join("\n"));
}

/// An event as a line of numbers.
fn print(event: &Event) -> String {
    let Event { round, client, block, op, outcome, invoked, returned } = event;
    let (op, a, b) = match *op {
        Op::Read => (0, 0, 0),
        Op::Write(new) => (1, new, 0),
        Op::CompareAndWrite(expected, new) => (2, expected, new),
    };
    let (outcome, found) = match *outcome {
        Outcome::Value(value) => (0, value),
        Outcome::Done => (1, 0),
        Outcome::Written => (2, 0),
        Outcome::Miscompare(value) => (3, value),
    };
    format!("{round} {client} {block} {op} {a} {b} {outcome} {found} {invoked} {returned}")
}

fn parse(line: &str) -> Event {
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    let [round, client, block, op, a, b, outcome, found, invoked, returned] = numbers[..] else {
        panic!("not an event: {line}");
    };
    let op = [Op::Read, Op::Write(a as u8), Op::CompareAndWrite(a as u8, b as u8)][op as usize];
    let value = found as u8;
    let outcome =
        [Outcome::Value(value), Outcome::Done, Outcome::Written, Outcome::Miscompare(value)][outcome as usize];
    Event { round, client, block: block as usize, op, outcome, invoked, returned }
}

/// Runs batches, on both block sizes in turn, until `enough`.
fn run(batch: fn(&Path, Kind, u64) -> Vec<Event>, kind: Kind, enough: impl Fn(&Tally) -> bool) -> Tally {
    let mut tally = Tally::default();
    let first = fastrand::u64(..1 << 32);
    for seed in first..first + BATCHES_MOST {
        for size in [BlockSize::B512, BlockSize::B4096] {
            let folder = tempfile::tempdir().unwrap();
            make_stores(folder.path(), size);
            tally.add_batch(batch(folder.path(), kind, seed));
            let check = Store::open_exclusive(folder.path().join("store")).unwrap().check();
            assert!(check.is_clean(), "seed {seed}: {check:?}");
        }
        if enough(&tally) {
            break;
        }
    }
    println!("{kind:?}: {}", tally.summary());
    tally
}

fn assert_sound(batch: fn(&Path, Kind, u64) -> Vec<Event>) {
    let tally = run(batch, Kind::Sound, |tally| tally.saw_enough() || tally.rejected.is_some());
    assert_eq!(tally.rejected, None, "no order explains this round");
    assert!(tally.saw_enough(), "too little happened to prove anything: {}", tally.summary());
}

/// The planted fault is found, within [`BATCHES_MOST`] batches.
fn assert_rejected(batch: fn(&Path, Kind, u64) -> Vec<Event>, kind: Kind) -> Vec<Event> {
    let tally = run(batch, kind, |tally| tally.rejected.is_some());
    tally.rejected.expect("the planted fault was not found")
}

#[test]
fn threads_are_linearizable() {
    let _alone = children::alone();
    assert_sound(batch_of_threads);
}

#[test]
fn processes_are_linearizable() {
    let _alone = children::alone();
    assert_sound(batch_of_processes);
}

#[test]
fn cached_reads_that_are_current_are_linearizable() {
    let _alone = children::alone();
    assert_sound(batch_of_cached_threads);
    assert_sound(batch_of_threads_cached_over_a_store);
}

#[test]
fn cached_reads_that_are_hints_are_rejected() {
    let _alone = children::alone();
    assert_rejected(batch_of_cached_threads, Kind::Hint);
}

#[test]
fn a_compare_and_write_without_validation_is_rejected() {
    let _alone = children::alone();
    assert_rejected(batch_of_threads, Kind::Unvalidated);
    assert_rejected(batch_of_processes, Kind::Unvalidated);
}

#[test]
fn a_torn_read_is_rejected() {
    let _alone = children::alone();
    for batch in [batch_of_threads, batch_of_processes] {
        let events = assert_rejected(batch, Kind::Torn);
        assert!(events.iter().any(|event| event.outcome == Outcome::Value(TORN)), "rejected, but not as torn");
    }
}

#[test]
fn events_survive_the_way_from_a_child() {
    let ops = [Op::Read, Op::Write(2), Op::CompareAndWrite(1, 2)];
    let outcomes = [Outcome::Value(TORN), Outcome::Done, Outcome::Written, Outcome::Miscompare(1)];
    for (op, outcome) in ops.into_iter().flat_map(|op| outcomes.map(|outcome| (op, outcome))) {
        let event = Event { round: 7, client: 3, block: 1, op, outcome, invoked: 90, returned: 91 };
        assert_eq!(parse(&print(&event)), event);
    }
}

/// The checker itself: what is stale, lost or from nowhere is rejected, what overlaps is not.
#[test]
fn the_checker_tells_stale_from_concurrent() {
    let event =
        |client, op, outcome, invoked, returned| Event { round: 0, client, block: 0, op, outcome, invoked, returned };
    let write = event(0, Op::Write(1), Outcome::Done, 0, 3);
    let read = |value, invoked, returned| event(1, Op::Read, Outcome::Value(value), invoked, returned);
    for (value, invoked, returned, linearizable) in
        [(0, 1, 2, true), (1, 1, 2, true), (2, 1, 2, false), (0, 4, 5, false), (1, 4, 5, true)]
    {
        assert_eq!(is_linearizable(&[write, read(value, invoked, returned)]), linearizable, "{value} at {invoked}");
    }
    let won = |client, invoked, returned| event(client, Op::CompareAndWrite(0, 1), Outcome::Written, invoked, returned);
    assert!(!is_linearizable(&[won(0, 0, 3), won(1, 1, 2)]), "two winners from one value");
}
