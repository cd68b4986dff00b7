//! First in, first out.

use super::Policy;
use super::list::List;

/// The block that came first goes.
#[derive(Debug)]
pub struct Fifo {
    kept: List,
    capacity: u32,
}

impl Fifo {
    pub fn new(blocks: u32, capacity: u32) -> Self {
        Self { kept: List::new(blocks), capacity }
    }
}

impl Policy for Fifo {
    fn access(&mut self, block: u32) -> bool {
        if self.kept.contains(block) {
            return true;
        }
        if self.kept.len() == self.capacity
            && let Some(oldest) = self.kept.oldest()
        {
            self.kept.remove(oldest);
        }
        self.kept.push(block);
        false
    }
}
