//! How text is shown: how wide, and in which colour. Used by the table and the verdict.

use std::io::IsTerminal;

/// What it is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// In characters; 80 is enough, 120 shows more.
    pub width: usize,
    /// Whether to use colour.
    pub color: Color,
}

/// Whether to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// None at all.
    Plain,
    /// As terminals understand it.
    Ansi,
}

impl Style {
    /// For standard output: its width and colour if it is a terminal and `NO_COLOR` is not set, else plain.
    #[must_use]
    pub fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { width: WIDTH_PIPED, color: Color::Plain };
        }
        let width = console::Term::stdout().size_checked().map_or(WIDTH_MIN, |(_, columns)| usize::from(columns));
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { width, color: if no_color { Color::Plain } else { Color::Ansi } }
    }

    pub(super) fn paint(self, text: &str, code: &str) -> String {
        match self.color {
            Color::Plain => text.to_owned(),
            Color::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }

    pub(super) fn is_wide(self) -> bool {
        self.width >= WIDTH_WIDE
    }

    pub(super) fn name_width(self) -> usize {
        if self.is_wide() { 20 } else { 14 }
    }

    /// Where prose breaks: long lines are hard to read however wide the terminal.
    pub(super) fn text_width(self) -> usize {
        self.width.clamp(WIDTH_MIN, WIDTH_TEXT_MAX)
    }
}

const WIDTH_MIN: usize = 80;
const WIDTH_WIDE: usize = 120;
const WIDTH_PIPED: usize = WIDTH_WIDE;
const WIDTH_TEXT_MAX: usize = 100;

pub(super) const BOLD: &str = "1";
pub(super) const GREEN: &str = "1;32";
pub(super) const RED: &str = "1;31";
