//! Least recently used.

use super::Policy;
use super::list::List;

/// The block that was not used for the longest time goes.
#[derive(Debug)]
pub struct Lru {
    kept: List,
    capacity: u32,
}

impl Lru {
    pub fn new(blocks: u32, capacity: u32) -> Self {
        Self { kept: List::new(blocks), capacity }
    }
}

impl Policy for Lru {
    fn access(&mut self, block: u32) -> bool {
        let hit = self.kept.contains(block);
        if hit {
            self.kept.remove(block);
        } else if self.kept.len() == self.capacity
            && let Some(oldest) = self.kept.oldest()
        {
            self.kept.remove(oldest);
        }
        self.kept.push(block);
        hit
    }
}
