//! Sending commands until they are done, or it is known that they are not to be.

use std::time::Duration;

use super::cdb::{Cdb, opcode};
use super::error::ScsiError;
use super::sense::Sense;
use super::transport::{Completion, Data, Transport, TransportError};
use super::verdict::Verdict;
use crate::device::{DeviceError, Failure};
use crate::environment::Environment;

/// How a disk is used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DiskOptions {
    /// How long one command may take; 30 s unless said otherwise. When it has passed, the system takes the command back, and
    /// may reset the disk to do so, which hits everybody's commands: so let it be long, and judge lateness by a clock.
    ///
    /// It is no bound on how long a call takes. Linux takes less than 7 s for 7 s, needs time of its own to take a command
    /// back, and may send one again that was answered BUSY, for as long as this. And a multipath device that queues while it
    /// has no path (`queue_if_no_path`) waits for one, without end.
    pub command_timeout: Duration,
    /// The same of SYNCHRONIZE CACHE, which may have a whole cache to write; 60 s unless said otherwise, as Linux has it.
    pub flush_timeout: Duration,
    /// How long a disk that is busy, or getting ready, is asked again; 5 s unless said otherwise.
    pub patience: Duration,
    /// The most bytes of a read or a write that go with one command; 128 KiB unless said otherwise. What the disk and the way
    /// to it take sets bounds as well.
    pub transfer_bytes_max: usize,
    /// Whether to find out if the disk compares, by a compare-and-write that cannot succeed; yes unless said otherwise. See
    /// [`probe`](super::probe()).
    pub prove_compare_and_write: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(30),
            flush_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(5),
            transfer_bytes_max: 128 << 10,
            prove_compare_and_write: true,
        }
    }
}

/// A command that was answered as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was done, and so many bytes went.
    Done(usize),
    /// The blocks held something else. They were not changed by what was answered so.
    Miscompare(Miscompare),
}

/// A miscompare as the disk told it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Miscompare {
    /// Where the first difference was, in bytes, if the disk says so.
    pub offset: Option<u64>,
    /// Whether it may have been sent before, and done.
    pub repeat: Repeat,
}

/// Whether what was answered may not have been sent for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// It was the first time, for all that is known.
    None,
    /// The system may have sent it before: the answer took long.
    Unseen,
    /// It was sent before, and answered in a way that leaves open whether it was done.
    Sent,
}

/// An answer that takes no longer is the first. When a target answers BUSY, Linux sends the command again by itself, for as
/// long as the command may take, and tells nobody; but a target that says so of a command that it had begun has waited
/// for somebody before, and that for many seconds.
const UNSEEN_REPEAT_MIN: Duration = Duration::from_secs(1);

/// Longer blocks are not used. There are disks of 4 KiB; a number far beyond that is an error of the disk, and would be one
/// of whoever believes it.
pub(super) const BLOCK_BYTES_MAX: u32 = 64 << 10;

/// How often a command is sent again at once: a disk may have several things to say first.
const ATTENTIONS_MAX: u32 = 16;

/// A way to a disk, and the clock to wait by.
#[derive(Debug)]
pub(super) struct Session<T, E> {
    pub transport: T,
    pub environment: E,
    pub options: DiskOptions,
}

impl<T: Transport, E: Environment> Session<T, E> {
    /// Sends a command until it is done. `notice` hears of each unit attention and each deferred error before the command is
    /// sent again, and may stop that.
    pub fn send(
        &self,
        command: &Cdb,
        mut data: Data<'_>,
        notice: &dyn Fn(&Sense) -> Result<(), DeviceError>,
    ) -> Result<Outcome, DeviceError> {
        let mut perhaps_done = false;
        let result = self.send_until_answered(command, &mut data, notice, &mut perhaps_done);
        match result {
            Ok(Outcome::Miscompare(miscompare)) if perhaps_done => {
                Ok(Outcome::Miscompare(Miscompare { repeat: Repeat::Sent, ..miscompare }))
            }
            // That the last time it was not done says nothing about the times before.
            Err(error @ DeviceError::Failed { .. }) if perhaps_done => {
                Err(DeviceError::unknown(ScsiError::PerhapsDone { command: *command, source: error.into() }))
            }
            result => result,
        }
    }

