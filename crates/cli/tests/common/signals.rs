//! Commands that can be interrupted, however these tests were started.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Sees that SIGINT ends the command: a shell starts what is in the background with it ignored, and that is inherited.
pub fn interruptible(command: &mut Command) -> &mut Command {
    let reset = || {
        // SAFETY: it may be called between fork and exec, and changes only this signal's disposition.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: the closure calls nothing else.
    unsafe { command.pre_exec(reset) }
}
