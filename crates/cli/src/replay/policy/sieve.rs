//! SIEVE (Zhang, Yang, Yue, Vigfusson and Rashmi, NSDI 2024).

use super::Policy;
use super::list::List;

/// A hand goes from the oldest to the newest: who was used since it came by stays where it is; the first who was not goes.
#[derive(Debug)]
pub struct Sieve {
    kept: List,
    used: Vec<bool>,
    /// Where the hand is; at the oldest, if nowhere.
    hand: Option<u32>,
    capacity: u32,
}

impl Sieve {
    pub fn new(blocks: u32, capacity: u32) -> Self {
        Self { kept: List::new(blocks), used: vec![false; blocks as usize], hand: None, capacity }
    }
}

impl Policy for Sieve {
    fn access(&mut self, block: u32) -> bool {
        if self.kept.contains(block) {
            self.used[block as usize] = true;
            return true;
        }
        if self.kept.len() == self.capacity {
            while let Some(candidate) = self.hand.or_else(|| self.kept.oldest()) {
                self.hand = self.kept.newer(candidate);
                if !std::mem::take(&mut self.used[candidate as usize]) {
                    self.kept.remove(candidate);
                    break;
                }
            }
        }
        self.kept.push(block);
        false
    }
}
