//! A device that misbehaves on purpose, the same way each time a seed is given.
//!
//! It stands between several hosts and a device, as a network does: it delays requests, loses them or their answers, lets
//! them take effect long after the caller gave up, or twice, fails them, and cuts hosts off. What a late copy meets when it
//! takes effect is what the device holds then.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{BlockDevice, DeviceError, Failure};
use crate::dice::Dice;
use crate::environment::{Environment, System};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Mutex, MutexGuard};

/// How often what goes wrong: chances from 0 to 1, of each request on its own.
#[derive(Clone, PartialEq, Debug)]
pub struct Faults {
    /// What all chance follows from. Each host has dice of its own, so its faults do not depend on what others do.
    pub seed: u64,
    /// A request never arrives.
    pub request_lost: f64,
    /// A request is done, but its answer is lost.
    pub answer_lost: f64,
    /// A request is taken for lost, and done later.
    pub late: f64,
    /// A request is done, and a copy of it once more, later.
    pub duplicate: f64,
    /// A request is not done: an I/O error.
    pub error: f64,
    /// How long a request takes to arrive, and its answer to come back.
    pub delay: Range<Duration>,
    /// How long the caller waits for an answer that does not come.
    pub timeout: Duration,
    /// How long after it was sent what is late takes effect.
    pub late_by: Range<Duration>,
}

impl Faults {
    /// None, and no delays: to be changed field by field. A request that is lost takes 2 s: a quarter of what an operation of
    /// an [`Ats`](crate::ats::Ats) may take, so that it is sent again.
    pub fn none(seed: u64) -> Self {
        let at_once = Duration::ZERO..Duration::ZERO;
        Self {
            seed,
            request_lost: 0.0,
            answer_lost: 0.0,
            late: 0.0,
            duplicate: 0.0,
            error: 0.0,
            delay: at_once.clone(),
            timeout: Duration::from_secs(2),
            late_by: at_once,
        }
    }
}

/// How a host is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// It is.
    #[default]
    Up,
    /// Its requests get lost.
    Down,
    /// Its requests arrive, the answers get lost.
    AnswersLost,
}

/// How many requests met with what, of all hosts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FaultCounts {
    /// All requests.
    pub requests: u64,
    /// Those that never arrived.
    pub requests_lost: u64,
    /// Those that were done and not answered.
    pub answers_lost: u64,
    /// Those that were taken for lost, and done later.
    pub late: u64,
    /// Those that were done once more, later.
    pub duplicates: u64,
    /// Those that failed.
    pub errors: u64,
}

/// A device behind faults, as one host sees it. See the module's documentation.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use casblock::ats::{Ats, Draft, Owner};
/// use casblock::device::{Faults, Faulty};
/// use casblock::{Geometry, Store};
///
/// let mut faults = Faults::none(1);
/// (faults.answer_lost, faults.timeout) = (0.5, Duration::from_micros(10));
/// let device = Faulty::new(Store::in_memory(Geometry::blocks(8))?, faults);
/// let ats = Ats::new(device);
/// let owner = Owner { host: 1, generation: 1 };
/// for round in 0u8..20 {
///     let outcome = ats.update_record(7, |_| Draft { kind: 1, owner, payload: &[] });
///     assert_eq!(outcome.verdict.is_written(), Some(true), "round {round}");
/// }
/// assert!(ats.device().counts().answers_lost > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Faulty<D, E = System> {
    network: Arc<Network<D, E>>,
    dice: Mutex<Dice>,
    link: Mutex<Link>,
}

/// What all hosts share.
#[derive(Debug)]
struct Network<D, E> {
    device: D,
    environment: E,
    faults: Faults,
    /// Requests that take effect later, by when, and by which was sent first.
    late: Mutex<BTreeMap<(Duration, u64), Request>>,
    hosts: AtomicU64,
    sent: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    requests_lost: AtomicU64,
    answers_lost: AtomicU64,
    late: AtomicU64,
    duplicates: AtomicU64,
    errors: AtomicU64,
}

