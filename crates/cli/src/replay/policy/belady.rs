//! The optimum (Belady, IBM Systems Journal 1966): it knows the future.

use std::collections::BinaryHeap;

use casblock_traces::Access;

use super::Policy;

/// The block whose next use is the furthest away goes. As with the others, every block that is used comes in.
#[derive(Debug)]
pub struct Belady {
    /// For each access, when its block is accessed next.
    next: Vec<u32>,
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

impl Belady {
    pub fn new(accesses: &[Access], blocks: u32, capacity: u32) -> Self {
        let mut seen = vec![NEVER; blocks as usize];
        let mut next = vec![NEVER; accesses.len()];
        for (at, access) in accesses.iter().enumerate().rev() {
            // There are fewer than 2³² accesses.
            next[at] = std::mem::replace(&mut seen[access.block as usize], at as u32);
        }
        Self { next, now: 0, kept: vec![None; blocks as usize], len: 0, furthest: BinaryHeap::new(), capacity }
    }
}

impl Policy for Belady {
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
        self.furthest.push((next, block));
        hit
    }
}
