//! `casblock run`: a command that runs only while a lease is held.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use casblock::device::BlockDevice;
use casblock::environment::System;
use casblock::heartbeat::{Host, HostConfig, HostName};
use casblock::lease::{Lease, LeaseError, Mode};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::number;
use crate::output::Output;
use crate::signals::is_ignored;
use crate::target::Target;

/// Runs a command only while a lease is held, as flock(1) does, but across hosts, and safely when a holder dies
///
/// Joins the cluster, waits for the lease, runs the command with the fencing token in CASBLOCK_TOKEN (and the lease in
/// CASBLOCK_LEASE), and gives the lease back when it ends. If the lease is lost meanwhile, as this host could not beat in
/// time, the command gets a SIGTERM, and after --kill-after a SIGKILL. If this process is killed, so is the command (but
/// not what the command has started). Signals for this process are passed on to the command.
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
    /// How long the command has to end after the lease is lost
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = number::time)]
    kill_after: Duration,
    /// This host's name in the cluster [default: its host name and the process's number]
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
/// How often the lease, and the command, are looked at.
const LOOK: Duration = Duration::from_millis(20);

type Member = Host<Box<dyn BlockDevice>, System>;

/// `casblock run`.
pub fn run(args: &RunArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let device = args.target.open_for_cluster(output)?;
    let signals = Signals::new()?;
    let failed = || args.target.to_string();
    let config = HostConfig::new(args.name.clone().unwrap_or_else(own_name)).first_lba(args.at);
    let host = Host::join(device, config).with_context(failed)?;
    let mode = if args.shared { Mode::Shared } else { Mode::Exclusive };
    let lease = match acquire(&host, args, mode, &signals).with_context(failed)? {
        Acquired::Yes(lease) => lease,
        Acquired::No(error) => {
            eprintln!("casblock: {}: {error}", args.target);
            return Ok(ExitCode::from(NOT_TO_BE_HAD));
        }
        Acquired::Interrupted(signal) => return Ok(ExitCode::from(128 + signal)),
    };
    let status = match spawn(args, &lease) {
        Ok(child) => attend(child, &lease, args, &signals)?,
        Err(error) => {
            eprintln!("casblock: {}: {error}", args.command[0].display());
            let not_found = error.kind() == std::io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if not_found { 127 } else { 126 }));
        }
    };
    if let Err(error) = lease.release() {
        tracing::warn!(%error, "giving the lease back");
    }
    host.leave();
    Ok(exit_code(status))
}

fn own_name() -> HostName {
    let uname = rustix::system::uname();
    let node: String = uname.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).take(16).collect();
    HostName::new(format!("{node}/{}", std::process::id())).expect("at most 16 characters of 4 bytes, and few more")
}

/// What waiting for a lease came to.
enum Acquired {
    Yes(Lease<Box<dyn BlockDevice>, System>),
    No(LeaseError),
    Interrupted(u8),
}

fn acquire(host: &Member, args: &RunArgs, mode: Mode, signals: &Signals) -> anyhow::Result<Acquired> {
    let started = Instant::now();
    let wait = if args.no_wait { Some(Duration::ZERO) } else { args.wait };
    let interval = host.cluster().timing().interval.min(Duration::from_millis(200));
    let mut told = false;
    loop {
        let error = match host.try_acquire(args.lease, mode) {
            Ok(lease) => return Ok(Acquired::Yes(lease)),
            Err(error @ (LeaseError::Held(_) | LeaseError::TooManyHolders { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        let left = wait.map_or(Duration::MAX, |wait| wait.saturating_sub(started.elapsed()));
        if left.is_zero() {
            return Ok(Acquired::No(error));
        }
        if !told {
            tracing::info!(%error, "waiting");
            told = true;
        }
        let next = Instant::now() + interval.min(left);
        while Instant::now() < next {
            if let Some(signal) = signals.take() {
                return Ok(Acquired::Interrupted(signal));
            }
            std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        }
    }
}

fn spawn(args: &RunArgs, lease: &Lease<Box<dyn BlockDevice>, System>) -> std::io::Result<Child> {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    command.env("CASBLOCK_TOKEN", lease.token().to_string()).env("CASBLOCK_LEASE", args.lease.to_string());
    let parent = rustix::process::getpid();
    let die_with_parent = move || {
        // In the child: without its parent nobody would tell it that the lease is lost.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent is dead already.
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made, which take no locks and no memory.
    unsafe { command.pre_exec(die_with_parent) };
    command.spawn()
}

/// Waits for the command; sees that it ends if the lease is lost.
fn attend(
    mut child: Child,
    lease: &Lease<Box<dyn BlockDevice>, System>,
    args: &RunArgs,
    signals: &Signals,
) -> anyhow::Result<ExitStatus> {
    let pid = rustix::process::Pid::from_child(&child);
    let mut lost: Option<Instant> = None;
    let mut killed = false;
    loop {
        if let Some(status) = child.try_wait().context("waiting for the command")? {
            return Ok(status);
        }
        if lost.is_none() && !lease.is_valid() {
            eprintln!("casblock: {}: lease {} is lost; the command must end", args.target, args.lease);
            lost = Some(Instant::now());
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if !killed && lost.is_some_and(|since| since.elapsed() >= args.kill_after) {
            killed = true;
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Some(signal) = signals.take()
            && !is_from_terminal(signal)
        {
            let Some(signal) = rustix::process::Signal::from_named_raw(signal.into()) else { bail!("signal {signal}") };
            let _ = rustix::process::kill_process(pid, signal);
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a signal is one that the terminal sends to the command as well, as both are in its foreground.
fn is_from_terminal(signal: u8) -> bool {
    let by_key = [SIGINT, SIGQUIT].contains(&signal.into());
    let Some(terminal) = std::fs::File::open("/dev/tty").ok().filter(|_| by_key) else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|foreground| foreground == rustix::process::getpgrp())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The signals that are passed on.
struct Signals(Arc<AtomicUsize>);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        // One that is ignored stays so, for the command too: nohup(1) relies on it.
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|signal| !is_ignored(*signal)) {
            signal_hook::flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
        }
        Ok(Self(last))
    }

    /// The last one since this was called.
    fn take(&self) -> Option<u8> {
        match self.0.swap(0, Relaxed) {
            0 => None,
            signal => Some(signal as u8),
        }
    }
}
