//! Processes that are run up to a given machine instruction, to be killed or left standing there.
//!
//! A **zygote** is the test's own executable again. It does nothing but fork **victims**, so that each finds the very
//! same memory and takes the same way through the code, instruction by instruction. The first is followed step by step:
//! that gives a [`Trace`]. Those after it are taken to their instruction by breakpoints, which is much faster; one that
//! goes another way, because of a clock for instance, is replaced by one that is taken there step by step.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Names the folder of the test to the zygote and its victims.
const FOLDER: &str = "CASBLOCK_TEST_ZYGOTE_FOLDER";

/// What the zygote begins the lines with that are meant for the test, to tell them from the harness's own.
const MARK: &str = "zygote: ";

/// More instructions than any operation has. Where an atomic operation is a loop (AArch64 without LSE), a step in its
/// middle makes it fail and start again, for ever.
const STEPS_MAX: usize = 200_000;

/// What makes a process stop, as the machine has it in the code, and how far beyond its start it then says to be.
#[cfg(target_arch = "x86_64")]
const BREAKPOINT: (&[u8], u64) = (&[0xcc], 1);
#[cfg(target_arch = "aarch64")]
const BREAKPOINT: (&[u8], u64) = (&[0x00, 0x00, 0x20, 0xd4], 0);

/// Where a process is in its code.
fn program_counter(pid: Pid) -> nix::Result<u64> {
    let registers = ptrace::getregs(pid)?;
    #[cfg(target_arch = "x86_64")]
    return Ok(registers.rip);
    #[cfg(target_arch = "aarch64")]
    return Ok(registers.pc);
}

fn set_program_counter(pid: Pid, address: u64) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    #[cfg(target_arch = "x86_64")]
    let register = &mut registers.rip;
    #[cfg(target_arch = "aarch64")]
    let register = &mut registers.pc;
    if *register != address {
        *register = address;
        ptrace::setregs(pid, registers)?;
    }
    Ok(())
}

/// The way a victim takes from where it begins its operation until that is over.
pub struct Trace {
    /// The address of each instruction, in the order they are executed.
    addresses: Vec<u64>,
    /// For each, where the same address came last before.
    before: Vec<Option<usize>>,
}

impl Trace {
    fn of(addresses: Vec<u64>) -> Self {
        let mut last = std::collections::HashMap::new();
        let before = addresses.iter().enumerate().map(|(index, address)| last.insert(*address, index)).collect();
        Self { addresses, before }
    }

    /// How many instructions there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The farthest place up to `to` that a victim at `from` reaches by running until it first comes by its address.
    fn reachable(&self, from: usize, to: usize) -> Option<usize> {
        (from + 1..=to).rev().find(|&place| self.before[place].is_none_or(|before| before < from))
    }
}

/// A process that forks victims.
pub struct Zygote {
    process: Child,
    requests: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Zygote {
    /// Starts the ignored test `test`, which is to call [`serve`].
    pub fn start(test: &str, folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, requests, lines }
    }

    /// Forks a victim, and takes it to the beginning of operation number `operation`. An error if the system does not
    /// let processes be traced.
    pub fn fork(&mut self, operation: u8) -> nix::Result<Victim> {
        self.requests.write_all(&[operation]).unwrap();
        let said = loop {
            let line = self.lines.next().expect("the zygote is there").unwrap();
            // The harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                break said.to_owned();
            }
        };
        let victim = Victim { pid: Pid::from_raw(said.parse().unwrap()), at: 0, ended: false };
        // It waits for us; if we are gone, it must go as well.
        ptrace::seize(victim.pid, Options::PTRACE_O_EXITKILL)?;
        self.requests.write_all(&[operation]).unwrap();
        assert_eq!(victim.wait(), Stop::Signal, "the victim got ready: see its output above");
        Ok(victim)
    }

    /// Follows a victim from the beginning of the operation to its end.
    pub fn trace(&mut self, operation: u8) -> nix::Result<Trace> {
        let mut victim = self.fork(operation)?;
        let mut addresses = Vec::new();
        loop {
            addresses.push(program_counter(victim.pid)?);
            assert!(addresses.len() < STEPS_MAX, "no end: an atomic operation that is a loop cannot be followed");
            if victim.step()? == Stop::Signal {
                // The signal may come before the step that it is noticed at.
                if addresses.last() == Some(&program_counter(victim.pid)?) {
                    addresses.pop();
                }
                return Ok(Trace::of(addresses));
            }
        }
    }

    /// A victim that is about to execute instruction number `place` of the operation; `None` if it went another way
    /// than the one that was traced.
    pub fn fork_at(&mut self, operation: u8, trace: &Trace, place: usize) -> nix::Result<Option<Victim>> {
        let mut victim = self.fork(operation)?;
        let followed = victim.follow(trace, place)?;
        Ok(followed.then_some(victim))
    }

    /// A victim that has executed `steps` instructions of the operation, one by one, or all if they are fewer.
    pub fn fork_and_step(&mut self, operation: u8, steps: usize) -> nix::Result<Victim> {
        let mut victim = self.fork(operation)?;
        for _ in 0..steps {
            if victim.step()? != Stop::Trap {
                break;
            }
        }
        Ok(victim)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // As it may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Why a victim stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// It made one step, or came to a breakpoint.
    Trap,
    /// It stopped itself: before or after its operation.
    Signal,
    /// It is gone.
    Ended(WaitStatus),
}

