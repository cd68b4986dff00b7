//! `casblock conformance`: whether a device keeps its promises.

mod processes;
mod watched;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::device::BlockDevice;
use casblock::device::conformance::{Finding, Region, Suite};
use clap::Args;
use serde::Serialize;

use crate::number;
use crate::output::Output;
use crate::signals::Interruptible;
use crate::target::{Consent, Target};
use watched::Watched;

/// Finds out whether a device keeps the promises of a compare-and-write device
///
/// It overwrites blocks, and leaves zeros there; so they must hold zeros, or --i-know-what-is-on-it be given. With
/// --processes, as many processes count in one block besides: the sum of what they did must be there, and at least two must
/// have met.
///
/// Exit status: 0 if no promise was found broken, 1 if one was, or another error, 2 wrong usage; after a signal 128 and its
/// number: then, too, the blocks hold zeros.
#[derive(Args, Debug)]
pub struct ConformanceArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The first block that may be overwritten
    #[arg(long, value_name = "LBA", default_value = "0", value_parser = number::count)]
    lba: u64,
    /// How many blocks may be overwritten: at least 4
    #[arg(long, value_name = "N", default_value = "64", value_parser = number::positive)]
    blocks: u64,
    /// How often each thread updates a block in cases of contention
    #[arg(long, value_name = "N", default_value = "500", value_parser = number::positive)]
    increments: u64,
    /// How many processes count in one block
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::count)]
    processes: u64,
    /// The device need not exclude plain writes from compare-and-writes (LIO does not)
    #[arg(long)]
    plain_writes_not_excluded: bool,
    #[command(flatten)]
    consent: Consent,
    /// Only count, and print how often: what --processes starts
    #[arg(long, hide = true)]
    count_only: bool,
    /// Let the processes compare by a read, and then write, to show that lost updates are noticed
    #[arg(long, hide = true)]
    plant_lost_updates: bool,
}

/// `casblock conformance`.
pub fn conformance(args: &ConformanceArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let failed = || args.target.to_string();
    let opened = args.target.open_to_write(args.consent, output)?;
    let device = opened.as_device();
    if args.count_only {
        processes::count(args, device)?;
        return Ok(ExitCode::SUCCESS);
    }
    let region = Region { first_lba: args.lba, blocks: args.blocks };
    require_room(args, device).with_context(failed)?;
    if !args.consent.is_given() {
        require_zeros(device, region).with_context(failed)?;
    }
    let interrupt = Interruptible::new()?;
    let tried = try_all(args, device, &interrupt, output);
    // Whatever came of it, and also after a signal.
    let cleared = clear(device, region).with_context(failed);
    interrupt.check()?;
    let sum = tried?;
    cleared?;
    output.result(&sum)?;
    Ok(if sum.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries all promises, and tells of each. After a signal it ends soon, with an error or without.
fn try_all(
    args: &ConformanceArgs,
    device: &dyn BlockDevice,
    interrupt: &Interruptible,
    output: &Output,
) -> anyhow::Result<Sum> {
    let watched = Watched::new(device, interrupt, false);
    let region = Region { first_lba: args.lba, blocks: args.blocks };
    let suite =
        Suite::new(&watched, region).increments(args.increments).plain_writes_excluded(!args.plain_writes_not_excluded);
    let mut told = Ok(());
    let report = suite.run_with(|case, verdict| {
        // What a case finds after a signal is not the device's fault.
        if told.is_ok() && interrupt.check().is_ok() {
            told = tell(output, case.name, case.promise, verdict);
        }
    });
    told?;
    interrupt.check()?;
    let (mut broken, mut passed) = (report.broken().count(), report.passed());
    if broken == 0 && !report.conforms() {
        bail!("{}: not all could be tried", args.target);
    }
    if args.processes > 0 {
        let verdict = processes::count_in_all(args, device, interrupt).with_context(|| args.target.to_string())?;
        tell(output, "processes", "no update of a process is lost", &verdict)?;
        passed += usize::from(verdict.is_ok());
        broken += usize::from(matches!(verdict, Err(Finding::Broken(_))));
    }
    Ok(Sum { target: args.target.to_string(), passed, broken })
}

/// Leaves zeros in the blocks.
fn clear(device: &dyn BlockDevice, region: Region) -> anyhow::Result<()> {
    let zeros = vec![0; device.block_bytes()];
    for lba in region.first_lba..region.first_lba + region.blocks {
        device.write(lba, &zeros)?;
    }
    Ok(())
}

fn require_room(args: &ConformanceArgs, device: &dyn BlockDevice) -> anyhow::Result<()> {
    let blocks = device.block_count();
    if args.blocks < 4 || args.lba.checked_add(args.blocks).is_none_or(|end| end > blocks) {
        bail!(
            "{} blocks from block {} on: at least 4, all of the device's {blocks}, are needed",
            args.blocks,
            args.lba
        );
    }
    if device.compare_and_write_blocks_max() == 0 {
        bail!("it has no compare-and-write; `casblock probe` tells more");
    }
    Ok(())
}

fn require_zeros(device: &dyn BlockDevice, region: Region) -> anyhow::Result<()> {
    let mut block = vec![0; device.block_bytes()];
    for lba in region.first_lba..region.first_lba + region.blocks {
        device.read(lba, &mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            bail!("block {lba} holds something, and would be overwritten (--i-know-what-is-on-it does so)");
        }
    }
    Ok(())
}

fn tell(
    output: &Output,
    name: &'static str,
    promise: &'static str,
    verdict: &Result<(), Finding>,
) -> anyhow::Result<()> {
    let (result, reason) = match verdict {
        Ok(()) => ("passed", None),
        Err(Finding::NotApplicable(why)) => ("not_applicable", Some(why.clone())),
        Err(Finding::NotTried(why)) => ("not_tried", Some(why.clone())),
        Err(Finding::Broken(how)) => ("broken", Some(how.clone())),
    };
    Ok(output.result(&CaseLine { case: name, promise, result, reason })?)
}

#[derive(Serialize)]
struct CaseLine {
    case: &'static str,
    promise: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl std::fmt::Display for CaseLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.reason, self.result) {
            (None, _) => write!(f, "passed  {}", self.promise),
            (Some(why), "not_applicable") => write!(f, "     -  {}\n        ({why})", self.promise),
            (Some(why), "not_tried") => write!(f, "     ?  {}\n        (NOT TRIED: {why})", self.promise),
            (Some(how), _) => write!(f, "BROKEN  {}\n        {}: {how}", self.promise, self.case),
        }
    }
}

#[derive(Serialize)]
struct Sum {
    target: String,
    passed: usize,
    broken: usize,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.broken {
            0 => write!(f, "{}: it conforms: {} promises kept", self.target, self.passed),
            broken => write!(f, "{}: IT DOES NOT CONFORM: {broken} promises broken", self.target),
        }
    }
}

/// All cases have names and promises that fit a terminal.
#[cfg(test)]
mod tests {
    use casblock::device::conformance::{CASES, Case};

    use super::*;

    #[test]
    fn lines_fit_a_terminal() {
        for Case { name, promise, .. } in CASES {
            let line = CaseLine { case: name, promise, result: "passed", reason: None };
            assert!(line.to_string().len() <= 80, "{line}");
        }
    }
}
