//! How far a long run is, on a terminal: a line for the whole, and one for each client. Used by whoever executes a scenario.
//!
//! It is drawn on stderr and only if that is a terminal, so a pipe or a log never sees it, and it goes away at the end. Of many
//! clients a few are shown; who chooses them is not known here.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::shortened;

/// More clients than that have no line of their own.
pub const LINES_MAX: usize = 8;
const NAME_WIDTH: usize = 16;
/// Of a client's bar.
const WHOLE: u64 = 1000;

/// Lines that are drawn again and again.
#[derive(Debug)]
pub struct Progress {
    all: MultiProgress,
    total: ProgressBar,
    clients: Vec<ProgressBar>,
}

/// Whether to show progress where that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// On a terminal.
    OnTerminal,
    /// Nowhere: `--quiet`.
    Never,
}

/// One client, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// What it is called.
    pub name: &'a str,
    /// How long its bar is, 0 to 1.
    pub part: f64,
    /// What stands behind it.
    pub text: String,
}

impl Progress {
    /// For a run of `length`, in whatever unit, with so many clients.
    #[must_use]
    pub fn new(length: u64, clients: usize, show: Show) -> Self {
        let target = match show {
            // Whoever calls does so seldom enough, and each line is drawn for itself. Hidden by itself where stderr is no terminal.
            Show::OnTerminal => ProgressDrawTarget::stderr_with_hz(u8::MAX),
            Show::Never => ProgressDrawTarget::hidden(),
        };
        let all = MultiProgress::with_draw_target(target);
        let add = |length, template: &str| {
            let bar = all.add(ProgressBar::new(length));
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        };
        let total = add(length, "{bar:40} {percent:>3} % {msg}");
        let clients = (0..clients.min(LINES_MAX)).map(|_| add(WHOLE, "{prefix} {bar:23.cyan} {msg}")).collect();
        Self { all, total, clients }
    }

    /// Whether anybody sees it.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.all.is_hidden()
    }

    /// The run has come to `at`, and `what` is worth knowing. Lines beyond the first [`LINES_MAX`] are left out.
    pub fn at<'a>(&self, at: u64, what: String, lines: impl Iterator<Item = Line<'a>>) {
        self.total.set_position(at);
        self.total.set_message(what);
        for (bar, Line { name, part, text }) in self.clients.iter().zip(lines) {
            bar.set_prefix(format!("{:<NAME_WIDTH$}", shortened(name, NAME_WIDTH)));
            // CAST: within 0 to 1000.
            bar.set_position((part.clamp(0.0, 1.0) * WHOLE as f64) as u64);
            bar.set_message(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for bar in core::iter::once(&self.total).chain(&self.clients) {
            bar.finish_and_clear();
        }
        // A terminal that is gone has nothing to clear.
        let _ = self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_where_nobody_looks() {
        let progress = Progress::new(10, 100, Show::Never);
        assert!(!progress.is_shown());
        assert_eq!(progress.clients.len(), LINES_MAX);
        let line = Line { name: "a name that is longer than its room", part: 2.0, text: "1 job".to_owned() };
        progress.at(3, "3 jobs".to_owned(), core::iter::once(line));
        assert_eq!((progress.total.position(), progress.clients[0].position()), (3, WHOLE));
        assert_eq!(progress.clients[0].prefix(), "a name that is …");
    }
}
