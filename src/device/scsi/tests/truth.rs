//! Errors tell the truth, whatever the disk does: [`DeviceError::Miscompare`] and [`DeviceError::Failed`] mean that
//! nothing was changed, `Ok` that it was.

use super::fake::{Fake, Trick, check, sense};
use crate::device::scsi::opcode::{COMPARE_AND_WRITE, READ_16, WRITE_16};
use crate::device::scsi::{Completion, Status};
use crate::device::{BlockDevice, DeviceError, Failure};

/// Something that can go wrong, of all kinds.
fn any_trick(random: &mut fastrand::Rng) -> Trick {
    let key = random.u8(0..16);
    let code = *random.choice(&[0x00, 0x04, 0x08, 0x11, 0x1d, 0x20, 0x21, 0x24, 0x27, 0x29, 0x3f, 0x44]).unwrap();
    let mut answer = sense(random.bool(), random.u8(0..8) == 0, key, code, random.u8(0..12), None);
    if random.u8(0..8) == 0 {
        answer.sense.truncate(random.usize(0..20));
    }
    let status = *random.choice(&[0x04, 0x08, 0x18, 0x22, 0x28, 0x30, 0x40]).unwrap();
    // What the standards promise was not begun was not; all else, done or not.
    let begun =
        !matches!(answer.sense.first(), Some(0x71 | 0x73)) && matches!(key, 0x0 | 0x3 | 0x4 | 0x8..=0xb | 0xd | 0xf);
    match random.u8(0..12) {
        0 => Trick::NoAnswer,
        1 => Trick::DoneButNoAnswer,
        2 => Trick::Unreachable,
        3 => Trick::NotSent(if random.bool() { Failure::Busy } else { Failure::Unreachable }),
        4 => Trick::Residual(random.usize(0..600)),
        5 => Trick::Answer(Completion::of(Status(status))),
        6 if matches!(status, 0x04 | 0x08 | 0x22 | 0x40) => Trick::DoneButAnswer(Completion::of(Status(status))),
        7 => Trick::DoneButAnswer(check(0x1, 0x18, 0)),
        8 | 9 if begun => Trick::DoneButAnswer(answer),
        // It was not done, so it must not say that it was.
        _ if key == 0x1 => Trick::NoAnswer,
        _ => Trick::Answer(answer),
    }
}

#[test]
fn an_update_was_done_or_was_not_as_the_answer_says() {
    let mut random = fastrand::Rng::with_seed(17);
    let mut counts = [0; 4];
    for round in 0..20_000_u32 {
        let fake = Fake::with(|disk| {
            disk.descriptor_sense = random.bool();
            disk.reports_offset = random.bool();
        });
        let disk = fake.open();
        let compares = random.bool();
        let operation_code = if compares { COMPARE_AND_WRITE } else { WRITE_16 };
        for _ in 0..random.usize(0..4) {
            let trick = any_trick(&mut random);
            fake.trick(if random.u8(0..5) == 0 { READ_16 } else { operation_code }, trick);
        }
        let (held, expected) = ([1; 512], [if random.u8(0..4) == 0 { 2 } else { 1 }; 512]);
        fake.fill(5, 1);
        let new = [3; 512];
        let result = if compares { disk.compare_and_write(5, &expected, &new) } else { disk.write(5, &new) };
        let now = fake.block(5);
        let sent = fake.take_codes();
        match &result {
            Ok(()) => assert!(now == new, "round {round}: {sent:x?}"),
            Err(DeviceError::Failed { .. }) => assert!(now == held, "round {round}: {sent:x?}: {result:?}"),
            Err(DeviceError::Miscompare(miscompare)) => {
                assert!(now == held && *miscompare.found == held && expected != held, "round {round}: {sent:x?}");
            }
            Err(DeviceError::OutcomeUnknown { .. }) => assert!(now == new || now == held),
        }
        counts[match result {
            Ok(()) => 0,
            Err(DeviceError::Failed { .. }) => 1,
            Err(DeviceError::Miscompare(_)) => 2,
            Err(DeviceError::OutcomeUnknown { .. }) => 3,
        }] += 1;
    }
    assert!(counts.iter().all(|count| *count > 500), "too few of some: {counts:?}");
}
