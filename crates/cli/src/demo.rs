//! `casblock demo`: what casblock does, as a story. Each command is run just as it is printed, by `sh`.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::number::grouped;
use crate::output::Output;
use crate::signals::Interruptible;

/// Shows in a few seconds, in a temporary folder, what casblock does
///
/// Each command is printed as you would type it, and run. Exit status 1 if one does not do what the story says.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Keep the folder, to look around in it
    #[arg(long)]
    keep: bool,
}

/// What the story says of what a command printed and left in the folder; gives a remark, or what is wrong.
type Verify = fn(&str, &Path) -> Result<Option<String>, String>;

/// One command of the story.
struct Step {
    /// What is told before it; empty if it goes with the one before.
    story: &'static str,
    command: &'static str,
    status: i32,
    verify: Verify,
}

const STORY: [Step; 13] = [
    Step {
        story: "A store is a file of blocks, as on a disk. Any number of processes may open it.",
        command: "casblock create store.casb --blocks 1024",
        status: 0,
        verify: |out, _| contains(out, "1,024 of 512 bytes"),
    },
    Step {
        story: "Blocks are written and read whole. No reader ever sees half of a write.",
        command: "printf 'hello, block 7' | casblock write store.casb 7 --pad",
        status: 0,
        verify: |_, _| Ok(None),
    },
    Step {
        story: "",
        command: r"casblock read store.casb 7 | tr -d '\0'",
        status: 0,
        verify: |out, _| contains(out, "hello, block 7"),
    },
    Step {
        story: "The one primitive is compare-and-write: IF the block still holds this, replace\n\
                it by that. Alice takes block 9 as her lock, if nobody has it (hex: \"alice\"):",
        command: "casblock caw store.casb 9 --expect zero --new hex:616c696365",
        status: 0,
        verify: |out, _| contains(out, "written"),
    },
    Step {
        story: "Bob tries the same and is too late. That is a miscompare: nothing changes, the\n\
                exit status is 14, and he is shown what is there, so he knows who has the lock.",
        command: "casblock caw store.casb 9 --expect zero --new hex:626f62",
        status: 14,
        verify: |out, _| contains(out, "expected").and_then(|_| contains(out, "alice")),
    },
    Step {
        story: "Heartbeat words are 8 bytes, compared and exchanged by one instruction of the\n\
                processor. A host that beats every second shows the others that it lives.",
        command: "casblock word cas store.casb 3 0 1",
        status: 0,
        verify: |_, _| Ok(None),
    },
    Step {
        story: "Who believes that the word still is 0 is told what it is:",
        command: "casblock word cas store.casb 3 0 2",
        status: 14,
        verify: |out, _| contains(out, "holds 1"),
    },
    Step {
        story: "A disk image becomes a store, and comes back the same, byte by byte. disk.img\n\
                has 8 MiB and 5 bytes, most of it a hole, which takes no space in any file.",
        command: "casblock import disk.img image.casb",
        status: 0,
        verify: |_, _| Ok(None),
    },
    Step { story: "", command: "casblock export image.casb copy.img", status: 0, verify: |_, _| Ok(None) },
    Step { story: "", command: "cmp disk.img copy.img", status: 0, verify: images_are_equal },
    Step {
        story: "Now the hard part. Four processes increment a counter: each reads the block,\n\
                adds one, and compare-and-writes it; now and then it beats a heartbeat word.\n\
                Every 100 ms one of them is killed, wherever it stands, and replaced. Nothing\n\
                may be lost, torn or stuck. It takes 3 seconds.",
        command: "casblock torture count.casb --processes 4 --threads 1 --seconds 3",
        status: 0,
        verify: some_were_killed,
    },
    Step {
        story: "Every piece of the store has exactly one owner, after all those deaths:",
        command: "casblock check count.casb",
        status: 0,
        verify: |out, _| contains(out, "clean"),
    },
    Step {
        story: "and the first store holds what the story left there:",
        command: "casblock info store.casb | grep written",
        status: 0,
        verify: |out, _| contains(out, "2"),
    },
];

const READ_NEXT: &str = "\
That is casblock. What to read next:
  casblock help            all commands; `casblock help caw` tells about one
  README.md                what is guaranteed, and what is not
  docs/design.md           why no process ever waits for another one
  cargo doc --open         the library: the same in Rust, in nanoseconds";

fn contains(out: &str, wanted: &str) -> Result<Option<String>, String> {
    if out.contains(wanted) { Ok(None) } else { Err(format!("\"{wanted}\" was to be in what it printed")) }
}

/// The number in the row of this name of what the torture printed.
fn figure(out: &str, name: &str) -> Result<u64, String> {
    let row = out.lines().filter_map(|line| line.split_once(' ')).find(|(first, _)| *first == name);
    let number = row.and_then(|(_, rest)| rest.split_whitespace().next()?.replace(',', "").parse().ok());
    number.ok_or_else(|| format!("no row \"{name}\" in what it printed"))
}

