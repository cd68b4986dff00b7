//! The suites: what each runs, what it needs, and how many cases it must have run at least.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::apart::{self, Each};
use super::log::Log;
use crate::orderings;
use crate::real::kernel::{self, Kernel};
use crate::workspace::{cargo, for_loom, for_power_cuts, target};

/// What a suite needs that may be missing.
#[derive(Clone, Copy)]
pub enum Need {
    /// A C compiler, to link with.
    Cc,
    /// Cargo's formatter.
    Rustfmt,
    /// Cargo's linter.
    Clippy,
    /// A Linux that runs as a process, which is fetched if it can be.
    UserModeLinux,
}

impl Need {
    /// What to do to get it, if it is missing.
    pub fn missing(self) -> Option<&'static str> {
        let (program, advice) = match self {
            Self::Cc => ("cc", "no C compiler: apt-get install gcc libc6-dev"),
            Self::Rustfmt => ("cargo-fmt", "no rustfmt: rustup component add rustfmt"),
            Self::Clippy => ("cargo-clippy", "no clippy: rustup component add clippy"),
            Self::UserModeLinux => {
                let kernel = Kernel::get().inspect_err(|error| eprintln!("{error:#}"));
                return kernel.is_err().then_some(kernel::ADVICE);
            }
        };
        // A rustup proxy is there without its component, and fails when called.
        let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        (!found).then_some(advice)
    }
}

/// How a suite's cases are counted.
#[derive(Clone, Copy)]
pub enum Cases {
    /// It is one case.
    One,
    /// The test harness says, or what prints its last line as that does.
    Libtest,
}

/// A suite.
pub struct Suite {
    /// Its name; with dashes for spaces, its log's.
    pub name: &'static str,
    /// The fewest cases that may pass: a suite that ran nothing has shown nothing.
    pub least: u64,
    /// How cases are counted.
    pub cases: Cases,
    /// What it needs.
    pub needs: &'static [Need],
    /// Runs it; whether all its commands succeeded.
    pub run: fn(&mut Log) -> Result<bool>,
}

const fn suite(
    name: &'static str,
    least: u64,
    cases: Cases,
    needs: &'static [Need],
    run: fn(&mut Log) -> Result<bool>,
) -> Suite {
    Suite { name, least, cases, needs, run }
}

/// All suites, in the order they are run: what fails fast comes first.
pub fn all() -> [Suite; 14] {
    use Cases::{Libtest, One};
    [
        suite("fmt", 1, One, &[Need::Rustfmt], fmt),
        suite("orderings", 1, One, &[], check_orderings),
        suite("clippy", 1, One, &[Need::Cc, Need::Clippy], clippy),
        suite("doc", 1, One, &[Need::Cc], doc),
        suite("unit and integration", 485, Libtest, &[Need::Cc], unit_and_integration),
        suite("doc tests", 22, Libtest, &[Need::Cc], doc_tests),
        suite("loom", 81, Libtest, &[Need::Cc], loom),
        suite("loom cache", 22, Libtest, &[Need::Cc], loom_cache),
        suite("kills", 5, Libtest, &[Need::Cc], kills),
        suite("power cuts", 8, Libtest, &[Need::Cc], power_cuts),
        suite("ignored long tests", 2, Libtest, &[Need::Cc], ignored_long_tests),
        suite("simulation", 1, Libtest, &[Need::Cc], simulation),
        suite("real targets", 13, Libtest, &[Need::Cc, Need::UserModeLinux], real_targets),
        suite("package", 1, One, &[Need::Cc], package),
    ]
}

fn fmt(log: &mut Log) -> Result<bool> {
    log.run(&mut cargo("fmt --all --check -- --color never"))
}

/// The fewest orderings that the check must have looked at.
const ORDERINGS_LEAST: usize = 50;

fn check_orderings(log: &mut Log) -> Result<bool> {
    let checked = orderings::check()?;
    checked.violations.iter().try_for_each(|violation| log.line(violation))?;
    log.line(&format!("{} orderings, at least {ORDERINGS_LEAST} expected", checked.accesses))?;
    Ok(checked.violations.is_empty() && checked.accesses >= ORDERINGS_LEAST)
}

