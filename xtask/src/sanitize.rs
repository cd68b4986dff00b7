//! `cargo xtask sanitize`: the tests under the address sanitizer, and a while of fuzzing. Both need a nightly toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::suites::libtest;
use crate::workspace::{root, target};

/// How long.
#[derive(clap::Args)]
pub struct Options {
    /// How long each fuzz target runs; 0 for not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Where the fuzz targets keep the inputs they found to be new; a folder that goes away unless given
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
}

/// The tests of `casblock` that are run: its unit tests, and those of `tests/` that do not depend on how a process dies.
const TESTS: &str = "--lib --test api --test bad_files --test cache --test cache_memory --test cache_reclamation \
                     --test damaged_files --test files --test power --test races --test scribble";

/// As many must pass at least.
const TESTS_LEAST: u64 = 200;

/// The test that reads beyond its bounds.
const PLANTED: &str = "--test damaged_files -- --ignored --exact planted_overflow";

/// The sanitizer's first words.
const FOUND: &str = "ERROR: AddressSanitizer";

/// Tests that allocate and give back for long, of which nothing may be left that nobody knows.
const LEAK_TESTS: &str = "--test cache --test cache_reclamation";

/// The test that forgets some memory.
const LEAK_PLANTED: &str = "--test cache_reclamation -- --ignored --exact planted_leak";

/// As many must pass at least.
const LEAK_TESTS_LEAST: u64 = 18;

/// What the sanitizer says of memory that nobody knows, and where it must not look for any.
const LEAKED: &str = "ERROR: LeakSanitizer: detected memory leaks";
const CANNOT_LOOK: &str = "LeakSanitizer has encountered a fatal error";

/// The fuzz targets.
const TARGETS: [&str; 2] = ["damaged_file", "any_file"];

/// What cargo-fuzz would pass, too: counts of what was run, and the operands of comparisons.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Lines of a failed step that are shown.
const TAIL: usize = 60;

/// Runs the command; whether nothing was found.
pub fn run(options: &Options) -> Result<bool> {
    let Some(host) = nightly_host() else {
        println!("sanitize: *** NOT RUN: no nightly toolchain: rustup toolchain install nightly ***");
        return Ok(true);
    };
    let tests = run_tests(&host)?;
    let has_cxx = Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success());
    if options.seconds == 0 {
        return Ok(tests);
    }
    if !has_cxx {
        println!("sanitize: *** NOT RUN: fuzzing, as there is no C++ compiler: apt-get install g++ ***");
        return Ok(tests);
    }
    Ok(fuzz(&host, options)? && tests)
}

/// The machine that the nightly compiler runs on, if there is one: naming it as the target keeps build scripts as they are.
fn nightly_host() -> Option<String> {
    let output = Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "))?;
    output.status.success().then(|| host.to_owned())
}

/// Where all of it is built.
fn built() -> PathBuf {
    target().join("sanitize")
}

/// A call of nightly's cargo with the words of `line`, which builds with the sanitizer and `flags`.
fn nightly_cargo(line: &str, host: &str, flags: &str) -> Command {
    let (call, rest) = line.split_once(" -- ").unwrap_or((line, ""));
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(call.split_whitespace()).args(["--target", host]);
    if !rest.is_empty() {
        command.arg("--").args(rest.split_whitespace());
    }
    // The encoded form, where it is set, would hide the other.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", format!("-Zsanitizer=address {flags}"));
    command.env("CARGO_TARGET_DIR", built()).current_dir(root());
    for_sanitizer(&mut command);
    command
}

fn for_sanitizer(command: &mut Command) {
    // Looking for leaks takes a right that containers do not always give.
    command.env("ASAN_OPTIONS", "detect_leaks=0").stdin(Stdio::null());
}

/// Runs a step, and keeps what it says in a file.
fn step(name: &str, command: &mut Command) -> Result<(Output, String)> {
    println!("{name}: running");
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    let folder = target().join("xtask");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("sanitize-{}.log", name.replace(' ', "-"))), &text)?;
    Ok((output, text))
}

/// Says how a step came out; gives whether it came out well.
fn judge(name: &str, is_good: bool, what: &str, text: &str) -> bool {
    match is_good {
        true => println!("{name}: ok ({what})"),
        false => {
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            println!("{name}: FAILED ({what}):\n{tail}\n");
        }
    }
    is_good
}

/// Runs something with a fault that must be found: what finds nothing there has shown nothing elsewhere.
fn control(name: &str, command: &mut Command) -> Result<bool> {
    let (output, text) = step(name, command)?;
    Ok(judge_control(name, !output.status.success() && text.contains(FOUND), &text))
}

fn judge_control(name: &str, found: bool, text: &str) -> bool {
    let what = if found { "a fault was planted, and found" } else { "a planted fault was not found" };
    judge(name, found, what, text)
}

