//! From a trace's requests to accesses of blocks.

use std::ops::Range;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::trace::{Op, Trace};

/// Longer requests are counted, and left out: 64 MiB, more than any disk takes at once.
pub const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// What could not be replayed as it stands, and what there is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Facts {
    /// Requests that are replayed.
    pub requests: u64,
    /// Those of them that write.
    pub writes: u64,
    /// Blocks that they read and write, each as often as it is.
    pub accesses: u64,
    /// Blocks that they read.
    pub blocks_read: u64,
    /// How many different blocks.
    pub footprint_blocks: u64,
    /// Requests that are not a whole number of blocks, or do not begin with one: they take all blocks that they touch.
    pub unaligned: u64,
    /// Requests left out since they are longer than 64 MiB, or of no length.
    pub oversized_or_empty: u64,
    /// Requests left out since the target does not have their blocks, or no disk can: they end beyond what 64 bits can tell.
    pub out_of_range: u64,
    /// Commands that neither read nor write, left out.
    pub other_commands: u64,
}

/// A request, in blocks of the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// What it does.
    pub op: Op,
    /// The blocks.
    pub blocks: Range<u64>,
}

/// A use of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Which, of those that the trace uses.
    pub block: u32,
    /// Whether it is read, and not written.
    pub is_read: bool,
}

/// Uses of blocks that lie side by side, one after the other: those of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first block's place among those that the trace uses.
    pub first: u32,
    /// How many blocks.
    pub blocks: u32,
    /// Whether they are read, and not written.
    pub is_read: bool,
}

impl Span {
    /// The uses.
    pub fn accesses(self) -> impl Iterator<Item = Access> {
        (self.first..self.first + self.blocks).map(move |block| Access { block, is_read: self.is_read })
    }
}

/// Where a trace's blocks are on the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// Where they were.
    Raw,
    /// One after the other, those that the trace uses, in their order: what lay side by side still does.
    Dense,
}

/// A trace as it is replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accesses {
    /// Its requests.
    pub extents: Vec<Extent>,
    /// What there is, and what was left out.
    pub facts: Facts,
    /// The blocks that the trace uses, as ranges in order, with how many come before.
    runs: Vec<(Range<u64>, u64)>,
}

impl Accesses {
    /// The accesses of a trace, on a target of blocks of so many bytes. If it has so many of them, those that lie beyond are left out.
    pub fn of(trace: &Trace, block_bytes: u64, mapping: Mapping, blocks: Option<u64>) -> anyhow::Result<Self> {
        let mut facts = Facts { other_commands: trace.other_commands, ..Facts::default() };
        let mut extents = Vec::with_capacity(trace.requests.len());
        for request in &trace.requests {
            if request.bytes == 0 || request.bytes > REQUEST_BYTES_MAX {
                facts.oversized_or_empty += 1;
                continue;
            }
            let Some(end) = request.start.checked_add(request.bytes) else {
                facts.out_of_range += 1;
                continue;
            };
            let range = request.start / block_bytes..end.div_ceil(block_bytes);
            if mapping == Mapping::Raw && blocks.is_some_and(|blocks| range.end > blocks) {
                facts.out_of_range += 1;
                continue;
            }
            facts.unaligned += u64::from(request.start % block_bytes != 0 || end % block_bytes != 0);
            facts.writes += u64::from(request.op == Op::Write);
            facts.accesses += range.end - range.start;
            facts.blocks_read += if request.op == Op::Read { range.end - range.start } else { 0 };
            extents.push(Extent { op: request.op, blocks: range });
        }
        facts.requests = extents.len() as u64;
        let runs = runs(&extents);
        facts.footprint_blocks = runs.last().map_or(0, |(range, before)| before + (range.end - range.start));
        let mut accesses = Self { extents, facts, runs };
        if mapping == Mapping::Dense {
            accesses.make_dense();
            if let Some(blocks) = blocks.filter(|blocks| *blocks < facts.footprint_blocks) {
                bail!("the trace uses {} blocks, and the target has {blocks}", facts.footprint_blocks);
            }
        }
        Ok(accesses)
    }

    /// The place of a block among those that the trace uses.
    fn dense(&self, block: u64) -> u64 {
        let run = self.runs.partition_point(|(range, _)| range.end <= block);
        let (range, before) = &self.runs[run];
        before + (block - range.start)
    }

    fn make_dense(&mut self) {
        let dense: Vec<Range<u64>> = self
            .extents
            .iter()
            // A request's blocks are all used, so they are side by side.
            .map(|extent| self.dense(extent.blocks.start)..self.dense(extent.blocks.end - 1) + 1)
            .collect();
        for (extent, blocks) in self.extents.iter_mut().zip(dense) {
            extent.blocks = blocks;
        }
        self.runs = runs(&self.extents);
    }