fn some_were_killed(out: &str, _: &Path) -> Result<Option<String>, String> {
    let (kills, confirmed, counted) = (figure(out, "kills")?, figure(out, "confirmed")?, figure(out, "counted")?);
    if kills == 0 {
        return Err("no process was killed".into());
    }
    let beyond = counted.checked_sub(confirmed).ok_or("increments are missing")?;
    Ok(Some(match beyond {
        0 => format!("{kills} kills, and the sums are equal: {}.", grouped(confirmed)),
        1 => format!(
            "{kills} kills, and the sums are equal but for 1 increment whose process died\nbefore it could report it."
        ),
        _ => format!(
            "{kills} kills, and the sums are equal but for {beyond} increments whose processes died\nbefore they could report them."
        ),
    }))
}

/// Beyond what cmp says: the hole is still one, if the file system has holes.
fn images_are_equal(_: &str, folder: &Path) -> Result<Option<String>, String> {
    let allocated = |name| fs::metadata(folder.join(name)).map(|it| it.blocks() * 512).map_err(|it| it.to_string());
    let (image, copy) = (allocated("disk.img")?, allocated("copy.img")?);
    if image < IMAGE_BYTES / 2 && copy >= IMAGE_BYTES / 2 {
        return Err(format!("disk.img takes {image} bytes on disk, copy.img {copy}: the hole was filled"));
    }
    Ok(Some(format!(
        "cmp has nothing to say: the files are equal. On disk disk.img takes {} KiB,\ncopy.img {} KiB.",
        image >> 10,
        copy >> 10
    )))
}

/// The length of the image: no whole number of blocks.
const IMAGE_BYTES: u64 = (8 << 20) + 5;

/// Makes an image with data at its beginning and end, and a hole between.
fn make_image(path: &Path) -> std::io::Result<()> {
    let data: Vec<u8> = (0..100_000u64).map(|at| (at * at / 7 + at) as u8 | 1).collect();
    let image = File::create(path)?;
    image.set_len(IMAGE_BYTES)?;
    image.write_all_at(&data, 0)?;
    image.write_all_at(&data[..1005], IMAGE_BYTES - 1005)
}

/// How one command of the story came out, for `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    command: &'static str,
    status: Option<i32>,
    as_told: bool,
    stdout: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.stdout.lines().map(|line| format!("  {line}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Runs it.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let signals = Interruptible::new().context("catching signals")?;
    let folder = tempfile::Builder::new().prefix("casblock-demo-").tempdir().context("making a temporary folder")?;
    // What `casblock` means to the shell: this very program.
    let programs = tempfile::tempdir().context("making a temporary folder")?;
    let this = env::current_exe().context("finding this program's file")?;
    symlink(this, programs.path().join("casblock")).context("making a link to this program")?;
    make_image(&folder.path().join("disk.img")).context("making disk.img")?;

    output.text(format_args!("In the folder {}:", folder.path().display()))?;
    for step in &STORY {
        tell(step, programs.path(), folder.path(), output)?;
        signals.check()?;
    }
    output.text(format_args!("\n{READ_NEXT}"))?;
    if args.keep {
        let kept = folder.keep();
        output.text(format_args!("\nThe folder is kept: {}", kept.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells one step, and does what it says.
fn tell(step: &Step, programs: &Path, folder: &Path, output: &Output) -> anyhow::Result<()> {
    if !step.story.is_empty() {
        output.text(format_args!("\n{}", step.story))?;
    }
    let (bold, plain) = if bold_on_this_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    output.text(format_args!("  {bold}$ {}{plain}", step.command))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(programs.to_path_buf()).chain(env::split_paths(&path)));
    let done = Command::new("sh")
        .args(["-c", step.command])
        .env("PATH", path.context("extending PATH")?)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("running sh")?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    let verdict = match done.status.code() {
        Some(status) if status == step.status => (step.verify)(&stdout, folder),
        _ => Err(format!("its exit status was to be {}: {}", step.status, done.status)),
    };
    let outcome = Outcome { command: step.command, status: done.status.code(), as_told: verdict.is_ok(), stdout };
    if output.is_json() || !outcome.stdout.is_empty() {
        output.result(&outcome)?;
    }
    match verdict {
        Ok(Some(remark)) => output.text(remark)?,
        Ok(None) if step.status != 0 => output.text(format_args!("  (exit status {})", step.status))?,
        Ok(None) => {}
        Err(what) => {
            std::io::stdout().flush()?;
            bail!("the story went wrong at `{}`: {what}", step.command);
        }
    }
    Ok(())
}

fn bold_on_this_terminal() -> bool {
    std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