/// A traced process in the middle of an operation; killed when it goes out of scope.
pub struct Victim {
    pid: Pid,
    /// The number of the instruction it is about to execute, while it follows a trace.
    at: usize,
    ended: bool,
}

impl Victim {
    fn wait(&self) -> Stop {
        match waitpid(self.pid, None).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Stop::Trap,
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Stop::Signal,
            other => Stop::Ended(other),
        }
    }

    fn step(&mut self) -> nix::Result<Stop> {
        ptrace::step(self.pid, None)?;
        self.at += 1;
        Ok(self.wait())
    }

    /// Takes it to instruction number `place`; `false` if it went another way.
    fn follow(&mut self, trace: &Trace, place: usize) -> nix::Result<bool> {
        while self.at < place {
            let stop = match trace.reachable(self.at, place) {
                Some(next) => {
                    self.at = next;
                    self.run_to(trace.addresses[next])?
                }
                None => self.step()?,
            };
            if stop != Stop::Trap || program_counter(self.pid)? != trace.addresses[self.at] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs until the code at `address`.
    fn run_to(&self, address: u64) -> nix::Result<Stop> {
        let (code, beyond) = BREAKPOINT;
        let place = std::ptr::without_provenance_mut(address as usize);
        let before = ptrace::read(self.pid, place)?;
        let mut word = before.to_ne_bytes();
        word[..code.len()].copy_from_slice(code);
        ptrace::write(self.pid, place, i64::from_ne_bytes(word))?;
        ptrace::cont(self.pid, None)?;
        let stop = self.wait();
        if let Stop::Ended(_) = stop {
            return Ok(stop);
        }
        ptrace::write(self.pid, place, before)?;
        if stop == Stop::Trap {
            set_program_counter(self.pid, program_counter(self.pid)? - beyond)?;
        }
        Ok(stop)
    }

    /// Kills it where it stands.
    pub fn kill(mut self) {
        self.ended = true;
        kill(self.pid, Signal::SIGKILL).unwrap();
        assert!(matches!(waitpid(self.pid, None), Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))));
    }

    /// Lets it go on to its end; gives its answer.
    pub fn resume(mut self) -> i32 {
        loop {
            ptrace::cont(self.pid, None).unwrap();
            match self.wait() {
                Stop::Trap | Stop::Signal => {}
                Stop::Ended(WaitStatus::Exited(_, answer)) => {
                    self.ended = true;
                    return answer;
                }
                Stop::Ended(other) => panic!("a victim ended with {other:?}"),
            }
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if !self.ended {
            // As it may be gone already.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// In a victim, right before its operation and right after it.
pub fn mark() {
    raise(Signal::SIGSTOP).unwrap();
}

/// In the zygote: forks victims, one after the other, until the parent is gone. Each does `operate` with the number it
/// was asked for in the test's folder, and gives the result to the parent as its exit status. Does nothing in a process
/// that was not started as a zygote.
pub fn serve(operate: impl Fn(u8, &Path) -> i32) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    // What comes after a request is meant for the victim: nothing must be read ahead.
    let mut requests = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut read = || {
        let mut request = [0];
        requests.read_exact(&mut request).map(|()| request[0])
    };
    while let Ok(operation) = read() {
        // SAFETY: the only other thread of this process is the harness's, which waits for this one: it holds no lock
        // that the child would find taken.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                println!("{MARK}{child}");
                waitpid(child, None).unwrap();
            }
            ForkResult::Child => {
                let go = || {
                    read().expect("the parent is there");
                    operate(operation, &folder)
                };
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(go));
                std::process::exit(answer.unwrap_or(101));
            }
        }
    }
}

/// Says that processes may not be traced here. On a machine for tests that is a fault.
pub fn explain(error: Errno) {
    let text = format!("NOT TESTED: this machine does not let processes be traced (ptrace): {error}");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    // Not by a macro, whose output the harness keeps to itself.
    io::stderr().write_all(format!("\n{text}\n\n").as_bytes()).unwrap();
}
