//! Policies that decide what a cache keeps, simulated without its contents.

mod belady;
mod clock;
mod fifo;
mod list;
mod lru;
mod s3_fifo;
mod sieve;

use std::sync::OnceLock;

use casblock_traces::Span;
use clap::ValueEnum;
use serde::Serialize;

/// A cache that has no contents: it tells hits from misses.
pub trait Policy {
    /// Uses a block; whether it was there. It is now.
    fn access(&mut self, block: u32) -> bool;
}

/// How many accesses hit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hits {
    /// Reads and writes.
    pub all: u64,
    /// Reads alone.
    pub reads: u64,
}

/// The policies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// First in, first out
    Fifo,
    /// Least recently used
    Lru,
    /// Second chance, with one bit
    Clock,
    /// SIEVE (Zhang et al., NSDI 2024)
    Sieve,
    /// S3-FIFO (Yang et al., SOSP 2023), as casblock's cache has it
    S3Fifo,
    /// The optimum: the block that is used again last goes (Belady, 1966)
    Belady,
}

impl Kind {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "FIFO",
            Self::Lru => "LRU",
            Self::Clock => "CLOCK",
            Self::Sieve => "SIEVE",
            Self::S3Fifo => "S3-FIFO",
            Self::Belady => "optimum",
        }
    }

    /// How many accesses hit in a cache of `capacity` blocks; `None` if `tick`, which is called now and then with how many were made
    /// since, says that it is enough.
    pub fn hits(self, workload: &Workload, capacity: u32, tick: impl FnMut(u64) -> bool) -> Option<Hits> {
        let (spans, blocks) = (&workload.spans, workload.blocks);
        let capacity = capacity.clamp(1, blocks.max(1));
        match self {
            Self::Fifo => run(&mut fifo::Fifo::new(blocks, capacity), spans, tick),
            Self::Lru => run(&mut lru::Lru::new(blocks, capacity), spans, tick),
            Self::Clock => run(&mut clock::Clock::new(blocks, capacity), spans, tick),
            Self::Sieve => run(&mut sieve::Sieve::new(blocks, capacity), spans, tick),
            Self::S3Fifo => run(&mut s3_fifo::S3Fifo::new(blocks, capacity), spans, tick),
            Self::Belady => run(&mut belady::Belady::new(workload.next_uses(), blocks, capacity), spans, tick),
        }
    }
}

/// What is simulated.
#[derive(Debug)]
pub struct Workload {
    spans: Vec<Span>,
    /// All blocks are below this.
    blocks: u32,
    /// For the optimum, and so only if it is asked for: it is larger than all else, and one is enough for all sizes.
    next_uses: OnceLock<Vec<u32>>,
}

impl Workload {
    /// Accesses to blocks below `blocks`; fewer than 2³² of them.
    pub fn new(spans: Vec<Span>, blocks: u32) -> Self {
        Self { spans, blocks, next_uses: OnceLock::new() }
    }

    fn next_uses(&self) -> &[u32] {
        self.next_uses.get_or_init(|| belady::next_uses(&self.spans, self.blocks))
    }
}

/// Accesses after which it is asked whether to go on.
const TICK: u64 = 1 << 16;