/// Where the workspace is built for loom.
fn loom_target() -> PathBuf {
    target().join("loom")
}

fn clippy(log: &mut Log) -> Result<bool> {
    let plain = log.run(&mut cargo("clippy --workspace --all-targets -- -D warnings"))?;
    let mut loom = cargo("clippy -p loom-tests --all-targets -- -D warnings");
    let loom = log.run(for_loom(&mut loom, "", &loom_target()))?;
    let mut cache = cargo("clippy -p loom-tests --all-targets -- -D warnings");
    let cache = log.run(for_loom(&mut cache, OVER_EPOCHS, &loom_target().join("cache")))?;
    let mut power_cuts = cargo("clippy -p power-cuts --all-targets -- -D warnings");
    Ok(log.run(for_power_cuts(&mut power_cuts))? && cache && loom && plain)
}

fn doc(log: &mut Log) -> Result<bool> {
    let mut public = cargo("doc --workspace --no-deps");
    let public = log.run(public.env("RUSTDOCFLAGS", "-D warnings"))?;
    let mut private = cargo("doc -p casblock --no-deps --document-private-items");
    // Apart from the first, which would otherwise be taken for it.
    let private = private.env("RUSTDOCFLAGS", "-D warnings").arg("--target-dir").arg(target().join("private-doc"));
    Ok(log.run(private)? && public)
}

fn unit_and_integration(log: &mut Log) -> Result<bool> {
    // Examples and benches were looked at by clippy.
    let line = "test --workspace --exclude loom-tests --exclude power-cuts --tests";
    apart::run(log, &mut cargo(line), Each::Binary)
}

fn doc_tests(log: &mut Log) -> Result<bool> {
    log.run(&mut cargo("test --workspace --exclude loom-tests --exclude power-cuts --doc --no-fail-fast"))
}

fn loom(log: &mut Log) -> Result<bool> {
    let mut command = cargo("test -p loom-tests --release");
    apart::run(log, for_loom(&mut command, "", &loom_target()), Each::Model)
}

/// What builds crossbeam-epoch over loom's atomics: the models of the cache need it, and the others are quicker without.
const OVER_EPOCHS: &str = "--cfg crossbeam_loom";

fn loom_cache(log: &mut Log) -> Result<bool> {
    let mut command = cargo("test -p loom-tests --release --test cache --test cache_parts");
    apart::run(log, for_loom(&mut command, OVER_EPOCHS, &loom_target().join("cache")), Each::Model)
}

fn kills(log: &mut Log) -> Result<bool> {
    // Two at once: of a test, its victim, and those who outlive it, only one runs at a time.
    log.run(&mut cargo(
        "test --release -p casblock --test kills --no-fail-fast -- --ignored --nocapture --test-threads 2",
    ))
}

fn power_cuts(log: &mut Log) -> Result<bool> {
    let mut command = cargo("test -p power-cuts --release --no-fail-fast -- --nocapture");
    log.run(for_power_cuts(&mut command))
}

fn ignored_long_tests(log: &mut Log) -> Result<bool> {
    // As the other tests are built, not to build all again.
    let line = "test --workspace --exclude loom-tests --exclude power-cuts --test torture --test image --no-fail-fast";
    log.run(cargo(line).args(["--", "--ignored", "--test-threads", "1"]))
}

fn simulation(log: &mut Log) -> Result<bool> {
    log.run(&mut cargo("test --release -p casblock --test simulation --no-fail-fast -- --ignored --nocapture"))
}

fn real_targets(log: &mut Log) -> Result<bool> {
    // A process of its own: it cleans up when it is interrupted.
    log.run(Command::new(std::env::current_exe()?).arg("real").stdin(Stdio::null()))
}

fn package(log: &mut Log) -> Result<bool> {
    // A developer's tree may have changes; what is packaged is built either way.
    log.run(&mut cargo("package -p casblock --allow-dirty"))
}
