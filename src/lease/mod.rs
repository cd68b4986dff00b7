//! Who owns what: leases, each one block, held by the hosts of a cluster.
//!
//! A lease names its holder's slot and generation, so the holder's one heartbeat keeps all its leases, however many. It is
//! broken only after its holder's heart was seen to stand still for the stale time: the slot is fenced first, then the lease
//! taken, each by one compare-and-write. The holder has stopped before, by its own clock.
//!
//! # Fencing tokens
//! No lease can stop a request that its holder sent while it held it, and that arrives after it was broken. So each
//! acquisition has a **token**, greater than all before on that lease. Send it with every request, and let whatever serves
//! them refuse a token smaller than the greatest it has seen: of an exclusive lease, as those who share one have different
//! tokens at the same time. `examples/lease.rs` shows it.

mod acquire;
mod block;
pub(crate) mod books;
mod held;
mod look;
mod settle;

pub use block::{HOLDERS_MAX, Holder, LeaseView, Mode};
pub use held::{Lease, LeaseError};
