//! Reading, writing, comparing and flushing, whatever the disk answers.

use std::time::Duration;

use super::fake::{BLOCKS, Clock, Fake, Trick, check, sense};
use crate::device::scsi::opcode::{COMPARE_AND_WRITE, READ_16, SYNCHRONIZE_CACHE_16, WRITE_16};
use crate::device::scsi::{Caching, Cdb, Compared, Completion, Disk, DiskOptions, ScsiError, Status};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;

/// The source of an error, if it is one of ours.
pub fn cause(error: &DeviceError) -> &ScsiError {
    let (DeviceError::Failed { source, .. } | DeviceError::OutcomeUnknown { source }) = error else {
        panic!("{error:?}")
    };
    source.downcast_ref().unwrap_or_else(|| panic!("{source:?}"))
}

pub fn is_unknown(result: &Result<(), DeviceError>) -> bool {
    matches!(result, Err(DeviceError::OutcomeUnknown { .. }))
}

/// A block of one byte, again and again.
pub fn block(byte: u8) -> Vec<u8> {
    vec![byte; 512]
}

#[test]
fn blocks_are_written_read_and_compared_with_force_unit_access() {
    let fake = Fake::new();
    let disk = fake.open();
    assert_eq!((&*disk.name(), disk.block_bytes(), disk.block_count()), ("fake", 512, BLOCKS as u64));
    assert_eq!(disk.compare_and_write_blocks_max(), 1);
    disk.write(63, &block(1)).unwrap();
    disk.compare_and_write(63, &block(1), &block(2)).unwrap();
    let mut found = block(0);
    disk.read(63, &mut found).unwrap();
    assert_eq!(found, block(2));
    disk.flush().unwrap();
    let expected = [
        Cdb::write_16(63, 1, Caching::THROUGH),
        Cdb::compare_and_write(63, 1, Caching::THROUGH),
        Cdb::read_16(63, 1, Caching::THROUGH),
        Cdb::synchronize_cache_16(),
    ];
    assert_eq!(fake.take_log(), expected);
}

#[test]
fn a_disk_that_does_not_take_force_unit_access_is_used_without() {
    for (reads, compares) in [(false, false), (true, false)] {
        let fake = Fake::with(|disk| {
            disk.force_unit_access = reads;
            disk.compare_and_write_fua = compares;
        });
        let disk = fake.open();
        disk.write(0, &block(1)).unwrap();
        disk.compare_and_write(0, &block(1), &block(2)).unwrap();
        let caching = |force_unit_access| Caching { force_unit_access, ..Caching::ALLOWED };
        let expected = [Cdb::write_16(0, 1, caching(reads)), Cdb::compare_and_write(0, 1, caching(compares))];
        assert_eq!(fake.take_log(), expected);
    }
}

#[test]
fn a_miscompare_shows_the_blocks_and_the_first_difference() {
    for (descriptor_sense, reports_offset) in [(false, true), (true, true), (false, false), (true, false)] {
        let fake = Fake::with(|disk| {
            disk.descriptor_sense = descriptor_sense;
            disk.reports_offset = reports_offset;
        });
        let disk = fake.open();
        fake.fill(7, 9);
        let mut expected = block(9);
        expected[300] = 8;
        let once = disk.compare_and_write_once(7, &expected, &block(1)).unwrap();
        assert_eq!(once, Compared::Miscompare { reported_offset: reports_offset.then_some(300) });
        let error = disk.compare_and_write(7, &expected, &block(1)).unwrap_err();
        let DeviceError::Miscompare(miscompare) = error else { panic!("{error:?}") };
        assert_eq!((miscompare.lba, miscompare.offset, &*miscompare.found), (7, 300, &block(9)[..]));
        assert_eq!(fake.take_codes(), [COMPARE_AND_WRITE, COMPARE_AND_WRITE, READ_16]);
        assert_eq!(fake.block(7), block(9));
    }
}

#[test]
fn the_offset_counts_from_what_is_shown_not_from_what_the_disk_says() {
    // Another host writes between the compare and the read.
    let fake = Fake::new();
    let disk = fake.open();
    fake.fill(7, 9);
    fake.trick(
        READ_16,
        Trick::After(Box::new(|disk| {
            disk.blocks[7 * 512..8 * 512].copy_from_slice(&[&[5; 500][..], &[6; 12]].concat())
        })),
    );
    let error = disk.compare_and_write(7, &block(5), &block(1)).unwrap_err();
    let DeviceError::Miscompare(miscompare) = error else { panic!("{error:?}") };
    assert_eq!((miscompare.offset, miscompare.found[500]), (500, 6));
}

