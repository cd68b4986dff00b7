//! What each answer means, as a table: for a read, a write of one block and of two, a compare-and-write, a flush.

use super::fake::{check, sense};
use crate::device::Failure::{self, *};
use crate::device::scsi::verdict::Verdict;
use crate::device::scsi::{Caching, Cdb, Completion, Status};

/// What is expected of each of the five commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    Done,
    Again,
    Later(Failure),
    PerhapsLater,
    Failed(Failure),
    Unknown,
    Miscompare,
}
use Means::*;

impl From<Verdict> for Means {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::Done,
            Verdict::Again(_) => Self::Again,
            Verdict::Later(failure) => Self::Later(failure),
            Verdict::PerhapsLater => Self::PerhapsLater,
            Verdict::Failed(failure) => Self::Failed(failure),
            Verdict::Unknown => Self::Unknown,
            Verdict::Miscompare(_) => Self::Miscompare,
        }
    }
}

fn judge(completion: &Completion) -> [Means; 5] {
    let commands = [
        Cdb::read_16(0, 2, Caching::ALLOWED),
        Cdb::write_16(0, 1, Caching::ALLOWED),
        Cdb::write_16(0, 2, Caching::ALLOWED),
        Cdb::compare_and_write(0, 1, Caching::ALLOWED),
        Cdb::synchronize_cache_16(),
    ];
    commands.map(|command| Verdict::of(&command, completion).into())
}

#[test]
fn statuses() {
    let io_or_unknown = [Failed(Io), Unknown, Unknown, Unknown, Failed(Io)];
    let later_or_unknown = [Later(Io), Unknown, Unknown, Unknown, Later(Io)];
    for (status, expected) in [
        (Status::GOOD, [Done; 5]),
        (Status::BUSY, [Later(Busy), PerhapsLater, PerhapsLater, PerhapsLater, Later(Busy)]),
        (Status::TASK_SET_FULL, [Later(Busy); 5]),
        (Status::ACA_ACTIVE, [Later(Busy); 5]),
        (Status::RESERVATION_CONFLICT, [Failed(ReservationConflict); 5]),
        (Status::TASK_ABORTED, later_or_unknown),
        // Without sense data.
        (Status::CHECK_CONDITION, later_or_unknown),
        // CONDITION MET, INTERMEDIATE, COMMAND TERMINATED, and what nobody defined.
        (Status(0x04), io_or_unknown),
        (Status(0x10), io_or_unknown),
        (Status(0x22), io_or_unknown),
        (Status(0xff), io_or_unknown),
    ] {
        assert_eq!(judge(&Completion::of(status)), expected, "{status}");
    }
}

#[test]
fn sense_data() {
    let begun = |failure| [Failed(failure), Unknown, Unknown, Unknown, Failed(failure)];
    for (key, code, qualifier, expected) in [
        (0x0, 0x00, 0x00, begun(Io)),
        (0x1, 0x18, 0x00, [Done; 5]),
        (0x2, 0x04, 0x01, [Later(Busy); 5]),
        (0x2, 0x04, 0x0a, [Later(Busy); 5]),
        (0x2, 0x04, 0x02, [Failed(Unreachable); 5]),
        (0x2, 0x04, 0x0b, [Failed(Unreachable); 5]),
        // The medium went, or LIO's backing store failed: perhaps in the middle.
        (0x2, 0x3a, 0x00, begun(Unreachable)),
        (0x2, 0x08, 0x00, begun(Unreachable)),
        (0x3, 0x11, 0x00, begun(Io)),
        (0x3, 0x0c, 0x00, begun(Io)),
        (0x4, 0x44, 0x00, begun(Io)),
        (0x5, 0x20, 0x00, [Failed(Unsupported); 5]),
        (0x5, 0x21, 0x00, [Failed(Invalid); 5]),
        (0x5, 0x24, 0x00, [Failed(Invalid); 5]),
        (0x5, 0x25, 0x00, [Failed(Unreachable); 5]),
        (0x5, 0x08, 0x00, begun(Invalid)),
        (0x6, 0x29, 0x00, [Again; 5]),
        (0x6, 0x2f, 0x00, [Again; 5]),
        (0x7, 0x27, 0x00, [Failed(Io), Failed(ReadOnly), Failed(ReadOnly), Failed(ReadOnly), Failed(Io)]),
        (0x7, 0x27, 0x06, [Failed(Io), Failed(ReadOnly), Failed(ReadOnly), Failed(ReadOnly), Failed(Io)]),
        (0x7, 0x27, 0x08, [Failed(Io), Failed(ReadOnly), Unknown, Failed(ReadOnly), Failed(Io)]),
        (0x7, 0x27, 0x07, [Failed(Io), Failed(NoSpace), Unknown, Failed(NoSpace), Failed(Io)]),
        (0x7, 0x74, 0x71, [Failed(Io), Failed(ReadOnly), Unknown, Failed(ReadOnly), Failed(Io)]),
        (0x8, 0x00, 0x00, begun(Io)),
        (0x9, 0x80, 0x00, begun(Io)),
        (0xa, 0x0d, 0x00, begun(Io)),
        (0xb, 0x47, 0x00, [Later(Io), Unknown, Unknown, Unknown, Failed(Io)]),
        (0xd, 0x00, 0x00, begun(Io)),
        (0xe, 0x1d, 0x00, [Failed(Io), Unknown, Unknown, Miscompare, Failed(Io)]),
        (0xf, 0x00, 0x00, begun(Io)),
    ] {
        for descriptors in [false, true] {
            let completion = sense(descriptors, false, key, code, qualifier, None);
            assert_eq!(judge(&completion), expected, "{:?}", completion.sense());
        }
    }
}

#[test]
fn deferred_errors_are_not_about_the_command() {
    // One that was recovered is no loss.
    for (key, code, of_flush) in
        [(0x3, 0x0c, Failed(Io)), (0x4, 0x44, Failed(Io)), (0xe, 0x1d, Failed(Io)), (0x1, 0x18, Again)]
    {
        for descriptors in [false, true] {
            let completion = sense(descriptors, true, key, code, 0, None);
            assert_eq!(judge(&completion), [Again, Again, Again, Again, of_flush]);
        }
    }
}

#[test]
fn sense_data_cut_short_say_only_what_is_there() {
    // No sense key is left of it.
    let mut completion = check(0x6, 0x29, 0x00);
    completion.sense.truncate(2);
    assert_eq!(judge(&completion), [Later(Io), Unknown, Unknown, Unknown, Later(Io)]);
    // The key is enough for these.
    for (key, expected) in [(0x6, [Again; 5]), (0xe, [Failed(Io), Unknown, Unknown, Miscompare, Failed(Io)])] {
        let mut completion = check(key, 0x1d, 0x00);
        completion.sense.truncate(3);
        assert_eq!(judge(&completion), expected);
    }
    // Not for this: which illegal request?
    let mut completion = check(0x5, 0x20, 0x00);
    completion.sense.truncate(8);
    assert_eq!(judge(&completion), [Failed(Invalid), Unknown, Unknown, Unknown, Failed(Invalid)]);
}

#[test]
fn the_offset_of_a_miscompare_is_handed_on() {
    let command = Cdb::compare_and_write(0, 1, Caching::ALLOWED);
    for descriptors in [false, true] {
        for offset in [None, Some(0), Some(511), Some(u32::MAX.into())] {
            let completion = sense(descriptors, false, 0xe, 0x1d, 0, offset);
            assert_eq!(Verdict::of(&command, &completion), Verdict::Miscompare(offset));
        }
    }
}
