//! Who is alive: a heartbeat for each host of a cluster, on a device that they share.
//!
//! A [`Host`] takes a slot and lets its heart beat there. Others see it beat, or stand still, by their own clocks. A host whose
//! heart has stood still for the stale time may be **fenced**: its slot is exchanged, so that its next beat fails, and it knows that
//! it is taken for dead. It has known before that it could be: by its own clock, see [`Timing`].
//!
//! `docs/hosts.md` has the states, and how the times follow from each other.

mod beat;
mod config;
mod create;
pub(crate) mod heart;
mod host;
mod join;
pub(crate) mod journal;
mod observer;
pub(crate) mod region;
pub(crate) mod slots;
pub(crate) mod watch;

pub use beat::{COUNT_MAX, GENERATION_MAX};
pub use config::{DRIFT_PERCENT, Timing, TimingError};
pub use host::{Host, HostConfig, HostError, Loss};
pub use observer::Observer;
pub use region::{Cluster, ClusterError, ClusterOptions, HOSTS_MAX};
pub use slots::{HostName, NAME_BYTES_MAX};
pub use watch::{Liveness, SlotView};
