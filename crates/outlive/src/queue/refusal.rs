//! Why a queue was not opened or a job not reserved: what was asked for, and what to change. Plain values.

use crate::fence::FenceError;
use crate::mem::AllocError;
use crate::sched::BadWeight;
use core::fmt;

/// Why a job was not reserved. Nothing was changed, and the payload comes back.
pub struct ReserveError<P> {
    /// Why.
    pub kind: Refusal,
    /// What was to be submitted.
    pub payload: P,
}

/// The reasons of a [`ReserveError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No memory.
    OutOfMemory(AllocError),
    /// A job of no size would not be flow-controlled at all.
    NoCredits,
    /// More credits than the queue has could never start.
    TooManyCredits {
        /// What was asked for.
        asked: u32,
        /// The queue's size.
        queue: u32,
    },
    /// More dependencies that cannot be merged than a job can hold.
    TooManyDependencies {
        /// The most.
        most: u16,
    },
    /// The queue accepts nothing more.
    Closed,
    /// The device is gone.
    DeviceLost,
    /// The principal is banned: too many of its jobs had to be taken off the hardware by force.
    Banned,
    /// The principal has reached a limit; it gets room when its jobs retire.
    OverLimit {
        /// What it has charged now, in the unit of the limit reached.
        charged: u64,
        /// The limit.
        limit: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(error) => error.fmt(f),
            Self::NoCredits => f.write_str("a job needs at least 1 credit"),
            Self::TooManyCredits { asked, queue } => {
                write!(
                    f,
                    "the job asks for {asked} credits, the queue has {queue}: split the job or make a larger queue"
                )
            }
            Self::TooManyDependencies { most } => {
                write!(f, "more than {most} dependencies: merge them into fewer fences")
            }
            Self::Closed => f.write_str("the queue is closed: make another"),
            Self::DeviceLost => f.write_str("the device is gone: open it again"),
            Self::Banned => FenceError::Banned.fmt(f),
            Self::OverLimit { charged, limit } => {
                write!(f, "the principal has {charged} of at most {limit} charged: wait for its jobs to retire")
            }
        }
    }
}

impl<P> fmt::Debug for ReserveError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReserveError({:?})", self.kind)
    }
}

impl<P> fmt::Display for ReserveError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<P> core::error::Error for ReserveError<P> {}

/// Why a queue or device was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// No memory.
    OutOfMemory(AllocError),
    /// A queue of no credits could never start a job.
    NoCredits,
    /// The number of a kind of engine is too high.
    NoSuchEngine {
        /// It is to be below this.
        most: u8,
    },
    /// The device is gone.
    DeviceLost,
    /// A weight that is none.
    BadWeight(BadWeight),
    /// The arbiter has as many queues as it may.
    ArbiterFull {
        /// The most.
        most: u32,
    },
    /// The arbiter is gone.
    ArbiterGone,
    /// The arbiter is for queues of another executor.
    OtherExecutor,
    /// A long-running queue would keep an arbiter's credits for ever.
    LongWithArbiter,
}

impl From<BadWeight> for OpenError {
    fn from(bad: BadWeight) -> Self {
        Self::BadWeight(bad)
    }
}

impl From<AllocError> for OpenError {
    fn from(error: AllocError) -> Self {
        Self::OutOfMemory(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(error) => error.fmt(f),
            Self::NoCredits => f.write_str("a queue needs at least 1 credit"),
            Self::NoSuchEngine { most } => write!(f, "kinds of engines are numbered from 0 to {}", most - 1),
            Self::DeviceLost => f.write_str("the device is gone: open it again"),
            Self::BadWeight(bad) => bad.fmt(f),
            Self::ArbiterFull { most } => {
                write!(f, "the arbiter has its {most} queues: close one, or make one for more")
            }
            Self::ArbiterGone => f.write_str("the arbiter is gone: make another"),
            Self::LongWithArbiter => f.write_str("a long-running queue cannot have an arbiter: its jobs need not end"),
            Self::OtherExecutor => f.write_str("the arbiter is on another executor than the device: use one for both"),
        }
    }
}

impl core::error::Error for OpenError {}
