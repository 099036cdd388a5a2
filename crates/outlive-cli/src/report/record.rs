//! What is known of one job when all is over for it. Used by the collector and by the timeline.
//!
//! All times are nanoseconds on the run's clock, whose zero is the start of the run.

/// One job, from commit to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Whose it is: an index into the scenario's instances.
    pub instance: usize,
    /// In which of the client's cycles; numbers run on across incarnations.
    pub cycle: u64,
    /// How many jobs that cycle has.
    pub cycle_jobs: u32,
    /// When it was submitted.
    pub committed_ns: u64,
    /// When all it depended on was done; absent if it ended before. Never earlier than `committed_ns`.
    pub ready_ns: Option<u64>,
    /// When it had an engine, in order; empty if it never had one. More than one where the device rotated it off.
    pub stretches: Vec<Stretch>,
    /// When its `finished` fence signaled.
    pub finished_ns: u64,
    /// With what.
    pub outcome: Outcome,
}

impl JobRecord {
    /// When it first had an engine.
    #[must_use]
    pub fn started_ns(&self) -> Option<u64> {
        self.stretches.first().map(|stretch| stretch.from_ns)
    }

    /// When the hardware was done with it.
    #[must_use]
    pub fn left_hardware_ns(&self) -> Option<u64> {
        self.stretches.last().map(|stretch| stretch.to_ns)
    }

    /// The hardware time that it had.
    #[must_use]
    pub fn hardware_ns(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.to_ns.saturating_sub(stretch.from_ns)).sum()
    }
}

/// A time in which a job had an engine to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Which engine, counted from 0.
    pub engine: u32,
    /// From here.
    pub from_ns: u64,
    /// To here, not included.
    pub to_ns: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Well.
    Ok,
    /// Its client was killed, closed or banned first.
    Canceled,
    /// It hung: it had its limit of hardware time.
    TimedOut,
    /// The device went away.
    DeviceLost,
    /// Its own mistake: a page fault, or an error of a command.
    Faulted,
    /// A job that it depended on failed.
    Dependency,
    /// A reset that another's job needed took it along.
    Innocent,
}