#[test]
fn a_miscompare_that_is_gone_when_looked_for_is_tried_again() {
    let fake = Fake::new();
    let disk = fake.open();
    fake.fill(7, 9);
    fake.trick(READ_16, Trick::After(Box::new(|disk| disk.fill(7, 5))));
    disk.compare_and_write(7, &block(5), &block(1)).unwrap();
    assert_eq!(fake.take_codes(), [COMPARE_AND_WRITE, READ_16, COMPARE_AND_WRITE]);
    assert_eq!(fake.block(7), block(1));

    // But not for ever: a disk that reports its read errors as miscompares would never stop.
    fake.settings().blocks.fill(5);
    for _ in 0..8 {
        fake.trick(COMPARE_AND_WRITE, Trick::Answer(sense(false, false, 0xe, 0x1d, 0, Some(77))));
    }
    let error = disk.compare_and_write(7, &block(5), &block(1)).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Io));
    assert!(matches!(cause(&error), ScsiError::MiscompareUnseen { lba: 7, times: 8, reported_offset: Some(77) }));
    assert!(fake.is_through());
    assert_eq!(fake.block(7), block(5));
}

#[test]
fn a_miscompare_that_cannot_be_shown_is_a_failure_for_nothing_was_changed() {
    for (trick, failure) in [
        (Trick::NoAnswer, Failure::Io),
        (Trick::Unreachable, Failure::Unreachable),
        (Trick::Answer(check(0x3, 0x11, 0)), Failure::Io),
        (Trick::Answer(Completion::of(Status::RESERVATION_CONFLICT)), Failure::ReservationConflict),
    ] {
        let fake = Fake::new();
        let disk = fake.open();
        fake.trick(READ_16, trick);
        let error = disk.compare_and_write(7, &block(5), &block(1)).unwrap_err();
        assert_eq!(error.failure(), Some(failure));
        assert!(matches!(cause(&error), ScsiError::MiscompareUnread { lba: 7, reported_offset: Some(0), .. }));
        assert!(error.to_string().starts_with("block 7: miscompare at byte 0; what it holds could not be read: "));
        assert_eq!(fake.block(7), block(0));
    }
}

#[test]
fn several_blocks_compare_together() {
    let fake = Fake::with(|disk| {
        disk.claimed_blocks_max = 4;
        disk.compare_and_write = Some(4);
    });
    let disk = fake.open();
    assert_eq!(disk.compare_and_write_blocks_max(), 4);
    disk.compare_and_write(8, &[0; 2048], &[3; 2048]).unwrap();
    assert_eq!(fake.take_log(), [Cdb::compare_and_write(8, 4, Caching::THROUGH)]);
    let mut expected = [3; 2048];
    expected[1024] = 4;
    let error = disk.compare_and_write(8, &expected, &[5; 2048]).unwrap_err();
    let DeviceError::Miscompare(miscompare) = error else { panic!("{error:?}") };
    assert_eq!((miscompare.offset, &*miscompare.found), (1024, &[3; 2048][..]));
    assert_eq!((8..12).map(|lba| fake.block(lba)[0]).collect::<Vec<_>>(), [3; 4]);
}

#[test]
fn what_is_never_possible_is_not_sent() {
    let fake = Fake::new();
    let disk = fake.open();
    let last = BLOCKS as u64 - 1;
    for error in [
        disk.read(last + 1, &mut block(0)).unwrap_err(),
        disk.read(last, &mut [0; 1024]).unwrap_err(),
        disk.read(0, &mut [0; 511]).unwrap_err(),
        disk.write(last, &[0; 1024]).unwrap_err(),
        disk.write(u64::MAX, &block(0)).unwrap_err(),
        disk.write(0, &[0; 513]).unwrap_err(),
        disk.compare_and_write(last + 1, &block(0), &block(1)).unwrap_err(),
        disk.compare_and_write(0, &[0; 1024], &[0; 1024]).unwrap_err(),
        disk.compare_and_write(0, &block(0), &[0; 1024]).unwrap_err(),
        disk.compare_and_write(0, &[], &[]).unwrap_err(),
    ] {
        assert_eq!(error.failure(), Some(Failure::Invalid), "{error}");
    }
    disk.read(last + 1, &mut []).unwrap();
    disk.write(last + 1, &[]).unwrap();
    assert_eq!(fake.take_log(), []);
}

