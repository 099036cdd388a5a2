//! What a run came to: results for machines, a table for people. Used by whoever executes a scenario.
//!
//! The executor hands every job's [`JobRecord`] to a [`Collector`] when the hardware is done with it and all its fences
//! have signaled, and says when clients come and go. [`Collector::finish`] then gives [`Results`], whose JSON is the
//! contract's, and which [`table::render`] shows to people. Nothing here counts what the audit is about: the [`Audit`]
//! comes from the simulated hardware and the run, and is only passed on and judged.

mod busy;
mod collect;
mod record;
mod results;
pub mod style;
pub mod table;
mod verdict;
mod words;

pub use collect::{Collector, RunFacts};
pub use record::{JobRecord, Outcome, Stretch};
pub use results::{Audit, ClientResult, Failed, GroupResult, Percentiles, Replay, Results, VIOLATIONS_MAX};
pub(crate) use words::{counted, duration, grouped, percent, shortened};
