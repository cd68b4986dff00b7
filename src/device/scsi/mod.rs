//! SCSI disks: a disk, or a logical unit of an array, with COMPARE AND WRITE (SBC-4, 5.3) as its compare-and-write.
//!
//! [`Disk`] is the device, [`probe()`] finds out what it can. From the wire up: [`Cdb`] and [`Data`] go out, [`Completion`] and
//! [`Sense`] come back, and [`Transport`] carries them: `SgIo` on Linux, anything else that can.
//!
//! What an answer means for the one who sent the command:
//!
//! | answer | a write, a compare-and-write | a read |
//! | --- | --- | --- |
//! | GOOD, all data went; RECOVERED ERROR | done | done |
//! | GOOD, but not all data went | outcome unknown | failed: I/O |
//! | MISCOMPARE | miscompare, once the blocks were read | |
//! | UNIT ATTENTION; a deferred error, which is about an earlier write | sent again at once, 16 times at most | as left |
//! | TASK SET FULL, ACA ACTIVE; NOT READY 04/01, 04/0A | sent again after a while; failed: busy | as left |
//! | BUSY | sent again after a while; done if it is then, else outcome unknown | sent again after a while; failed: busy |
//! | RESERVATION CONFLICT | failed: reservation conflict | as left |
//! | NOT READY 04/..: the disk or the port, as a whole | failed: unreachable | as left |
//! | ILLEGAL REQUEST 1A, 20, 21, 24, 25, 26: the command as such | failed: invalid, unsupported or unreachable | as left |
//! | DATA PROTECT 27/..; others of it, if for one block | failed: read-only, no space | failed: I/O |
//! | DATA PROTECT, for several blocks | outcome unknown (not 27/00 to 27/06) | failed: I/O |
//! | ABORTED COMMAND, TASK ABORTED; no sense data | outcome unknown | sent again after a while; failed: I/O |
//! | MEDIUM ERROR, HARDWARE ERROR, anything else | outcome unknown | failed |
//! | the host could not send it | failed | as left |
//! | no way to the disk (any more) | outcome unknown | failed: unreachable |
//! | no answer in time, or at all | outcome unknown | outcome unknown |
//!
//! The first rows are what the standards place before a command is begun; whatever can come later leaves an update open.
//! A compare-and-write that met a MEDIUM ERROR, say, may have failed to read, and changed nothing, or to write; the disk need
//! not tell which. BUSY should come before a command is begun, too, but some targets say so of what they had begun and gave
//! up. The reasons, one by one, stand in `verdict.rs`.

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
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod sysfs;
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