#[test]
fn long_transfers_go_in_chunks() {
    // By the options, the disk, the way to it, and one block at least.
    for (options_max, disk_max, transport_max, chunk) in [
        (128 << 10, 0, None, 64),
        (8 << 10, 0, None, 16),
        (8 << 10, 8, None, 8),
        (8 << 10, 0, Some(2 << 10), 4),
        (8 << 10, 2, Some(2 << 10), 2),
        (1000, 0, None, 1),
        (100, 0, Some(1024), 1),
    ] {
        let fake = Fake::with(|disk| {
            disk.transfer_blocks_max = disk_max;
            disk.transport_bytes_max = transport_max;
        });
        let options = DiskOptions { transfer_bytes_max: options_max, ..DiskOptions::default() };
        let disk = Disk::open_with(&fake, Clock::new(), options).unwrap();
        fake.take_log();
        let data: Vec<u8> = (0..BLOCKS * 512).map(|index| (index / 7) as u8).collect();
        let mut found = vec![0; data.len()];
        disk.write(0, &data).unwrap();
        disk.read(0, &mut found).unwrap();
        assert_eq!(found, data);
        let log = fake.take_log();
        assert_eq!(log.len(), 2 * BLOCKS / chunk);
        for (index, command) in log.iter().enumerate() {
            let lba = (index * chunk % BLOCKS) as u64;
            assert_eq!((command.lba(), command.blocks()), (Some(lba), chunk as u32));
        }
    }
}

#[test]
fn the_way_to_the_disk_limits_a_compare_and_write() {
    for (bytes_max, expected) in [(None, 100), (Some(8 << 10), 8), (Some(1024), 1), (Some(1023), 0)] {
        let fake = Fake::with(|disk| {
            disk.claimed_blocks_max = 100;
            disk.transport_bytes_max = bytes_max;
        });
        assert_eq!(fake.open().compare_and_write_blocks_max(), expected);
    }
}

#[test]
fn a_write_that_fails_after_its_first_chunk_is_unknown() {
    let chunks_of_two = DiskOptions { transfer_bytes_max: 1024, ..DiskOptions::default() };
    for (skip, unknown) in [(0, false), (1, true), (2, true)] {
        let fake = Fake::new();
        let disk = Disk::open_with(&fake, Clock::new(), chunks_of_two.clone()).unwrap();
        for _ in 0..skip {
            fake.trick(WRITE_16, Trick::After(Box::new(|_| {})));
        }
        fake.trick(WRITE_16, Trick::Answer(Completion::of(Status::RESERVATION_CONFLICT)));
        let result = disk.write(10, &[1; 6 * 512]);
        assert_eq!(is_unknown(&result), unknown);
        let error = result.unwrap_err();
        if unknown {
            let stopped = 10 + 2 * skip;
            assert!(
                matches!(cause(&error), ScsiError::PartlyWritten { lba: 10, stopped_at, .. } if *stopped_at == stopped)
            );
        } else {
            assert_eq!(error.failure(), Some(Failure::ReservationConflict));
        }
    }
}

#[test]
fn unit_attentions_are_heard_and_the_command_sent_again() {
    for operation_code in [READ_16, WRITE_16, COMPARE_AND_WRITE, SYNCHRONIZE_CACHE_16] {
        let fake = Fake::new();
        let disk = fake.open();
        for code in [0x2a, 0x2f, 0x3f] {
            fake.trick(operation_code, Trick::Answer(check(0x6, code, 0)));
        }
        match operation_code {
            READ_16 => disk.read(0, &mut block(0)).unwrap(),
            WRITE_16 => disk.write(0, &block(1)).unwrap(),
            COMPARE_AND_WRITE => disk.compare_and_write(0, &block(0), &block(1)).unwrap(),
            _ => disk.flush().unwrap(),
        }
        assert_eq!(fake.take_codes(), [operation_code; 4]);
        assert_eq!(disk_time(&disk), Duration::ZERO, "no pause");
    }
}

/// How long a disk's clock has slept. Its parts are private to everybody else.
fn disk_time(disk: &Disk<&Fake, Clock>) -> Duration {
    disk.environment().now()
}

