//! Runs operations on a device.

use std::time::Duration;

use super::log::{Counts, Log, Told};
use super::operation::{Answer, Conclusion, Draft, Next, Operation};
use super::record::Nonce;
use super::retry::{Patience, Retry};
use super::verdict::{Outcome, Verdict};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::{Environment, System};
use crate::error::Error;

/// Compare-and-write made certain, on a device. See the [module](super).
///
/// It is shared as the device is: any thread may use it at any time.
#[derive(Debug)]
pub struct Ats<D, E = System> {
    device: D,
    environment: E,
    retry: Retry,
    log: Log,
}

impl<D: BlockDevice> Ats<D> {
    /// On this device, with the machine's own clock and random numbers.
    pub fn new(device: D) -> Self {
        Self::in_environment(device, System)
    }
}

impl<D: BlockDevice, E: Environment> Ats<D, E> {
    /// On this device, with this clock and these random numbers.
    pub fn in_environment(device: D, environment: E) -> Self {
        let log = Log::new(device.name().into_owned());
        Self { device, environment, retry: Retry::default(), log }
    }

    /// Sets how long operations go on.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The clock and the random numbers.
    pub fn environment(&self) -> &E {
        &self.environment
    }

    /// How many operations came to what so far.
    pub fn counts(&self) -> Counts {
        self.log.counts()
    }

    /// Counts an event of the layer above that can come in storms. If a line may tell of it now: how many there were since
    /// the last.
    pub(crate) fn count_event(&self) -> Option<u64> {
        self.log.count_above(|| self.environment.now())
    }

    /// Replaces `expected` by `new` in the blocks from `lba` on; both are equally long.
    ///
    /// Plain bytes can be ambiguous: once an answer was missed, `new` in the block may be a peer's, and a copy of the request
    /// may take effect whenever `expected` comes back. So the verdict is then [`Verdict::Indeterminate`], unless the device
    /// answers before. [`write_record`](Self::write_record) knows better.
    pub fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Outcome {
        self.run(lba, expected, Ok(Operation::plain(lba, expected, new)))
    }

    /// As [`compare_and_write`](Self::compare_and_write), where the caller promises that neither `expected` nor `new` was ever
    /// in these blocks before it was put there this once, nor will be again, whoever writes. For formats with a counter or a nonce of
    /// their own in each image.
    pub fn compare_and_write_unique(&self, lba: u64, expected: &[u8], new: &[u8]) -> Outcome {
        self.run(lba, expected, Ok(Operation::unique(lba, expected, new)))
    }

    /// Replaces block `lba`, if it holds `expected`, which is one block, by a record. All who change the block must write
    /// records.
    pub fn write_record(&self, lba: u64, expected: &[u8], draft: Draft<'_>) -> Outcome {
        self.run(lba, expected, self.record(lba, expected, draft))
    }

