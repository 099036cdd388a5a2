//! Why the command ends early, and with which exit code. Used by every module that reads what a person wrote.

use core::fmt;

/// How the command ends; the numbers are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Ok,
    /// It ran, and the audit or a requested check failed.
    Failed,
    /// Bad usage or bad input: one line on stderr, nothing on stdout, nothing written.
    BadInput,
    /// It cannot run here.
    CannotRun,
    /// Interrupted; the run was drained first.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::CannotRun => 3,
            Self::Interrupted => 130,
        }
    }
}

/// What ends the command before it did anything: an exit code and one line for stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// How to end.
    pub exit: Exit,
    /// One line; see [`one_line`].
    pub message: String,
}

impl Stop {
    /// Bad usage or bad input.
    #[must_use]
    pub fn bad_input(message: impl fmt::Display) -> Self {
        Self { exit: Exit::BadInput, message: one_line(&message.to_string()) }
    }

    /// It cannot run on this machine.
    #[must_use]
    pub fn cannot_run(message: impl fmt::Display) -> Self {
        Self { exit: Exit::CannotRun, message: one_line(&message.to_string()) }
    }

    /// `thing` is promised for later.
    #[must_use]
    pub fn not_built(thing: &str) -> Self {
        Self::bad_input(format_args!("outlive: {thing} is not built yet"))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Stop {}

/// What is wrong in a file: its name, the line, what is wrong there, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// The file as it was named.
    pub file: String,
    /// Counted from 1; absent where no line is to blame, as when the file cannot be opened.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What would have been right.
    pub expected: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; expected {}", self.what, self.expected)
    }
}

impl core::error::Error for InputError {}

impl From<InputError> for Stop {
    fn from(error: InputError) -> Self {
        Self::bad_input(error)
    }
}

/// `text` on one line: line breaks and other control characters, which a file name or a quoted value may carry, become
/// visible escapes. So a message is one line whatever it quotes, and cannot steer a terminal.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(Stop::bad_input("a\nb\u{1b}[2J").message, "a\\nb\\u{1b}[2J");
    }

    #[test]
    fn an_input_error_names_its_place() {
        let mut error = InputError {
            file: "x.toml".to_owned(),
            line: Some(3),
            what: "`count` is a string".to_owned(),
            expected: "an integer".to_owned(),
        };
        assert_eq!(error.to_string(), "x.toml:3: `count` is a string; expected an integer");
        error.line = None;
        assert_eq!(error.to_string(), "x.toml: `count` is a string; expected an integer");
    }
}
