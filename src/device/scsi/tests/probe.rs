//! What is found out of a disk, and that it is found out without changing it.

use std::time::Duration;

use super::fake::{BLOCKS, Clock, Fake, Settings, Trick, check};
use crate::device::scsi::opcode::{COMPARE_AND_WRITE, INQUIRY, READ_16, TEST_UNIT_READY, WRITE_16};
use crate::device::scsi::{
    BlockLimits, Completion, DiskOptions, Mode, Probe, Proof, ReportedOffset, ScsiError, Status, probe_with,
};
use crate::device::{BlockDevice, DeviceError, Failure};
use crate::environment::Environment;

/// Probes a disk with something in its blocks, and looks whether it is still there.
fn probe(fake: &Fake) -> Result<Probe, DeviceError> {
    let mut random = fastrand::Rng::with_seed(3);
    fake.settings().blocks.fill_with(|| random.u8(..));
    let before = fake.settings().blocks.clone();
    let probe = probe_with(fake, Clock::new(), DiskOptions::default());
    assert!(fake.settings().blocks == before, "the probe changed something");
    probe
}

fn proof(change: impl FnOnce(&mut Settings)) -> (Proof, u8) {
    let probe = probe(&Fake::with(change)).unwrap();
    let most = probe.compare_and_write_blocks_max();
    (probe.compare_and_write, most)
}

fn works(offset: ReportedOffset) -> Proof {
    Proof::Works { force_unit_access: true, offset }
}

#[test]
fn all_that_a_disk_says_is_told() {
    let fake = Fake::new();
    let probe = probe(&fake).unwrap();
    assert_eq!((&*probe.inquiry.vendor, &*probe.inquiry.product, &*probe.inquiry.revision), ("LIO-ORG", "f0", "4.0"));
    assert_eq!(probe.serial_number.as_deref(), Some("8fe8-0001"));
    assert_eq!(probe.designator.as_deref(), Some("naa.600140056162636465666768696a6b6c"));
    assert_eq!((probe.block_count(), probe.capacity.block_bytes), (BLOCKS as u64, 512));
    assert_eq!((probe.capacity.physical_block_exponent, probe.capacity.thin), (3, true));
    assert_eq!(probe.block_limits, Some(BlockLimits { compare_and_write_blocks_max: 1, ..BlockLimits::default() }));
    let mode = Mode { write_protected: false, takes_force_unit_access: true, write_cache: Some(true) };
    assert_eq!((probe.mode, probe.compare_and_write_listed), (Some(mode), Some(true)));
    assert_eq!((probe.force_unit_access, &probe.compare_and_write), (true, &works(ReportedOffset::Right)));
    assert!(!fake.take_codes().contains(&WRITE_16));
}

#[test]
fn what_a_disk_does_not_say_is_none() {
    let fake = Fake::with(|disk| {
        disk.pages.clear();
        disk.mode = None;
        disk.lists_commands = false;
        disk.compare_and_write = None;
    });
    let probe = probe(&fake).unwrap();
    assert_eq!((probe.serial_number, probe.designator, probe.block_limits, probe.mode), (None, None, None, None));
    assert_eq!((probe.compare_and_write_listed, probe.compare_and_write), (None, Proof::Unsupported));
}

#[test]
fn a_page_that_is_not_listed_is_not_asked_for() {
    let fake = Fake::with(|disk| disk.pages = vec![0x00, 0x83]);
    probe(&fake).unwrap();
    let asked = fake.take_log().into_iter().filter(|command| command.bytes()[0] == INQUIRY);
    let pages: Vec<(u8, u8)> = asked.map(|command| (command.bytes()[1], command.bytes()[2])).collect();
    assert_eq!(pages, [(0, 0), (1, 0x00), (1, 0x83)]);
}

