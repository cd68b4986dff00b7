//! Commands that can be interrupted, however these tests were started.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Sees that SIGINT and SIGQUIT end the command: a shell starts what is in the background with them ignored, and that is inherited.
pub fn interruptible(command: &mut Command) -> &mut Command {
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: it may be called between fork and exec, and changes only this signal's disposition.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure calls nothing else.
    unsafe { command.pre_exec(reset) }
}
