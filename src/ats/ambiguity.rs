//! Every placement of faults, for two hosts that change one block by up to three attempts each.
//!
//! A request can be answered, lost, processed with its answer lost, processed late, processed twice (the copy at once or
//! late, with the answer of either or of neither), or refused. Both hosts' steps and the late requests are processed in every
//! order. All states that can be reached are visited once; in each the verdicts given so far must agree with what the block
//! went through.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::operation::{Answer, Conclusion, Draft, Next, Operation};
use super::record::{Nonce, OVERHEAD_BYTES, Owner, payload};

/// The block.
const LBA: u64 = 7;
/// Its length: a record's, with eight bytes of payload.
const BLOCK_BYTES: usize = OVERHEAD_BYTES + 8;
/// Attempts of each host, of all its rounds together.
const ATTEMPTS_MAX: u32 = 3;
const HOSTS: usize = 2;

/// What the hosts write, and what the network does.
#[derive(Clone, Copy)]
struct Setting {
    /// How a host replaces a block.
    replace: fn(host: usize, expected: &[u8]) -> Operation,
    /// Whether reads can fail.
    reads_fail: bool,
    /// Whether the block is read after a miscompare, as on SCSI disks, not in the same moment.
    reads_after_miscompare: bool,
    /// Whether requests are processed twice.
    duplicates: bool,
    /// Whether the second host goes on with another update when one is done, as long as it has attempts.
    goes_on: bool,
    /// How often somebody puts the first image back.
    resets: u32,
    /// Whether what the hosts know from looking at the block is left out.
    careless: bool,
    /// Whether the device writes without comparing.
    blind: bool,
}

const RECORDS: Setting = Setting {
    replace: by_record,
    reads_fail: false,
    reads_after_miscompare: false,
    duplicates: true,
    goes_on: false,
    resets: 0,
    careless: false,
    blind: false,
};

/// A record whose payload is the count of the updates before it, and this one.
fn by_record(host: usize, expected: &[u8]) -> Operation {
    let count = counted(expected) + 1;
    let owner = Owner { host: host as u64, generation: 1 };
    Operation::record(LBA, expected, Draft { kind: 1, owner, payload: &count.to_le_bytes() }).expect("it fits")
}

fn counted(block: &[u8]) -> u64 {
    u64::from_le_bytes(payload(block).try_into().expect("eight bytes of payload"))
}

/// The host's number in every byte.
fn by_bytes(host: usize, expected: &[u8]) -> Operation {
    Operation::plain(LBA, expected, &[host as u8 + 1; BLOCK_BYTES])
}

/// The same, with a promise that is not kept where the block is reset.
fn by_bytes_said_to_be_unique(host: usize, expected: &[u8]) -> Operation {
    Operation::unique(LBA, expected, &[host as u8 + 1; BLOCK_BYTES])
}

/// A request to compare and write.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Request {
    host: usize,
    round: u32,
    expected: Box<[u8]>,
    image: Box<[u8]>,
}

/// What a host is about to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Read the block for the first time.
    Begin,
    Attempt,
    Look,
    /// Read the block that miscompared.
    ReadAfterMiscompare,
    Done(Conclusion),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Host {
    phase: Phase,
    operation: Option<Operation>,
    /// Which operation it is: it starts again where a peer was faster.
    round: u32,
    /// Attempts of the rounds before.
    attempts_before: u32,
    /// Of each round before, whether it was said to be written.
    applied_before: Vec<bool>,
}

/// Everything there is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    block: Box<[u8]>,
    /// Which host's operation of which round took effect, one after the other.
    landed: Vec<(usize, u32)>,
    /// Requests under way, in order, so that the same ones are the same state.
    under_way: Vec<Request>,
    hosts: [Host; HOSTS],
    resets_left: u32,
    blind: bool,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    Refused,
    RequestLost,
    AnswerLost,
    Late,
    TwiceLate,
    AnsweredAndAgainLate,
    AnswerLostAndAgainLate,
    /// Twice at once; the answer is that of the second.
    Twice,
}

const FATES: [Fate; 9] = [
    Fate::Answered,
    Fate::Refused,
    Fate::RequestLost,
    Fate::AnswerLost,
    Fate::Late,
    Fate::TwiceLate,
    Fate::AnsweredAndAgainLate,
    Fate::AnswerLostAndAgainLate,
    Fate::Twice,
];

impl Fate {
    fn is_duplicate(self) -> bool {
        matches!(self, Self::TwiceLate | Self::AnsweredAndAgainLate | Self::AnswerLostAndAgainLate | Self::Twice)
    }
}