#[test]
fn a_disk_that_has_always_something_to_say_is_not_listened_to_for_ever() {
    let fake = Fake::new();
    let disk = fake.open();
    for _ in 0..17 {
        fake.trick(WRITE_16, Trick::Answer(check(0x6, 0x29, 0)));
    }
    assert_eq!(disk.write(0, &block(1)).unwrap_err().failure(), Some(Failure::Busy));
    assert!(fake.is_through());
    for _ in 0..16 {
        fake.trick(WRITE_16, Trick::Answer(check(0x6, 0x29, 0)));
    }
    disk.write(0, &block(1)).unwrap();
}

#[test]
fn a_busy_disk_is_asked_again_with_pauses_that_grow_and_only_so_long() {
    for status in [Status::BUSY, Status::TASK_SET_FULL] {
        let fake = Fake::new();
        let disk = fake.open();
        for _ in 0..5 {
            fake.trick(COMPARE_AND_WRITE, Trick::Answer(Completion::of(status)));
        }
        disk.compare_and_write(0, &block(0), &block(1)).unwrap();
        // 1, 2, 4, 8, 16 ms, each at least half and at most all of it.
        let slept = disk_time(&disk);
        assert!(slept >= Duration::from_micros(15_500) && slept < Duration::from_millis(31), "{slept:?}");
        assert!(!slept.as_nanos().is_multiple_of(500_000), "without dice it would be whole halves of a millisecond");

        for _ in 0..200 {
            fake.trick(WRITE_16, Trick::Answer(Completion::of(status)));
        }
        fake.take_log();
        let result = disk.write(0, &block(2));
        assert_eq!(is_unknown(&result), status == Status::BUSY, "{result:?}");
        assert_eq!(disk_time(&disk), slept + DiskOptions::default().patience);
        let tries = fake.take_log().len();
        assert!((40..100).contains(&tries), "{tries}");
        assert_eq!(fake.block(0), block(1));
    }
}

#[test]
fn a_disk_that_is_getting_ready_is_waited_for() {
    let fake = Fake::new();
    let disk = fake.open();
    fake.trick(WRITE_16, Trick::Answer(check(0x2, 0x04, 0x01)));
    fake.trick(WRITE_16, Trick::Answer(check(0x2, 0x04, 0x0a)));
    fake.trick(WRITE_16, Trick::NotSent(Failure::Busy));
    disk.write(0, &block(1)).unwrap();
    assert!(disk_time(&disk) > Duration::ZERO && fake.is_through());
    fake.trick(WRITE_16, Trick::Answer(check(0x2, 0x04, 0x0b)));
    assert_eq!(disk.write(0, &block(1)).unwrap_err().failure(), Some(Failure::Unreachable));
}

#[test]
fn a_read_that_was_aborted_is_sent_again_an_update_is_not() {
    for answer in [Completion::of(Status::TASK_ABORTED), check(0xb, 0x47, 0)] {
        let fake = Fake::new();
        let disk = fake.open();
        for operation_code in [READ_16, WRITE_16, COMPARE_AND_WRITE] {
            fake.trick(operation_code, Trick::Answer(answer.clone()));
        }
        disk.read(0, &mut block(0)).unwrap();
        assert!(is_unknown(&disk.write(0, &block(1))));
        assert!(is_unknown(&disk.compare_and_write(0, &block(0), &block(1))));
        assert_eq!(fake.take_codes(), [READ_16, READ_16, WRITE_16, COMPARE_AND_WRITE]);
    }
}

#[test]
fn a_lost_answer_is_no_failure_and_nothing_is_sent_twice() {
    let lost = || [Trick::NoAnswer, Trick::DoneButNoAnswer];
    for (write, (compare, read)) in lost().into_iter().zip(lost().into_iter().zip(lost())) {
        let fake = Fake::new();
        let disk = fake.open();
        fake.trick(WRITE_16, write);
        fake.trick(COMPARE_AND_WRITE, compare);
        fake.trick(READ_16, read);
        assert!(is_unknown(&disk.write(0, &block(1))));
        assert!(is_unknown(&disk.compare_and_write(1, &block(0), &block(1))));
        assert!(is_unknown(&disk.read(0, &mut block(0))));
        assert_eq!(fake.take_codes(), [WRITE_16, COMPARE_AND_WRITE, READ_16]);
    }
}

