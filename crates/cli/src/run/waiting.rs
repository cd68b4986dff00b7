//! Joining a cluster and waiting for a lease, which signals can end at any time.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use casblock::device::{BlockDevice, DeviceError, Failure};
use casblock::environment::{Environment as _, System};
use casblock::heartbeat::{Host, HostConfig, HostError, HostName, NAME_BYTES_MAX};
use casblock::lease::{Lease, LeaseError, Mode};

use super::RunArgs;
use super::command::LOOK;
use super::signals::{Came, Signals};
use crate::output::Output;

pub type Member = Host<Box<dyn BlockDevice>, System>;
pub type Held = Lease<Box<dyn BlockDevice>, System>;

/// What waiting came to.
pub enum Waited<T> {
    Done(T),
    /// Others have the lease, and keep it.
    NotToBeHad(LeaseError),
    Interrupted(Came),
}

/// Joins the cluster, which may take as long as it takes to see that another's heart stands still.
pub fn join(args: &RunArgs, output: &Output, signals: &Signals) -> anyhow::Result<Waited<Member>> {
    let device = args.target.open_for_cluster(args.at, output)?;
    let config = HostConfig::new(args.name.clone().unwrap_or_else(own_name)).first_lba(args.at);
    let (send, joined) = channel();
    std::thread::spawn(move || {
        // Nobody takes it where a signal has ended the wait: it leaves again.
        let _ = send.send(Host::join(device, config));
    });
    loop {
        match joined.recv_timeout(LOOK) {
            Ok(host) => return Ok(Waited::Done(host?)),
            Err(RecvTimeoutError::Disconnected) => bail!("joining the cluster: the thread is gone"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(came) = signals.take_one() {
            return Ok(Waited::Interrupted(came));
        }
    }
}

/// A name that no other process has: as much of the machine's as there is room for, and a random number.
fn own_name() -> HostName {
    let number = format!("/{:016x}", System.random() as u64);
    let mut name = String::new();
    for c in rustix::system::uname().nodename().to_string_lossy().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() + number.len() > NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    HostName::new(name + &number).expect("it fits, and has no control characters")
}

/// Waits for the lease. While nothing is held, a loss is none: the host joins again, and a disk that does not answer is asked
/// again.
pub fn acquire(
    mut host: Member,
    args: &RunArgs,
    output: &Output,
    signals: &Signals,
) -> anyhow::Result<Waited<(Member, Held)>> {
    let started = Instant::now();
    let wait = if args.no_wait { Some(Duration::ZERO) } else { args.wait };
    let mode = if args.shared { Mode::Shared } else { Mode::Exclusive };
    let interval = host.cluster().timing().interval.min(Duration::from_millis(200));
    let mut told = false;
    loop {
        let error = match host.try_acquire(args.lease, mode) {
            Ok(lease) => return Ok(Waited::Done((host, lease))),
            Err(error) => error,
        };
        let left = wait.map_or(Duration::MAX, |wait| wait.saturating_sub(started.elapsed()));
        match error {
            error @ (LeaseError::Held(_) | LeaseError::TooManyHolders { .. }) if left.is_zero() => {
                return Ok(Waited::NotToBeHad(error));
            }
            LeaseError::Held(_) | LeaseError::TooManyHolders { .. } if !told => {
                tracing::info!(%error, "waiting");
                told = true;
            }
            LeaseError::Held(_) | LeaseError::TooManyHolders { .. } => {}
            error if left.is_zero() => return Err(error.into()),
            LeaseError::Host(HostError::Lost(loss)) => {
                tracing::warn!(%loss, "joining again");
                drop(host);
                host = match rejoin(args, output, signals, || wait.is_some_and(|wait| started.elapsed() >= wait))? {
                    Waited::Done(host) => host,
                    Waited::NotToBeHad(error) => return Ok(Waited::NotToBeHad(error)),
                    Waited::Interrupted(came) => return Ok(Waited::Interrupted(came)),
                };
            }
            LeaseError::Device(error) if is_transient(&error) => tracing::warn!(%error, "trying again"),
            error => return Err(error.into()),
        }
        if let Some(came) = pause(interval.min(left), signals) {
            return Ok(Waited::Interrupted(came));
        }
    }
}

/// Joins again, for as long as it is only the device that does not answer.
fn rejoin(
    args: &RunArgs,
    output: &Output,
    signals: &Signals,
    is_late: impl Fn() -> bool,
) -> anyhow::Result<Waited<Member>> {
    loop {
        match join(args, output, signals) {
            Err(error) if !is_late() && error.chain().any(|cause| cause.downcast_ref().is_some_and(is_transient)) => {
                tracing::warn!(error = format!("{error:#}"), "joining again");
            }
            other => return other.context("joining again"),
        }
        if let Some(came) = pause(Duration::from_secs(1), signals) {
            return Ok(Waited::Interrupted(came));
        }
    }
}

/// Waits, unless a signal comes.
fn pause(time: Duration, signals: &Signals) -> Option<Came> {
    let until = Instant::now() + time;
    loop {
        if let Some(came) = signals.take_one() {
            return Some(came);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::sleep(LOOK.min(left));
    }
}

/// Whether trying again can help.
fn is_transient(error: &DeviceError) -> bool {
    matches!(error, DeviceError::OutcomeUnknown { .. }) || error.failure().is_some_and(Failure::is_transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_fit_and_differ() {
        let (one, other) = (own_name(), own_name());
        assert_ne!(one, other);
        assert!(one.as_str().len() > 17 && one.as_str().len() <= NAME_BYTES_MAX, "{one}");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        assert!(is_transient(&DeviceError::unknown("lost")));
        assert!(is_transient(&DeviceError::failed(Failure::Io, "an error")));
        assert!(!is_transient(&DeviceError::failed(Failure::Corrupt, "damage")));
    }
}