    /// Changes block `lba` as `change` says, which is given what the block holds. A peer that was faster makes it start
    /// again with what he wrote, until the deadline: only then the verdict is [`Verdict::PeerChanged`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use casblock::{ats::Ats, Geometry, Store};
    /// # let ats = Ats::new(Store::in_memory(Geometry::blocks(8))?);
    /// let outcome = ats.update(7, |block| block[0] += 1);
    /// assert_eq!(outcome.verdict.is_written(), Some(true));
    /// assert_eq!(outcome.block[0], 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, lba: u64, mut change: impl FnMut(&mut [u8])) -> Outcome {
        self.update_by(lba, |expected| {
            let mut new = expected.to_vec();
            change(&mut new);
            Ok(Operation::plain(lba, expected, &new))
        })
    }

    /// As [`update`](Self::update), by records: `draft` is given what the block holds, and says what it is to hold.
    pub fn update_record<'d>(&self, lba: u64, mut draft: impl FnMut(&[u8]) -> Draft<'d>) -> Outcome {
        self.update_by(lba, |expected| self.record(lba, expected, draft(expected)))
    }

    fn record(&self, lba: u64, expected: &[u8], draft: Draft<'_>) -> Result<Operation, DeviceError> {
        let (bytes, block_size) = (expected.len(), self.device.block_bytes());
        if bytes != block_size {
            // A record of several blocks could be torn between them, and nobody would find it in the first.
            let wrong = Error::BufferLength { bytes, expected: "one block", block_size };
            return Err(DeviceError::failed(Failure::Invalid, wrong));
        }
        Operation::record(lba, expected, draft)
    }

    fn update_by(&self, lba: u64, mut operation: impl FnMut(&[u8]) -> Result<Operation, DeviceError>) -> Outcome {
        let mut patience = Patience::new(self.retry, &self.environment);
        let mut current = vec![0; self.device.block_bytes()].into_boxed_slice();
        while let Err(source) = self.device.read(lba, &mut current) {
            if !is_transient(&source) || !patience.wait(&self.environment) {
                return self.not_begun(lba, source, current, &patience);
            }
        }
        let mut attempts = 0;
        loop {
            let mut outcome = match operation(&current) {
                Ok(operation) => self.go_on(operation, &mut patience),
                Err(source) => self.not_begun(lba, source, current, &patience),
            };
            attempts += outcome.attempts;
            if !matches!(outcome.verdict, Verdict::PeerChanged { .. }) || !patience.wait(&self.environment) {
                outcome.attempts = attempts;
                return outcome;
            }
            current = outcome.block;
        }
    }

    fn run(&self, lba: u64, expected: &[u8], operation: Result<Operation, DeviceError>) -> Outcome {
        let mut patience = Patience::new(self.retry, &self.environment);
        match operation {
            Ok(operation) => self.go_on(operation, &mut patience),
            Err(source) => self.not_begun(lba, source, expected.into(), &patience),
        }
    }

    /// What comes of an operation before its first attempt.
    fn not_begun(&self, lba: u64, source: DeviceError, block: Box<[u8]>, patience: &Patience) -> Outcome {
        let elapsed = patience.elapsed(&self.environment);
        let source = match source {
            // What was not answered is a read. Nothing was sent that could change the block: that much is known.
            DeviceError::OutcomeUnknown { source } => DeviceError::Failed { failure: Failure::Unreachable, source },
            source => source,
        };
        let outcome = Outcome { verdict: Verdict::Unwritten { source }, block, attempts: 0, elapsed };
        let told = Told { lba, operation: None, outcome: &outcome, last: None };
        self.log.note(|| self.environment.now(), &told);
        outcome
    }

    /// Runs an operation to its end.
    fn go_on(&self, mut operation: Operation, patience: &mut Patience) -> Outcome {
        let mut course = Course::default();
        let mut next = self.attempt(&mut operation, &mut course);
        let conclusion = loop {
            next = match next {
                Next::Done(conclusion) => break conclusion,
                // The first look comes at once; another, after one that failed, when something may have changed.
                Next::Look => match self.look(&mut operation, &mut course) {
                    Next::Look if !patience.wait(&self.environment) => break operation.give_up(),
                    next => next,
                },
                Next::Attempt if !course.may_try_again() || !patience.wait(&self.environment) => {
                    break operation.give_up();
                }
                Next::Attempt => self.attempt(&mut operation, &mut course),
            };
        };
        let (outcome, last) = course.outcome(&operation, conclusion, patience.elapsed(&self.environment));
        let told = Told { lba: operation.lba(), operation: Some(&operation), outcome: &outcome, last: last.as_ref() };
        self.log.note(|| self.environment.now(), &told);
        outcome
    }

    fn attempt(&self, operation: &mut Operation, course: &mut Course) -> Next {
        operation.attempt(Nonce::new(self.environment.random()));
        // What was seen before says nothing of what this one does.
        course.found = None;
        match self.device.compare_and_write(operation.lba(), operation.expected(), operation.image()) {
            Ok(()) => operation.answered(Answer::Written),
            Err(DeviceError::Miscompare(miscompare)) => {
                let next = operation.answered(Answer::Miscompare(&miscompare.found));
                course.found = Some(miscompare.found);
                next
            }
            Err(error @ DeviceError::Failed { .. }) => {
                course.failed = Some(error);
                operation.answered(Answer::Failed)
            }
            Err(error @ DeviceError::OutcomeUnknown { .. }) => {
                course.unknown = Some(error);
                operation.answered(Answer::Unknown)
            }
        }
    }

    fn look(&self, operation: &mut Operation, course: &mut Course) -> Next {
        let mut found = vec![0; operation.expected().len()].into_boxed_slice();
        match self.device.read_current(operation.lba(), &mut found) {
            Ok(()) => {
                let next = operation.saw(Some(&found));
                course.found = Some(found);
                next
            }
            Err(_) => operation.saw(None),
        }
    }
}

fn is_transient(error: &DeviceError) -> bool {
    match error {
        DeviceError::Failed { failure, .. } => failure.is_transient(),
        DeviceError::OutcomeUnknown { .. } => true,
        DeviceError::Miscompare(_) => false,
    }
}

/// What an operation met with.
#[derive(Default)]
struct Course {
    /// The last answer that was missed. It outlasts failures that come after it: they were of other attempts.
    unknown: Option<DeviceError>,
    /// The last failure.
    failed: Option<DeviceError>,
    /// What the blocks held when they were seen since the last attempt began.
    found: Option<Box<[u8]>>,
}

impl Course {
    /// Whether another attempt can end otherwise than the last.
    fn may_try_again(&self) -> bool {
        self.failed.as_ref().is_none_or(is_transient)
    }

    /// Why it was not written.
    fn failed(&mut self) -> DeviceError {
        self.failed.take().unwrap_or_else(|| {
            // A device that reports miscompares in which nothing differs, against its promises, till the deadline.
            DeviceError::failed(Failure::Io, "miscompares were reported, but no byte differed")
        })
    }

    /// Why nobody knows whether it was written.
    fn unknown(&mut self) -> DeviceError {
        self.unknown.take().unwrap_or_else(|| DeviceError::unknown("an answer was missed"))
    }

    /// The outcome, and the last error if the outcome does not tell it.
    fn outcome(
        mut self,
        operation: &Operation,
        conclusion: Conclusion,
        elapsed: Duration,
    ) -> (Outcome, Option<DeviceError>) {
        let attempts = operation.attempts();
        let found = self.found.take();
        let (verdict, block) = match conclusion {
            Conclusion::Written => (Verdict::Written, operation.image().into()),
            Conclusion::OwnWriteLanded { replaced } => {
                // That it landed was seen in the block.
                (Verdict::OwnWriteLanded { attempts, replaced }, found.unwrap_or_else(|| operation.image().into()))
            }
            Conclusion::PeerChanged { offset, owner } => {
                let found = found.unwrap_or_else(|| operation.expected().into());
                (Verdict::PeerChanged { offset, found: found.clone(), owner }, found)
            }
            Conclusion::Unwritten => (Verdict::Unwritten { source: self.failed() }, operation.expected().into()),
            Conclusion::Indeterminate { may_still_land } => {
                let block = found.clone().unwrap_or_else(|| operation.expected().into());
                (Verdict::Indeterminate { may_still_land, found, source: self.unknown() }, block)
            }
        };
        (Outcome { verdict, block, attempts, elapsed }, self.unknown.or(self.failed))
    }
}