/// A request that changes something.
#[derive(Clone, Debug)]
enum Request {
    Write { lba: u64, data: Box<[u8]> },
    CompareAndWrite { lba: u64, expected: Box<[u8]>, new: Box<[u8]> },
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    RequestLost,
    AnswerLost,
    Late,
    Duplicate,
    Error,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: BlockDevice> Faulty<D> {
    /// A device behind faults, for the first of its hosts.
    pub fn new(device: D, faults: Faults) -> Self {
        Self::in_environment(device, faults, System)
    }
}

impl<D: BlockDevice, E: Environment> Faulty<D, E> {
    /// As [`new`](Self::new), where time is that of `environment`.
    pub fn in_environment(device: D, faults: Faults, environment: E) -> Self {
        let network = Network {
            device,
            environment,
            faults,
            late: Mutex::default(),
            hosts: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            counters: Counters::default(),
        };
        Self::join(Arc::new(network))
    }

    /// The same device as another host sees it: with dice and a link of its own.
    pub fn another_host(&self) -> Self {
        Self::join(Arc::clone(&self.network))
    }

    fn join(network: Arc<Network<D, E>>) -> Self {
        let host = network.hosts.fetch_add(1, Relaxed);
        let dice = Mutex::new(Dice::new(network.faults.seed, host));
        Self { network, dice, link: Mutex::new(Link::Up) }
    }

    /// Connects the host, or cuts it off.
    pub fn set_link(&self, link: Link) {
        *locked(&self.link) = link;
    }

    /// How many requests met with what so far.
    pub fn counts(&self) -> FaultCounts {
        let counters = &self.network.counters;
        FaultCounts {
            requests: counters.requests.load(Relaxed),
            requests_lost: counters.requests_lost.load(Relaxed),
            answers_lost: counters.answers_lost.load(Relaxed),
            late: counters.late.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            errors: counters.errors.load(Relaxed),
        }
    }

    /// Lets everything take effect that is under way, whenever it is due.
    pub fn settle(&self) {
        self.network.deliver(Duration::MAX);
    }

    /// The device, as it is without faults. Requests that are due have taken effect.
    pub fn device(&self) -> &D {
        self.network.deliver(self.network.environment.now());
        &self.network.device
    }

    fn draw(&self) -> (Fate, Duration, Duration, Duration) {
        let faults = &self.network.faults;
        let mut dice = locked(&self.dice);
        let mut within = |range: &Range<Duration>| {
            let width = range.end.saturating_sub(range.start).as_nanos();
            range.start + Duration::from_nanos(dice.below(width.try_into().unwrap_or(u64::MAX)))
        };
        let (there, back, late_by) = (within(&faults.delay), within(&faults.delay), within(&faults.late_by));
        let fates = [
            (Fate::RequestLost, faults.request_lost),
            (Fate::AnswerLost, faults.answer_lost),
            (Fate::Late, faults.late),
            (Fate::Duplicate, faults.duplicate),
            (Fate::Error, faults.error),
        ];
        // All dice are thrown each time, so that a chance can be changed without changing what else happens.
        let mut fate = Fate::Answered;
        for (other, chance) in fates {
            if dice.chance(chance) && fate == Fate::Answered {
                fate = other;
            }
        }
        drop(dice);
        let fate = match *locked(&self.link) {
            Link::Up => fate,
            Link::Down => Fate::RequestLost,
            Link::AnswersLost => Fate::AnswerLost,
        };
        (fate, there, back, late_by)
    }

