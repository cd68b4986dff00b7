//! The conformance suite, on devices that keep their promises, and on ones that break each.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use casblock::device::conformance::{CASES, Finding, Region, Report, Suite};
use casblock::device::{BlockDevice, DeviceError, Failure, Faults, Faulty};
use casblock::{BlockSize, Durability, Geometry, Miscompare, Store};

const REGION: Region = Region { first_lba: 8, blocks: 16 };

/// What does not apply where a compare-and-write takes one block.
const ONE_BLOCK: [&str; 2] = ["many_blocks", "many_together"];

/// All pass but those that do not apply.
fn conforms(device: &dyn BlockDevice, not_applicable: &[&str]) {
    let blocks = device.block_count();
    // At the device's end, where something may be off by one.
    for region in [REGION, Region { first_lba: blocks - 4, blocks: 4 }] {
        let report = Suite::new(device, region).increments(200).run();
        report.assert();
        let skipped: Vec<_> = report
            .results
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Err(Finding::NotApplicable(_))))
            .map(|(case, _)| case.name)
            .collect();
        assert_eq!(skipped, not_applicable, "{report}");
        assert_eq!(report.passed() + skipped.len(), CASES.len());
        let mut left = vec![1; region.blocks as usize * device.block_bytes()];
        device.read(region.first_lba, &mut left).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "zeros are left");
    }
}

#[test]
fn stores_conform() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::Process, Durability::Power] {
        for block_size in [BlockSize::B512, BlockSize::B4096] {
            let geometry = Geometry::blocks(32).block_size(block_size).durability(durability);
            let path = folder.path().join(format!("{durability:?}-{block_size:?}"));
            conforms(&Store::create(path, geometry).unwrap(), &ONE_BLOCK);
        }
    }
    let in_memory = Store::in_memory(Geometry::blocks(32)).unwrap();
    let boxed: Box<dyn BlockDevice> = Box::new(Arc::new(&in_memory));
    conforms(&boxed, &ONE_BLOCK);
}

#[test]
fn faulty_without_faults_conforms() {
    conforms(&Faulty::new(Store::in_memory(Geometry::blocks(32)).unwrap(), Faults::none(1)), &ONE_BLOCK);
}

/// What a device does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    OddBlocks,
    WritesNothing,
    UnwrittenIsNotZero,
    WritesTheNextBlockToo,
    MiscompareWrites,
    MiscompareAtBlocksBeginning,
    MiscompareByWords,
    MiscompareAtLastDifference,
    FoundIsShort,
    FoundIsOfAnotherBlock,
    ReadErrorIsAMiscompare,
    RefusesWhatIsTheSame,
    RemembersWhatWasThere,
    ManyBlocksOneByOne,
    ManyBlocksInTurn,
    TakesOneMore,
    HasNone,
    TakesLongBuffers,
    EndIsOffByOne,
    EndWraps,
    NothingIsSuccess,
    FlushFails,
    NoLock,
    TornReads,
    PlainWritesFallBetween,
}

/// Blocks in memory, behind one lock, up to eight in one compare-and-write.
struct Memory {
    blocks: Mutex<Vec<u8>>,
    wrong: Wrong,
    seen: Mutex<Vec<Vec<u8>>>,
    turn: AtomicU64,
}

const BLOCKS: u64 = 32;

impl Memory {
    fn new(wrong: Wrong) -> Self {
        let blocks = Mutex::new(vec![0; BLOCKS as usize * 512]);
        Self { blocks, wrong, seen: Mutex::default(), turn: AtomicU64::new(0) }
    }

    fn range(&self, lba: u64, bytes: usize) -> Result<std::ops::Range<usize>, DeviceError> {
        let invalid = Err(DeviceError::failed(Failure::Invalid, "impossible"));
        let blocks = if self.wrong == Wrong::TakesLongBuffers { bytes.div_ceil(512) } else { bytes / 512 };
        if !bytes.is_multiple_of(512) && self.wrong != Wrong::TakesLongBuffers {
            return invalid;
        }
        let lba = if self.wrong == Wrong::EndWraps && lba > u64::MAX / 2 { lba % BLOCKS } else { lba };
        let end = if self.wrong == Wrong::EndIsOffByOne { BLOCKS + 1 } else { BLOCKS };
        if lba.checked_add(blocks as u64).is_none_or(|last| last > end) {
            return invalid;
        }
        let start = (lba as usize * 512).min(BLOCKS as usize * 512);
        Ok(start..(start + bytes).min(BLOCKS as usize * 512))
    }