#[test]
fn a_disk_that_cannot_be_reached_leaves_updates_open_unless_they_were_never_sent() {
    let fake = Fake::new();
    let disk = fake.open();
    for operation_code in [WRITE_16, COMPARE_AND_WRITE, READ_16] {
        fake.trick(operation_code, Trick::Unreachable);
        fake.trick(operation_code, Trick::NotSent(Failure::Unreachable));
    }
    assert!(is_unknown(&disk.write(0, &block(1))));
    assert!(is_unknown(&disk.compare_and_write(0, &block(0), &block(1))));
    assert_eq!(disk.read(0, &mut block(0)).unwrap_err().failure(), Some(Failure::Unreachable));
    for result in
        [disk.write(0, &block(1)), disk.compare_and_write(0, &block(0), &block(1)), disk.read(0, &mut block(0))]
    {
        assert_eq!(result.unwrap_err().failure(), Some(Failure::Unreachable));
    }
}

#[test]
fn less_data_than_asked_for_are_not_taken_for_all() {
    let fake = Fake::new();
    let disk = fake.open();
    for operation_code in [READ_16, WRITE_16, COMPARE_AND_WRITE] {
        fake.trick(operation_code, Trick::Residual(1));
    }
    let error = disk.read(0, &mut block(0)).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Io));
    assert!(matches!(cause(&error), ScsiError::Short { bytes: 512, residual_bytes: 1, .. }));
    assert!(is_unknown(&disk.write(0, &block(1))));
    assert!(is_unknown(&disk.compare_and_write(0, &block(1), &block(2))));
}

#[test]
fn a_write_protected_disk_and_one_without_room_say_so() {
    let fake = Fake::new();
    let disk = fake.open();
    for (qualifier, failure) in [(0x00, Failure::ReadOnly), (0x02, Failure::ReadOnly), (0x07, Failure::NoSpace)] {
        fake.trick(WRITE_16, Trick::Answer(check(0x7, 0x27, qualifier)));
        fake.trick(COMPARE_AND_WRITE, Trick::Answer(check(0x7, 0x27, qualifier)));
        assert_eq!(disk.write(0, &block(1)).unwrap_err().failure(), Some(failure));
        assert_eq!(disk.compare_and_write(0, &block(0), &block(1)).unwrap_err().failure(), Some(failure));
    }
}

#[test]
fn every_flush_fails_after_a_write_was_lost() {
    // A recovered one was not lost.
    let fake = Fake::new();
    let disk = fake.open();
    fake.trick(READ_16, Trick::Answer(sense(true, true, 0x1, 0x0c, 0, None)));
    disk.read(0, &mut block(0)).unwrap();
    disk.flush().unwrap();
    // Another command is told, or the flush itself.
    for (operation_code, trick) in [(READ_16, true), (SYNCHRONIZE_CACHE_16, false)] {
        let fake = Fake::new();
        let disk = fake.open();
        fake.trick(operation_code, Trick::Answer(sense(trick, true, 0x3, 0x0c, 0, None)));
        disk.read(0, &mut block(0)).unwrap();
        for _ in 0..2 {
            let error = disk.flush().unwrap_err();
            assert_eq!(error.failure(), Some(Failure::Io));
            assert!(matches!(cause(&error), ScsiError::WriteLost { sense } if sense.deferred));
        }
        fake.open().flush().unwrap();
    }
}

#[test]
fn a_cache_that_lost_its_power_lost_writes_unless_they_went_through() {
    for (force_unit_access, compare_and_write_fua, mode, lost) in [
        (true, true, Some((0x10, 0x04)), false),
        (false, false, Some((0x10, 0x04)), true),
        // Compare-and-writes go without; or all do, and there is no cache.
        (true, false, Some((0x10, 0x04)), true),
        (false, false, Some((0x00, 0x00)), false),
    ] {
        let fake = Fake::with(|disk| {
            (disk.force_unit_access, disk.compare_and_write_fua, disk.mode) =
                (force_unit_access, compare_and_write_fua, mode);
        });
        let disk = fake.open();
        let power_is_back = || fake.trick(READ_16, Trick::Answer(check(0x6, 0x29, 0x01)));
        // Nothing was written yet, or nothing since the last flush: what another way to the disk says late.
        power_is_back();
        disk.read(0, &mut block(0)).unwrap();
        fake.trick(COMPARE_AND_WRITE, Trick::Answer(check(0x6, 0x29, 0x00)));
        disk.compare_and_write(0, &block(0), &block(1)).unwrap();
        disk.flush().unwrap();
        power_is_back();
        disk.read(0, &mut block(0)).unwrap();
        disk.flush().unwrap();

        disk.compare_and_write(0, &block(1), &block(2)).unwrap();
        fake.trick(READ_16, Trick::Answer(check(0x6, 0x2a, 0x01)));
        disk.read(0, &mut block(0)).unwrap();
        disk.flush().unwrap();
        disk.compare_and_write(0, &block(2), &block(3)).unwrap();
        power_is_back();
        disk.read(0, &mut block(0)).unwrap();
        assert_eq!([disk.flush().is_err(), disk.flush().is_err()], [lost; 2]);
    }
}

