//! Many queues onto few hardware slots. Built so far: what a queue carries for an arbiter (priority; client, group and
//! weight are numbers in [`QueueConfig`](crate::QueueConfig)) and the gate that every start passes. The arbiter and its
//! policies are still to come.

use crate::time::Time;
use crate::trace::FenceId;
use core::time::Duration;

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

/// A job at the head of its queue that could start now.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The job.
    pub job: FenceId,
    /// Whose it is.
    pub client: u64,
    /// The group fair shares go to first.
    pub group: u64,
    /// Its queue's priority now.
    pub priority: Priority,
    /// Its queue's weight now.
    pub weight: u32,
    /// What it will hold.
    pub credits: u32,
    /// Whether the submitter's own thread asks, to bypass the lane.
    pub bypass: bool,
}

/// A started job of which the hardware is done.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The job.
    pub job: FenceId,
    /// What it held.
    pub credits: u32,
    /// When it started.
    pub started: Time,
    /// Its hardware time: measured by the driver, else from start to end.
    pub active: Duration,
}

/// Decides when a ready job may start. Without one every job may.
///
/// Both calls come in the signalling path with the queue's lock held: they must not block, allocate, or call the queue.
/// A `false` must be followed by [`JobQueue::kick`](crate::JobQueue::kick) once it would be `true`.
pub trait Gate: Send + Sync + 'static {
    /// Whether the job may start now.
    fn may_start(&self, ask: &Ask) -> bool;

    /// The hardware is done with a job that had started.
    fn ended(&self, end: &Ended);
}
