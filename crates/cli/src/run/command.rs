//! The command that runs while a lease is held, and all that it starts.

use std::collections::HashMap;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use super::signals::{Came, Signals};

/// How often the lease, and the command, are looked at.
pub const LOOK: Duration = Duration::from_millis(20);

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts it. What it starts, and leaves behind, becomes this process's children.
    pub fn start(mut command: Command) -> std::io::Result<Self> {
        let parent = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(parent))?;
        let die_with_parent = move || {
            // In the child: without its parent nobody would tell it that the lease is lost.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                // The parent is dead already.
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only two system calls are made, which take no locks and no memory.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn()?;
        Ok(Self { pid: Pid::from_child(&child), status: None })
    }

    /// Waits for it; sees that it ends, with all that it started, before the lease is lost: `valid_for` says in which time. `told`
    /// is called when it is told to end.
    pub fn attend(
        mut self,
        signals: &Signals,
        kill_after: Duration,
        valid_for: impl Fn() -> Duration,
        told: impl FnOnce(),
    ) -> ExitStatus {
        // What came while it was started may have come too early for it.
        signals.take().into_iter().for_each(|came| self.send(came.signal));
        let mut told = Some(told);
        let mut ending: Option<Instant> = None;
        loop {
            self.reap();
            let left = valid_for();
            if ending.is_none() && left <= kill_after && self.status.is_none() {
                ending = Some(Instant::now());
                told.take().into_iter().for_each(|told| told());
                self.signal_all(Signal::TERM);
            }
            match (ending, self.status) {
                (None, Some(status)) => return status,
                (Some(_), Some(status)) if self.all().is_empty() => return status,
                (Some(since), _) if left.is_zero() || since.elapsed() >= kill_after => self.signal_all(Signal::KILL),
                _ => {}
            }
            signals.take().into_iter().for_each(|came| self.pass_on(came));
            // Not beyond the time when something must be done.
            let next = if ending.is_some() { left } else { left.saturating_sub(kill_after) };
            std::thread::sleep(next.clamp(Duration::from_millis(1), LOOK));
        }
    }

    /// Takes note of the end of the command, and lets go of all that it left behind.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                self.status = Some(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn pass_on(&self, came: Came) {
        let is_in_group = || rustix::process::getpgid(Some(self.pid)) == Ok(rustix::process::getpgrp());
        if !(came.is_by_key() && is_in_group()) {
            self.send(came.signal);
        }
    }

    fn send(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal).filter(|_| self.status.is_none()) {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.all() {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The command, and all that it has started, also by what has ended since: as far as the system shows them.
    fn all(&self) -> Vec<Pid> {
        let mut all = descendants(rustix::process::getpid());
        if self.status.is_none() && !all.contains(&self.pid) {
            all.push(self.pid);
        }
        all
    }
}

/// The living descendants of a process.
fn descendants(of: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_of_the_living(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut all, mut next) = (Vec::new(), vec![of.as_raw_nonzero().get()]);
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            all.extend(Pid::from_raw(child));
            next.push(child);
        }
    }
    all
}

/// The parent that a `/proc/…/stat` tells of; `None` of one that has ended.
fn parent_of_the_living(stat: &str) -> Option<i32> {
    // Its name may have anything in it, brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| !["Z", "X"].contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_past_any_name() {
        assert_eq!(parent_of_the_living("12 (sh) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent_of_the_living("12 (a) R 1 (b)) S 9 12"), Some(9));
        assert_eq!(parent_of_the_living("12 (sh) Z 7 12"), None);
        assert_eq!(parent_of_the_living(""), None);
    }

    #[test]
    fn children_are_found() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(descendants(rustix::process::getpid()).contains(&Pid::from_child(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
