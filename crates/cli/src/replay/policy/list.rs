//! A list of blocks, each in it once at most, from which any can be taken.

/// No block.
const NONE: u32 = u32::MAX;

/// The list: new blocks come at the head, the oldest is the tail.
#[derive(Debug)]
pub struct List {
    /// For each block, the one that came next; itself if it is not in the list.
    newer: Vec<u32>,
    /// For each block, the one that came before it.
    older: Vec<u32>,
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    /// An empty one, of blocks below `blocks`.
    pub fn new(blocks: u32) -> Self {
        let absent: Vec<u32> = (0..blocks).collect();
        Self { newer: absent.clone(), older: absent, head: NONE, tail: NONE, len: 0 }
    }

    /// How many are in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether a block is in it.
    pub fn contains(&self, block: u32) -> bool {
        self.newer[block as usize] != block
    }

    /// The oldest.
    pub fn oldest(&self) -> Option<u32> {
        Some(self.tail).filter(|tail| *tail != NONE)
    }

    /// The one that came after a block that is in it.
    pub fn newer(&self, block: u32) -> Option<u32> {
        Some(self.newer[block as usize]).filter(|newer| *newer != NONE)
    }

    /// Puts a block at the head, which is not in it.
    pub fn push(&mut self, block: u32) {
        (self.newer[block as usize], self.older[block as usize]) = (NONE, self.head);
        match self.head {
            NONE => self.tail = block,
            head => self.newer[head as usize] = block,
        }
        self.head = block;
        self.len += 1;
    }

    /// Takes a block out, which is in it.
    pub fn remove(&mut self, block: u32) {
        let (newer, older) = (self.newer[block as usize], self.older[block as usize]);
        match newer {
            NONE => self.head = older,
            newer => self.older[newer as usize] = older,
        }
        match older {
            NONE => self.tail = newer,
            older => self.newer[older as usize] = newer,
        }
        (self.newer[block as usize], self.older[block as usize]) = (block, block);
        self.len -= 1;
    }
}
