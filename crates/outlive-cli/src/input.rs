//! Files that a person wrote, as text. Used by whatever reads them.

use std::fs;
use std::path::Path;

use crate::error::{InputError, Stop, one_line};

/// The file's name as messages say it, and its text. `expected` says what the file should be.
///
/// # Errors
///
/// It cannot be read, or is not text; always bad input.
pub(crate) fn read_text(path: &Path, expected: &str) -> Result<(String, String), Stop> {
    let file = one_line(&path.to_string_lossy());
    let refuse =
        |line, what| Stop::bad_input(InputError { file: file.clone(), line, what, expected: expected.to_owned() });
    let bytes = fs::read(path).map_err(|error| refuse(None, format!("cannot be read: {error}")))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((file, text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
            Err(refuse(Some(line), "a byte that is not UTF-8".to_owned()))
        }
    }
}
