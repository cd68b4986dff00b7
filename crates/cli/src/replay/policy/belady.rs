//! The optimum (Belady, IBM Systems Journal 1966): it knows the future.

use std::collections::BinaryHeap;

use casblock_traces::Span;

use super::Policy;

/// The block whose next use is the furthest away goes. As with the others, every block that is used comes in.
#[derive(Debug)]
pub struct Belady<'a> {
    /// For each access, when its block is accessed next.
    next: &'a [u32],
    /// The number of the next access.
    now: usize,
    /// For each block that is kept, when it is used next.
    kept: Vec<Option<u32>>,
    len: u32,
    /// What is kept, the furthest on top; and entries that were overtaken by a use.
    furthest: BinaryHeap<(u32, u32)>,
    capacity: u32,
}

/// A block that is never used again.
const NEVER: u32 = u32::MAX;

/// When the block of each access is accessed next.
pub fn next_uses(spans: &[Span], blocks: u32) -> Vec<u32> {
    let mut seen = vec![NEVER; blocks as usize];
    let accesses: usize = spans.iter().map(|span| span.blocks as usize).sum();
    let mut next = vec![NEVER; accesses];
    // There are fewer than 2³² accesses.
    let mut at = accesses as u32;
    for span in spans.iter().rev() {
        for block in (span.first..span.first + span.blocks).rev() {
            at -= 1;
            next[at as usize] = std::mem::replace(&mut seen[block as usize], at);
        }
    }
    next
}

impl<'a> Belady<'a> {
    pub fn new(next: &'a [u32], blocks: u32, capacity: u32) -> Self {
        Self { next, now: 0, kept: vec![None; blocks as usize], len: 0, furthest: BinaryHeap::new(), capacity }
    }

    /// Entries that there may be: now and then those that were overtaken go, or hits would pile them up for ever.
    fn entries_max(&self) -> usize {
        2 * self.capacity as usize + 64
    }
}

impl Policy for Belady<'_> {
    fn access(&mut self, block: u32) -> bool {
        let next = self.next[self.now];
        self.now += 1;
        let hit = self.kept[block as usize].is_some();
        while !hit && self.len == self.capacity {
            let Some((when, gone)) = self.furthest.pop() else { break };
            if self.kept[gone as usize] == Some(when) {
                self.kept[gone as usize] = None;
                self.len -= 1;
            }
        }
        self.len += u32::from(!hit);
        self.kept[block as usize] = Some(next);
        if self.furthest.len() == self.entries_max() {
            let kept = &self.kept;
            self.furthest.retain(|(when, block)| kept[*block as usize] == Some(*when));
        }
        self.furthest.push((next, block));
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_pile_nothing_up() {
        let spans = vec![Span { first: 0, blocks: 4, is_read: true }; 10_000];
        let next = next_uses(&spans, 4);
        assert_eq!((next[0], next[39_995], next[39_996]), (4, 39_999, NEVER));
        let mut belady = Belady::new(&next, 4, 4);
        for access in 0..40_000 {
            assert_eq!(belady.access(access % 4), access >= 4);
            assert!(belady.furthest.len() <= belady.entries_max());
        }
    }
}
