//! Whether a device keeps the promises of [`BlockDevice`]: one suite, for every device, yours too.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use casblock::device::conformance::{Region, Suite};
//! use casblock::{Geometry, Store};
//!
//! let device = Store::in_memory(Geometry::blocks(64))?;
//! Suite::new(&device, Region { first_lba: 0, blocks: 16 }).increments(50).run().assert();
//! # Ok(())
//! # }
//! ```
//!
//! It overwrites the blocks of the region, and leaves zeros there. What it finds, it tells; it does not panic, whatever the
//! device answers. A suite that passes everything is worth nothing: `tests/conformance.rs` has a broken device for each case,
//! which that case must fail.

mod blocks;
mod contention;
mod requests;

use std::fmt;

use super::{BlockDevice, DeviceError};

pub use contention::{contend, counter};

/// The blocks that a suite may overwrite: at least four.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The first.
    pub first_lba: u64,
    /// How many.
    pub blocks: u64,
}

/// One case: a promise, and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What the device promises.
    pub promise: &'static str,
    run: fn(&Context<'_>) -> Verdict,
}

/// What a case came to: nothing if it passed.
type Verdict = Result<(), Finding>;

/// Why a case did not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The device broke the promise: how.
    Broken(String),
    /// The device does not make the promise: why.
    NotApplicable(String),
    /// Whether it keeps the promise could not be tried: why.
    NotTried(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Broken(text) | Self::NotApplicable(text) | Self::NotTried(text)) = self;
        f.write_str(text)
    }
}

/// All cases, in the order in which they are run.
pub const CASES: [Case; 16] = [
    Case { name: "geometry", promise: "blocks are a power of two of at least 512 bytes", run: requests::geometry },
    Case { name: "write_read", promise: "what was written is read", run: blocks::write_read },
    Case { name: "zeros", promise: "a block of zeros compares as zeros", run: blocks::zeros },
    Case { name: "written_alone", promise: "a compare-and-write changes its block alone", run: blocks::written_alone },
    Case {
        name: "miscompare",
        promise: "a miscompare changes nothing, and tells what is there",
        run: blocks::miscompare,
    },
    Case { name: "first_difference", promise: "the first difference is told", run: blocks::first_difference },
    Case {
        name: "same_again",
        promise: "a block can be compared with, and replaced by, the same",
        run: blocks::same_again,
    },
    Case { name: "back_and_forth", promise: "a block can get back what it held before", run: blocks::back_and_forth },
    Case {
        name: "many_blocks",
        promise: "blocks of one compare-and-write are compared and written together",
        run: blocks::many_blocks,
    },
    Case { name: "impossible", promise: "what is impossible fails, and changes nothing", run: requests::impossible },
    Case { name: "flush", promise: "updates can be put on stable storage", run: requests::flush },
    Case { name: "one_counter", promise: "no update of a block is lost", run: contention::one_counter },
    Case { name: "many_counters", promise: "no update of any block is lost", run: contention::many_counters },
    Case {
        name: "many_together",
        promise: "several blocks change together, whoever else changes them",
        run: contention::many_together,
    },
    Case { name: "never_torn", promise: "a block is read whole", run: contention::never_torn },
    Case {
        name: "plain_writes",
        promise: "plain writes do not fall between compare and write",
        run: contention::plain_writes,
    },
];

/// A suite, for one device.
#[derive(Clone, Copy)]
pub struct Suite<'d> {
    device: &'d dyn BlockDevice,
    region: Region,
    threads: usize,
    increments: u64,
    plain_writes_excluded: bool,
}

/// What a case works with.
struct Context<'d> {
    device: &'d dyn BlockDevice,
    region: Region,
    threads: usize,
    increments: u64,
    plain_writes_excluded: bool,
}

impl<'d> Suite<'d> {
    /// For a device, whose blocks in the region may be overwritten.
    pub fn new(device: &'d dyn BlockDevice, region: Region) -> Self {
        Self { device, region, threads: 4, increments: 500, plain_writes_excluded: true }
    }

    /// Sets how many threads contend: 4 unless set.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets how often each thread updates a block in the cases of contention: 500 times unless set.
    #[must_use]
    pub fn increments(mut self, increments: u64) -> Self {
        self.increments = increments;
        self
    }

    /// Sets whether the device excludes plain writes while it compares and writes, as it should. LIO does not: there all who
    /// update a block must use compare-and-write.
    #[must_use]
    pub fn plain_writes_excluded(mut self, excluded: bool) -> Self {
        self.plain_writes_excluded = excluded;
        self
    }

    /// Runs all cases.
    pub fn run(&self) -> Report {
        self.run_with(|_, _| {})
    }

    /// Runs all cases, and calls `told` after each.
    pub fn run_with(&self, mut told: impl FnMut(&Case, &Verdict)) -> Report {
        let Self { device, region, threads, increments, plain_writes_excluded } = *self;
        let context = Context { device, region, threads, increments, plain_writes_excluded };
        let mut results = Vec::new();
        for case in CASES {
            let verdict = context.prepare(&case).and_then(|()| (case.run)(&context));
            told(&case, &verdict);
            results.push((case, verdict));
        }
        // What it leaves is not part of any promise.
        let _ = context.check_region().and_then(|()| context.clear());
        Report { results }
    }
}

impl fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("device", &self.device.name())
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// What a suite found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Each case, with what it came to.
    pub results: Vec<(Case, Result<(), Finding>)>,
}

