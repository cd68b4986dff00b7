//! `casblock lease`: who holds what.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use casblock::heartbeat::{Liveness, Observer, SlotView};
use casblock::lease::{LeaseError, LeaseView, Mode};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cluster::{LookArgs, observe};
use crate::number;
use crate::output::Output;
use crate::signals::Interruptible;

/// Leases of a cluster: who holds them, and breaking those of the dead
#[derive(Args, Debug)]
pub struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Subcommand, Debug)]
enum LeaseCommand {
    /// Lists the leases that are held
    List {
        #[command(flatten)]
        look: LookArgs,
        /// Those that were ever held, too
        #[arg(long)]
        all: bool,
    },
    /// Shows one lease
    Show {
        #[command(flatten)]
        look: LookArgs,
        /// The lease, from 0
        #[arg(value_parser = number::count)]
        lease: u64,
    },
    /// Frees a lease whose holder is dead
    ///
    /// Watches the holder's heart for the stale time; if it stands still all the while, fences the holder, then frees the
    /// lease. A holder that lives keeps it: nothing here breaks a lease that is in use. Whoever wants to have a lease need
    /// not break it: acquiring does that.
    Break {
        #[command(flatten)]
        look: LookArgs,
        /// The lease, from 0
        #[arg(value_parser = number::count)]
        lease: u64,
    },
}

/// `casblock lease`.
pub fn run(args: &LeaseArgs, output: &Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        LeaseCommand::List { look, all } => list(look, *all, output).with_context(|| look.target.to_string())?,
        LeaseCommand::Show { look, lease } => show(look, *lease, output).with_context(|| look.target.to_string())?,
        LeaseCommand::Break { look, lease } => {
            break_lease(look, *lease, output).with_context(|| look.target.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &LookArgs, all: bool, output: &Output) -> anyhow::Result<()> {
    let observer = observe(args)?;
    let slots = observer.look()?;
    let mut lines = Vec::new();
    let mut damaged = false;
    observer.leases(|number, lease| {
        match lease {
            Ok(lease) if all || lease.mode.is_some() => lines.push(LeaseLine::of(&lease, &slots)),
            Ok(_) => {}
            Err(error) => {
                damaged = true;
                eprintln!("casblock: {}: lease {number}: {error}", args.target);
            }
        }
        Ok(())
    })?;
    if lines.is_empty() && !damaged {
        output.text("no lease is held")?;
    }
    for line in &lines {
        output.result(line)?;
    }
    anyhow::ensure!(!damaged, "not all leases can be read");
    Ok(())
}

fn show(args: &LookArgs, lease: u64, output: &Output) -> anyhow::Result<()> {
    let observer = observe(args)?;
    let slots = observer.look()?;
    output.result(&LeaseLine::of(&observer.lease(lease)?, &slots))?;
    Ok(())
}

fn break_lease(args: &LookArgs, lease: u64, output: &Output) -> anyhow::Result<()> {
    let observer = Observer::new(args.target.open_for_cluster(args.at, output)?, args.at)?;
    let interrupt = Interruptible::new()?;
    let timing = observer.cluster().timing();
    let (time, step) = (timing.stale + timing.interval, timing.interval.min(Duration::from_millis(500)));
    let steps = time.as_millis().div_ceil(step.as_millis()) as u64;
    let progress = output.progress("watching its holder", steps);
    for done in 0..=steps {
        match observer.try_break(lease) {
            Ok(view) => {
                drop(progress);
                output.result(&LeaseLine::of(&view, &[]))?;
                return Ok(());
            }
            Err(error @ LeaseError::Held(_)) if done == steps => bail!("{error}, who lives; it was not broken"),
            Err(LeaseError::Held(_)) => {}
            Err(error) => return Err(error.into()),
        }
        progress.set(done);
        interrupt.check()?;
        std::thread::sleep(step);
    }
    Ok(())
}

/// A lease as it is shown.
#[derive(Serialize)]
struct LeaseLine {
    lease: u64,
    mode: Option<&'static str>,
    token: u64,
    acquired_unix_ms: u64,
    holders: Vec<HolderLine>,
}

#[derive(Serialize)]
struct HolderLine {
    slot: u32,
    generation: u32,
    token: u64,
    /// `None` if the slot has another owner now.
    name: Option<String>,
    /// Whether the slot still is that owner's; `None` where nobody can tell.
    in_cluster: Option<bool>,
}

impl LeaseLine {
    fn of(lease: &LeaseView, slots: &[SlotView]) -> Self {
        let holders = lease.holders.iter().map(|holder| {
            let slot = slots.get(holder.slot as usize).filter(|slot| slot.liveness != Liveness::Damaged);
            let same = slot.filter(|slot| slot.generation == holder.generation);
            HolderLine {
                slot: holder.slot,
                generation: holder.generation,
                token: holder.token,
                name: same.and_then(|slot| slot.name.as_ref()).map(ToString::to_string),
                in_cluster: slot.map(|_| same.is_some_and(|slot| slot.liveness.is_taken())),
            }
        });
        Self {
            lease: lease.lease,
            mode: lease.mode.map(Mode::name),
            token: lease.token,
            acquired_unix_ms: lease.acquired_unix_ms,
            holders: holders.collect(),
        }
    }
}

impl fmt::Display for LeaseLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}: ", self.lease)?;
        let Some(mode) = self.mode else {
            return match self.token {
                0 => f.write_str("free, never held"),
                token => write!(f, "free; the last token was {token}"),
            };
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let age = number::duration(now.saturating_sub(self.acquired_unix_ms / 1000));
        write!(f, "{mode}, token {}, since {age}, by", self.token)?;
        for (index, holder) in self.holders.iter().enumerate() {
            let name = holder.name.as_deref().unwrap_or("an unknown host");
            let gone = if holder.in_cluster == Some(false) { ", which is gone" } else { "" };
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {name} (slot {} generation {}{gone})", holder.slot, holder.generation)?;
        }
        Ok(())
    }
}
