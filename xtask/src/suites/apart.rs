//! Tests that run each in a process of its own, as many at once as there are processors.
//!
//! Loom gives each thread of each execution a stack of its own. Models that run in one process wait for each other wherever one is
//! mapped or unmapped: all of them take half as long again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::log::Log;
use crate::binaries::{self, Binary, is_twin};
use crate::workspace::LOOM_LIMITS;

/// A test, and its binary.
type Test = (PathBuf, String);

/// Builds what a `cargo test` would run, and runs it from `folder`; whether all passed.
pub fn run(log: &mut Log, cargo_test: &mut Command, folder: &Path) -> Result<bool> {
    log.line(&format!("$ {cargo_test:?}, and each test alone"))?;
    let Some(binaries) = binaries::build(cargo_test, log.file()?)? else { return Ok(false) };
    let mut tests = Vec::new();
    for Binary { path, .. } in binaries {
        tests.extend(binaries::list(folder, &path)?.into_iter().map(|name| (path.clone(), name)));
    }
    // Twins end soon: at the end, the processors are done nearly together.
    tests.sort_by_key(|(_, name)| is_twin(name));
    let (queue, log) = (Mutex::new(VecDeque::from(tests)), Mutex::new(log));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(&queue, &log, folder))).collect();
        workers.into_iter().try_fold(true, |all, worker| Ok(worker.join().expect("a worker does not panic")? && all))
    })
}

fn work(queue: &Mutex<VecDeque<Test>>, log: &Mutex<&mut Log>, folder: &Path) -> Result<bool> {
    let mut all_passed = true;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((path, name)) = next else { return Ok(all_passed) };
        let Output { status, stdout, stderr } = one(&path, &name, folder)?;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.line(String::from_utf8_lossy(&stdout).trim_end())?;
        log.line(String::from_utf8_lossy(&stderr).trim_end())?;
        if !status.success() {
            log.line(&format!("{name}: {status}"))?;
            all_passed = false;
        }
    }
}

fn one(path: &Path, name: &str, folder: &Path) -> Result<Output> {
    let mut command = Command::new(path);
    command.args(["--exact", name, "--test-threads", "1", "--show-output"]).current_dir(folder).stdin(Stdio::null());
    for limit in LOOM_LIMITS {
        command.env_remove(limit);
    }
    command.output().with_context(|| format!("cannot run {}", path.display()))
}