impl Report {
    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|(_, verdict)| verdict.is_ok()).count()
    }

    /// The cases in which the device broke its promise, and how.
    pub fn broken(&self) -> impl Iterator<Item = (&Case, &str)> {
        self.results.iter().filter_map(|(case, verdict)| match verdict {
            Err(Finding::Broken(how)) => Some((case, how.as_str())),
            _ => None,
        })
    }

    /// Whether the device keeps all promises it makes: none was found broken, and each was tried.
    pub fn conforms(&self) -> bool {
        let fails = |finding: &Finding| !matches!(finding, Finding::NotApplicable(_));
        !self.results.iter().any(|(_, verdict)| verdict.as_ref().is_err_and(fails))
    }

    /// Ends a test.
    ///
    /// # Panics
    /// If the device broke a promise, or one could not be tried: a suite that tried nothing says nothing.
    pub fn assert(&self) {
        assert!(self.conforms(), "the device does not conform, or not all was tried:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, verdict) in &self.results {
            match verdict {
                Ok(()) => writeln!(f, "{:16} passed", case.name)?,
                Err(Finding::NotApplicable(why)) => writeln!(f, "{:16} not applicable: {why}", case.name)?,
                Err(Finding::NotTried(why)) => writeln!(f, "{:16} NOT TRIED: {why}", case.name)?,
                Err(Finding::Broken(how)) => {
                    writeln!(f, "{:16} BROKEN: {} (promised: {})", case.name, how, case.promise)?
                }
            }
        }
        Ok(())
    }
}

/// The promise is broken in this way.
fn broken<T>(how: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Broken(how.into()))
}

impl Context<'_> {
    /// Most blocks of one compare-and-write.
    fn most(&self) -> u64 {
        self.device.compare_and_write_blocks_max().into()
    }

    fn block_bytes(&self) -> usize {
        self.device.block_bytes()
    }

    /// The last block of the region.
    fn last(&self) -> u64 {
        self.region.first_lba + self.region.blocks - 1
    }

    /// A block in the middle.
    fn middle(&self) -> u64 {
        self.region.first_lba + self.region.blocks / 2
    }

    /// A block's contents of which each byte depends on where it is, and on `what`.
    fn image(&self, what: u8) -> Vec<u8> {
        (0..self.block_bytes()).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ what).collect()
    }

    /// Makes the region as a case finds it. What a device says of itself is judged without one: it may be what makes the region
    /// impossible.
    fn prepare(&self, case: &Case) -> Verdict {
        match case.name {
            "geometry" => Ok(()),
            _ => self.check_region().and_then(|()| self.clear()),
        }
    }

    /// An error unless the region can be used.
    fn check_region(&self) -> Verdict {
        let (blocks, Region { first_lba, blocks: wanted }) = (self.device.block_count(), self.region);
        let end = first_lba.checked_add(wanted);
        if wanted < 4 || end.is_none_or(|end| end > blocks) {
            return Err(Finding::NotTried(format!(
                "at least four of the device's {blocks} blocks are needed, not {wanted} from {first_lba} on"
            )));
        }
        if self.block_bytes() < 512 || self.most() == 0 {
            return Err(Finding::NotTried("the device has no compare-and-write, or no blocks to speak of".into()));
        }
        Ok(())
    }

    /// Fills the region with zeros.
    fn clear(&self) -> Verdict {
        let zeros = vec![0; self.block_bytes()];
        (self.region.first_lba..=self.last()).try_for_each(|lba| self.write(lba, &zeros))
    }

    fn write(&self, lba: u64, data: &[u8]) -> Verdict {
        self.device.write(lba, data).or_else(|error| broken(format!("writing block {lba}: {error}")))
    }

    fn read(&self, lba: u64, blocks: u64) -> Result<Vec<u8>, Finding> {
        // Rather not what is expected, in case the device does nothing.
        let mut out = vec![0xa5; blocks as usize * self.block_bytes()];
        match self.device.read(lba, &mut out) {
            Ok(()) => Ok(out),
            Err(error) => broken(format!("reading {blocks} blocks from {lba} on: {error}")),
        }
    }

    /// An error unless the blocks from `lba` on hold these bytes.
    fn holds(&self, lba: u64, expected: &[u8], when: &str) -> Verdict {
        let found = self.read(lba, (expected.len() / self.block_bytes()) as u64)?;
        match super::first_difference(expected, &found) {
            None => Ok(()),
            Some(at) => broken(format!(
                "{when}: block {} holds {:#04x} at offset {}, not {:#04x}",
                lba + (at / self.block_bytes()) as u64,
                found[at],
                at % self.block_bytes(),
                expected[at]
            )),
        }
    }

    /// A compare-and-write that must succeed.
    fn replace(&self, lba: u64, expected: &[u8], new: &[u8]) -> Verdict {
        let answer = self.device.compare_and_write(lba, expected, new);
        answer.or_else(|error| broken(format!("block {lba} holds what is expected, but: {error}")))
    }

    /// A compare-and-write that must miscompare, first at `offset`, where the blocks hold `found`.
    fn miscompares(&self, lba: u64, expected: &[u8], new: &[u8], offset: usize, found: &[u8]) -> Verdict {
        match self.device.compare_and_write(lba, expected, new) {
            Ok(()) => broken(format!("block {lba} differs at offset {offset}, but it was written")),
            Err(DeviceError::Miscompare(it)) if (it.lba, it.offset, &*it.found) == (lba, offset, found) => Ok(()),
            Err(DeviceError::Miscompare(it)) => broken(format!(
                "block {lba} differs at offset {offset}; the miscompare tells of block {}, offset {}, with {} bytes found{}",
                it.lba,
                it.offset,
                it.found.len(),
                if *it.found == *found { "" } else { ", which are not what it holds" }
            )),
            Err(error) => broken(format!("block {lba} differs at offset {offset}, but: {error}")),
        }
    }
}
