//! `outlive vm replay`: an address-space script, and the steps that a driver would be given for it.
//!
//! `script` reads the whole script before anything is done; what cannot be read ends the command there. `replay` then
//! carries its lines out on one address space of the library, and `json` says what each came to. A line that is refused
//! changes nothing, says why, and the rest goes on; the exit code tells.

use std::path::Path;

use crate::error::{Exit, Stop};
use crate::input::read_text;
use crate::output;

mod json;
mod replay;
mod script;
mod tables;
#[cfg(test)]
mod tests;

/// Replays the script at `path` and prints one JSON object for each line that does something; with `page_tables`, also what the
/// simulated device's page tables hold, with each dump and at the end.
///
/// # Errors
///
/// The script cannot be read, or standard output not be written.
pub fn run(path: &Path, page_tables: bool) -> Result<Exit, Stop> {
    let (file, text) = read_text(path, "an address-space script")?;
    let script = script::Script::parse(&file, &text)?;
    let tables = page_tables.then(|| tables::Tables::new(tables::TABLE_BYTES)).transpose();
    let tables = tables.map_err(|error| Stop::bad_input(error.to_string()))?;
    let refused = replay::replay(&script, tables, replay::MAPPINGS_MAX, &mut output::print)?;
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failed })
}