/// What the device does with a request.
enum Processed {
    Written,
    Miscompare(Box<[u8]>),
}

impl World {
    fn new(first: &[u8], setting: Setting) -> Self {
        let host =
            Host { phase: Phase::Begin, operation: None, round: 0, attempts_before: 0, applied_before: Vec::new() };
        Self {
            block: first.into(),
            landed: Vec::new(),
            under_way: Vec::new(),
            hosts: [host.clone(), host],
            resets_left: setting.resets,
            blind: setting.blind,
        }
    }

    fn process(&mut self, request: &Request) -> Processed {
        if self.block != request.expected && !self.blind {
            return Processed::Miscompare(self.block.clone());
        }
        self.block = request.image.clone();
        self.landed.push((request.host, request.round));
        Processed::Written
    }

    fn send_later(&mut self, request: &Request) {
        self.under_way.push(request.clone());
        self.under_way.sort();
    }

    /// All worlds that come next.
    fn successors(&self, first: &[u8], setting: Setting) -> Vec<Self> {
        let mut worlds = Vec::new();
        for index in 0..self.under_way.len() {
            let mut world = self.clone();
            let request = world.under_way.remove(index);
            world.process(&request);
            worlds.push(world);
        }
        if self.resets_left > 0 {
            let mut world = self.clone();
            (world.block, world.resets_left) = (first.into(), self.resets_left - 1);
            worlds.push(world);
        }
        for host in 0..HOSTS {
            self.steps(host, setting, &mut worlds);
        }
        worlds
    }

