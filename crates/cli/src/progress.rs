//! Progress bars: on stderr, only on a terminal, only for what takes more than a second.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long something may take before it has a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A progress bar that shows itself after a second, and goes when it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    hidden_since: Cell<Option<Instant>>,
}

impl Progress {
    /// A bar for `length` steps of `doing`.
    pub fn new(doing: &'static str, length: u64) -> Self {
        // Narrower than a terminal: an echoed ^C must not wrap it, for it then could not be cleared.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent:>3} % {eta:>4} left");
        let bar = bar.with_style(style.expect("the template is right").progress_chars("=> ")).with_message(doing);
        Self { bar, hidden_since: Cell::new(Some(Instant::now())) }
    }

    /// Tells how many steps are done.
    pub fn set(&self, done: u64) {
        if self.hidden_since.get().is_some_and(|since| since.elapsed() >= PATIENCE) {
            self.hidden_since.set(None);
            // Draws nothing where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