    /// Gives others a chance, where a device without a lock would.
    fn pause(&self) {
        if self.turn.fetch_add(1, Relaxed).is_multiple_of(3) {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    fn miscompare(&self, lba: u64, expected: &[u8], found: &[u8], offset: usize) -> Result<(), DeviceError> {
        let all = self.blocks.lock().unwrap();
        let (offset, found) = match self.wrong {
            Wrong::MiscompareAtBlocksBeginning => (0, found.to_vec()),
            Wrong::MiscompareByWords => (offset / 8 * 8, found.to_vec()),
            Wrong::MiscompareAtLastDifference => {
                (expected.iter().zip(found).rposition(|(a, b)| a != b).unwrap_or(0), found.to_vec())
            }
            Wrong::FoundIsShort => (offset, found[..8].to_vec()),
            Wrong::FoundIsOfAnotherBlock => (offset, all[..found.len()].to_vec()),
            _ => (offset, found.to_vec()),
        };
        Err(DeviceError::Miscompare(Box::new(Miscompare { lba, offset, found: found.into() })))
    }
}

impl BlockDevice for Memory {
    fn name(&self) -> Cow<'_, str> {
        "memory".into()
    }

    fn block_bytes(&self) -> usize {
        if self.wrong == Wrong::OddBlocks { 520 } else { 512 }
    }

    fn block_count(&self) -> u64 {
        BLOCKS
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        if self.wrong == Wrong::HasNone { 0 } else { 8 }
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        let range = self.range(lba, out.len())?;
        if self.wrong == Wrong::TornReads {
            let (first, second) = out.split_at_mut(range.len() / 2);
            let middle = range.start + first.len();
            first.copy_from_slice(&self.blocks.lock().unwrap()[range.start..middle]);
            self.pause();
            second.copy_from_slice(&self.blocks.lock().unwrap()[middle..range.end]);
            return Ok(());
        }
        let blocks = self.blocks.lock().unwrap();
        out[..range.len()].copy_from_slice(&blocks[range]);
        if self.wrong == Wrong::UnwrittenIsNotZero && out.iter().all(|byte| *byte == 0) {
            out.fill(0xff);
        }
        Ok(())
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        let range = self.range(lba, data.len())?;
        if self.wrong != Wrong::WritesNothing {
            let length = range.len();
            self.blocks.lock().unwrap()[range].copy_from_slice(&data[..length]);
        }
        Ok(())
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        if self.wrong == Wrong::NothingIsSuccess && expected.is_empty() && new.is_empty() {
            return Ok(());
        }
        let most = if self.wrong == Wrong::TakesOneMore { 9 } else { 8 };
        if expected.len() != new.len() || expected.is_empty() || expected.len() > most * 512 {
            return Err(DeviceError::failed(Failure::Invalid, "impossible"));
        }
        let range = self.range(lba, expected.len())?;
        let expected = &expected[..range.len()];
        let mut blocks = self.blocks.lock().unwrap();
        let found = blocks[range.clone()].to_vec();
        if self.wrong == Wrong::NoLock {
            drop(blocks);
            self.pause();
            blocks = self.blocks.lock().unwrap();
        }
        if self.wrong == Wrong::ManyBlocksOneByOne {
            for (at, block) in range.clone().step_by(512).zip(expected.chunks(512)) {
                if blocks[at..at + 512] == *block {
                    let offset = at - range.start;
                    blocks[at..at + 512].copy_from_slice(&new[offset..offset + 512]);
                }
            }
        }
        if let Some(offset) = expected.iter().zip(&found).position(|(a, b)| a != b) {
            // One that takes too many does the worst with them.
            if self.wrong == Wrong::MiscompareWrites || expected.len() > 8 * 512 {
                blocks[range].copy_from_slice(new);
            }
            drop(blocks);
            return self.miscompare(lba, expected, &found, offset);
        }
        match self.wrong {
            Wrong::ReadErrorIsAMiscompare if self.turn.fetch_add(1, Relaxed) % 16 == 5 => {
                let found = vec![0; 512].into();
                return Err(DeviceError::Miscompare(Box::new(Miscompare { lba, offset: 0, found })));
            }
            Wrong::RefusesWhatIsTheSame if expected == new => {
                return Err(DeviceError::failed(Failure::Invalid, "nothing would change"));
            }
            Wrong::RemembersWhatWasThere if expected != new => {
                let mut seen = self.seen.lock().unwrap();
                if seen.iter().any(|image| *image == new) && expected.iter().any(|byte| *byte != 0) {
                    return Err(DeviceError::failed(Failure::Io, "it was there before"));
                }
                seen.push(new.to_vec());
            }
            _ => {}
        }
        if self.wrong == Wrong::ManyBlocksInTurn {
            // Compared together, written one after the other.
            drop(blocks);
            for (at, block) in range.step_by(512).zip(new.chunks(512)) {
                self.blocks.lock().unwrap()[at..at + 512].copy_from_slice(block);
                self.pause();
            }
            return Ok(());
        }
        blocks[range.clone()].copy_from_slice(&new[..range.len()]);
        if self.wrong == Wrong::WritesTheNextBlockToo && range.end < blocks.len() {
            blocks[range.end] = new[0];
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        match self.wrong {
            Wrong::FlushFails => Err(DeviceError::failed(Failure::Io, "the cache is stuck")),
            _ => Ok(()),
        }
    }
}

/// A device whose plain writes do not wait for compare-and-writes, which are atomic among themselves: as LIO's.
struct PlainWritesFallBetween {
    memory: Memory,
    compare_and_writes: Mutex<()>,
}

impl BlockDevice for PlainWritesFallBetween {
    fn name(&self) -> Cow<'_, str> {
        self.memory.name()
    }

    fn block_bytes(&self) -> usize {
        512
    }

    fn block_count(&self) -> u64 {
        BLOCKS
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.memory.read(lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.memory.write(lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let _one_at_a_time = self.compare_and_writes.lock().unwrap();
        if expected.len() > 512 || expected.len() != new.len() {
            return Err(DeviceError::failed(Failure::Invalid, "one block at a time"));
        }
        self.memory.compare_and_write(lba, expected, expected)?;
        self.memory.pause();
        self.memory.write(lba, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn report(wrong: Wrong) -> Report {
    let memory = Memory::new(wrong);
    match wrong {
        Wrong::PlainWritesFallBetween => {
            let device = PlainWritesFallBetween { memory, compare_and_writes: Mutex::new(()) };
            Suite::new(&device, REGION).increments(300).run()
        }
        _ => Suite::new(&memory, REGION).increments(300).run(),
    }
}

#[test]
fn a_device_of_several_blocks_conforms() {
    conforms(&Memory::new(Wrong::Nothing), &[]);
}

#[test]
fn every_broken_promise_is_found_by_its_case() {
    use Wrong::*;
    let table = [
        (OddBlocks, "geometry"),
        (WritesNothing, "write_read"),
        (UnwrittenIsNotZero, "zeros"),
        (WritesTheNextBlockToo, "written_alone"),
        (MiscompareWrites, "miscompare"),
        (MiscompareAtBlocksBeginning, "miscompare"),
        (MiscompareByWords, "miscompare"),
        (MiscompareAtLastDifference, "first_difference"),
        (FoundIsShort, "miscompare"),
        (FoundIsOfAnotherBlock, "miscompare"),
        (ReadErrorIsAMiscompare, "back_and_forth"),
        (RefusesWhatIsTheSame, "same_again"),
        (RemembersWhatWasThere, "back_and_forth"),
        (ManyBlocksOneByOne, "many_blocks"),
        (ManyBlocksInTurn, "many_together"),
        (TakesOneMore, "impossible"),
        (TakesLongBuffers, "impossible"),
        (EndIsOffByOne, "impossible"),
        (EndWraps, "impossible"),
        (NothingIsSuccess, "impossible"),
        (FlushFails, "flush"),
        (NoLock, "one_counter"),
        (NoLock, "many_counters"),
        (TornReads, "never_torn"),
        (PlainWritesFallBetween, "plain_writes"),
    ];
    for (wrong, name) in table {
        let report = report(wrong);
        assert!(report.broken().any(|(case, _)| case.name == name), "{wrong:?} was not found by {name}:\n{report}");
    }
    // Each case has a device that it alone must find out.
    for case in CASES {
        assert!(table.iter().any(|(_, name)| *name == case.name), "no device breaks the promise of {}", case.name);
    }
}

#[test]
fn plain_writes_need_not_be_excluded() {
    let device = PlainWritesFallBetween { memory: Memory::new(Wrong::Nothing), compare_and_writes: Mutex::new(()) };
    let report = Suite::new(&device, REGION).plain_writes_excluded(false).increments(100).run();
    report.assert();
    assert!(report.to_string().contains("plain_writes     not applicable"), "{report}");
}

/// Whether the report's assertion holds.
fn asserts(report: &Report) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report.assert())).is_ok()
}

#[test]
fn a_region_that_cannot_be_used_is_left_alone_and_proves_nothing() {
    let store = Store::in_memory(Geometry::blocks(32)).unwrap();
    store.write(31, &[7; 512]).unwrap();
    for (first_lba, blocks) in [(0, 3), (29, 4), (u64::MAX, 4), (0, u64::MAX)] {
        let report = Suite::new(&store, Region { first_lba, blocks }).run();
        assert_eq!((report.passed(), report.broken().count()), (1, 0), "only its geometry: {report}");
        assert!(!report.conforms() && !asserts(&report), "{report}");
    }
    let mut block = [0; 512];
    store.read(31, &mut block).unwrap();
    assert_eq!(block, [7; 512]);
}

#[test]
fn a_device_without_compare_and_write_does_not_conform() {
    let report = Suite::new(&Memory::new(Wrong::HasNone), REGION).run();
    assert!(report.broken().next().is_none() && !report.conforms() && !asserts(&report), "{report}");
    // What it says of itself is judged wherever the region is.
    let report = Suite::new(&Memory::new(Wrong::OddBlocks), Region { first_lba: BLOCKS, blocks: 4 }).run();
    assert!(report.broken().any(|(case, _)| case.name == "geometry"), "{report}");
}

/// What is tried beyond the region changes nothing there, whatever the device does.
#[test]
fn one_block_too_many_needs_no_room_in_the_region_and_does_no_harm() {
    let small = Region { first_lba: 8, blocks: 4 };
    let memory = Memory::new(Wrong::TakesOneMore);
    memory.write(12, &[7; 5 * 512]).unwrap();
    let report = Suite::new(&memory, small).increments(10).run();
    let found = report.broken().any(|(case, how)| case.name == "impossible" && how.contains("comparing 9 blocks"));
    assert!(found, "{report}");
    let mut around = [0; 5 * 512];
    memory.read(12, &mut around).unwrap();
    assert_eq!(around, [7; 5 * 512]);
}

/// A device that panics in all threads but the one that made it.
struct Panics {
    memory: Memory,
    maker: std::thread::ThreadId,
    in_writes: bool,
}

impl BlockDevice for Panics {
    fn name(&self) -> Cow<'_, str> {
        self.memory.name()
    }

    fn block_bytes(&self) -> usize {
        512
    }

    fn block_count(&self) -> u64 {
        BLOCKS
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        8
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.memory.read(lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        assert!(!self.in_writes || std::thread::current().id() == self.maker, "on purpose");
        self.memory.write(lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        assert!(self.in_writes || std::thread::current().id() == self.maker, "on purpose");
        self.memory.compare_and_write(lba, expected, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn a_device_that_panics_ends_the_suite() {
    let (send, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for in_writes in [false, true] {
            let memory = Memory::new(Wrong::Nothing);
            let device = Panics { memory, maker: std::thread::current().id(), in_writes };
            send.send((in_writes, Suite::new(&device, REGION).increments(50).run())).unwrap();
        }
    });
    for _ in 0..2 {
        let (in_writes, report) = ended.recv_timeout(std::time::Duration::from_secs(60)).expect("it does not hang");
        for name in ["never_torn", "plain_writes"] {
            let panicked = |(case, how): (&casblock::device::conformance::Case, &str)| {
                case.name == name && how.contains("panicked")
            };
            assert!(report.broken().any(panicked), "in writes: {in_writes}, {name}: {report}");
        }
    }
}