fn run(policy: &mut impl Policy, spans: &[Span], mut tick: impl FnMut(u64) -> bool) -> Option<Hits> {
    let mut hits = Hits::default();
    let mut since = 0;
    for span in spans {
        for access in span.accesses() {
            let hit = policy.access(access.block);
            hits.all += u64::from(hit);
            hits.reads += u64::from(hit && access.is_read);
        }
        since += u64::from(span.blocks);
        if since >= TICK && !tick(std::mem::take(&mut since)) {
            return None;
        }
    }
    tick(since).then_some(hits)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Accesses of which some come back soon, some late, and some never.
    fn accesses(seed: u64, blocks: u32, count: usize) -> Vec<u32> {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut scan = 0;
        let mut all = Vec::new();
        while all.len() < count {
            match dice.u32(0..4) {
                0 => {
                    for _ in 0..dice.u32(1..8) {
                        scan = (scan + 1) % blocks;
                        all.push(scan);
                    }
                }
                1 => all.push(dice.u32(0..blocks)),
                _ => all.push(dice.u32(0..blocks.div_ceil(5))),
            }
        }
        all.truncate(count);
        all
    }

    fn all_reads(accesses: &[u32], blocks: u32) -> Workload {
        Workload::new(accesses.iter().map(|block| Span { first: *block, blocks: 1, is_read: true }).collect(), blocks)
    }

    fn hits(kind: Kind, accesses: &[u32], blocks: u32, capacity: u32) -> u64 {
        let hits = kind.hits(&all_reads(accesses, blocks), capacity, |_| true).unwrap();
        assert_eq!(hits.reads, hits.all);
        hits.all
    }

    /// Lists, as one would write them if time did not matter: the block that goes is at the front.
    fn naive(kind: Kind, accesses: &[u32], capacity: usize) -> u64 {
        let mut queue: VecDeque<(u32, bool)> = VecDeque::new();
        let mut hits = 0;
        for &block in accesses {
            if let Some(at) = queue.iter().position(|(it, _)| *it == block) {
                hits += 1;
                match kind {
                    Kind::Lru => {
                        let it = queue.remove(at).unwrap();
                        queue.push_back(it);
                    }
                    _ => queue[at].1 = true,
                }
                continue;
            }
            while queue.len() == capacity {
                let (oldest, was_used) = queue.pop_front().unwrap();
                if kind == Kind::Clock && was_used {
                    queue.push_back((oldest, false));
                }
            }
            queue.push_back((block, false));
        }
        hits
    }

    /// SIEVE as its paper has it: new ones at the head, a hand that goes from the tail to the head and stays where it evicted.
    fn naive_sieve(accesses: &[u32], capacity: usize) -> u64 {
        // The head is the last.
        let mut queue: Vec<(u32, bool)> = Vec::new();
        let (mut hand, mut hits) = (0, 0);
        for &block in accesses {
            if let Some(it) = queue.iter_mut().find(|(it, _)| *it == block) {
                it.1 = true;
                hits += 1;
                continue;
            }
            if queue.len() == capacity {
                while queue[hand].1 {
                    queue[hand].1 = false;
                    hand = (hand + 1) % queue.len();
                }
                queue.remove(hand);
                if hand == queue.len() {
                    // From the head on to the tail, and not to the one that now comes.
                    hand = 0;
                }
            }
            queue.push((block, false));
        }
        hits
    }

    /// S3-FIFO as its paper has it (algorithm 1), with a tenth of the blocks in the small queue, and as many ghosts as blocks. The first of a
    /// queue is the next to go.
    #[derive(Default)]
    struct NaiveS3Fifo {
        small: VecDeque<(u32, u8)>,
        main: VecDeque<(u32, u8)>,
        ghosts: VecDeque<u32>,
    }

    impl NaiveS3Fifo {
        fn access(&mut self, block: u32, capacity: usize) -> bool {
            if let Some((_, uses)) = self.small.iter_mut().chain(&mut self.main).find(|(it, _)| *it == block) {
                *uses = (*uses + 1).min(3);
                return true;
            }
            while self.small.len() + self.main.len() == capacity {
                let is_small_full = self.small.len() >= (capacity / 10).max(1);
                if is_small_full || self.main.is_empty() { self.evict_small(capacity) } else { self.evict_main() }
            }
            match self.ghosts.iter().position(|it| *it == block) {
                Some(at) => {
                    self.ghosts.remove(at);
                    self.main.push_back((block, 0));
                }
                None => self.small.push_back((block, 0)),
            }
            false
        }

        /// "If its frequency is more than 1": used twice since it came.
        fn evict_small(&mut self, capacity: usize) {
            let (block, uses) = self.small.pop_front().unwrap();
            if uses > 1 {
                return self.main.push_back((block, 0));
            }
            self.ghosts.push_back(block);
            if self.ghosts.len() > capacity {
                self.ghosts.pop_front();
            }
        }

        fn evict_main(&mut self) {
            match self.main.pop_front().unwrap() {
                (_, 0) => {}
                (block, uses) => self.main.push_back((block, uses - 1)),
            }
        }
    }

    fn naive_s3_fifo(accesses: &[u32], capacity: usize) -> u64 {
        let mut naive = NaiveS3Fifo::default();
        accesses.iter().map(|block| u64::from(naive.access(*block, capacity))).sum()
    }

    /// The most hits there can be, by trying all that may go.
    fn best(accesses: &[u32], kept: &[u32], capacity: usize) -> u64 {
        let Some((block, rest)) = accesses.split_first() else { return 0 };
        if kept.contains(block) {
            return 1 + best(rest, kept, capacity);
        }
        let with = |others: Vec<u32>| best(rest, &[others, vec![*block]].concat(), capacity);
        if kept.len() < capacity {
            return with(kept.to_vec());
        }
        let without = |gone: &u32| kept.iter().copied().filter(|it| it != gone).collect();
        kept.iter().map(|gone| with(without(gone))).max().unwrap_or_default()
    }

    #[test]
    fn each_is_as_a_naive_one() {
        for seed in 0..60 {
            let blocks = [3, 10, 50][seed as usize % 3];
            let accesses = accesses(seed, blocks, 3000);
            for capacity in [1, 2, 3, 7, 19, 20, 50].into_iter().filter(|capacity| *capacity <= blocks) {
                for kind in [Kind::Fifo, Kind::Lru, Kind::Clock] {
                    let expected = naive(kind, &accesses, capacity as usize);
                    assert_eq!(hits(kind, &accesses, blocks, capacity), expected, "{kind:?} {seed} {capacity}");
                }
                let expected = naive_sieve(&accesses, capacity as usize);
                assert_eq!(hits(Kind::Sieve, &accesses, blocks, capacity), expected, "sieve {seed} {capacity}");
                let expected = naive_s3_fifo(&accesses, capacity as usize);
                assert_eq!(hits(Kind::S3Fifo, &accesses, blocks, capacity), expected, "S3-FIFO {seed} {capacity}");
            }
        }
    }

    #[test]
    fn the_optimum_is_the_best_there_can_be() {
        for seed in 0..200 {
            let accesses = accesses(seed, 6, 14);
            for capacity in 1..4 {
                let expected = best(&accesses, &[], capacity as usize);
                assert_eq!(hits(Kind::Belady, &accesses, 6, capacity), expected, "{seed} {capacity}");
            }
        }
    }

    #[test]
    fn none_beats_the_optimum_and_all_have_what_fits() {
        for seed in 0..20 {
            let accesses = accesses(seed, 400, 20_000);
            let distinct = accesses.iter().collect::<std::collections::HashSet<_>>().len() as u64;
            for kind in Kind::value_variants() {
                for capacity in [1, 4, 40, 200] {
                    let best = hits(Kind::Belady, &accesses, 400, capacity);
                    assert!(hits(*kind, &accesses, 400, capacity) <= best, "{kind:?} {seed} {capacity}");
                }
                assert_eq!(hits(*kind, &accesses, 400, 400), accesses.len() as u64 - distinct, "{kind:?}");
                assert_eq!(hits(*kind, &accesses, 400, u32::MAX), accesses.len() as u64 - distinct, "{kind:?}");
            }
        }
    }

    /// A scan of blocks that never come back does not drive those out that do.
    #[test]
    fn scans_leave_s3_fifo_what_is_used() {
        let mut accesses = Vec::new();
        for round in 0..200 {
            accesses.extend((0..50).chain(0..50));
            accesses.extend((0..100).map(|block| 50 + (round * 100 + block) % 5000));
        }
        let ratio = |kind| hits(kind, &accesses, 5050, 100) as f64 / accesses.len() as f64;
        assert!(ratio(Kind::S3Fifo) > ratio(Kind::Lru) + 0.1, "{} {}", ratio(Kind::S3Fifo), ratio(Kind::Lru));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let workload = all_reads(&[1; 1 << 18], 2);
        assert_eq!(Kind::Lru.hits(&workload, 1, |_| false), None);
        let mut ticks = Vec::new();
        let _ = Kind::Lru.hits(&workload, 1, |count| {
            ticks.push(count);
            ticks.len() < 2
        });
        assert_eq!(ticks, [TICK, TICK]);
        assert_eq!(Kind::Belady.hits(&all_reads(&[], 0), 0, |_| true), Some(Hits::default()));
    }

    #[test]
    fn reads_are_counted_for_themselves() {
        let span = |first, blocks, is_read| Span { first, blocks, is_read };
        let spans = vec![span(0, 1, false), span(0, 2, true), span(1, 1, false), span(1, 1, true)];
        for kind in [Kind::Fifo, Kind::Belady] {
            assert_eq!(kind.hits(&Workload::new(spans.clone(), 2), 1, |_| true), Some(Hits { all: 3, reads: 2 }));
        }
    }
}
