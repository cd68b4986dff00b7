//! What is run in User-Mode Linux, and what must come of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::folder::{Disk, Ended, Step, Word};
use super::kernel::Kernel;
use super::machine::{End, Machine, Outcome};
use crate::workspace::{cargo, root, target};

/// A program to run inside, and what must come of it.
struct Check {
    name: &'static str,
    words: Vec<Word>,
    /// Nothing, or what is wrong.
    verdict: fn(&Ended) -> Result<(), String>,
}

/// How long a check may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The checks: all run in one machine, one after another. `casblock` is the command as it was built here.
fn checks(casblock: &Path) -> Vec<Check> {
    let exercise = root().join("xtask/src/real/exercise.sh");
    let on = |disk| vec!["sh".into(), exercise.as_path().into(), Word::Disk("", disk)];
    vec![
        Check {
            name: "the command runs there",
            words: vec![casblock.into(), "--version".into()],
            verdict: |ended| {
                succeeded(ended).and_then(|()| says(ended, concat!("casblock ", env!("CARGO_PKG_VERSION"))))
            },
        },
        Check { name: "LIO keeps a block", words: on(Disk::Lio), verdict: keeps_a_block },
        Check { name: "scsi_debug keeps a block", words: on(Disk::ScsiDebug), verdict: keeps_a_block },
        // What the others rely on: a program that fails is seen to.
        Check {
            name: "a failure is noticed",
            words: ["sh", "-c", "exit 3"].map(Word::from).into(),
            verdict: |ended| match (succeeded(ended), ended.status) {
                (Err(_), Some(3)) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        },
    ]
}

/// Builds the command; gives where it lies.
fn casblock() -> Result<PathBuf> {
    // With the profile of the tests: most of it is there when they have run.
    let line = "build --quiet --workspace --exclude loom-tests --exclude power-cuts --profile test --bin casblock";
    ensure!(cargo(line).status().context("cannot run cargo")?.success(), "the command casblock cannot be built");
    Ok(target().join("debug/casblock"))
}

/// The program's exit status is 0.
fn succeeded(ended: &Ended) -> Result<(), String> {
    match ended.status {
        Some(0) => Ok(()),
        Some(status) => Err(format!("exit status {status}")),
        None => Err("it did not end".to_owned()),
    }
}

/// One of the lines it printed is this.
fn says(ended: &Ended, expected: &str) -> Result<(), String> {
    match ended.stdout.lines().any(|line| line == expected) {
        true => Ok(()),
        false => Err(format!("it does not say {expected:?}")),
    }
}

fn keeps_a_block(ended: &Ended) -> Result<(), String> {
    succeeded(ended).and_then(|()| says(ended, "131072 blocks"))
}

/// A machine that does not come to its end, which must be noticed.
struct Control {
    name: &'static str,
    /// What it runs.
    script: &'static str,
    /// How long that may take.
    limit: Duration,
    /// Whether it has modules.
    has_modules: bool,
    is_noticed: fn(&End) -> bool,
}

/// How long the control that hangs is waited for.
const HANG: Duration = Duration::from_secs(2);

const CONTROLS: [Control; 3] = [
    Control {
        name: "no disk is noticed",
        script: "exit 0",
        limit: LIMIT,
        has_modules: false,
        is_noticed: |end| matches!(end, End::Trouble(why) if why.contains("no module")),
    },
    Control {
        name: "a hang is ended",
        script: "exec sleep 1000000",
        limit: HANG,
        has_modules: true,
        is_noticed: |end| *end == End::StepLimit(0, HANG),
    },
    Control {
        name: "a panic is noticed",
        script: "echo c >/proc/sysrq-trigger; exec sleep 1000000",
        limit: LIMIT,
        has_modules: true,
        is_noticed: |end| matches!(end, End::Panicked(_)),
    },
];

fn step(words: Vec<Word>, limit: Duration) -> Step {
    Step { words, folder: root().to_owned(), limit }
}

/// Runs them all; whether they passed. Ends with a line as the test harness prints it.
pub fn run(kernel: &Kernel) -> Result<bool> {
    let checks = checks(&casblock()?);
    let steps: Vec<_> = checks.iter().map(|check| step(check.words.clone(), LIMIT)).collect();
    let outcome = boot(kernel, &steps)?;
    let mut tally = Tally::default();
    for (check, ended) in checks.iter().zip(&outcome.steps) {
        tally.add(check.name, (check.verdict)(ended), || {
            format!("standard output:\n{}\nstandard error:\n{}", ended.stdout, ended.stderr)
        });
    }
    tally.add("the machine halts", ends(&outcome, |end| *end == End::Done), || outcome.console.clone());
    for control in CONTROLS {
        let words = ["sh", "-c", control.script].map(Word::from).into();
        let mut kernel = kernel.clone();
        if !control.has_modules {
            kernel.modules = root().to_owned();
        }
        let outcome = boot(&kernel, &[step(words, control.limit)])?;
        tally.add(control.name, ends(&outcome, control.is_noticed), || outcome.console.clone());
    }
    println!("{}", tally.line());
    Ok(tally.failed == 0)
}

/// The machine ended as expected, and left nothing behind.
fn ends(outcome: &Outcome, expected: impl Fn(&End) -> bool) -> Result<(), String> {
    match expected(&outcome.end) {
        true => outcome.traces.left().map_or(Ok(()), Err),
        false => Err(format!("its end: {}", outcome.end)),
    }
}

/// Runs steps in a machine. What was interrupted is not judged.
fn boot(kernel: &Kernel, steps: &[Step]) -> Result<Outcome> {
    let outcome = Machine { kernel, follows: false }.run(steps)?;
    if outcome.end == End::Interrupted {
        bail!("{}", outcome.end);
    }
    Ok(outcome)
}

/// How many passed.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, name: &str, verdict: Result<(), String>, details: impl FnOnce() -> String) {
        match verdict {
            Ok(()) => {
                self.passed += 1;
                println!("check {name} ... ok");
            }
            Err(why) => {
                self.failed += 1;
                println!("check {name} ... FAILED: {why}");
                // Indented, so that none of it is taken for a line of this program's.
                details().lines().for_each(|line| println!("    {line}"));
            }
        }
    }

    fn line(&self) -> String {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        format!("test result: {word}. {} passed; {} failed;", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites::libtest::{Count, count};

    fn ended(status: Option<i32>, stdout: &str) -> Ended {
        Ended { status, stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn a_block_is_kept_only_if_all_is_well() {
        let all = "1+0 records in\n131072 blocks\n";
        assert_eq!(keeps_a_block(&ended(Some(0), all)), Ok(()));
        assert!(keeps_a_block(&ended(Some(1), all)).is_err());
        assert!(keeps_a_block(&ended(None, all)).is_err());
        assert!(keeps_a_block(&ended(Some(0), "131073 blocks\n")).is_err());
    }

    #[test]
    fn the_last_line_is_counted() {
        let mut tally = Tally::default();
        tally.add("good", Ok(()), String::new);
        assert_eq!(count(&tally.line()), Count { passed: 1, failed: 0 });
        tally.add("bad", Err("why".to_owned()), || "test result: ok. 9 passed; 0 failed;".to_owned());
        assert_eq!(count(&tally.line()), Count { passed: 1, failed: 1 });
    }
}
