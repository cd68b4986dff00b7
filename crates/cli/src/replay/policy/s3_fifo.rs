//! S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023), with the sizes of casblock's cache.

use super::Policy;
use super::list::List;

/// A small queue for new blocks, a main one for those that were used in it or came back soon, and the ghosts of those that were not.
#[derive(Debug)]
pub struct S3Fifo {
    small: List,
    main: List,
    ghosts: List,
    /// Uses since a block came, or since its last turn in the main queue; no more than [`USES_MAX`].
    uses: Vec<u8>,
    small_capacity: u32,
    capacity: u32,
}

const USES_MAX: u8 = 3;
const USES_TO_STAY: u8 = 2;

impl S3Fifo {
    pub fn new(blocks: u32, capacity: u32) -> Self {
        let [small, main, ghosts] = [(); 3].map(|()| List::new(blocks));
        Self { small, main, ghosts, uses: vec![0; blocks as usize], small_capacity: (capacity / 10).max(1), capacity }
    }

    fn evict(&mut self) {
        while self.small.len() + self.main.len() == self.capacity {
            let from_small = self.small.len() >= self.small_capacity || self.main.len() == 0;
            match if from_small { self.small.oldest() } else { self.main.oldest() } {
                Some(block) if from_small => self.judge_new(block),
                Some(block) => self.judge(block),
                None => return,
            }
        }
    }

    fn judge_new(&mut self, block: u32) {
        self.small.remove(block);
        if std::mem::take(&mut self.uses[block as usize]) >= USES_TO_STAY {
            self.main.push(block);
            return;
        }
        if self.ghosts.len() == self.capacity
            && let Some(oldest) = self.ghosts.oldest()
        {
            self.ghosts.remove(oldest);
        }
        self.ghosts.push(block);
    }

    fn judge(&mut self, block: u32) {
        self.main.remove(block);
        if self.uses[block as usize] > 0 {
            self.uses[block as usize] -= 1;
            self.main.push(block);
        }
    }
}

impl Policy for S3Fifo {
    fn access(&mut self, block: u32) -> bool {
        if self.small.contains(block) || self.main.contains(block) {
            let uses = &mut self.uses[block as usize];
            *uses = (*uses + 1).min(USES_MAX);
            return true;
        }
        self.evict();
        self.uses[block as usize] = 0;
        if self.ghosts.contains(block) {
            self.ghosts.remove(block);
            self.main.push(block);
        } else {
            self.small.push(block);
        }
        false
    }
}
