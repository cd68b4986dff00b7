//! CLOCK, or second chance (Corbató, 1968), with one bit.

use super::Policy;
use super::list::List;

/// The block that came first goes, unless it was used since: then it comes anew.
#[derive(Debug)]
pub struct Clock {
    kept: List,
    used: Vec<bool>,
    capacity: u32,
}

impl Clock {
    pub fn new(blocks: u32, capacity: u32) -> Self {
        Self { kept: List::new(blocks), used: vec![false; blocks as usize], capacity }
    }
}

impl Policy for Clock {
    fn access(&mut self, block: u32) -> bool {
        if self.kept.contains(block) {
            self.used[block as usize] = true;
            return true;
        }
        while self.kept.len() == self.capacity
            && let Some(oldest) = self.kept.oldest()
        {
            self.kept.remove(oldest);
            if std::mem::take(&mut self.used[oldest as usize]) {
                self.kept.push(oldest);
            }
        }
        self.kept.push(block);
        false
    }
}
