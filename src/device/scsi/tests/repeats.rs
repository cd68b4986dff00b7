//! Commands that were sent again, by us or by the system, and may have been done the first time.

use std::sync::Arc;
use std::time::Duration;

use super::disk::{block, cause, is_unknown};
use super::fake::{Clock, Fake, Settings, Trick, check};
use crate::device::scsi::opcode::{COMPARE_AND_WRITE, READ_16, WRITE_16};
use crate::device::scsi::{Completion, Disk, DiskOptions, ScsiError, Status};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;

#[test]
fn what_was_answered_busy_may_have_been_done() {
    let busy = || Completion::of(Status::BUSY);
    for then in [
        // It meets its own image; it fails in some way; the disk stays busy.
        None,
        Some(Trick::Answer(Completion::of(Status::RESERVATION_CONFLICT))),
        Some(Trick::Answer(check(0x5, 0x24, 0))),
        Some(Trick::NotSent(Failure::Unreachable)),
    ] {
        let fake = Fake::new();
        let disk = fake.open();
        fake.trick(COMPARE_AND_WRITE, Trick::DoneButAnswer(busy()));
        if let Some(trick) = then {
            fake.trick(COMPARE_AND_WRITE, trick);
        }
        let result = disk.compare_and_write(7, &block(0), &block(1));
        assert!(is_unknown(&result) && fake.is_through(), "{result:?}");
        assert_eq!(fake.take_codes(), [COMPARE_AND_WRITE; 2], "no look can tell: a peer may have replaced it");
    }
    // Even if the peer's image is there: it may have replaced ours.
    let fake = Fake::new();
    let disk = fake.open();
    fake.trick(COMPARE_AND_WRITE, Trick::DoneButAnswer(busy()));
    fake.trick(COMPARE_AND_WRITE, Trick::After(Box::new(|disk| disk.fill(7, 9))));
    let error = disk.compare_and_write(7, &block(0), &block(1)).unwrap_err();
    assert!(matches!(cause(&error), ScsiError::PerhapsOwnImage { lba: 7, reported_offset: Some(0), .. }), "{error}");
    // A write, the same; and what is done in the end is done.
    fake.trick(WRITE_16, Trick::DoneButAnswer(busy()));
    fake.trick(WRITE_16, Trick::Answer(check(0x7, 0x27, 0)));
    assert!(is_unknown(&disk.write(7, &block(2))));
    fake.trick(WRITE_16, Trick::Answer(busy()));
    disk.write(7, &block(0)).unwrap();
    fake.trick(COMPARE_AND_WRITE, Trick::Answer(busy()));
    disk.compare_and_write(7, &block(0), &block(1)).unwrap();
    // What the task set had no room for was not begun.
    fake.trick(COMPARE_AND_WRITE, Trick::Answer(Completion::of(Status::TASK_SET_FULL)));
    assert!(matches!(disk.compare_and_write(7, &block(0), &block(1)), Err(DeviceError::Miscompare(_))));
}

#[test]
fn a_miscompare_with_its_own_image_that_took_long_may_be_a_repeat() {
    let second = Duration::from_secs(1);
    for (took, found, read, unknown) in [
        (second, 1, true, true),
        (second, 1, false, true),
        (second, 2, true, false),
        // A peer that writes the same is no repeat of ours.
        (second / 2, 1, true, false),
    ] {
        let (fake, clock) = (Fake::new(), Arc::new(Clock::new()));
        let disk = Disk::open_with(&fake, Arc::clone(&clock), DiskOptions::default()).unwrap();
        let first = move |disk: &mut Settings| {
            clock.sleep(took);
            disk.fill(7, found);
        };
        fake.trick(COMPARE_AND_WRITE, Trick::After(Box::new(first)));
        if !read {
            fake.trick(READ_16, Trick::Answer(check(0x3, 0x11, 0)));
        }
        let result = disk.compare_and_write(7, &block(0), &block(1));
        assert_eq!(is_unknown(&result), unknown, "{result:?}");
        assert_eq!(matches!(result, Err(DeviceError::Miscompare(_))), !unknown, "{result:?}");
    }
}
