//! A disk in memory that answers as real ones do, and as it is told to.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::device::scsi::{Cdb, Completion, Data, DiskOptions, Status, Transport, TransportError, opcode};
use crate::device::{DeviceError, Failure, first_difference};
use crate::environment::Environment;

use super::super::Disk;

/// A clock that goes on only by sleep, and dice that always fall the same.
#[derive(Debug)]
pub struct Clock {
    now: Mutex<Duration>,
    dice: Mutex<fastrand::Rng>,
}

impl Clock {
    pub fn new() -> Self {
        Self { now: Mutex::new(Duration::ZERO), dice: Mutex::new(fastrand::Rng::with_seed(5)) }
    }
}

impl Environment for Clock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    fn random(&self) -> u128 {
        self.dice.lock().unwrap().u128(..)
    }
}

/// What is to happen to one command instead of what would.
pub enum Trick {
    /// It is answered so, and not done.
    Answer(Completion),
    /// It is done, and then answered so. If it is refused, it is answered like that.
    DoneButAnswer(Completion),
    /// It is not done, and there is no answer.
    NoAnswer,
    /// It is done, and there is no answer.
    DoneButNoAnswer,
    /// It is not sent.
    NotSent(Failure),
    /// The disk cannot be reached.
    Unreachable,
    /// It is done, but this many bytes fewer go than asked for; those that go with a write are written all the same.
    Residual(usize),
    /// Somebody else does this first, then it is done.
    After(Box<dyn FnOnce(&mut Settings) + Send>),
}

/// What kind of disk it is. What others may do to it is done to this.
pub struct Settings {
    pub blocks: Vec<u8>,
    pub block_bytes: usize,
    pub inquiry: Vec<u8>,
    pub naa: [u8; 16],
    /// The pages of vital product data that it lists, and has.
    pub pages: Vec<u8>,
    /// What page B0h says.
    pub claimed_blocks_max: u8,
    pub transfer_blocks_max: u32,
    /// How many blocks a compare-and-write may have; `None` if it has no such command.
    pub compare_and_write: Option<u8>,
    pub compares: bool,
    pub reports_offset: bool,
    /// Added to the offset that is reported.
    pub offset_error: u64,
    pub force_unit_access: bool,
    pub compare_and_write_fua: bool,
    pub descriptor_sense: bool,
    /// MODE SENSE: the device-specific byte, and the caching page's flags.
    pub mode: Option<(u8, u8)>,
    pub lists_commands: bool,
    pub synchronizes: bool,
    pub transport_bytes_max: Option<usize>,
    /// The last block that it says it has, if that is another than it has.
    pub claimed_last_lba: Option<u64>,
}

/// The disk.
pub struct Fake {
    settings: Mutex<Settings>,
    tricks: Mutex<VecDeque<(u8, Trick)>>,
    log: Mutex<Vec<Cdb>>,
    /// The longest that a command was given, for flushes and for all others.
    pub timeouts: Mutex<[Duration; 2]>,
}

/// Blocks of a fresh disk.
pub const BLOCKS: usize = 64;

impl Fake {
    /// As Linux's LIO is.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// As Linux's LIO is, but for something.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            blocks: vec![0; BLOCKS * 512],
            block_bytes: 512,
            inquiry: [&[0, 0, 5, 2, 31, 0, 0, 2][..], b"LIO-ORG f0              4.0 "].concat(),
            naa: *b"\x60\x01\x40\x05abcdefghijkl",
            pages: vec![0x00, 0x80, 0x83, 0xb0],
            claimed_blocks_max: 1,
            transfer_blocks_max: 0,
            compare_and_write: Some(1),
            compares: true,
            reports_offset: true,
            offset_error: 0,
            force_unit_access: true,
            compare_and_write_fua: true,
            descriptor_sense: false,
            mode: Some((0x10, 0x04)),
            lists_commands: true,
            synchronizes: true,
            transport_bytes_max: None,
            claimed_last_lba: None,
        };
        change(&mut settings);
        Self {
            settings: Mutex::new(settings),
            tricks: Mutex::default(),
            log: Mutex::default(),
            timeouts: Mutex::default(),
        }
    }

    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap()
    }

    /// The next command with this operation code meets this trick; the one after it, the next trick for that code.
    pub fn trick(&self, operation_code: u8, trick: Trick) {
        self.tricks.lock().unwrap().push_back((operation_code, trick));
    }

    /// All tricks were played.
    pub fn is_through(&self) -> bool {
        self.tricks.lock().unwrap().is_empty()
    }

    /// The commands since the last call, by their bytes.
    pub fn take_log(&self) -> Vec<Cdb> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// As [`take_log`](Self::take_log), but only the operation codes.
    pub fn take_codes(&self) -> Vec<u8> {
        self.take_log().iter().map(|command| command.bytes()[0]).collect()
    }

    pub fn block(&self, lba: usize) -> Vec<u8> {
        let settings = self.settings();
        settings.blocks[lba * settings.block_bytes..][..settings.block_bytes].to_vec()
    }

    pub fn fill(&self, lba: usize, byte: u8) {
        self.settings().fill(lba, byte);
    }

    /// Opens it, by a clock of its own, and forgets the commands that took.
    pub fn open(&self) -> Disk<&Self, Clock> {
        let disk = self.try_open().unwrap();
        self.take_log();
        disk
    }

    pub fn try_open(&self) -> Result<Disk<&Self, Clock>, DeviceError> {
        Disk::open_with(self, Clock::new(), DiskOptions::default())
    }
}

