//! `cargo xtask real`: programs run against the SCSI disks of targets that others wrote, in User-Mode Linux.
//!
//! User-Mode Linux is a Linux kernel that runs as a process. It needs an x86 processor, and leave to trace its own
//! processes; neither root nor KVM. It has this machine's root as its own, read-only, so what was built here runs there,
//! except from below /run and /dev. `init.sh` makes a disk of LIO, which is the target in Linux, and one of scsi_debug,
//! which is Linux's stand-in for a disk.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`checks`] | what is run there, and what must come of it |
//! | [`folder`] | the run folder: what goes in, and the results that come out |
//! | [`kernel`] | where User-Mode Linux comes from |
//! | [`machine`] | boots it, and sees that it ends |

mod checks;
mod folder;
pub mod kernel;
mod machine;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, bail};

use folder::{Step, Word};
use kernel::Kernel;
use machine::{End, Machine};

/// What is run.
#[derive(clap::Args)]
pub struct Options {
    /// How long a command may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    seconds: u64,
    /// Instead of the checks: a command, with the disks' paths in its environment, LIO and SCSI_DEBUG
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; whether what was run inside succeeded.
pub fn run(options: &Options) -> Result<bool> {
    let kernel = Kernel::get()?;
    if options.command.is_empty() {
        return checks::run(&kernel);
    }
    let step = Step {
        words: options.command.iter().cloned().map(Word::Text).collect(),
        folder: std::env::current_dir()?,
        limit: Duration::from_secs(options.seconds),
    };
    let mut outcome = Machine { kernel: &kernel, follows: true }.run(&[step])?;
    if outcome.end != End::Done {
        eprint!("{}", outcome.console);
        bail!("{}", outcome.end);
    }
    match outcome.steps.remove(0).status {
        Some(0) => Ok(true),
        status => {
            eprintln!("the command's exit status is {}", status.unwrap_or(-1));
            Ok(false)
        }
    }
}
