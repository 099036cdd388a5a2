//! Many queues onto few hardware slots: an [`Arbiter`] gives the credits of one pool to the jobs at the heads of its queues,
//! in the order of a [`Policy`]: [`Fair`] (the default), [`Fifo`] or [`RoundRobin`].
//!
//! Every start passes one gate: without an arbiter it is open (firmware mode, one hardware queue for each `JobQueue`), with
//! one it opens when it is the queue's turn.
//!
//! # Modules
//! `policy` the question and two simple answers · `fair` the default answer · `turns` the mechanism, a plain state machine ·
//! `arbiter` the lock around it and the queues behind it.

mod arbiter;
mod fair;
mod policy;
mod turns;

pub use arbiter::{Arbiter, ArbiterConfig, ArbiterStatus};
pub use fair::{CREDIT, Fair};
pub use policy::{Fifo, Head, Policy, RoundRobin, STARVED_AFTER};

pub(crate) use arbiter::{ArbiterShared, Refused};
pub(crate) use turns::Answer;

use core::fmt;

/// How urgent a queue's jobs are among others'. In firmware mode it is reported to the driver, not enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// A quarter of its weight.
    Low = 0,
    /// Its weight.
    Normal = 1,
    /// Four times its weight.
    High = 2,
    /// First, up to half the device; then as high.
    Realtime = 3,
}

impl Priority {
    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Low,
            1 => Self::Normal,
            2 => Self::High,
            _ => Self::Realtime,
        }
    }
}

/// The largest weight; the smallest is 1.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// What a queue may claim among others. Every part may change at run time and counts from the next decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Fair shares go to groups first. 0: a group of its own.
    pub group: u64,
    /// Of the whole group; what a member said last counts.
    pub group_weight: u32,
    /// Within its group; of a queue without a group, among the groups.
    pub weight: u32,
    /// Multiplies its weight.
    pub priority: Priority,
}

impl Default for Share {
    fn default() -> Self {
        Self { group: 0, group_weight: 100, weight: 100, priority: Priority::Normal }
    }
}

/// A weight of zero, or above [`WEIGHT_MAX`]. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadWeight {
    /// What was asked for.
    pub weight: u32,
}

impl BadWeight {
    pub(crate) const fn check(weight: u32) -> Result<(), Self> {
        if weight == 0 || weight > WEIGHT_MAX { Err(Self { weight }) } else { Ok(()) }
    }
}

impl fmt::Display for BadWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a weight of {}: it must be from 1 to {WEIGHT_MAX}", self.weight)
    }
}

impl core::error::Error for BadWeight {}
