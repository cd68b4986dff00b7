//! `cargo xtask compare`: casblock side by side with what people would use instead (crates/peers).

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::{cargo, target};

/// What is passed on.
#[derive(clap::Args)]
pub struct Options {
    /// --quick, --json FILE, --html FILE, …: `cargo xtask compare --help` tells all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the comparison and runs it; whether it came to its end.
pub fn run(options: &Options) -> Result<bool> {
    let mut command = cargo("run --release --quiet -p casblock-peers --");
    // Files are named from where the command was given; what is made to be measured lies where nobody looks for files.
    command.current_dir(std::env::current_dir()?).args(&options.arguments);
    if !options.arguments.iter().any(|argument| argument.starts_with("--disk") || argument == "--from") {
        fs::create_dir_all(target())?;
        command.arg("--disk").arg(target());
    }
    Ok(command.status().context("cannot run cargo")?.success())
}
