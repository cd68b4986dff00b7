//! Compare-and-write made certain, on devices that answer as a script says, and on ones that misbehave by chance.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use casblock::ats::{Ats, Draft, Nonce, NotARecord, Owner, Record512, Retry, Verdict};
use casblock::device::{BlockDevice, DeviceError, Failure, Faults, Faulty};
use casblock::environment::{Environment as _, Virtual};
use casblock::{Geometry, Store};

const OLD: [u8; 512] = [0; 512];
const NEW: [u8; 512] = [1; 512];
const LBA: u64 = 7;
const US: Owner = Owner { host: 1, generation: 1 };
const PEER: Owner = Owner { host: 2, generation: 5 };

/// What a request meets with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Done,
    /// It is done, and not answered.
    AnswerLost,
    /// It is not done, and not answered.
    RequestLost,
    /// It is done and not answered, and the peer replaces it once.
    AnswerLostThenPeer,
    /// The same, and the peer goes on to replace his own.
    AnswerLostThenPeerTwice,
    /// It is not done, not answered, and the peer is first.
    PeerFirst,
    Fails(Failure),
}

/// A store that answers as a script says, and counts what it is asked for.
struct Scripted {
    store: Store,
    script: Mutex<VecDeque<Turn>>,
    reads: Mutex<u32>,
    /// In which world, and how long, one waits for an answer that does not come.
    timeout: Option<(Arc<Virtual>, Duration)>,
}

impl Scripted {
    fn new(script: &[Turn]) -> Self {
        let store = Store::in_memory(Geometry::blocks(8)).unwrap();
        Self { store, script: Mutex::new(script.iter().copied().collect()), reads: Mutex::default(), timeout: None }
    }

    fn turn(&self) -> Turn {
        self.script.lock().unwrap().pop_front().unwrap_or(Turn::Done)
    }

    /// A peer replaces what is there by a record.
    fn peer(&self, lba: u64) {
        let ats = Ats::new(&self.store);
        let outcome = ats.update_record(lba, |_| Draft { kind: 1, owner: PEER, payload: b"peer" });
        assert!(matches!(outcome.verdict, Verdict::Written));
    }

    fn no_answer(&self) -> Result<(), DeviceError> {
        if let Some((world, timeout)) = &self.timeout {
            world.sleep(*timeout);
        }
        Err(DeviceError::unknown("no answer"))
    }
}

