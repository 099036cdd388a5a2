//! The seeded world: the whole library on the simulated device, and every kind of misfortune: on one thread in virtual time
//! ([`run`]), or with threads that act at once in real time ([`run_threads`]).
//!
//! # Phases
//! ```text
//!  fill:      queues are opened and filled with jobs that wait, run, and depend on each other
//!      │
//!  safety:    queues, jobs and fences of all kinds come and go at random; faults are injected within a budget
//!      │      nothing is waited for; every audit number must stay zero
//!  calm:      faults stop, suspensions end; whatever was published must signal within CALM, handles held or not
//!      │
//!  drain:     every handle is dropped, in random order; within DRAIN nothing is left: no object, no byte, no lease
//! ```
//! What was never promised may stay open to the end: a user fence nobody signals, a reservation nobody commits.
//!
//! # Chance
//! In virtual time all of it comes from one seed, through two generators (the world's and the device's). The same seed gives
//! the same events, byte for byte; see [`Outcome::digest`]. With threads it gives the same plans.
//!
//! # The budget of faults
//! [`Budget`] says what one world may at most suffer. A job's fault concerns that job and what its reset takes along. What
//! ends a device for good happens once: it is lost, closed, pulled out (and the library told, or not), or from then on no
//! reset works; preferably while a job that has its verdict is still on the hardware.
//!
//! # Who shares the device
//! Five users, who are banned when too many of their jobs hang, and forgiven now and then. In four of five worlds an arbiter, by
//! one of three policies, with a pool of 2 to 24 credits. What is counted of them is compared with what was heard: `society`.
//!
//! # Where memory is short
//! In each fourth world ([`Budget::short_of_memory`]) the device has what clients take for themselves and little more. Each has
//! persistent buffers, which its jobs work on: they are evicted and brought back while others are killed, reset and pulled out. And
//! it binds buffers where no job goes, after jobs that may take long: who is killed is often in the middle of a bind.
//!
//! # What was hit
//! [`Hits`]: each deed, by where it was done from (a client's thread, a fence's callback, a payload's drop) and by the
//! stages that the jobs concerned were in; and, whatever the deed, by what was wrong with those jobs.
//!
//! # Who touches what
//! Each actor has things of its own; what it shares with others is in `Commons`, behind locks that are held for a look.
//! What is to happen in a callback or in a payload's drop is moved there as a `Deed`: it owns its handles.

mod actor;
mod choose;
mod commons;
mod deeds;
mod hits;
mod reports;
mod society;
mod storm;
mod submit;
mod threads;

pub use hits::Hits;
pub use reports::unexpected_reports;
pub use storm::{Budget, CALM, DRAIN, Outcome, run};
pub use threads::{Plan, run_threads};