    /// Sends a request, which `perform` performs on the device. `copy` makes what may take effect later: nothing of a request
    /// that changes nothing, which is lost where another is late.
    fn send(
        &self,
        perform: impl FnOnce(&D) -> Result<(), DeviceError>,
        copy: impl FnOnce() -> Option<Request>,
    ) -> Result<(), DeviceError> {
        let (network, counters) = (&*self.network, &self.network.counters);
        let (fate, there, back, late_by) = self.draw();
        let late = matches!(fate, Fate::Late | Fate::Duplicate).then(copy).flatten();
        let sent = network.environment.now();
        counters.requests.fetch_add(1, Relaxed);
        let count = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
        network.sleep(there);
        network.deliver(network.environment.now());
        let unanswered = |what: &'static str| {
            network.sleep(network.faults.timeout.saturating_sub(network.environment.now().saturating_sub(sent)));
            Err(DeviceError::unknown(what))
        };
        match fate {
            Fate::RequestLost => {
                count(&counters.requests_lost);
                unanswered("no answer came: the request was lost, on purpose")
            }
            Fate::AnswerLost => {
                count(&counters.answers_lost);
                // It was done or not; nobody hears of it.
                let _ = perform(&network.device);
                unanswered("no answer came: it was lost, on purpose")
            }
            Fate::Late => {
                match late {
                    Some(request) => {
                        count(&counters.late);
                        network.send_later(sent + late_by, request);
                    }
                    None => {
                        count(&counters.requests_lost);
                    }
                }
                unanswered("no answer came: the request is late, on purpose")
            }
            Fate::Error => {
                count(&counters.errors);
                network.sleep(back);
                Err(DeviceError::failed(Failure::Io, "an I/O error, on purpose"))
            }
            Fate::Duplicate | Fate::Answered => {
                let answer = perform(&network.device);
                if let Some(request) = late {
                    count(&counters.duplicates);
                    network.send_later(sent + late_by, request);
                }
                network.sleep(back);
                answer
            }
        }
    }
}

impl<D: BlockDevice, E: Environment> Network<D, E> {
    fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            self.environment.sleep(time);
        }
    }

    fn send_later(&self, due: Duration, request: Request) {
        let number = self.sent.fetch_add(1, Relaxed);
        locked(&self.late).insert((due, number), request);
    }

    /// Lets take effect what is due at `now`, in order.
    fn deliver(&self, now: Duration) {
        loop {
            let mut late = locked(&self.late);
            let Some(first) = late.first_entry().filter(|first| first.key().0 <= now) else { return };
            let request = first.remove();
            // Held while it takes effect: who comes after sees it done.
            let _ = match &request {
                Request::Write { lba, data } => self.device.write(*lba, data),
                Request::CompareAndWrite { lba, expected, new } => self.device.compare_and_write(*lba, expected, new),
            };
            drop(late);
        }
    }
}

