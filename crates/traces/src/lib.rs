//! Traces of a disk's requests: read from files, which may be packed and damaged, and turned into accesses of blocks.
//!
//! `docs/replay.md` describes the formats.

mod accesses;
mod table;
mod trace;
mod vscsi;
mod zstandard;

pub use accesses::{Access, Accesses, Extent, Facts, Mapping, REQUEST_BYTES_MAX, Span};
pub use trace::{Format, Op, Request, SECTOR_BYTES, Trace};