impl Transport for Fake {
    fn name(&self) -> Cow<'_, str> {
        "fake".into()
    }

    fn execute(&self, command: &Cdb, data: Data<'_>, timeout: Duration) -> Result<Completion, TransportError> {
        self.log.lock().unwrap().push(*command);
        let flushes = command.bytes()[0] == opcode::SYNCHRONIZE_CACHE_16;
        let longest = &mut self.timeouts.lock().unwrap()[usize::from(!flushes)];
        *longest = timeout.max(*longest);
        let trick = {
            let mut tricks = self.tricks.lock().unwrap();
            let place = tricks.iter().position(|(code, _)| *code == command.bytes()[0]);
            place.and_then(|place| tricks.remove(place))
        };
        let mut settings = self.settings();
        let silence = || TransportError::NoAnswer { source: "no answer".into() };
        match trick.map(|(_, trick)| trick) {
            None => Ok(settings.run(command, data)),
            Some(Trick::Answer(completion)) => Ok(completion),
            Some(Trick::DoneButAnswer(completion)) => Ok(match settings.run(command, data) {
                done if done.status == Status::GOOD => completion,
                refused => refused,
            }),
            Some(Trick::NoAnswer) => Err(silence()),
            Some(Trick::DoneButNoAnswer) => {
                settings.run(command, data);
                Err(silence())
            }
            Some(Trick::NotSent(failure)) => Err(TransportError::NotSent { failure, source: "not sent".into() }),
            Some(Trick::Unreachable) => Err(TransportError::Unreachable { source: "unreachable".into() }),
            Some(Trick::Residual(residual_bytes)) => Ok(Completion { residual_bytes, ..settings.run(command, data) }),
            Some(Trick::After(first)) => {
                first(&mut settings);
                Ok(settings.run(command, data))
            }
        }
    }

    fn transfer_bytes_max(&self) -> Option<usize> {
        self.settings().transport_bytes_max
    }
}

/// CHECK CONDITION with fixed sense data.
pub fn check(key: u8, code: u8, qualifier: u8) -> Completion {
    sense(false, false, key, code, qualifier, None)
}

/// CHECK CONDITION with these sense data.
pub fn sense(
    descriptors: bool,
    deferred: bool,
    key: u8,
    code: u8,
    qualifier: u8,
    information: Option<u64>,
) -> Completion {
    let number = information.unwrap_or(0).to_be_bytes();
    let valid = u8::from(information.is_some()) << 7;
    let deferred = u8::from(deferred);
    let sense = if descriptors {
        let descriptor = [&[0x00, 0x0a, valid, 0], &number[..]].concat();
        [&[0x72 | deferred, key, code, qualifier, 0, 0, 0, 12], &descriptor[..]].concat()
    } else {
        let head = [&[valid | 0x70 | deferred, 0, key], &number[4..], &[10, 0, 0, 0, 0]].concat();
        [&head[..], &[code, qualifier, 0, 0, 0, 0]].concat()
    };
    Completion { status: Status::CHECK_CONDITION, sense, residual_bytes: 0 }
}

impl Settings {
    pub fn fill(&mut self, lba: usize, byte: u8) {
        self.blocks[lba * self.block_bytes..][..self.block_bytes].fill(byte);
    }

    fn refuse(&self, code: u8) -> Completion {
        sense(self.descriptor_sense, false, 5, code, 0, None)
    }