#[test]
fn the_claim_is_the_limit_and_the_proof_decides() {
    let right = || works(ReportedOffset::Right);
    // LIO; scsi_debug; tgt; one that claims and refuses; one that claims nothing and refuses.
    assert_eq!(proof(|_| {}), (right(), 1));
    let scsi_debug = |disk: &mut Settings| {
        disk.claimed_blocks_max = 0;
        disk.compare_and_write = Some(255);
        disk.reports_offset = false;
    };
    assert_eq!(proof(scsi_debug), (works(ReportedOffset::None), 1));
    let tgt = |disk: &mut Settings| {
        disk.claimed_blocks_max = 128;
        disk.compare_and_write = Some(255);
    };
    assert_eq!(proof(tgt), (right(), 128));
    assert_eq!(proof(|disk| disk.compare_and_write = None), (Proof::Unsupported, 0));
    assert_eq!(proof(|disk| disk.compare_and_write = Some(0)), (Proof::Unsupported, 0));
}

#[test]
fn force_unit_access_is_what_is_taken_not_what_is_said() {
    for (says, reads, compares, found) in [
        (Some((0x10, 0)), true, true, (true, true)),
        (Some((0x00, 0)), true, true, (false, false)),
        (None, true, true, (true, true)),
        (Some((0x10, 0)), false, false, (false, false)),
        (Some((0x10, 0)), true, false, (true, false)),
    ] {
        let fake = Fake::with(|disk| {
            disk.mode = says;
            disk.force_unit_access = reads;
            disk.compare_and_write_fua = compares;
        });
        let probe = probe(&fake).unwrap();
        let expected = Proof::Works { force_unit_access: found.1, offset: ReportedOffset::Right };
        assert_eq!((probe.force_unit_access, probe.compare_and_write), (found.0, expected));
    }
}

#[test]
fn a_disk_that_writes_without_comparing_is_found_out_and_loses_nothing() {
    let fake = Fake::with(|disk| disk.compares = false);
    let probe = probe(&fake).unwrap();
    assert_eq!((&probe.compare_and_write, probe.compare_and_write_blocks_max()), (&Proof::ComparesNothing, 0));
    let disk = fake.open();
    let before = fake.block(0);
    let error = disk.compare_and_write(0, &[0; 512], &[1; 512]).unwrap_err();
    let DeviceError::Failed { failure: Failure::Unsupported, source } = &error else { panic!("{error:?}") };
    assert!(matches!(source.downcast_ref(), Some(ScsiError::ComparesNothing)), "{source}");
    assert_eq!((fake.block(0), fake.take_log()), (before, vec![]));
    disk.read(0, &mut [0; 512]).unwrap();
}

#[test]
fn an_offset_that_is_wrong_is_not_blamed_on_others() {
    assert_eq!(proof(|disk| disk.offset_error = 3).0, works(ReportedOffset::Wrong(131)));

    // Others write in between: once, or each time.
    for (times, expected) in [(1, ReportedOffset::Right), (3, ReportedOffset::Unchecked)] {
        let fake = Fake::new();
        for time in 0..times {
            fake.trick(COMPARE_AND_WRITE, Trick::After(Box::new(move |disk| disk.fill(BLOCKS - 1, 0x80 | time))));
        }
        let probe = probe_with(&fake, Clock::new(), DiskOptions::default()).unwrap();
        assert_eq!(probe.compare_and_write, works(expected));
        assert_eq!(fake.block(BLOCKS - 1), [0x80 | (times - 1); 512], "what others wrote is still there");
        assert!(fake.is_through());
    }
}

#[test]
fn what_could_not_be_found_out_is_claimed_only() {
    for (answer, reason) in [
        (Completion::of(Status::RESERVATION_CONFLICT), "RESERVATION CONFLICT"),
        (check(0x7, 0x27, 0), "write protected"),
        (check(0x3, 0x0c, 0), "write error"),
    ] {
        let fake = Fake::with(|disk| disk.claimed_blocks_max = 7);
        fake.trick(COMPARE_AND_WRITE, Trick::Answer(answer));
        let probe = probe(&fake).unwrap();
        assert_eq!(probe.compare_and_write_blocks_max(), 7);
        let Proof::NotKnown { reason: found } = probe.compare_and_write else { panic!("{probe:?}") };
        assert!(found.contains(reason), "{found}");
    }
    // The last block cannot be read: FUA is what is said of it.
    for (mode, expected) in [(Some((0x10, 0x04)), true), (Some((0x00, 0x04)), false), (None, false)] {
        let fake = Fake::with(|disk| disk.mode = mode);
        for _ in 0..2 {
            fake.trick(READ_16, Trick::Answer(check(0x3, 0x11, 0)));
        }
        let probe = probe(&fake).unwrap();
        assert!(matches!(probe.compare_and_write, Proof::NotKnown { .. }));
        assert_eq!((probe.force_unit_access, probe.is_written_through()), (expected, expected));
        assert!(!fake.take_codes().contains(&COMPARE_AND_WRITE));
    }
}

