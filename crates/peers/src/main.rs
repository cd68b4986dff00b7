//! casblock measured side by side with what people would use instead, in one run: `cargo xtask compare`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`block`] | blocks, and the numbers in them by which lost updates are found |
//! | [`peers`] | the contestants, behind one trait |
//! | [`caches`] | likewise, those that are caches |
//! | [`workloads`] | what they do, a section of the report each |
//! | [`measure`] | rounds that take turns, medians, ratios |
//! | [`targets`] | the project's targets |
//! | [`results`] | what a run measured |
//! | [`report`] | that as tables in a terminal, and as a page |
//! | [`cores`], [`machine`], [`temporary`] | what it runs on, and in |

mod block;
mod caches;
mod cores;
mod machine;
mod measure;
mod peers;
mod report;
mod results;
mod targets;
mod temporary;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use casblock_traces::Trace;
use clap::{Parser, Subcommand};

use cores::Cores;
use measure::Effort;
use results::Report;
use temporary::Temporary;
use workloads::{Errand, Ground, PARTS};

/// casblock measured side by side with what people would use instead
#[derive(Parser)]
#[command(name = "cargo xtask compare", bin_name = "cargo xtask compare", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    errand: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// What this command runs in processes of its own
    #[command(hide = true)]
    Errand(Errand),
}

#[derive(clap::Args)]
struct Options {
    /// Shorter rounds and fewer of them: five to eight minutes on two cores
    #[arg(long)]
    quick: bool,
    /// One short round of each, which shows that all works and measures nothing
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the tables as Markdown to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = PARTS.map(|(name, _)| name))]
    only: Vec<String>,
    /// Report on the JSON of an earlier run, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "smoke", "only"])]
    from: Option<PathBuf>,
    /// A trace, to compare caches on: vscsi or CSV, as `casblock replay` reads them
    #[arg(long, value_name = "TRACE", conflicts_with = "from")]
    trace: Option<PathBuf>,
    /// A folder in memory, for the files of those that flush nothing
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    memory: PathBuf,
    /// A folder on a disk, for durable updates
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    disk: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.errand {
        Some(Command::Errand(errand)) => workloads::run_errand(&errand),
        None => compare(&arguments.options),
    }
}

fn compare(options: &Options) -> Result<()> {
    // A path that cannot be written is better known before the minutes that follow.
    for path in [&options.json, &options.html, &options.markdown].into_iter().flatten() {
        fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let report = match &options.from {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?
        }
        None => take_measurements(options)?,
    };
    println!("{}", report::terminal(&report, 80));
    let write = |path: &Option<PathBuf>, text: String| match path {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    };
    write(&options.json, serde_json::to_string_pretty(&report)? + "\n")?;
    write(&options.markdown, report::markdown(&report))?;
    if options.html.is_some() {
        write(&options.html, report::html(&report)?)?;
    }
    Ok(())
}

/// Takes the measurements; says on stderr what it is at.
fn take_measurements(options: &Options) -> Result<Report> {
    if cfg!(debug_assertions) {
        eprintln!("built without optimizations: these figures say nothing");
    }
    let trace = options.trace.as_ref().map(|path| Ok::<_, anyhow::Error>((path.clone(), Trace::open(path, None)?)));
    let trace = trace.transpose()?;
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (start, cores) = (Instant::now(), Cores::of_this_process());
    let effort = match (options.quick, options.smoke) {
        (_, true) => Effort::SMOKE,
        (true, _) => Effort::QUICK,
        _ => Effort::FULL,
    };
    let memory = if options.memory.is_dir() { options.memory.clone() } else { std::env::temp_dir() };
    let machine = machine::describe(&cores, &memory, &options.disk);
    let temporary = Temporary::within(&[&memory, &options.disk])?;
    let mut folders = temporary.paths().map(Path::to_owned);
    let mut folder = || folders.next().expect("there are two");
    let ground = Ground { effort, cores, memory: folder(), disk: folder(), trace };
    let mut sections = Vec::new();
    for (name, part) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            eprint!("{name} …");
            let start = Instant::now();
            sections.extend(part(&ground).with_context(|| format!("measuring {name}"))?);
            eprintln!(" {:.1} s", start.elapsed().as_secs_f64());
        }
    }
    let targets = targets::judge(&sections);
    Ok(Report {
        command: command(options),
        began_unix_s: began,
        took_s: start.elapsed().as_secs_f64(),
        machine,
        contestants: workloads::contestants(),
        sections,
        targets,
    })
}

/// The command that measures the same.
fn command(options: &Options) -> String {
    let mut command = "cargo xtask compare".to_owned();
    if options.quick {
        command += " --quick";
    }
    if options.smoke {
        command += " --smoke";
    }
    if !options.only.is_empty() {
        command += &format!(" --only {}", options.only.join(","));
    }
    if let Some(trace) = &options.trace {
        command += &format!(" --trace {}", trace.display());
    }
    command
}