    fn run(&mut self, command: &Cdb, data: Data<'_>) -> Completion {
        let bytes = command.bytes();
        let bit = |byte: usize, bit: u8| bytes[byte] & bit != 0;
        match bytes[0] {
            opcode::TEST_UNIT_READY => Completion::of(Status::GOOD),
            opcode::INQUIRY if bit(1, 0x01) => match self.page(bytes[2]) {
                Some(page) => bring(&page, data),
                None => self.refuse(0x24),
            },
            opcode::INQUIRY => bring(&self.inquiry, data),
            opcode::MODE_SENSE_10 => match self.mode {
                Some((device, flags)) => bring(&[0, 25, 0, device, 0, 0, 0, 0, 0x08, 0x12, flags], data),
                None => self.refuse(0x20),
            },
            opcode::SERVICE_ACTION_IN_16 => bring(&self.capacity(), data),
            opcode::MAINTENANCE_IN if self.lists_commands => {
                let has = self.compare_and_write.is_some() || bytes[3] != opcode::COMPARE_AND_WRITE;
                bring(&[0, if has { 0x03 } else { 0x01 }, 0, 16], data)
            }
            opcode::SYNCHRONIZE_CACHE_16 if self.synchronizes => Completion::of(Status::GOOD),
            opcode::READ_16 | opcode::WRITE_16 | opcode::COMPARE_AND_WRITE => self.run_on_blocks(command, data),
            _ => self.refuse(0x20),
        }
    }

    fn run_on_blocks(&mut self, command: &Cdb, data: Data<'_>) -> Completion {
        let wants_fua = command.bytes()[1] & 0x08 != 0;
        let compares = command.bytes()[0] == opcode::COMPARE_AND_WRITE;
        let takes_fua = if compares { self.compare_and_write_fua } else { self.force_unit_access };
        if compares && self.compare_and_write.is_none() {
            return self.refuse(0x20);
        }
        if wants_fua && !takes_fua || compares && self.compare_and_write < Some(command.blocks() as u8) {
            return self.refuse(0x24);
        }
        let (from, length) = (command.lba().unwrap_or(0) as usize * self.block_bytes, command.blocks() as usize);
        let length = length * self.block_bytes;
        let Some(blocks) = self.blocks.get_mut(from..from + length) else { return self.refuse(0x21) };
        match data {
            Data::In(out) if command.bytes()[0] == opcode::READ_16 => {
                assert_eq!(out.len(), length);
                out.copy_from_slice(blocks);
            }
            Data::Out(new) if command.bytes()[0] == opcode::WRITE_16 => {
                assert_eq!(new.len(), length);
                blocks.copy_from_slice(new);
            }
            Data::Out(images) if compares => {
                assert_eq!(images.len(), 2 * length);
                let (expected, new) = images.split_at(length);
                match first_difference(expected, blocks) {
                    Some(offset) if self.compares => {
                        let offset = self.reports_offset.then_some(offset as u64 + self.offset_error);
                        return sense(self.descriptor_sense, false, 0xe, 0x1d, 0, offset);
                    }
                    _ => blocks.copy_from_slice(new),
                }
            }
            data => panic!("{command:?} with {data:?}"),
        }
        Completion::of(Status::GOOD)
    }

    fn capacity(&self) -> [u8; 32] {
        let mut capacity = [0; 32];
        let last = self.claimed_last_lba.unwrap_or((self.blocks.len() / self.block_bytes) as u64 - 1);
        capacity[..8].copy_from_slice(&last.to_be_bytes());
        capacity[8..12].copy_from_slice(&(self.block_bytes as u32).to_be_bytes());
        capacity[13] = 0x03;
        capacity[14] = 0xc0;
        capacity
    }

    fn page(&self, page: u8) -> Option<Vec<u8>> {
        let content = match page {
            _ if !self.pages.contains(&page) => return None,
            0x00 => self.pages.clone(),
            0x80 => b"8fe8-0001".to_vec(),
            0x83 => [&[0x01, 0x03, 0, 16], &self.naa[..]].concat(),
            _ => {
                let mut limits = vec![0; 60];
                limits[1] = self.claimed_blocks_max;
                limits[4..8].copy_from_slice(&self.transfer_blocks_max.to_be_bytes());
                limits
            }
        };
        Some([&[0x00, page, 0, content.len() as u8], &content[..]].concat())
    }
}

/// Brings as much as there is room for.
fn bring(answer: &[u8], data: Data<'_>) -> Completion {
    let Data::In(out) = data else {
        assert_eq!(data.bytes(), 0);
        return Completion::of(Status::GOOD);
    };
    let bytes = answer.len().min(out.len());
    out[..bytes].copy_from_slice(&answer[..bytes]);
    Completion { residual_bytes: out.len() - bytes, ..Completion::of(Status::GOOD) }
}
