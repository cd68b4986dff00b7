//! Signals: those that tell of a fault become error messages, Ctrl-C becomes an error that cleans up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use signal_hook::consts::{SIGBUS, SIGHUP, SIGINT, SIGTERM};

/// What the kernel says with SIGBUS about a mapped store.
const NO_PAGE: &str = "casblock: the file system could not give a page of the store: it is full (make room, and create \
                       stores without --sparse), or the file was cut short, or the disk fails\n";

/// Makes two signals, which would end the process without a word, show as errors.
pub fn turn_faults_into_errors() {
    // SAFETY: ignoring a signal runs no code of ours. A write past the file size limit then fails with EFBIG.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let say_and_exit = || {
        // SAFETY: write(2) may be called in a signal handler; the message is a constant.
        unsafe { libc::write(libc::STDERR_FILENO, NO_PAGE.as_ptr().cast(), NO_PAGE.len()) };
        // SAFETY: _exit(2) may be called in a signal handler.
        unsafe { libc::_exit(1) };
    };
    // SAFETY: the handler calls only write(2) and _exit(2).
    let registered = unsafe { signal_hook::low_level::register(SIGBUS, say_and_exit) };
    if let Err(error) = registered {
        tracing::warn!(%error, "SIGBUS will end the process without a message");
    }
}

/// While this exists, Ctrl-C (SIGINT), SIGTERM and SIGHUP do not end the process: [`check`](Self::check) gives an error.
#[derive(Debug)]
pub struct Interruptible {
    signal: Arc<AtomicUsize>,
    handlers: Vec<signal_hook::SigId>,
}

impl Interruptible {
    /// Begins to listen.
    pub fn new() -> std::io::Result<Self> {
        let mut it = Self { signal: Arc::default(), handlers: Vec::new() };
        // One that is ignored stays so: nohup(1) and shells' background jobs rely on it.
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)) {
            let handler = signal_hook::flag::register_usize(signal, Arc::clone(&it.signal), signal as usize)?;
            it.handlers.push(handler);
        }
        Ok(it)
    }

    /// Whether it is time to stop.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.signal.load(Relaxed) {
            0 => Ok(()),
            signal => Err(Interrupted { signal: signal as u8 }),
        }
    }
}

/// Whether whoever started this process has told it to ignore the signal.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeros are a `sigaction`: a default handler, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action this only writes the present one to `action`.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// A signal asked this process to stop.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    signal: u8,
}

impl Interrupted {
    /// The exit status by which a shell tells of a signal.
    pub fn exit_status(self) -> u8 {
        128 + self.signal
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
