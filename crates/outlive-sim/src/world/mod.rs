//! The seeded world: the whole library on the simulated device, one thread, virtual time, and every kind of misfortune.
//!
//! # Phases
//! ```text
//!  safety:    clients, queues, jobs and fences of all kinds come and go at random; faults are injected within a budget
//!      │      nothing is waited for; every audit number must stay zero
//!  calm:      faults stop, suspensions end; whatever was published must signal within CALM, handles held or not
//!      │
//!  drain:     every handle is dropped, in random order; within DRAIN nothing is left: no object, no byte, no lease
//! ```
//! What was never promised may stay open to the end: a user fence nobody signals, a reservation nobody commits.
//!
//! # Chance
//! All of it comes from one seed, through two generators (the world's and the device's). The same seed gives the same
//! events, byte for byte; see [`Outcome::digest`].
//!
//! # The budget of faults
//! [`Budget`] says what one world may at most suffer. A job's fault concerns that job and what its reset takes along. Two
//! things end a device for good, at most one of them in a world: unplugging, and a device reset that fails.
//!
//! # Who touches what
//! The world's thread alone. What is to happen in a callback or in a payload's drop is moved there as a `Deed`:
//! it owns its handles, so nothing is shared but the table of hits, behind a lock that is held for an increment.

mod actions;
mod deeds;
mod hits;
mod storm;

pub use hits::Hits;
pub use storm::{Budget, CALM, DRAIN, Outcome, run};
