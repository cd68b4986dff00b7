//! `casblock run`: a command that runs only while a lease is held.

mod command;
mod signals;
mod waiting;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use casblock::heartbeat::{HostName, Timing};
use clap::Args;

use crate::number;
use crate::output::Output;
use crate::target::Target;
use command::Running;
use signals::Signals;
use waiting::{Held, Member, Waited, acquire, join};

/// Runs a command only while a lease is held, as flock(1) does, but across hosts, and safely when a holder dies
///
/// Joins the cluster, waits for the lease, runs the command with the fencing token in CASBLOCK_TOKEN (and the lease in
/// CASBLOCK_LEASE), and gives the lease back when it ends. If this host cannot beat in time, so that the lease will be lost,
/// the command and all that it has started get a SIGTERM, --kill-after before others may take the lease, and a SIGKILL when
/// they may.
///
/// Signals for this process are passed on to the command; before it is started, they end the wait for it. If this process is
/// killed, so is the command, but not what the command has started. If it is stopped, it cannot end its command: only
/// whatever the command works on can refuse it then, by its token.
///
/// Exit status: the command's, or 128 and the number of the signal that ended it; 75 if the lease was not to be had in
/// time; 127 if the command was not found, 126 if it cannot be run; 1 another error, 2 wrong usage.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Which lease, from 0
    #[arg(long, value_name = "N", value_parser = number::count)]
    lease: u64,
    /// Share it with up to 7 others who want to share it
    #[arg(long)]
    shared: bool,
    /// Do not wait for the lease if others hold it
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// How long to wait for the lease [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = number::time)]
    wait: Option<Duration>,
    /// How long the command has to end when the lease is about to be lost [default: 1s, or as much as the cluster's times
    /// allow]
    #[arg(long, value_name = "TIME", value_parser = number::time)]
    kill_after: Option<Duration>,
    /// This host's name in the cluster [default: the machine's, and a random number]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<HostName>,
    /// The cluster's first block
    #[arg(long, value_name = "LBA", default_value = "0", value_parser = number::count)]
    at: u64,
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

fn name(text: &str) -> Result<HostName, String> {
    HostName::new(text).ok_or_else(|| "1 to 64 bytes without control characters are needed".into())
}

/// The exit status if the lease is not to be had: EX_TEMPFAIL of sysexits.h.
const NOT_TO_BE_HAD: u8 = 75;

/// `casblock run`.
pub fn run(args: &RunArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let signals = Signals::new()?;
    let failed = || args.target.to_string();
    let host = match join(args, output, &signals).with_context(failed)? {
        Waited::Done(host) => host,
        other => return Ok(not_begun(args, &other)),
    };
    let kill_after = kill_after(args.kill_after, host.cluster().timing())?;
    let (host, lease) = match acquire(host, args, output, &signals).with_context(failed)? {
        Waited::Done(both) => both,
        other => return Ok(not_begun(args, &other)),
    };
    // A signal that comes later finds the command, or is passed on to it.
    if let Some(came) = signals.take_one() {
        return Ok(ExitCode::from(came.exit_status()));
    }
    let status = match Running::start(command(args, &lease)) {
        Ok(running) => running.attend(
            &signals,
            kill_after,
            || lease.valid_for(),
            || {
                eprintln!("casblock: {}: lease {} is lost; the command must end", args.target, args.lease);
            },
        ),
        Err(error) => {
            eprintln!("casblock: {}: {error}", args.command[0].display());
            let not_found = error.kind() == std::io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if not_found { 127 } else { 126 }));
        }
    };
    give_back(host, lease);
    Ok(exit_code(status))
}

/// Gives the lease back, and leaves; but waits for the disk only as long as the lease is held.
fn give_back(host: Member, lease: Held) {
    let valid_for = lease.valid_for();
    let (send, done) = channel();
    std::thread::spawn(move || {
        if let Err(error) = lease.release() {
            tracing::warn!(%error, "giving the lease back");
        }
        host.leave();
        let _ = send.send(());
    });
    if done.recv_timeout(valid_for).is_err() {
        tracing::warn!("the lease was not given back in time");
    }
}

/// The exit status where the command did not run.
fn not_begun<T>(args: &RunArgs, waited: &Waited<T>) -> ExitCode {
    match waited {
        Waited::Interrupted(came) => ExitCode::from(came.exit_status()),
        Waited::NotToBeHad(error) => {
            eprintln!("casblock: {}: {error}", args.target);
            ExitCode::from(NOT_TO_BE_HAD)
        }
        Waited::Done(_) => ExitCode::FAILURE,
    }
}

/// How long before the lease is lost the command is told to end. Not so long that it is told while a beat that takes its full
/// time may still come.
fn kill_after(wanted: Option<Duration>, timing: Timing) -> anyhow::Result<Duration> {
    let (deadline, beat) = (timing.deadline(), timing.interval + timing.io_timeout);
    let most = deadline.saturating_sub(beat);
    let wanted = wanted.unwrap_or(most.min(Duration::from_secs(1)));
    ensure!(
        wanted <= most,
        "--kill-after {wanted:?}: {most:?} at most are possible in this cluster, whose leases are lost {deadline:?} \
         after a beat, and whose next beat may take {beat:?}; a longer stale time allows more"
    );
    Ok(wanted)
}

fn command(args: &RunArgs, lease: &Held) -> Command {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    command.env("CASBLOCK_TOKEN", lease.token().to_string()).env("CASBLOCK_LEASE", args.lease.to_string());
    command
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_end_fits_between_a_late_beat_and_the_deadline() {
        let ms = Duration::from_millis;
        let timing = Timing::default();
        assert_eq!(kill_after(None, timing).unwrap(), ms(1000));
        assert_eq!(kill_after(Some(ms(2000)), timing).unwrap(), ms(2000));
        let refused = kill_after(Some(ms(3000)), timing).unwrap_err().to_string();
        assert!(refused.contains("--kill-after 3s: 2.09") && refused.contains("a longer stale time"), "{refused}");
        let tight = Timing { interval: ms(30), io_timeout: ms(60), stale: ms(110) };
        assert_eq!(kill_after(None, tight).unwrap(), Duration::ZERO);
    }
}