#[test]
fn what_a_disk_will_not_tell_about_itself_is_no_reason_not_to_use_it() {
    for trick in [
        || Trick::Answer(check(0x4, 0x44, 0)),
        || Trick::Answer(check(0x3, 0x11, 0)),
        || Trick::Answer(check(0x7, 0x27, 0)),
        || Trick::NoAnswer,
    ] {
        for (operation_code, times) in [(0x5a, 1), (0xa3, 1), (INQUIRY, 5)] {
            let fake = Fake::new();
            // Standard INQUIRY data come first, and are no option.
            (operation_code == INQUIRY).then(|| fake.trick(INQUIRY, Trick::After(Box::new(|_| {}))));
            (1..times.max(2)).for_each(|_| fake.trick(operation_code, trick()));
            let probe = fake.try_open().unwrap().probe().clone();
            assert_eq!(probe.compare_and_write, works(ReportedOffset::Right));
            match operation_code {
                0x5a => assert_eq!(probe.mode, None),
                0xa3 => assert_eq!(probe.compare_and_write_listed, None),
                _ => assert_eq!((probe.designator, probe.block_limits), (None, None)),
            }
        }
    }
    let fake = Fake::new();
    fake.trick(0x5a, Trick::NotSent(Failure::Unreachable));
    assert_eq!(fake.try_open().unwrap_err().failure(), Some(Failure::Unreachable));
}

#[test]
fn a_disk_that_goes_away_meanwhile_is_not_opened() {
    let fake = Fake::new();
    fake.trick(COMPARE_AND_WRITE, Trick::NotSent(Failure::Unreachable));
    assert_eq!(fake.try_open().unwrap_err().failure(), Some(Failure::Unreachable));
}

#[test]
fn what_the_system_does_not_let_one_ask_is_not_known() {
    let fake = Fake::new();
    fake.trick(0xa3, Trick::NotSent(Failure::ReadOnly));
    fake.trick(COMPARE_AND_WRITE, Trick::NotSent(Failure::ReadOnly));
    let probe = probe(&fake).unwrap();
    assert_eq!(probe.compare_and_write_listed, None);
    assert!(matches!(probe.compare_and_write, Proof::NotKnown { .. }));
}

#[test]
fn a_command_refused_without_force_unit_access_is_not_sent_again() {
    let fake = Fake::with(|disk| {
        disk.force_unit_access = false;
        disk.compare_and_write = Some(0);
    });
    assert_eq!(probe(&fake).unwrap().compare_and_write, Proof::Unsupported);
    assert_eq!(fake.take_codes().iter().filter(|code| **code == COMPARE_AND_WRITE).count(), 1);
}

/// Dice that show what a fresh disk holds.
struct NoDice;

impl Environment for NoDice {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _time: Duration) {}

    fn random(&self) -> u128 {
        0
    }
}

#[test]
fn the_image_of_nobody_differs_from_the_block_whatever_the_dice_show() {
    let fake = Fake::new();
    let probe = probe_with(&fake, NoDice, DiskOptions::default()).unwrap();
    assert_eq!(probe.compare_and_write, works(ReportedOffset::Right));
}

#[test]
fn without_the_proof_nothing_is_sent_that_could_write() {
    let fake = Fake::new();
    let options = DiskOptions { prove_compare_and_write: false, ..DiskOptions::default() };
    let probe = probe_with(&fake, Clock::new(), options).unwrap();
    assert_eq!((&probe.compare_and_write, probe.compare_and_write_blocks_max()), (&Proof::NotTried, 1));
    let log = fake.take_log();
    assert!(log.len() > 5 && log.iter().all(|command| !command.changes_blocks()), "{log:?}");
}