impl<D: BlockDevice, E: Environment> BlockDevice for Faulty<D, E> {
    fn name(&self) -> Cow<'_, str> {
        self.network.device.name()
    }

    fn block_bytes(&self) -> usize {
        self.network.device.block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.network.device.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.network.device.compare_and_write_blocks_max()
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.send(|device| device.read(lba, out), || None)
    }

    fn read_current(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.send(|device| device.read_current(lba, out), || None)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.send(|device| device.write(lba, data), || Some(Request::Write { lba, data: data.into() }))
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.send(
            |device| device.compare_and_write(lba, expected, new),
            || Some(Request::CompareAndWrite { lba, expected: expected.into(), new: new.into() }),
        )
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.send(|device| device.flush(), || None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Virtual;
    use crate::{Geometry, Store};

    const OLD: [u8; 512] = [0; 512];
    const NEW: [u8; 512] = [1; 512];

    fn device(faults: Faults) -> Faulty<Store, Virtual> {
        let store = Store::in_memory(Geometry::blocks(8)).unwrap();
        Faulty::in_environment(store, faults, Virtual::new(1))
    }

    fn holds(device: &Faulty<Store, Virtual>) -> u8 {
        let mut block = [0; 512];
        device.device().read(7, &mut block).unwrap();
        block[0]
    }

    fn is_unknown(answer: Result<(), DeviceError>) -> bool {
        matches!(answer, Err(DeviceError::OutcomeUnknown { .. }))
    }

    #[test]
    fn without_faults_it_is_the_device() {
        let device = device(Faults::none(1));
        device.compare_and_write(7, &OLD, &NEW).unwrap();
        assert!(matches!(device.compare_and_write(7, &OLD, &NEW), Err(DeviceError::Miscompare(_))));
        device.flush().unwrap();
        assert_eq!(holds(&device), 1);
        assert_eq!(device.network.environment.now(), Duration::ZERO);
        assert_eq!(device.counts(), FaultCounts { requests: 3, ..FaultCounts::default() });
    }

    #[test]
    fn what_is_lost_takes_the_timeout_and_is_done_or_not() {
        let mut faults = Faults::none(1);
        faults.request_lost = 1.0;
        let lost = device(faults.clone());
        assert!(is_unknown(lost.compare_and_write(7, &OLD, &NEW)));
        assert_eq!((holds(&lost), lost.network.environment.now()), (0, Duration::from_secs(2)));
        (faults.request_lost, faults.answer_lost) = (0.0, 1.0);
        let unanswered = device(faults);
        assert!(is_unknown(unanswered.compare_and_write(7, &OLD, &NEW)));
        assert!(is_unknown(unanswered.read(7, &mut [0; 512])));
        assert_eq!(holds(&unanswered), 1);
        assert_eq!(unanswered.counts().answers_lost, 2);
    }

    #[test]
    fn what_is_late_takes_effect_when_it_is_due() {
        let mut faults = Faults::none(1);
        (faults.late, faults.late_by) = (1.0, Duration::from_secs(20)..Duration::from_secs(20));
        let device = device(faults);
        assert!(is_unknown(device.compare_and_write(7, &OLD, &NEW)));
        assert_eq!(holds(&device), 0);
        device.network.environment.sleep(Duration::from_secs(17));
        assert_eq!(holds(&device), 0);
        device.network.environment.sleep(Duration::from_secs(1));
        assert_eq!(holds(&device), 1);
        assert_eq!(device.counts().late, 1);
    }

    #[test]
    fn a_duplicate_is_done_again_where_the_block_has_come_back() {
        let mut faults = Faults::none(1);
        (faults.duplicate, faults.late_by) = (1.0, Duration::from_secs(1)..Duration::from_secs(1));
        let device = device(faults);
        device.compare_and_write(7, &OLD, &NEW).unwrap();
        device.device().write(7, &OLD).unwrap();
        assert_eq!(holds(&device), 0);
        device.settle();
        assert_eq!(holds(&device), 1);
    }

    #[test]
    fn an_error_changes_nothing() {
        let mut faults = Faults::none(1);
        faults.error = 1.0;
        let device = device(faults);
        let answer = device.write(7, &NEW).unwrap_err();
        assert_eq!((answer.failure(), holds(&device)), (Some(Failure::Io), 0));
    }

    #[test]
    fn a_host_that_is_cut_off_is_so_alone() {
        let one = device(Faults::none(1));
        let other = one.another_host();
        one.set_link(Link::Down);
        assert!(is_unknown(one.write(7, &NEW)));
        assert_eq!(holds(&one), 0);
        one.set_link(Link::AnswersLost);
        assert!(is_unknown(one.write(7, &NEW)));
        let mut block = [0; 512];
        other.read(7, &mut block).unwrap();
        assert_eq!(block, NEW);
        one.set_link(Link::Up);
        one.write(7, &OLD).unwrap();
    }

    #[test]
    fn faults_follow_from_the_seed() {
        let course = |seed| {
            let mut faults = Faults::none(seed);
            (faults.request_lost, faults.answer_lost, faults.late, faults.error) = (0.2, 0.2, 0.2, 0.2);
            faults.delay = Duration::ZERO..Duration::from_millis(5);
            let device = device(faults);
            let answers: Vec<String> = (0..100).map(|_| format!("{:?}", device.write(7, &NEW))).collect();
            (answers, device.counts(), device.network.environment.now())
        };
        assert_eq!(course(1), course(1));
        assert_ne!(course(1), course(2));
        let FaultCounts { requests, requests_lost, answers_lost, late, errors, .. } = course(1).1;
        assert_eq!(requests, 100);
        assert!([requests_lost, answers_lost, late, errors].iter().all(|count| (5..40).contains(count)));
    }
}