    /// The worlds after a step of a host.
    fn steps(&self, host: usize, setting: Setting, worlds: &mut Vec<Self>) {
        let mut next = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            worlds.push(world);
        };
        match self.hosts[host].phase {
            Phase::Done(_) => {}
            Phase::Begin => next(&|world| world.begin(host, &self.block, setting)),
            Phase::Look => {
                next(&|world| world.take(host, setting, |operation| operation.saw(Some(&self.block))));
                if setting.reads_fail {
                    next(&|world| world.take(host, setting, |operation| operation.saw(None)));
                }
            }
            Phase::ReadAfterMiscompare => next(&|world| {
                world.take(host, setting, |operation| operation.answered(Answer::Miscompare(&self.block)));
            }),
            Phase::Attempt => {
                for fate in FATES.into_iter().filter(|fate| setting.duplicates || !fate.is_duplicate()) {
                    next(&|world| world.attempt(host, fate, setting));
                }
            }
        }
    }

    /// Begins an operation that expects `expected`.
    fn begin(&mut self, host: usize, expected: &[u8], setting: Setting) {
        let mut operation = (setting.replace)(host, expected);
        operation.careless = setting.careless;
        self.hosts[host].operation = Some(operation);
        self.hosts[host].phase = Phase::Attempt;
    }

    fn attempt(&mut self, host: usize, fate: Fate, setting: Setting) {
        let Host { operation, round, attempts_before, .. } = &mut self.hosts[host];
        let operation = operation.as_mut().expect("begun");
        let number = u128::from(*attempts_before + operation.attempts() + 1);
        operation.attempt(Nonce::new(number << 8 | host as u128 | 0x80));
        let request =
            Request { host, round: *round, expected: operation.expected().into(), image: operation.image().into() };
        let processed = match fate {
            Fate::Refused => return self.take(host, setting, |operation| operation.answered(Answer::Failed)),
            Fate::RequestLost => None,
            Fate::Late => {
                self.send_later(&request);
                None
            }
            Fate::TwiceLate => {
                self.send_later(&request);
                self.send_later(&request);
                None
            }
            Fate::Answered => Some(self.process(&request)),
            Fate::AnswerLost => {
                self.process(&request);
                None
            }
            Fate::AnsweredAndAgainLate => {
                let processed = self.process(&request);
                self.send_later(&request);
                Some(processed)
            }
            Fate::AnswerLostAndAgainLate => {
                self.process(&request);
                self.send_later(&request);
                None
            }
            Fate::Twice => {
                self.process(&request);
                Some(self.process(&request))
            }
        };
        match processed {
            None => self.take(host, setting, |operation| operation.answered(Answer::Unknown)),
            Some(Processed::Written) => self.take(host, setting, |operation| operation.answered(Answer::Written)),
            Some(Processed::Miscompare(_)) if setting.reads_after_miscompare => {
                self.hosts[host].phase = Phase::ReadAfterMiscompare;
            }
            Some(Processed::Miscompare(found)) => {
                self.take(host, setting, |operation| operation.answered(Answer::Miscompare(&found)));
            }
        }
    }

    /// Lets a host's operation take what happened, and does what it says as the driver does.
    fn take(&mut self, host: usize, setting: Setting, tell: impl FnOnce(&mut Operation) -> Next) {
        let Host { phase, operation, attempts_before, .. } = &mut self.hosts[host];
        let operation = operation.as_mut().expect("begun");
        let attempts = *attempts_before + operation.attempts();
        let gave_up = |operation: &Operation| Phase::Done(operation.give_up());
        *phase = match tell(operation) {
            Next::Done(conclusion) => Phase::Done(conclusion),
            // A second look, after one that failed: the driver has its deadline, this world no time.
            Next::Look if *phase == Phase::Look => gave_up(operation),
            Next::Look => Phase::Look,
            Next::Attempt if attempts == ATTEMPTS_MAX => gave_up(operation),
            Next::Attempt => Phase::Attempt,
        };
        let Phase::Done(conclusion) = *phase else { return };
        self.verify(host, conclusion, setting);
        let starts_again = match conclusion {
            Conclusion::PeerChanged { .. } => setting.resets == 0,
            Conclusion::Written | Conclusion::OwnWriteLanded { .. } => setting.goes_on && host == 1,
            _ => false,
        };
        if starts_again && attempts < ATTEMPTS_MAX {
            let host = &mut self.hosts[host];
            host.applied_before.push(!matches!(conclusion, Conclusion::PeerChanged { .. }));
            (host.phase, host.operation) = (Phase::Begin, None);
            host.round += 1;
            host.attempts_before = attempts;
        }
    }

    fn times_landed(&self, host: usize, round: u32) -> usize {
        self.landed.iter().filter(|landed| **landed == (host, round)).count()
    }

    /// Panics unless a verdict agrees with what happened so far.
    fn verify(&self, host: usize, conclusion: Conclusion, setting: Setting) {
        let round = self.hosts[host].round;
        let landed = self.times_landed(host, round);
        let context = || format!("{conclusion:?} of host {host}: {self:#?}");
        match conclusion {
            Conclusion::Written | Conclusion::OwnWriteLanded { .. } => {
                assert!(landed >= 1, "it is said to be written, and is not: {}", context());
            }
            Conclusion::PeerChanged { .. } | Conclusion::Unwritten => {
                assert_eq!(landed, 0, "it is said not to be written, and is: {}", context());
            }
            Conclusion::Indeterminate { .. } => {}
        }
        let operation = self.hosts[host].operation.as_ref().expect("begun");
        match conclusion {
            Conclusion::OwnWriteLanded { replaced: true } => {
                assert_ne!(self.landed.last(), Some(&(host, round)), "{}", context());
            }
            Conclusion::PeerChanged { owner: Some(owner), .. } => {
                assert_eq!(owner.host, 1 - host as u64, "{}", context());
            }
            // What could have been known is known.
            Conclusion::Indeterminate { may_still_land: true } if !setting.reads_fail && setting.resets == 0 => {
                assert_eq!(*self.block, *operation.expected(), "a look would have decided: {}", context());
            }
            Conclusion::Indeterminate { may_still_land: false } => {
                let since = counted(&self.block) - counted(operation.expected());
                assert!(since >= 2, "the block tells who replaced what: {}", context());
            }
            _ => {}
        }
    }

    /// Panics unless everything that was ever said is true now, and nothing was done twice.
    fn check(&self) {
        for (host, Host { phase, round, applied_before, .. }) in self.hosts.iter().enumerate() {
            for (round, applied) in (0..).zip(applied_before) {
                let times = self.times_landed(host, round);
                assert_eq!(times, usize::from(*applied), "round {round} of host {host}, before the last: {self:#?}");
            }
            let times = self.times_landed(host, *round);
            assert!(times <= 1, "the last round of host {host} was done more than once: {self:#?}");
            if let Phase::Done(Conclusion::PeerChanged { .. } | Conclusion::Unwritten) = phase {
                assert_eq!(times, 0, "it landed after the verdict: {self:#?}");
            }
        }
    }

    /// Panics unless the block holds all updates that took effect.
    fn check_count(&self, first: &[u8]) {
        let updates = counted(&self.block) - counted(first);
        assert_eq!(updates, self.landed.len() as u64, "an update was lost: {self:#?}");
    }
}