#[test]
fn a_fresh_disk_says_first_what_happened_to_it() {
    let fake = Fake::new();
    fake.trick(TEST_UNIT_READY, Trick::Answer(check(0x6, 0x29, 0)));
    fake.trick(TEST_UNIT_READY, Trick::Answer(check(0x2, 0x04, 0x01)));
    fake.trick(0x9e, Trick::Answer(check(0x6, 0x3f, 0x0e)));
    fake.trick(0x5a, Trick::Answer(check(0x6, 0x2a, 0x01)));
    fake.trick(READ_16, Trick::Answer(Completion::of(Status::BUSY)));
    fake.trick(COMPARE_AND_WRITE, Trick::Answer(check(0x6, 0x29, 0)));
    fake.trick(COMPARE_AND_WRITE, Trick::Answer(Completion::of(Status::BUSY)));
    assert_eq!(probe(&fake).unwrap().compare_and_write, works(ReportedOffset::Right));
    assert!(fake.is_through());
}

#[test]
fn what_is_no_disk_or_has_odd_blocks_is_not_opened() {
    let opened = |change: fn(&mut Settings)| {
        let error = Fake::with(change).try_open().unwrap_err();
        (error.failure(), error.to_string())
    };
    let (tape, nothing, short) = (
        opened(|disk| disk.inquiry[0] = 0x01),
        opened(|disk| disk.inquiry[0] = 0x7f),
        opened(|disk| disk.inquiry.truncate(4)),
    );
    assert_eq!(tape, (Some(Failure::Unsupported), "not a disk: peripheral qualifier 0, device type 01h".into()));
    assert_eq!(nothing.0, Some(Failure::Unreachable));
    assert_eq!(short.0, Some(Failure::Corrupt));
    let odd = opened(|disk| {
        disk.block_bytes = 520;
        disk.blocks.resize(520 * 64, 0);
    });
    assert_eq!(odd.0, Some(Failure::Unsupported));
    assert!(odd.1.starts_with("blocks of 520 bytes"), "{}", odd.1);
    assert_eq!(opened(|disk| disk.block_bytes = 256).0, Some(Failure::Unsupported));
}

#[test]
fn numbers_that_no_disk_can_mean_are_not_believed() {
    let opened = |block_bytes: usize, last_lba: Option<u64>| {
        let fake = Fake::with(|disk| {
            (disk.block_bytes, disk.blocks, disk.claimed_last_lba) = (block_bytes, vec![0; 2 * block_bytes], last_lba);
        });
        let error =
            probe_with(&fake, Clock::new(), DiskOptions { prove_compare_and_write: false, ..DiskOptions::default() });
        error.err().and_then(|error| error.failure())
    };
    assert_eq!(opened(64 << 10, None), None);
    assert_eq!(opened(128 << 10, None), Some(Failure::Unsupported));
    assert_eq!(opened(512, Some(u64::MAX)), Some(Failure::Unsupported));
    assert_eq!(opened(512, Some(u64::MAX / 512)), Some(Failure::Unsupported));
    // Its last block cannot be read, so it is used as far as that goes.
    assert_eq!(opened(512, Some(u64::MAX / 512 - 1)), None);
}

#[test]
fn a_capacity_that_is_cut_off_is_no_capacity() {
    let fake = Fake::new();
    fake.trick(0x9e, Trick::Residual(21));
    assert_eq!(fake.try_open().unwrap_err().failure(), Some(Failure::Corrupt));
    let fake = Fake::new();
    fake.trick(0x9e, Trick::Residual(20));
    assert!(fake.try_open().is_ok());
    // Nor is one of which more is missing than was asked for.
    let fake = Fake::new();
    fake.trick(0x9e, Trick::Residual(1000));
    assert_eq!(fake.try_open().unwrap_err().failure(), Some(Failure::Corrupt));
}