#[test]
fn a_flush_has_longer_than_other_commands() {
    let fake = Fake::new();
    fake.open().flush().unwrap();
    assert_eq!(*fake.timeouts.lock().unwrap(), [Duration::from_secs(60), Duration::from_secs(30)]);
}

#[test]
fn a_disk_without_the_command_to_flush_needs_none_where_writes_go_through() {
    for (force_unit_access, compare_and_write_fua, mode, flushes) in [
        (true, true, None, true),
        (true, false, None, false),
        (false, false, None, false),
        (false, false, Some((0x00, 0x04)), false),
        (false, false, Some((0x00, 0x00)), true),
    ] {
        let fake = Fake::with(|disk| {
            disk.synchronizes = false;
            disk.force_unit_access = force_unit_access;
            disk.compare_and_write_fua = compare_and_write_fua;
            disk.mode = mode;
        });
        let flushed = fake.open().flush();
        assert_eq!(flushed.is_ok(), flushes);
        if let Err(error) = flushed {
            assert_eq!(error.failure(), Some(Failure::Unsupported));
        }
    }
}

#[test]
fn a_disk_that_became_another_is_used_no_more() {
    for (what, code, qualifier) in [
        ("name", 0x3f, 0x03),
        ("name", 0x3f, 0x0e),
        ("name", 0x29, 0x00),
        ("name", 0x29, 0x07),
        ("bytes", 0x28, 0x00),
        ("last block", 0x2a, 0x09),
    ] {
        let fake = Fake::new();
        let disk = fake.open();
        fake.trick(WRITE_16, Trick::Answer(check(0x6, code, qualifier)));
        let mut settings = fake.settings();
        match what {
            "name" => settings.naa[15] ^= 1,
            "bytes" => settings.block_bytes = 1024,
            _ => settings.blocks.truncate(63 * 512),
        }
        drop(settings);
        for _ in 0..2 {
            let error = disk.write(0, &block(1)).unwrap_err();
            assert_eq!(error.failure(), Some(Failure::Unreachable), "{error}");
            assert!(matches!(cause(&error), ScsiError::Changed { what: found } if found.contains(what)), "{error}");
        }
        assert_eq!(fake.take_codes().iter().filter(|code| **code == WRITE_16).count(), 1);
        assert!(fake.settings().blocks.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_disk_that_only_grew_is_used_on() {
    let fake = Fake::new();
    let disk = fake.open();
    fake.settings().blocks.resize(100 * 512, 0);
    fake.trick(WRITE_16, Trick::Answer(check(0x6, 0x2a, 0x09)));
    disk.write(0, &block(1)).unwrap();
    assert_eq!((disk.block_count(), fake.block(0)), (BLOCKS as u64, block(1)));
    fake.take_log();
    disk.write(0, &block(2)).unwrap();
    assert_eq!(fake.take_codes(), [WRITE_16], "it was looked at once");
}

#[test]
fn a_disk_that_may_have_changed_is_looked_at_before_the_next_command() {
    let fake = Fake::new();
    let disk = fake.open();
    fake.settings().naa[15] ^= 1;
    fake.trick(WRITE_16, Trick::Answer(check(0x6, 0x3f, 0x03)));
    fake.trick(0x9e, Trick::NoAnswer);
    let error = disk.write(0, &block(1)).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Io), "the write was not begun");
    assert!(matches!(cause(&error), ScsiError::Unchecked { .. }), "{error}");
    let error = disk.write(0, &block(1)).unwrap_err();
    assert!(matches!(cause(&error), ScsiError::Changed { .. }), "{error}");
    // Back or not: what happened to it in between nobody knows.
    fake.settings().naa[15] ^= 1;
    let error = disk.write(0, &block(1)).unwrap_err();
    assert!(matches!(cause(&error), ScsiError::Changed { .. }), "{error}");
    assert!(fake.settings().blocks.iter().all(|byte| *byte == 0));
}