fn run_tests(host: &str) -> Result<bool> {
    let mut planted = nightly_cargo(&format!("test -p casblock {PLANTED}"), host, "");
    let control = control("tests with a fault", planted.env("CASBLOCK_TEST_PLANT", "1"))?;
    let mut command = nightly_cargo(&format!("test -p casblock --no-fail-fast {TESTS}"), host, "");
    // Fewer of what tests do by the thousand: it is several times slower.
    command.env("CASBLOCK_TEST_FILES", "3000").env("CASBLOCK_TEST_OPERATIONS", "20000");
    let (output, text) = step("tests", &mut command)?;
    let count = libtest::count(&text);
    let good = output.status.success() && count.failed == 0 && count.passed >= TESTS_LEAST && !text.contains(FOUND);
    let what = format!("{} passed, {TESTS_LEAST} at least expected; {} failed", count.passed, count.failed);
    Ok(judge("tests", good, &what, &text) && control && run_leak_tests(host)?)
}

/// Looks for what is left when the tests of the cache have ended.
fn run_leak_tests(host: &str) -> Result<bool> {
    let looking = |tests: &str| {
        let mut command = nightly_cargo(&format!("test -p casblock --no-fail-fast {tests}"), host, "");
        command.env("ASAN_OPTIONS", "detect_leaks=1");
        command
    };
    let (output, text) = step("leaks with a fault", looking(LEAK_PLANTED).env("CASBLOCK_TEST_PLANT", "1"))?;
    if text.contains(CANNOT_LOOK) {
        println!("leaks: *** NOT RUN: this machine does not let a process look at its own threads (ptrace) ***");
        return Ok(true);
    }
    let control = judge_control("leaks with a fault", !output.status.success() && text.contains(LEAKED), &text);
    let (output, text) = step("leaks", &mut looking(LEAK_TESTS))?;
    let count = libtest::count(&text);
    let good = output.status.success() && count.failed == 0 && count.passed >= LEAK_TESTS_LEAST;
    let what = format!("{} passed, {LEAK_TESTS_LEAST} at least expected; {} failed", count.passed, count.failed);
    Ok(judge("leaks", good && !text.contains(LEAKED), &what, &text) && control)
}

fn fuzz(host: &str, options: &Options) -> Result<bool> {
    let mut command = nightly_cargo("build --release --manifest-path fuzz/Cargo.toml", host, COVERAGE);
    let (output, text) = step("fuzz build", &mut command)?;
    if !judge("fuzz build", output.status.success(), "fuzz/", &text) {
        return Ok(false);
    }
    let folder = Folder::new()?;
    let mut good = true;
    for target in TARGETS {
        let program = built().join(host).join("release").join(target);
        let corpus = options.corpus.as_deref().unwrap_or(&folder.0).join(target);
        let artifacts = built().join("artifacts").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let call = |arguments: &[String]| {
            let mut command = Command::new(&program);
            command.args(arguments).env("CASBLOCK_TEST_QUICK_FOLDER", &folder.0).current_dir(root());
            for_sanitizer(&mut command);
            command
        };
        let found_in = |name: &str| format!("-artifact_prefix={}/{name}", artifacts.display());
        let mut planted = call(&["-runs=1".into(), found_in("planted-")]);
        good &= control(&format!("fuzz {target} with a fault"), planted.env("CASBLOCK_FUZZ_PLANT", "1"))?;
        let mut running = call(&[
            corpus.display().to_string(),
            format!("-max_total_time={}", options.seconds),
            // An input that takes longer hangs.
            "-timeout=60".into(),
            "-max_len=40000".into(),
            "-rss_limit_mb=4096".into(),
            found_in(""),
        ]);
        let name = format!("fuzz {target}");
        let (output, text) = step(&name, running.env("CASBLOCK_FUZZ_SEEDS", &corpus))?;
        let Some(runs) = runs(&text) else {
            good &= judge(&name, false, &format!("inputs that fail are in {}", artifacts.display()), &text);
            continue;
        };
        good &= judge(&name, output.status.success() && runs > 100, &format!("{runs} inputs"), &text);
    }
    if !good {
        bail!("see the lines above, and target/xtask/sanitize-*.log");
    }
    Ok(good)
}

/// A folder for the files that targets make, in memory where there is such a thing; they are killed in the middle of that.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let folder = parent.join(format!("casblock-fuzz-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How many inputs a target was given, as it says at its end.
fn runs(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Done "))?;
    line.split_once(" runs")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted_where_all_went_well() {
        assert_eq!(runs("INFO: Seed: 1\nDone 7598 runs in 31 second(s)\n"), Some(7598));
        assert_eq!(runs("#7598 NEW\n==1== ERROR: libFuzzer: deadly signal\n"), None);
    }

    #[test]
    fn every_fuzz_target_is_run() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        let names = manifest.lines().filter_map(|line| line.strip_prefix("name = "));
        let mut names: Vec<_> =
            names.map(|name| name.trim_matches('"')).filter(|name| *name != "casblock-fuzz").collect();
        names.sort_unstable();
        let mut targets = TARGETS;
        targets.sort_unstable();
        assert_eq!(names, targets);
    }
}
