//! Reads that are under way: one for all who miss a block at the same time.
//!
//! This is where threads wait for each other, and the only place: for the device, which they would wait for in any case.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::state::State;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// One read.
#[derive(Debug)]
pub struct Flight<E> {
    landed: Mutex<Option<Landed<E>>>,
    come: Condvar,
}

/// How a read ended.
#[derive(Debug)]
pub enum Landed<E> {
    /// The block was read. It is in the cache, unless it was changed meanwhile, or there was no room.
    Read,
    /// The device said this.
    Failed(Arc<E>),
    /// Whoever was to read it panicked.
    Lost,
}

impl<E> Flight<E> {
    fn new() -> Self {
        Self { landed: Mutex::new(None), come: Condvar::new() }
    }

    /// Waits for its end: the block was read, or is to be read by whoever waited.
    ///
    /// # Errors
    /// What the device said.
    pub fn wait(&self) -> Result<(), Arc<E>> {
        let mut landed = locked(&self.landed);
        loop {
            match &*landed {
                Some(Landed::Failed(error)) => return Err(Arc::clone(error)),
                Some(Landed::Read | Landed::Lost) => return Ok(()),
                None => landed = self.come.wait(landed).unwrap_or_else(std::sync::PoisonError::into_inner),
            }
        }
    }

    fn land(&self, how: Landed<E>) {
        *locked(&self.landed) = Some(how);
        self.come.notify_all();
    }
}

/// Nothing is done under these locks that could panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The reads that are under way, by entry and the state that it has for them.
#[derive(Debug)]
pub struct Flights<E> {
    boards: Box<[CachePadded<Mutex<Board<E>>>]>,
}

type Board<E> = Vec<((u32, State), Arc<Flight<E>>)>;

/// Boards that those who miss are spread over.
#[cfg(not(loom))]
const BOARDS: usize = 64;
#[cfg(loom)]
const BOARDS: usize = 1;

impl<E> Flights<E> {
    pub fn new() -> Self {
        Self { boards: (0..BOARDS).map(|_| CachePadded::new(Mutex::new(Vec::new()))).collect() }
    }

    fn board(&self, entry: u32) -> MutexGuard<'_, Board<E>> {
        locked(&self.boards[entry as usize % self.boards.len()])
    }

    /// Announces a read of an entry's block, if `begin` puts the entry into this state, which says so; whether it did.
    pub fn start(&self, entry: u32, state: State, begin: impl FnOnce() -> bool) -> bool {
        // Under the lock, so that whoever sees the state finds the flight, or that it has ended.
        let mut board = self.board(entry);
        let begun = begin();
        if begun {
            board.push(((entry, state), Arc::new(Flight::new())));
        }
        begun
    }

    /// The read that an entry's state speaks of; `None` if it has ended.
    pub fn find(&self, entry: u32, state: State) -> Option<Arc<Flight<E>>> {
        let board = self.board(entry);
        board.iter().find(|(of, _)| *of == (entry, state)).map(|(_, flight)| Arc::clone(flight))
    }

    /// Ends a read, and tells those who wait.
    pub fn end(&self, entry: u32, state: State, how: Landed<E>) {
        let mut board = self.board(entry);
        let at = board.iter().position(|(of, _)| *of == (entry, state));
        let flight = at.map(|at| board.swap_remove(at).1);
        drop(board);
        if let Some(flight) = flight {
            flight.land(how);
        }
    }
}