    /// All accesses, one after the other: 12 bytes a request, however many blocks it has.
    ///
    /// # Errors
    /// If they are more than 32 bits can count.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let too_long = || format!("{} accesses are more than can be simulated", self.facts.accesses);
        u32::try_from(self.facts.accesses).with_context(too_long)?;
        let of_extent = |Extent { op, blocks }: &Extent| Span {
            // Neither is more than the accesses are.
            first: self.dense(blocks.start) as u32,
            blocks: (blocks.end - blocks.start) as u32,
            is_read: *op == Op::Read,
        };
        Ok(self.extents.iter().map(of_extent).collect())
    }

    /// The same, each access for itself: 8 bytes a block.
    ///
    /// # Errors
    /// As [`spans`](Self::spans).
    pub fn sequence(&self) -> anyhow::Result<Vec<Access>> {
        let spans = self.spans()?;
        let mut sequence = Vec::with_capacity(self.facts.accesses as usize);
        spans.into_iter().for_each(|span| sequence.extend(span.accesses()));
        Ok(sequence)
    }
}

/// The blocks that are used, as ranges in order, with how many come before.
fn runs(extents: &[Extent]) -> Vec<(Range<u64>, u64)> {
    let mut ranges: Vec<Range<u64>> = extents.iter().map(|extent| extent.blocks.clone()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut runs: Vec<(Range<u64>, u64)> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some((last, _)) if range.start <= last.end => last.end = last.end.max(range.end),
            last => {
                let before = last.map_or(0, |(last, before)| *before + (last.end - last.start));
                runs.push((range, before));
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Request;

    fn trace(requests: &[(Op, u64, u64)]) -> Trace {
        let requests = requests.iter().map(|&(op, start, bytes)| Request { op, start, bytes }).collect();
        Trace { requests, other_commands: 3 }
    }

    #[test]
    fn a_request_takes_all_blocks_that_it_touches() {
        let trace = trace(&[(Op::Read, 4096, 4096), (Op::Write, 4000, 200), (Op::Read, 1 << 40, 512)]);
        for (block_bytes, ranges, unaligned) in
            [(512, [8..16, 7..9, 1 << 31..(1 << 31) + 1], 1), (4096, [1..2, 0..2, 1 << 28..(1 << 28) + 1], 2)]
        {
            let raw = Accesses::of(&trace, block_bytes, Mapping::Raw, None).unwrap();
            assert_eq!(raw.extents.iter().map(|extent| extent.blocks.clone()).collect::<Vec<_>>(), ranges);
            assert_eq!((raw.facts.unaligned, raw.facts.writes, raw.facts.other_commands), (unaligned, 1, 3));
        }
    }

    #[test]
    fn dense_blocks_are_side_by_side_as_they_were() {
        let trace = trace(&[
            (Op::Read, 100 * 512, 1024),
            (Op::Read, 7 * 512, 512),
            (Op::Read, 101 * 512, 1024),
            (Op::Read, 8 * 512, 512),
        ]);
        let dense = Accesses::of(&trace, 512, Mapping::Dense, Some(5)).unwrap();
        assert_eq!(
            dense.extents.iter().map(|extent| extent.blocks.clone()).collect::<Vec<_>>(),
            [2..4, 0..1, 3..5, 1..2]
        );
        assert_eq!((dense.facts.footprint_blocks, dense.facts.accesses), (5, 6));
        let raw = Accesses::of(&trace, 512, Mapping::Raw, None).unwrap();
        let blocks: Vec<u32> = raw.sequence().unwrap().iter().map(|access| access.block).collect();
        assert_eq!(blocks, [2, 3, 0, 3, 4, 1]);
        assert_eq!(dense.sequence().unwrap(), raw.sequence().unwrap());
        let error = Accesses::of(&trace, 512, Mapping::Dense, Some(4)).unwrap_err();
        assert_eq!(error.to_string(), "the trace uses 5 blocks, and the target has 4");
    }

    #[test]
    fn what_cannot_be_replayed_is_counted() {
        let trace = trace(&[
            (Op::Read, 0, 0),
            (Op::Read, 0, REQUEST_BYTES_MAX + 1),
            (Op::Read, u64::MAX - 1, 512),
            (Op::Write, u64::MAX, 1),
            (Op::Read, 9 * 512, 1024),
            (Op::Read, 8 * 512, 1024),
        ]);
        let raw = Accesses::of(&trace, 512, Mapping::Raw, Some(10)).unwrap();
        assert_eq!((raw.facts.oversized_or_empty, raw.facts.out_of_range, raw.facts.requests), (2, 3, 1));
        let dense = Accesses::of(&trace, 512, Mapping::Dense, None).unwrap();
        assert_eq!((dense.facts.out_of_range, dense.facts.requests), (2, 2));
        assert_eq!(Accesses::of(&Trace::default(), 512, Mapping::Dense, Some(1)).unwrap().sequence().unwrap(), []);
    }
}
