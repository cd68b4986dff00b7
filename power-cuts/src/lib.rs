//! The power-cut simulator: the real library, on a disk that loses what it may.
//!
//! Built with `--cfg power_cuts`, the library shows each of its atomic operations. A run has a few threads work on a
//! store, one step at a time, in an order that a seed decides (`world`); every store to the file is recorded
//! (`log`). Then the power is cut at a random step: what the disk may hold by then is composed of the recording
//! (`disk`), opened, recovered and judged (`judge`), and what follows a cut may be cut again (`campaign`).
#![cfg(power_cuts)]

pub mod campaign;
pub mod contents;
pub mod disk;
pub mod fault;
pub mod judge;
pub mod layout;
pub mod log;
pub mod mappings;
pub mod oracle;
pub mod recording;
pub mod stage;
pub mod tally;
pub mod workload;
pub mod world;
