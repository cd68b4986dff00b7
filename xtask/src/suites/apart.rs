//! Tests in processes of their own, as many at once as there are processors.

use std::collections::VecDeque;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::log::Log;
use crate::binaries::{self, Binary, is_twin};

/// What has a process of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Each {
    /// A test binary, as cargo has it; but cargo runs one after the other, and many of them wait for most of their time.
    Binary,
    /// A loom model. Loom gives each thread of each execution a stack of its own: models that run in one process wait for each other
    /// wherever one is mapped or unmapped, and take half as long again.
    Model,
}

/// What one process runs.
struct Part<'b> {
    binary: &'b Binary,
    /// One of its tests, or all.
    test: Option<String>,
}

/// Builds what a `cargo test` would run, and runs it; whether all passed.
pub fn run(log: &mut Log, cargo_test: &mut Command, each: Each) -> Result<bool> {
    let Some(binaries) = binaries::build(cargo_test, log.file()?)? else { return Ok(false) };
    let mut parts = VecDeque::new();
    for binary in &binaries {
        match each {
            Each::Binary => parts.push_back(Part { binary, test: None }),
            Each::Model => {
                parts.extend(binary.tests()?.into_iter().map(|test| Part { binary, test: Some(test) }));
            }
        }
    }
    // Twins end soon: at the end, the processors are done nearly together.
    parts.make_contiguous().sort_by_key(|part| part.test.as_ref().is_some_and(|test| is_twin(test)));
    let (parts, log) = (Mutex::new(parts), Mutex::new(log));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(&parts, &log))).collect();
        workers.into_iter().try_fold(true, |all, worker| Ok(worker.join().expect("a worker does not panic")? && all))
    })
}

fn work(parts: &Mutex<VecDeque<Part<'_>>>, log: &Mutex<&mut Log>) -> Result<bool> {
    let mut all_passed = true;
    loop {
        let next = parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(Part { binary, test }) = next else { return Ok(all_passed) };
        let mut command = match &test {
            Some(test) => binary.command(&["--exact", test, "--test-threads", "1", "--show-output"]),
            None => binary.command(&[]),
        };
        let line = format!("{} {}", binary.path.display(), test.as_deref().unwrap_or_default());
        // Of one that never ends this is all there is.
        log.lock().unwrap_or_else(PoisonError::into_inner).line(&format!("{line}: begins"))?;
        let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot run {line}"))?;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.line(&line)?;
        log.line(String::from_utf8_lossy(&stdout).trim_end())?;
        log.line(String::from_utf8_lossy(&stderr).trim_end())?;
        if !status.success() {
            log.line(&format!("{command:?}: {status}"))?;
            all_passed = false;
        }
    }
}
