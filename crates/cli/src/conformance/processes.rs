//! Counting in one block, in processes of this command.

use std::io::{BufRead as _, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use casblock::device::conformance::{Finding, contend, counter};
use casblock::device::{BlockDevice, DeviceError};

use super::ConformanceArgs;
use super::watched::Watched;
use crate::signals::Interruptible;

/// How often they count anew, for twice as long each time, until two of them meet: a sum that is right shows nothing if
/// each of them was alone.
const ROUNDS_MAX: u32 = 12;

/// How long they get to start, times the number of the round; then all begin at once.
const START: Duration = Duration::from_millis(50);

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// What a process, or all of them, did.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    increments: u64,
    miscompares: u64,
}

/// The processes. They are killed, and waited for, when this is dropped: none writes any more then.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // What has ended cannot be killed, and there is nobody to tell what could not be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a process does: it counts, and prints what it did.
pub fn count(args: &ConformanceArgs, device: &dyn BlockDevice) -> anyhow::Result<()> {
    // It must not go on writing if the one that started it is killed.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let interrupt = Interruptible::new()?;
    let watched = Watched::new(device, &interrupt, args.plant_lost_updates);
    // All begin when the one that started them lets go of this.
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the others")?;
    let increments = contend(&watched, args.lba, args.increments).with_context(|| args.target.to_string())?;
    println!("{increments} {}", watched.miscompares());
    Ok(())
}

/// Lets processes count in the region's first block, until two of them have met.
pub fn count_in_all(
    args: &ConformanceArgs,
    device: &dyn BlockDevice,
    interrupt: &Interruptible,
) -> anyhow::Result<Result<(), Finding>> {
    let mut sum = Counted::default();
    for round in 0..ROUNDS_MAX {
        let mut children = Children(Vec::new());
        for _ in 0..args.processes {
            children.0.push(start(args, round)?);
        }
        std::thread::sleep(START * (round + 1));
        children.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        let counted = match wait(children, interrupt)? {
            Ok(counted) => counted,
            Err(how) => return Ok(Err(Finding::Broken(how))),
        };
        sum.increments += counted.increments;
        sum.miscompares += counted.miscompares;
        let counter = counter(device, args.lba).map_err(|error: DeviceError| anyhow::anyhow!("{error}"))?;
        if counter != sum.increments {
            return Ok(Err(Finding::Broken(format!(
                "{} increments of block {} succeeded in {} processes, but its counter is {counter}",
                sum.increments, args.lba, args.processes
            ))));
        }
        if sum.miscompares > 0 {
            return Ok(Ok(()));
        }
    }
    Ok(Err(Finding::NotApplicable(format!("{} processes counted, and no two of them met", args.processes))))
}

fn start(args: &ConformanceArgs, round: u32) -> anyhow::Result<Child> {
    let increments = args.increments.saturating_mul(1 << round);
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["conformance", "--count-only", "--i-know-what-is-on-it", "--lba", &args.lba.to_string()]);
    command.args(["--increments", &increments.to_string(), &args.target.to_string()]);
    if args.plant_lost_updates {
        command.arg("--plant-lost-updates");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("starting a process")
}

/// What they did in all, or how one of them failed. Each says so little that no pipe is ever full.
fn wait(mut children: Children, interrupt: &Interruptible) -> anyhow::Result<Result<Counted, String>> {
    while !all_ended(&mut children)? {
        interrupt.check()?;
        std::thread::sleep(POLL);
    }
    interrupt.check()?;
    let mut sum = Counted::default();
    for child in children.0.drain(..) {
        let done = child.wait_with_output().context("waiting for a process")?;
        if !done.status.success() {
            return Ok(Err(format!("a process failed: {}", String::from_utf8_lossy(&done.stderr).trim())));
        }
        let line = done.stdout.lines().next().transpose()?.unwrap_or_default();
        let said: Vec<u64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
        let [increments, miscompares] = said[..] else { bail!("a process said {line:?}") };
        sum.increments += increments;
        sum.miscompares += miscompares;
    }
    Ok(Ok(sum))
}

fn all_ended(children: &mut Children) -> anyhow::Result<bool> {
    for child in &mut children.0 {
        if child.try_wait().context("waiting for a process")?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