/// What was seen in all worlds.
#[derive(Default, Debug)]
struct Seen {
    states: usize,
    written: u64,
    landed: u64,
    landed_and_replaced: u64,
    peer_changed: u64,
    unwritten: u64,
    may_still_land: u64,
    unclear: u64,
}

impl Seen {
    fn count(&mut self, world: &World) {
        for host in &world.hosts {
            let Phase::Done(conclusion) = &host.phase else { continue };
            *match conclusion {
                Conclusion::Written => &mut self.written,
                Conclusion::OwnWriteLanded { replaced: false } => &mut self.landed,
                Conclusion::OwnWriteLanded { replaced: true } => &mut self.landed_and_replaced,
                Conclusion::PeerChanged { .. } => &mut self.peer_changed,
                Conclusion::Unwritten => &mut self.unwritten,
                Conclusion::Indeterminate { may_still_land: true } => &mut self.may_still_land,
                Conclusion::Indeterminate { may_still_land: false } => &mut self.unclear,
            } += 1;
        }
    }
}

/// 128 bits of a state: so few of so many that two states have the same ones that it does not happen.
fn fingerprint(world: &World) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, world).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Visits every state; `check` panics where one is wrong.
fn explore(first: &[u8], setting: Setting, check: impl Fn(&World)) -> Seen {
    let mut seen = Seen::default();
    let mut visited = HashSet::new();
    let mut open = vec![World::new(first, setting)];
    while let Some(world) = open.pop() {
        if !visited.insert(fingerprint(&world)) {
            continue;
        }
        check(&world);
        let next = world.successors(first, setting);
        if next.is_empty() {
            seen.count(&world);
        }
        open.extend(next);
    }
    seen.states = visited.len();
    seen
}

/// A block that holds a record.
fn a_record() -> Box<[u8]> {
    let mut operation = by_record(9, &[0; BLOCK_BYTES]);
    operation.attempt(Nonce::new(0xffff)).into()
}

fn explore_records(first: &[u8], setting: Setting) -> Seen {
    explore(first, setting, |world| {
        world.check();
        world.check_count(first);
    })
}

#[test]
fn no_update_is_lost_or_done_twice_and_no_verdict_is_wrong() {
    for reads_after_miscompare in [false, true] {
        let seen = explore_records(&a_record(), Setting { reads_after_miscompare, ..RECORDS });
        println!("{seen:?}");
        assert!(seen.states > 100_000, "{seen:?}");
        let all = [seen.written, seen.landed, seen.landed_and_replaced, seen.peer_changed, seen.unwritten];
        assert!(all.iter().all(|count| *count > 0) && seen.may_still_land > 0, "{seen:?}");
    }
}

#[test]
fn the_same_where_the_block_was_never_written() {
    explore_records(&[0; BLOCK_BYTES], RECORDS);
}

#[test]
fn the_same_where_reads_fail() {
    let seen = explore_records(&a_record(), Setting { reads_fail: true, duplicates: false, ..RECORDS });
    assert!(seen.landed > 0 && seen.may_still_land > 0, "{seen:?}");
}

#[test]
fn where_a_peer_replaced_it_twice_it_may_be_unclear() {
    let seen = explore_records(&a_record(), Setting { goes_on: true, duplicates: false, ..RECORDS });
    println!("{seen:?}");
    assert!(seen.unclear > 0 && seen.landed_and_replaced > 0, "{seen:?}");
}

#[test]
#[should_panic(expected = "it is said not to be written, and is")]
fn without_the_looks_own_writes_are_taken_for_a_peers() {
    explore_records(&a_record(), Setting { careless: true, ..RECORDS });
}

/// What shows that the count of the updates can tell a loss.
#[test]
#[should_panic(expected = "an update was lost")]
fn a_device_that_does_not_compare_loses_updates() {
    let first = a_record();
    explore(&first, Setting { blind: true, ..RECORDS }, |world| world.check_count(&first));
}

/// A setting in which the first image comes back.
const RESET: Setting = Setting { replace: by_bytes, resets: 2, duplicates: false, ..RECORDS };

#[test]
fn plain_bytes_that_come_back_are_not_tried_again() {
    let seen = explore(&[0; BLOCK_BYTES], RESET, World::check);
    assert!(seen.may_still_land > 0 && seen.landed == 0, "{seen:?}");
}

#[test]
#[should_panic(expected = "was done more than once")]
fn who_promises_wrongly_that_plain_bytes_are_unique_does_it_twice() {
    explore(&[0; BLOCK_BYTES], Setting { replace: by_bytes_said_to_be_unique, ..RESET }, World::check);
}
