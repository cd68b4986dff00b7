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
    let conformance = |disk, more: &str| {
        let mut words = vec![casblock.into(), "conformance".into()];
        words.extend(more.split_whitespace().map(Word::from));
        words.extend(["--json".into(), Word::Disk("scsi:", disk)]);
        words
    };
    let on = |script: &str, disk| {
        let script = root().join("xtask/src/real").join(script);
        vec!["sh".into(), script.as_path().into(), casblock.into(), Word::Disk("scsi:", disk)]
    };
    vec![
        Check {
            name: "LIO conforms",
            // It excludes other compare-and-writes, not plain writes.
            words: conformance(Disk::Lio, "--processes 4 --plain-writes-not-excluded"),
            verdict: |ended| conforms(ended, 14),
        },
        Check {
            name: "scsi_debug conforms",
            words: conformance(Disk::ScsiDebug, "--processes 4"),
            verdict: |ended| conforms(ended, 15),
        },
        // As many processes on a disk that only pretends to compare, and so loses what they do: it must be seen.
        Check {
            name: "lost updates are noticed",
            words: conformance(Disk::ScsiDebug, "--increments 100 --processes 4 --plant-lost-updates"),
            verdict: loses_updates,
        },
        Check {
            name: "LIO is found out",
            words: probe(casblock, Disk::Lio),
            verdict: |ended| is_found_out(ended, r#""compare_and_write_blocks_claimed":1,"#, r#""right""#),
        },
        Check {
            name: "scsi_debug is found out",
            words: probe(casblock, Disk::ScsiDebug),
            verdict: |ended| is_found_out(ended, r#""compare_and_write_blocks_claimed":0,"#, r#""none""#),
        },
        Check {
            name: "the command on a disk that fails",
            words: on("faults.sh", Disk::ScsiDebug),
            verdict: all_as_said,
        },
        // These leave a cluster.
        Check { name: "the command on LIO", words: on("disk.sh", Disk::Lio), verdict: all_as_said },
        Check { name: "the command on scsi_debug", words: on("disk.sh", Disk::ScsiDebug), verdict: all_as_said },
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

fn probe(casblock: &Path, disk: Disk) -> Vec<Word> {
    vec![casblock.into(), "probe".into(), "--json".into(), Word::Disk("scsi:", disk)]
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

/// The device keeps so many promises, and breaks none.
fn conforms(ended: &Ended, promises: u64) -> Result<(), String> {
    succeeded(ended)?;
    let kept = ended.stdout.matches(r#""result":"passed""#).count() as u64;
    match (kept >= promises, ended.stdout.contains(r#""broken":0}"#)) {
        (true, true) => Ok(()),
        _ => Err(format!("{kept} promises were kept, {promises} at least are expected")),
    }
}

/// The processes of a suite lost updates, and it says so of them, and of nothing else.
fn loses_updates(ended: &Ended) -> Result<(), String> {
    let is_of_processes = |line: &str| line.contains(r#""case":"processes""#) && line.contains("but its counter is");
    match (ended.status, ended.stdout.lines().any(is_of_processes), ended.stdout.contains(r#""broken":1}"#)) {
        (Some(1), true, true) => Ok(()),
        _ => Err("it does not say that updates were lost, and nothing else".to_owned()),
    }
}

/// The script came to its end.
fn all_as_said(ended: &Ended) -> Result<(), String> {
    succeeded(ended).and_then(|()| says(ended, "all as said"))
}

/// Compare-and-write was tried, and claim and offset are what this target is known for.
fn is_found_out(ended: &Ended, claim: &str, offset: &str) -> Result<(), String> {
    succeeded(ended)?;
    let offset = format!(r#""miscompare_offset":{offset}"#);
    for expected in [r#""compare_and_write":"works""#, claim, &offset] {
        if !ended.stdout.contains(expected) {
            return Err(format!("{expected} is not said of it"));
        }
    }
    Ok(())
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
    fn a_disk_conforms_only_if_enough_promises_are_kept() {
        let kept = "{\"case\":\"zeros\",\"result\":\"passed\"}\n".repeat(2);
        let all = format!("{kept}{{\"target\":\"scsi:/dev/sda\",\"passed\":2,\"broken\":0}}\n");
        assert_eq!(conforms(&ended(Some(0), &all), 2), Ok(()));
        assert!(conforms(&ended(Some(0), &all), 3).is_err());
        assert!(conforms(&ended(Some(1), &all), 2).is_err());
        assert!(conforms(&ended(None, &all), 2).is_err());
        assert!(conforms(&ended(Some(0), &kept), 2).is_err());
    }

    #[test]
    fn lost_updates_must_be_said_to_be() {
        let lost = r#"{"case":"processes","result":"broken","reason":"9 succeeded, but its counter is 8"}"#;
        let sum = |broken| format!("{lost}\n{{\"target\":\"scsi:/dev/sda\",\"passed\":2,\"broken\":{broken}}}\n");
        assert_eq!(loses_updates(&ended(Some(1), &sum(1))), Ok(()));
        assert!(loses_updates(&ended(Some(1), &sum(2))).is_err());
        assert!(loses_updates(&ended(Some(0), &sum(1))).is_err());
        assert!(loses_updates(&ended(Some(1), &sum(1).replace("processes", "zeros"))).is_err());
    }

    #[test]
    fn what_a_probe_must_say() {
        let said = r#"{"compare_and_write":"works","claimed":1,"miscompare_offset":"right"}"#;
        assert_eq!(is_found_out(&ended(Some(0), said), r#""claimed":1"#, r#""right""#), Ok(()));
        assert!(is_found_out(&ended(Some(0), said), r#""claimed":0"#, r#""right""#).is_err());
        assert!(is_found_out(&ended(Some(0), said), r#""claimed":1"#, r#""none""#).is_err());
        assert!(is_found_out(&ended(Some(1), said), r#""claimed":1"#, r#""right""#).is_err());
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