impl BlockDevice for Scripted {
    fn name(&self) -> Cow<'_, str> {
        "scripted".into()
    }

    fn block_bytes(&self) -> usize {
        512
    }

    fn block_count(&self) -> u64 {
        8
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        *self.reads.lock().unwrap() += 1;
        match self.turn() {
            Turn::Done => Ok(self.store.read(lba, out)?),
            Turn::Fails(failure) => Err(DeviceError::failed(failure, "as the script says")),
            Turn::RequestLost => self.no_answer(),
            turn => panic!("{turn:?} is no turn of a read"),
        }
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        Ok(self.store.write(lba, data)?)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let done = || self.store.compare_and_write(lba, expected, new);
        match self.turn() {
            Turn::Done => Ok(done()?),
            Turn::Fails(failure) => Err(DeviceError::failed(failure, "as the script says")),
            Turn::RequestLost => self.no_answer(),
            Turn::AnswerLost => {
                let _ = done();
                self.no_answer()
            }
            Turn::AnswerLostThenPeer => {
                done().unwrap();
                self.peer(lba);
                self.no_answer()
            }
            Turn::AnswerLostThenPeerTwice => {
                done().unwrap();
                self.peer(lba);
                self.peer(lba);
                self.no_answer()
            }
            Turn::PeerFirst => {
                self.peer(lba);
                self.no_answer()
            }
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Writes a record where the block holds another, as the script says: what came of it, the reads, and the time it took.
fn record(script: &[Turn]) -> (casblock::ats::Outcome, u32, Duration) {
    let device = Scripted::new(&[]);
    device.peer(LBA);
    let mut expected = [0; 512];
    device.store.read(LBA, &mut expected).unwrap();
    device.script.lock().unwrap().extend(script);
    let ats = Ats::in_environment(device, Virtual::new(1));
    let outcome = ats.write_record(LBA, &expected, Draft { kind: 1, owner: US, payload: b"ours" });
    let reads = *ats.device().reads.lock().unwrap();
    let mut now = [0; 512];
    ats.device().store.read(LBA, &mut now).unwrap();
    assert_eq!(*outcome.block, now, "the outcome tells what the block holds");
    (outcome, reads, ats.environment().now())
}

#[test]
fn what_is_answered_needs_no_look() {
    let (outcome, reads, _) = record(&[Turn::Done]);
    assert!(matches!(outcome.verdict, Verdict::Written));
    assert_eq!((outcome.attempts, reads), (1, 0));
    let record = Record512::of_block(LBA, &outcome.block).unwrap();
    assert_eq!((record.owner(), &record.payload()[..5]), (US, &b"ours\0"[..]));
    assert_ne!(record.replaced(), Nonce::NONE);
}

#[test]
fn a_lost_answer_is_found_in_the_block() {
    let (outcome, reads, _) = record(&[Turn::AnswerLost]);
    assert!(matches!(outcome.verdict, Verdict::OwnWriteLanded { attempts: 1, replaced: false }), "{outcome:?}");
    assert_eq!(reads, 1);
    let (outcome, ..) = record(&[Turn::AnswerLostThenPeer]);
    assert!(matches!(outcome.verdict, Verdict::OwnWriteLanded { attempts: 1, replaced: true }), "{outcome:?}");
}

#[test]
fn a_lost_request_is_sent_again() {
    let (outcome, reads, _) = record(&[Turn::RequestLost]);
    assert!(matches!(outcome.verdict, Verdict::Written), "{outcome:?}");
    assert_eq!((outcome.attempts, reads), (2, 1));
}

#[test]
fn a_peer_that_was_first_is_named() {
    let (outcome, ..) = record(&[Turn::PeerFirst]);
    let Verdict::PeerChanged { owner, offset, found } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((*owner, *offset), (Some(PEER), 16), "the nonces differ");
    assert_eq!(*found, outcome.block);
}

#[test]
fn two_steps_of_a_peer_leave_it_open() {
    let (outcome, ..) = record(&[Turn::AnswerLostThenPeerTwice]);
    let Verdict::Indeterminate { may_still_land: false, found: Some(_), source } = &outcome.verdict else {
        panic!("{outcome:?}")
    };
    assert!(matches!(source, DeviceError::OutcomeUnknown { .. }));
    assert_eq!(outcome.verdict.is_written(), None);
}

#[test]
fn a_missed_answer_stays_missed_whatever_fails_after_it() {
    for failure in [Failure::ReservationConflict, Failure::Io] {
        let mut script = vec![Turn::RequestLost, Turn::Done];
        script.extend([Turn::Fails(failure), Turn::Done].repeat(1000));
        let (outcome, ..) = record(&script);
        let Verdict::Indeterminate { may_still_land: true, found: Some(_), source } = &outcome.verdict else {
            panic!("{outcome:?}")
        };
        assert!(matches!(source, DeviceError::OutcomeUnknown { .. }), "{source:?}");
        assert!(outcome.attempts > 1);
    }
}

#[test]
fn what_was_seen_before_an_attempt_is_not_told_of_it() {
    let mut script = vec![Turn::RequestLost, Turn::Done];
    script.extend([Turn::RequestLost, Turn::Fails(Failure::Io)].repeat(1000));
    let (outcome, ..) = record(&script);
    assert!(matches!(outcome.verdict, Verdict::Indeterminate { may_still_land: true, found: None, .. }), "{outcome:?}");
}

#[test]
fn an_update_that_cannot_read_has_written_nothing_and_is_counted() {
    for (turn, failure) in [(Turn::RequestLost, Failure::Unreachable), (Turn::Fails(Failure::Busy), Failure::Busy)] {
        let ats = Ats::in_environment(Scripted::new(&[turn; 1000]), Virtual::new(1));
        let outcome = ats.update(LBA, |_| panic!("there is nothing to change"));
        let Verdict::Unwritten { source } = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((source.failure(), outcome.attempts, ats.counts().unwritten), (Some(failure), 0, 1));
    }
}

/// Where the device waits for as long as the operation may take, one lost request is all: the deadline has passed when it
/// is missed.
#[test]
fn a_lost_request_is_sent_again_only_if_the_deadline_leaves_time_for_it() {
    let deadline = Retry::default().deadline;
    let replace = |timeout| {
        let world = Arc::new(Virtual::new(1));
        let mut device = Scripted::new(&[Turn::RequestLost]);
        device.timeout = Some((Arc::clone(&world), timeout));
        let ats = Ats::in_environment(device, Arc::clone(&world));
        ats.write_record(LBA, &OLD, Draft { kind: 1, owner: US, payload: b"ours" })
    };
    for timeout in [deadline, 4 * deadline] {
        let outcome = replace(timeout);
        let Verdict::Indeterminate { may_still_land: true, found: Some(found), .. } = &outcome.verdict else {
            panic!("{outcome:?}")
        };
        assert_eq!((&found[..], outcome.attempts, outcome.elapsed), (&OLD[..], 1, timeout));
    }
    let outcome = replace(deadline / 3);
    assert!(matches!(outcome.verdict, Verdict::Written), "{outcome:?}");
    assert_eq!(outcome.attempts, 2);
}

#[test]
fn what_is_impossible_is_tried_once_and_what_may_pass_until_the_deadline() {
    for failure in [Failure::Invalid, Failure::ReservationConflict, Failure::ReadOnly, Failure::Unsupported] {
        let (outcome, _, time) = record(&[Turn::Fails(failure)]);
        let Verdict::Unwritten { source } = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((source.failure(), outcome.attempts, time), (Some(failure), 1, Duration::ZERO));
    }
    let (outcome, ..) = record(&[Turn::Fails(Failure::Busy), Turn::Fails(Failure::Io)]);
    assert!(matches!(outcome.verdict, Verdict::Written), "{outcome:?}");
    assert_eq!(outcome.attempts, 3);
    let (outcome, _, time) = record(&[Turn::Fails(Failure::Busy); 1000]);
    assert!(matches!(outcome.verdict, Verdict::Unwritten { .. }), "{outcome:?}");
    let deadline = Retry::default().deadline;
    assert!((deadline / 2..=deadline).contains(&time), "{time:?}");
    // The waits grow to 250 ms at most, half of that on average.
    assert!((40..200).contains(&outcome.attempts), "{}", outcome.attempts);
}

#[test]
fn a_failure_after_a_missed_answer_is_no_proof_that_nothing_was_done() {
    let (outcome, ..) = record(&[Turn::AnswerLost, Turn::Fails(Failure::Io), Turn::Fails(Failure::Io)]);
    assert!(matches!(outcome.verdict, Verdict::OwnWriteLanded { .. }), "{outcome:?}");
}

/// Replaces plain bytes, as the script says.
fn plain(script: &[Turn]) -> (casblock::ats::Outcome, u32) {
    let ats = Ats::in_environment(Scripted::new(script), Virtual::new(1));
    let outcome = ats.compare_and_write(LBA, &OLD, &NEW);
    let reads = *ats.device().reads.lock().unwrap();
    (outcome, reads)
}

#[test]
fn plain_bytes_are_not_guessed_at() {
    assert!(matches!(plain(&[]).0.verdict, Verdict::Written));
    for turn in [Turn::AnswerLost, Turn::RequestLost, Turn::PeerFirst] {
        let (outcome, reads) = plain(&[turn]);
        let Verdict::Indeterminate { may_still_land: true, .. } = outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((outcome.attempts, reads), (1, 1));
    }
    // Nothing is known to be under way after a failure.
    let (outcome, _) = plain(&[Turn::Fails(Failure::Busy)]);
    assert!(matches!(outcome.verdict, Verdict::Written), "{outcome:?}");
    // The block cannot be read for a while.
    let (outcome, reads) = plain(&[Turn::AnswerLost, Turn::Fails(Failure::Io), Turn::Fails(Failure::Io)]);
    assert!(matches!(outcome.verdict, Verdict::Indeterminate { found: Some(_), .. }), "{outcome:?}");
    assert_eq!(reads, 3);
}

#[test]
fn a_plain_miscompare_is_a_peers_without_a_second_read() {
    let ats = Ats::new(Scripted::new(&[]));
    let outcome = ats.compare_and_write(LBA, &NEW, &OLD);
    let Verdict::PeerChanged { offset: 0, owner: None, found } = outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((&*found, *ats.device().reads.lock().unwrap()), (&OLD[..], 0));
}

#[test]
fn bytes_that_are_said_to_be_unique_are_known_again() {
    for (script, attempts) in [([Turn::AnswerLost], 1), ([Turn::RequestLost], 2)] {
        let ats = Ats::in_environment(Scripted::new(&script), Virtual::new(1));
        let outcome = ats.compare_and_write_unique(LBA, &OLD, &NEW);
        assert_eq!((outcome.verdict.is_written(), outcome.attempts), (Some(true), attempts));
    }
}

#[test]
fn a_payload_that_does_not_fit_is_refused() {
    let ats = Ats::new(Store::in_memory(Geometry::blocks(8)).unwrap());
    let draft = Draft { kind: 1, owner: US, payload: &[1; 441] };
    let outcome = ats.write_record(LBA, &OLD, draft);
    let Verdict::Unwritten { source } = outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(source.failure(), Some(Failure::Invalid));
    assert!(ats.write_record(LBA, &OLD, Draft { payload: &[1; 440], ..draft }).verdict.is_written().unwrap());
    assert_eq!(Record512::of_block(0, &OLD).unwrap_err(), NotARecord::Unwritten);
}

#[test]
fn a_record_is_one_block() {
    let ats = Ats::new(Store::in_memory(Geometry::blocks(8)).unwrap());
    for bytes in [0, 511, 1024] {
        let outcome = ats.write_record(LBA - 1, &vec![0; bytes], Draft { kind: 1, owner: US, payload: b"ours" });
        let Verdict::Unwritten { source } = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((source.failure(), outcome.attempts), (Some(Failure::Invalid), 0), "{source}");
        assert!(source.to_string().contains("one block"), "{source}");
    }
}

#[test]
fn an_update_starts_again_with_what_it_finds() {
    let store = Store::in_memory(Geometry::blocks(8)).unwrap();
    let ats = Arc::new(Ats::new(store));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ats = Arc::clone(&ats);
            thread::spawn(move || {
                for _ in 0..250 {
                    let outcome = ats.update(LBA, |block| {
                        let count = u64::from_le_bytes(block[..8].try_into().unwrap());
                        block[..8].copy_from_slice(&(count + 1).to_le_bytes());
                    });
                    assert_eq!(outcome.verdict.is_written(), Some(true));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut block = [0; 512];
    ats.device().read(LBA, &mut block).unwrap();
    assert_eq!(u64::from_le_bytes(block[..8].try_into().unwrap()), 1000);
}

/// The count in a record's payload.
fn count(block: &[u8]) -> u64 {
    Record512::of_block(LBA, block).map_or(0, |record| u64::from_le_bytes(record.payload()[..8].try_into().unwrap()))
}

#[test]
fn hosts_count_right_on_a_device_that_misbehaves() {
    let mut verdicts = [0; 5];
    for seed in 0..200 {
        let mut faults = Faults::none(seed);
        (faults.request_lost, faults.answer_lost, faults.late) = (0.1, 0.1, 0.1);
        (faults.duplicate, faults.error) = (0.1, 0.1);
        faults.timeout = Duration::from_millis(20);
        faults.late_by = Duration::from_millis(1)..Duration::from_millis(100);
        let store = Store::in_memory(Geometry::blocks(8)).unwrap();
        let world = Arc::new(Virtual::new(seed));
        let first = Faulty::in_environment(store, faults, Arc::clone(&world));
        let hosts: Vec<_> =
            (1..=3).map(|host| (host, Ats::in_environment(first.another_host(), Arc::clone(&world)))).collect();
        let (mut written, mut unknown) = (0, 0);
        for _ in 0..30 {
            for (host, ats) in &hosts {
                let owner = Owner { host: *host, generation: 1 };
                let mut current = [0; 512];
                // The read may fail; then it is tried in the update.
                let _ = ats.device().read(LBA, &mut current);
                let payload = (count(&current) + 1).to_le_bytes();
                let outcome = ats.write_record(LBA, &current, Draft { kind: 1, owner, payload: &payload });
                let kind = match outcome.verdict {
                    Verdict::Written => 0,
                    Verdict::OwnWriteLanded { .. } => 1,
                    Verdict::PeerChanged { .. } => 2,
                    Verdict::Unwritten { .. } => 3,
                    Verdict::Indeterminate { .. } => 4,
                };
                verdicts[kind] += 1;
                match outcome.verdict.is_written() {
                    Some(true) => written += 1,
                    Some(false) => {}
                    None => unknown += 1,
                }
            }
        }
        first.settle();
        let mut block = [0; 512];
        first.device().read(LBA, &mut block).unwrap();
        let count = count(&block);
        assert!((written..=written + unknown).contains(&count), "seed {seed}: {written} + {unknown}, but {count}");
    }
    println!("{verdicts:?}");
    assert!(verdicts[..3].iter().all(|count| *count > 100), "{verdicts:?}");
}
