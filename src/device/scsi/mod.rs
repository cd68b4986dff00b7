//! SCSI disks: a disk, or a logical unit of an array, with COMPARE AND WRITE (SBC-4, 5.3) as its compare-and-write.
//!
//! From the wire up: [`Cdb`] and [`Data`] go out, [`Completion`] and [`Sense`] come back, and [`Transport`] carries them.

mod cdb;
mod pages;
mod sense;
mod transport;

pub use cdb::{CDB_BYTES_MAX, Caching, Cdb, opcode};
pub use pages::{
    BlockLimits, CAPACITY_BYTES, Capacity, Inquiry, Mode, command_supported, designator, page, serial_number,
    supported_pages,
};
pub use sense::{AdditionalSense, Sense, SenseKey};
pub use transport::{Completion, Data, Status, Transport, TransportError};
