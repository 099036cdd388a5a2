//! Scenario files: reading, checking, completing and printing them. Used by `outlive run`.
//!
//! [`Scenario::parse`] either returns a scenario that can run, with every default filled in and every name resolved, or
//! the first mistake with its line. [`Scenario::to_toml`] is its inverse: parsing what it prints gives an equal scenario.
//!
//! Neighbours: [`model`] is the result; `section` reads typed values with their places; `read`, `client` and `event` read
//! the parts; `names` resolves names; [`memory`] knows what clients need of the device's memory.

use std::path::Path;

use crate::error::{InputError, Stop};
use crate::input::read_text;

mod client;
mod event;
mod limits;
pub mod memory;
pub mod model;
mod names;
mod print;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod words;

pub use model::Scenario;

/// The built-in scenario, `scenarios/first-look.toml`.
pub const FIRST_LOOK: &str = include_str!("../../../../scenarios/first-look.toml");

/// What the built-in scenario is called in messages.
pub const FIRST_LOOK_FILE: &str = "scenarios/first-look.toml";

impl Scenario {
    /// The scenario in `text`, which messages call `file`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, InputError> {
        read::scenario(section::Source { file, text })
    }

    /// The scenario in the file at `path`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, also if it cannot be read; always bad input.
    pub fn load(path: &Path) -> Result<Self, Stop> {
        let (file, text) = read_text(path, "a scenario file")?;
        Ok(Self::parse(&file, &text)?)
    }

    /// The built-in scenario.
    ///
    /// # Errors
    ///
    /// Never in a build that passes its tests.
    pub fn first_look() -> Result<Self, InputError> {
        Self::parse(FIRST_LOOK_FILE, FIRST_LOOK)
    }

    /// The scenario as a file in which nothing is left to a default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::scenario(self)
    }
}
