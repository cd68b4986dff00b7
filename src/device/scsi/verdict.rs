//! What an answer means: whether the command was done, was not and will not be, or may have been.
//!
//! For a command that changes blocks, "it was not done" is said only where the standards say so: before it was begun.
//! Whatever can come after that leaves the outcome open, even if it mostly does not.

use super::cdb::{Cdb, opcode};
use super::sense::{Sense, SenseKey};
use super::transport::{Completion, Status};
use crate::device::Failure;

/// What an answer means for the command that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It was done.
    Done,
    /// The blocks held something else, first at this offset in bytes if the disk says so. They were not changed.
    Miscompare(Option<u64>),
    /// It was not begun, for a reason that is past, and that these sense data tell. It can be sent again at once.
    Again(Sense),
    /// It was not begun, or changes nothing, and may be sent again after a while; if that does not help, it is this.
    Later(Failure),
    /// Most likely it was not begun, and it may be sent again after a while. But it may have been done: nothing that is
    /// answered then, save that it was done, tells what became of it.
    PerhapsLater,
    /// It was not done, and will not be.
    Failed(Failure),
    /// It may have been done, wholly or in part.
    Unknown,
}

impl Verdict {
    /// Judges an answer.
    pub fn of(command: &Cdb, completion: &Completion) -> Self {
        match completion.status {
            Status::GOOD => Self::Done,
            Status::CHECK_CONDITION => match completion.sense() {
                Some(sense) => Self::of_sense(command, sense),
                // It may have been a unit attention, or anything else.
                None => Self::after_the_beginning(command, Self::Later(Failure::Io)),
            },
            // SAM-6, 5.3.1: the command was not accepted. Not all targets keep to that: Linux's tcmu-runner says so, too, when
            // Ceph did not answer in time to what it had begun.
            Status::BUSY if command.changes_blocks() => Self::PerhapsLater,
            Status::BUSY => Self::Later(Failure::Busy),
            // SAM-6, 5.3.1: it was not taken into the task set.
            Status::TASK_SET_FULL | Status::ACA_ACTIVE => Self::Later(Failure::Busy),
            // SPC-5, 5.14.1: a reservation is checked before a command is begun.
            Status::RESERVATION_CONFLICT => Self::Failed(Failure::ReservationConflict),
            // Another host aborted it, perhaps in the middle.
            Status::TASK_ABORTED => Self::after_the_beginning(command, Self::Later(Failure::Io)),
            // Of no meaning for these commands, or obsolete.
            _ => Self::after_the_beginning(command, Self::Failed(Failure::Io)),
        }
    }

    fn of_sense(command: &Cdb, sense: Sense) -> Self {
        if sense.deferred {
            // It is about an earlier command; this one was not begun (SPC-5, 4.4.5). But one that is to put earlier writes on
            // stable storage has failed if one of those was lost, and a second one would hide it.
            return match command.bytes()[0] {
                opcode::SYNCHRONIZE_CACHE_16 if sense.tells_loss() => Self::Failed(Failure::Io),
                _ => Self::Again(sense),
            };
        }
        match sense.key {
            // It was done, with some trouble on the way.
            SenseKey::RecoveredError => Self::Done,
            // Reported in place of what the command would do (SAM-6, 5.14).
            SenseKey::UnitAttention => Self::Again(sense),
            SenseKey::Miscompare if command.bytes()[0] == opcode::COMPARE_AND_WRITE => {
                Self::Miscompare(sense.information)
            }
            SenseKey::NotReady => Self::of_not_ready(command, sense),
            SenseKey::IllegalRequest => Self::of_illegal_request(command, sense),
            SenseKey::DataProtect => Self::of_data_protect(command, sense),
            // The disk gave up on it, at whatever moment; the application may try again (SPC-5, table 57).
            SenseKey::AbortedCommand if command.bytes()[0] != opcode::SYNCHRONIZE_CACHE_16 => {
                Self::after_the_beginning(command, Self::Later(Failure::Io))
            }
            // A medium or hardware error may come after some or all of a write. Of a compare-and-write it may be that the blocks
            // could not be read to be compared, or that they could not be written after they had been found equal: SBC-4
            // does not make the disk say which.
            _ => Self::after_the_beginning(command, Self::Failed(Failure::Io)),
        }
    }

    /// Code 04h says in which state the whole disk, or the port, is; commands are checked against it before they are begun
    /// (SBC-4, 4.3; SPC-5, 5.18.2). Others are not as clear: Linux's LIO answers 08/00 if its backing store fails, whenever that
    /// is.
    fn of_not_ready(command: &Cdb, sense: Sense) -> Self {
        match (sense.code.code, sense.code.qualifier) {
            // Becoming ready; changing the access state.
            (0x04, 0x01 | 0x0a) => Self::Later(Failure::Busy),
            (0x04, _) => Self::Failed(Failure::Unreachable),
            _ => Self::after_the_beginning(command, Self::Failed(Failure::Unreachable)),
        }
    }

    /// The command itself is checked before it is begun (SPC-5, table 57).
    fn of_illegal_request(command: &Cdb, sense: Sense) -> Self {
        match sense.code.code {
            0x20 => Self::Failed(Failure::Unsupported),
            0x1a | 0x21 | 0x24 | 0x26 => Self::Failed(Failure::Invalid),
            0x25 => Self::Failed(Failure::Unreachable),
            _ => Self::after_the_beginning(command, Self::Failed(Failure::Invalid)),
        }
    }

    /// Write protection is the disk's as a whole with 27/00 to 27/06. All else may be some blocks' alone, and be met in the middle
    /// of several: a zone that is read-only, no room on a thin disk (SBC-4, 4.7.3.6).
    fn of_data_protect(command: &Cdb, sense: Sense) -> Self {
        if !command.changes_blocks() {
            return Self::Failed(Failure::Io);
        }
        match (sense.code.code, sense.code.qualifier) {
            (0x27, 0x07) if command.blocks() == 1 => Self::Failed(Failure::NoSpace),
            (0x27, 0x07) => Self::Unknown,
            (0x27, 0x00..=0x06) => Self::Failed(Failure::ReadOnly),
            _ if command.blocks() == 1 => Self::Failed(Failure::ReadOnly),
            _ => Self::Unknown,
        }
    }

    /// What may come after a command was begun: one that changes blocks may have done so.
    fn after_the_beginning(command: &Cdb, if_nothing_changes: Self) -> Self {
        if command.changes_blocks() { Self::Unknown } else { if_nothing_changes }
    }
}