    /// See [`send`](Self::send). `perhaps_done` is set when the command was answered in a way that leaves that open, and is
    /// sent again.
    fn send_until_answered(
        &self,
        command: &Cdb,
        data: &mut Data<'_>,
        notice: &dyn Fn(&Sense) -> Result<(), DeviceError>,
        perhaps_done: &mut bool,
    ) -> Result<Outcome, DeviceError> {
        let mut pause = Pause::new(&self.environment, self.options.patience);
        let timeout = match command.bytes()[0] {
            opcode::SYNCHRONIZE_CACHE_16 => self.options.flush_timeout,
            _ => self.options.command_timeout,
        };
        let mut attentions = 0;
        loop {
            let (bytes, sent) = (data.bytes(), self.environment.now());
            let completion = match self.transport.execute(command, data.reborrow(), timeout) {
                Ok(completion) => completion,
                Err(TransportError::NotSent { failure: Failure::Busy, .. }) if pause.wait() => continue,
                Err(source) => return Err(missing(command, source)),
            };
            let error = || ScsiError::Answer { command: *command, answer: (&completion).into() };
            match Verdict::of(command, &completion) {
                Verdict::Done => return done(command, bytes, &completion),
                Verdict::Miscompare(offset) => {
                    let took = self.environment.now().saturating_sub(sent);
                    let repeat = if took < UNSEEN_REPEAT_MIN { Repeat::None } else { Repeat::Unseen };
                    return Ok(Outcome::Miscompare(Miscompare { offset, repeat }));
                }
                Verdict::Again(_) if attentions == ATTENTIONS_MAX => {
                    return Err(DeviceError::failed(Failure::Busy, error()));
                }
                Verdict::Again(sense) => {
                    attentions += 1;
                    notice(&sense)?;
                }
                Verdict::PerhapsLater => {
                    *perhaps_done = true;
                    if !pause.wait() {
                        return Err(DeviceError::unknown(error()));
                    }
                }
                Verdict::Later(_) if pause.wait() => {}
                Verdict::Later(failure) | Verdict::Failed(failure) => {
                    return Err(DeviceError::failed(failure, error()));
                }
                Verdict::Unknown => return Err(DeviceError::unknown(error())),
            }
        }
    }

    /// Sends a command that is about no blocks, and brings at most `bytes` bytes.
    pub fn ask(&self, command: &Cdb, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let mut answer = vec![0; bytes];
        match self.send(command, Data::In(&mut answer), &|_| Ok(()))? {
            Outcome::Done(transferred) => answer.truncate(transferred),
            Outcome::Miscompare(_) => answer.clear(),
        }
        Ok(answer)
    }
}

/// A command that was done, if all of its data went. Only questions may bring less than there was room for.
fn done(command: &Cdb, bytes: usize, completion: &Completion) -> Result<Outcome, DeviceError> {
    let residual_bytes = completion.residual_bytes.min(bytes);
    if command.blocks() == 0 || residual_bytes == 0 {
        return Ok(Outcome::Done(bytes - residual_bytes));
    }
    let error = ScsiError::Short { command: *command, bytes, residual_bytes };
    // Which blocks are in what was not sent, if any, nobody says.
    Err(if command.changes_blocks() { DeviceError::unknown(error) } else { DeviceError::failed(Failure::Io, error) })
}

/// A command without an answer.
fn missing(command: &Cdb, source: TransportError) -> DeviceError {
    let failure = match &source {
        TransportError::NotSent { failure, .. } => Some(*failure),
        TransportError::Unreachable { .. } => (!command.changes_blocks()).then_some(Failure::Unreachable),
        TransportError::NoAnswer { .. } => None,
    };
    let error = ScsiError::Transport { command: *command, source };
    match failure {
        Some(failure) => DeviceError::failed(failure, error),
        None => DeviceError::unknown(error),
    }
}

/// Waiting between attempts, longer each time, and never as long as the others who wait.
pub(super) struct Pause<'e, E> {
    environment: &'e E,
    until: Duration,
    next: Duration,
}

impl<'e, E: Environment> Pause<'e, E> {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(128);

    /// Waits for so long in all.
    pub fn new(environment: &'e E, patience: Duration) -> Self {
        Self { environment, until: environment.now().saturating_add(patience), next: Self::FIRST }
    }

    /// Waits; `false`, at once, if there is no time left.
    pub fn wait(&mut self) -> bool {
        let left = self.until.saturating_sub(self.environment.now());
        if left.is_zero() {
            return false;
        }
        // Between half and all of it, in 65,536 steps.
        let dice = (self.environment.random() & 0xffff) as u32;
        let time = self.next / 2 + self.next / 2 * dice / 0x1_0000;
        self.environment.sleep(time.min(left));
        self.next = (self.next * 2).min(Self::LONGEST);
        true
    }
}
