//! How far a long run is, on a terminal. Used by whoever executes a scenario.
//!
//! It is drawn on stderr and only if that is a terminal, so a pipe or a log never sees it, and it goes away at the end.

use core::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar from the start of a run to its end.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

/// Whether to show progress where that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// On a terminal.
    OnTerminal,
    /// Nowhere: `--quiet`.
    Never,
}

impl Progress {
    /// For a run of `run_for_ms` of its own time.
    #[must_use]
    pub fn new(run_for_ms: u64, show: Show) -> Self {
        let target = match show {
            // Ten times a second; hidden by itself where stderr is no terminal.
            Show::OnTerminal => ProgressDrawTarget::stderr_with_hz(10),
            Show::Never => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(run_for_ms), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// The run has come to `at` of its own time, `jobs` are over, and `more` is worth knowing.
    pub fn at(&self, at: Duration, jobs: u64, more: &str) {
        self.bar.set_position(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(crate::report::counted(jobs, "job") + more);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
