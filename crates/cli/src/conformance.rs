//! `casblock conformance`: whether a device keeps its promises.

use std::io::BufRead as _;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use casblock::device::conformance::{Finding, Region, Suite, contend, counter};
use casblock::device::{BlockDevice, DeviceError};
use clap::Args;
use serde::Serialize;

use crate::number;
use crate::output::Output;
use crate::signals::Interruptible;
use crate::target::{Consent, Target};

/// Finds out whether a device keeps the promises of a compare-and-write device
///
/// It overwrites blocks, and leaves zeros there; so they must hold zeros, or --i-know-what-is-on-it be given. With
/// --processes, as many processes count in one block besides: the sum of what they did must be there.
///
/// Exit status: 0 if no promise was found broken, 1 if one was, or another error, 2 wrong usage.
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
}

/// `casblock conformance`.
pub fn conformance(args: &ConformanceArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let failed = || args.target.to_string();
    let opened = args.target.open_to_write(args.consent, output)?;
    let device = opened.as_device();
    if args.count_only {
        println!("{}", contend(device, args.lba, args.increments).with_context(failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let region = Region { first_lba: args.lba, blocks: args.blocks };
    require_room(args, device).with_context(failed)?;
    if !args.consent.is_given() {
        require_zeros(device, region).with_context(failed)?;
    }
    let interrupt = Interruptible::new()?;
    let suite =
        Suite::new(device, region).increments(args.increments).plain_writes_excluded(!args.plain_writes_not_excluded);
    let mut told = Ok(());
    let report = suite.run_with(|case, verdict| {
        if told.is_ok() {
            told = tell(output, case.name, case.promise, verdict);
        }
    });
    told?;
    let (mut broken, mut passed) = (report.broken().count(), report.passed());
    if broken == 0 && !report.conforms() {
        bail!("{}: not all could be tried", args.target);
    }
    if args.processes > 0 {
        interrupt.check()?;
        let verdict = count_in_processes(args, device, &interrupt).with_context(failed)?;
        tell(output, "processes", "no update of a process is lost", &verdict)?;
        (broken, passed) = (broken + usize::from(verdict.is_err()), passed + usize::from(verdict.is_ok()));
        device.write(args.lba, &vec![0; device.block_bytes()]).with_context(failed)?;
    }
    let sum = Sum { target: args.target.to_string(), passed, broken };
    output.result(&sum)?;
    interrupt.check()?;
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// Counts in the region's first block, in processes of this command.
fn count_in_processes(
    args: &ConformanceArgs,
    device: &dyn BlockDevice,
    interrupt: &Interruptible,
) -> anyhow::Result<Result<(), Finding>> {
    let children = (0..args.processes).map(|_| start(args)).collect::<Result<Vec<_>, _>>()?;
    let mut sum = 0;
    for child in children {
        let done = child.wait_with_output().context("waiting for a process")?;
        interrupt.check()?;
        if !done.status.success() {
            let how = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Ok(Err(Finding::Broken(format!("a process failed: {how}"))));
        }
        let line = done.stdout.lines().next().transpose()?.unwrap_or_default();
        sum += line.parse::<u64>().with_context(|| format!("a process said {line:?}"))?;
    }
    let counter = counter(device, args.lba).map_err(|error: DeviceError| anyhow::anyhow!("{error}"))?;
    Ok(match counter == sum {
        true => Ok(()),
        false => Err(Finding::Broken(format!(
            "{sum} increments of block {} succeeded in {} processes, but its counter is {counter}",
            args.lba, args.processes
        ))),
    })
}

fn start(args: &ConformanceArgs) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["conformance", "--count-only", "--i-know-what-is-on-it", "--lba", &args.lba.to_string()]);
    command.args(["--increments", &args.increments.to_string(), &args.target.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("starting a process")
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
