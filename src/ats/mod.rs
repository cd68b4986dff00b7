//! Compare-and-write made certain: retries, a look at the block after every answer that was missed, and a verdict.
//!
//! On a disk that hosts share, the answer to a compare-and-write can get lost. Who then tries again compares with the old
//! image, finds his *own new one*, and takes it for a peer's: the false miscompare that has cost hosts their datastores.
//! [`Ats`] reads the block instead, and tells apart what was done from what was not, and both from what nobody can
//! know: [`Verdict`]. That needs images that differ at every attempt: [`Record`].
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use casblock::ats::{Ats, Draft, Owner, Verdict};
//! use casblock::{Geometry, Store};
//!
//! let ats = Ats::new(Store::in_memory(Geometry::blocks(8))?);
//! let owner = Owner { host: 3, generation: 1 };
//! let outcome = ats.write_record(7, &[0; 512], Draft { kind: 1, owner, payload: b"mine" });
//! match outcome.verdict {
//!     Verdict::Written | Verdict::OwnWriteLanded { .. } => println!("block 7 is ours"),
//!     Verdict::PeerChanged { owner, .. } => println!("somebody was faster: {owner:?}"),
//!     Verdict::Unwritten { source } => return Err(source.into()),
//!     Verdict::Indeterminate { source, .. } => return Err(source.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `docs/ats.md` explains the verdicts to whoever runs such a system, and what is assumed of the device.

#[cfg(test)]
mod ambiguity;
mod driver;
mod log;
mod operation;
pub mod record;
mod retry;
mod verdict;

pub use driver::Ats;
pub use log::Counts;
pub use operation::{Answer, Conclusion, Draft, Next, Operation};
pub use record::{Nonce, NotARecord, Owner, Record, Record512, Record4096};
pub use retry::Retry;
pub use verdict::{Outcome, Verdict};
