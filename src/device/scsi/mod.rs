//! SCSI disks: a disk, or a logical unit of an array, with COMPARE AND WRITE (SBC-4, 5.3) as its compare-and-write.
//!
//! From the wire up: [`Cdb`] and [`Data`] go out, [`Completion`] and [`Sense`] come back, and [`Transport`] carries them.

mod cdb;
mod disk;
mod error;
mod images;
mod pages;
mod probe;
mod sense;
mod session;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod sg_io;
#[cfg(test)]
mod tests;
mod transport;
mod verdict;

pub use cdb::{CDB_BYTES_MAX, Caching, Cdb, opcode};
pub use disk::{Compared, Disk};
pub use error::{Answer, ScsiError};
pub use pages::{
    BlockLimits, CAPACITY_BYTES, Capacity, Inquiry, Mode, command_supported, designator, page, serial_number,
    supported_pages,
};
pub use probe::{Probe, Proof, ReportedOffset, probe, probe_with};
pub use sense::{AdditionalSense, Sense, SenseKey};
pub use session::DiskOptions;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub use sg_io::{SgIo, SgIoError};
pub use transport::{Completion, Data, Status, Transport, TransportError};
