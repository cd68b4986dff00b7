//! The project's own commands, run as `cargo xtask …`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`suites`] | `test`: every check the project has, one after another, with a table at the end |
//! | [`accesses`] | finds the atomic accesses of a source file, and the `ORDERING` comment each belongs to |
//! | [`binaries`] | test binaries: building them, and listing their tests |
//! | [`compare`] | `compare`: casblock side by side with what people would use instead |
//! | [`orderings`] | `orderings`: every such access has a tag, and every tag a partner |
//! | [`real`] | `real`: what is said of SCSI disks, tried on those of Linux's own targets, in User-Mode Linux |
//! | [`sanitize`] | `sanitize`: the tests under the address sanitizer, and a while of fuzzing |
//! | [`weaken`] | `weaken`: takes each of their orderings away in turn and expects a loom model to fail |
//! | [`workspace`] | where things lie, and how cargo is called |

mod accesses;
mod binaries;
mod compare;
mod orderings;
mod real;
mod sanitize;
mod suites;
mod weaken;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every suite: formatting, lints, docs, tests, loom models, the package
    Test(suites::Options),
    /// Measure casblock side by side with what people would use instead
    #[command(disable_help_flag = true)]
    Compare(compare::Options),
    /// Check that every ordering in src/ has a tag, and every tag a partner
    Orderings,
    /// Try the SCSI disks of LIO and scsi_debug, in User-Mode Linux; or run a command with them
    Real(real::Options),
    /// Run the tests under the address sanitizer, and fuzz for a while; needs a nightly toolchain
    Sanitize(sanitize::Options),
    /// Weaken the protocol's orderings one at a time; a loom model must fail each time
    Weaken(weaken::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test(options) => suites::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Orderings => orderings::run(),
        Command::Real(options) => real::run(&options),
        Command::Sanitize(options) => sanitize::run(&options),
        Command::Weaken(options) => weaken::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
