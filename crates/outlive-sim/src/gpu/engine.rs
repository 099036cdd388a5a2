//! An engine: what executes a job, one at a time.
//!
//! An engine is *idle* or *occupied*. While occupied it counts as busy, whether its job makes progress or hangs. The
//! firmware (`schedule`) puts jobs on and takes them off; `run` lets time pass.

use super::types::{QueueId, Time};

/// A ring's turn on an engine: as long as it lasts, the engine takes its jobs from that ring first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) queue: QueueId,
    pub(crate) ends_at: Time,
}

/// One engine.
#[derive(Debug)]
pub(crate) struct Engine {
    /// The job on it, by its record.
    pub(crate) job: Option<u32>,
    /// Up to when the job's time is counted.
    pub(crate) counted_to: Time,
    /// When something happens next.
    pub(crate) next_at: Time,
    /// When the job's pages are touched next.
    pub(crate) touch_at: Time,
    /// Whose turn it is, where the firmware rotates.
    pub(crate) turn: Option<Turn>,
    busy_ns: u64,
}

impl Engine {
    pub(crate) const fn new() -> Self {
        Self { job: None, counted_to: Time::ZERO, next_at: Time::NEVER, touch_at: Time::NEVER, turn: None, busy_ns: 0 }
    }

    /// Puts a job on.
    pub(crate) const fn occupy(&mut self, job: u32, now: Time, touch_at: Time) {
        self.job = Some(job);
        self.counted_to = now;
        self.next_at = now;
        self.touch_at = touch_at;
    }

    /// Takes the job off.
    pub(crate) const fn vacate(&mut self) {
        self.job = None;
        self.next_at = Time::NEVER;
        self.touch_at = Time::NEVER;
    }

    /// Counts the time up to `now` as busy, and says how much that was; nothing for an idle engine.
    pub(crate) const fn count_to(&mut self, now: Time) -> u64 {
        if self.job.is_none() {
            return 0;
        }
        let passed_ns = now.since_ns(self.counted_to);
        self.counted_to = now;
        self.busy_ns += passed_ns;
        passed_ns
    }

    /// Time occupied up to `now`.
    pub(crate) const fn busy_ns(&self, now: Time) -> u64 {
        self.busy_ns + self.uncounted_ns(now)
    }

    /// Time of the present job that is not counted yet.
    pub(crate) const fn uncounted_ns(&self, now: Time) -> u64 {
        if self.job.is_some() { now.since_ns(self.counted_to) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_occupied_time_is_busy() {
        let mut engine = Engine::new();
        assert_eq!(engine.count_to(Time::from_ns(10)), 0);
        engine.occupy(0, Time::from_ns(10), Time::NEVER);
        assert_eq!(engine.count_to(Time::from_ns(15)), 5);
        assert_eq!(engine.busy_ns(Time::from_ns(18)), 8);
        engine.count_to(Time::from_ns(20));
        engine.vacate();
        assert_eq!(engine.busy_ns(Time::from_ns(100)), 10);
        assert_eq!(engine.next_at, Time::NEVER);
    }
}
