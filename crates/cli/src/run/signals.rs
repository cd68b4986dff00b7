//! The signals that are passed on to the command, or end `casblock run` before there is one.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_int, c_void, siginfo_t};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::signals::is_ignored;

const PASSED_ON: [c_int; 6] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

/// Signals that came from processes, a bit for each.
static BY_PROCESSES: AtomicU64 = AtomicU64::new(0);
/// Signals that came from the kernel: by a key at the terminal, mostly.
static BY_KERNEL: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler that was set with SA_SIGINFO the signal's own.
    let code = unsafe { (*info).si_code };
    let signals = if code == libc::SI_KERNEL { &BY_KERNEL } else { &BY_PROCESSES };
    signals.fetch_or(1 << signal, Relaxed);
}

/// A signal that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Came {
    pub signal: c_int,
    /// The terminal sent it, if it is one of its keys': to all processes in its foreground.
    pub by_kernel: bool,
}

impl Came {
    /// The exit status by which a shell tells of it.
    pub fn exit_status(self) -> u8 {
        128 + self.signal as u8
    }

    /// Whether the processes of this one's group have had it from the terminal.
    pub fn is_by_key(self) -> bool {
        self.by_kernel && [SIGINT, SIGQUIT].contains(&self.signal)
    }
}

/// While the process lives, the signals end neither it nor its command by themselves.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Begins to listen.
    pub fn new() -> io::Result<Self> {
        // One that is ignored stays so, for the command too: nohup(1) relies on it.
        for signal in PASSED_ON.into_iter().filter(|signal| !is_ignored(*signal)) {
            // SAFETY: all zeros are a `sigaction`: no signals are blocked, no flags.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = note as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: the handler only changes an atomic, which may be done at any point.
            if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(()))
    }

    /// All that came since this was called last, each once for each origin.
    pub fn take(&self) -> Vec<Came> {
        let mut all = Vec::new();
        for (signals, by_kernel) in [(&BY_PROCESSES, false), (&BY_KERNEL, true)] {
            let signals = signals.swap(0, Relaxed);
            let came = PASSED_ON.into_iter().filter(|signal| signals & (1 << signal) != 0);
            all.extend(came.map(|signal| Came { signal, by_kernel }));
        }
        all
    }

    /// One that came since, where any is as good: there is nothing yet to pass it on to.
    pub fn take_one(&self) -> Option<Came> {
        self.take().into_iter().next()
    }
}
