//! `Usage`: what a queue, a client or a group has had of the hardware, how its jobs ended, and how long it waited.
//!
//! # Protocol
//! Each number is an atomic of its own that only rises. A queue's are written under that queue's lock, so by one at a time and
//! without a locked instruction; a principal's are written by all its queues. They are read with plain loads, by
//! anybody, without a lock: reading stops nobody and waits for nobody. The price: each number is exact, but two that are
//! read while a job ends may be that job apart. A version counter around them would make writers of several queues take
//! turns, for a snapshot that is old when it is used.

use crate::fence::{Cause, FenceError};
use crate::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// Kinds of engines of one device that are told apart ([`QueueConfig::engine`](crate::QueueConfig::engine)).
pub const ENGINES_MAX: u8 = 8;

const ENGINES: usize = ENGINES_MAX as usize;

/// How a job ended: the verdict on its `finished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It went well.
    Ok,
    /// See [`FenceError::Canceled`].
    Canceled,
    /// See [`FenceError::TimedOut`].
    TimedOut,
    /// See [`FenceError::DeviceLost`].
    DeviceLost,
    /// See [`FenceError::Faulted`].
    Faulted,
    /// See [`FenceError::Innocent`].
    Innocent,
    /// See [`FenceError::DriverBug`].
    DriverBug,
    /// See [`FenceError::Banned`].
    Banned,
    /// See [`FenceError::Dependency`].
    Dependency,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Canceled,
        Self::TimedOut,
        Self::DeviceLost,
        Self::Faulted,
        Self::Innocent,
        Self::DriverBug,
        Self::Banned,
        Self::Dependency,
    ];

    /// The outcome that a `finished` with `result` speaks of.
    #[must_use]
    pub const fn of(result: Result<(), FenceError>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(FenceError::Dependency(_)) => Self::Dependency,
            Err(error) => match error.cause() {
                Cause::Canceled => Self::Canceled,
                Cause::TimedOut => Self::TimedOut,
                Cause::DeviceLost => Self::DeviceLost,
                // Never a verdict, unless a driver gives it.
                Cause::Faulted { .. } | Cause::Quarantined => Self::Faulted,
                Cause::Innocent => Self::Innocent,
                Cause::DriverBug => Self::DriverBug,
                Cause::Banned => Self::Banned,
            },
        }
    }

    /// In words, as a key would have them.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed-out",
            Self::DeviceLost => "device-lost",
            Self::Faulted => "faulted",
            Self::Innocent => "innocent",
            Self::DriverBug => "driver-bug",
            Self::Banned => "banned",
            Self::Dependency => "dependency",
        }
    }
}

/// What somebody has had, from the beginning. No number ever falls; each is exact by itself, and may be one job apart from
/// another that was read in the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    engines: [Duration; ENGINES],
    waited: Duration,
    waited_most: Duration,
    offences: u64,
    fined: Duration,
    jobs: [u64; Outcome::ALL.len()],
}

impl Usage {
    /// Hardware time of all jobs that have left the hardware, whatever became of them: as the driver measured it
    /// ([`Times::active`](crate::Times::active)), else from start to end, or to the reset that ended it, so that what overlaps
    /// counts twice.
    #[must_use]
    pub fn active(&self) -> Duration {
        self.engines.iter().sum()
    }

    /// The part of [`Usage::active`] on one kind of engine; none beyond [`ENGINES_MAX`].
    #[must_use]
    pub fn active_on(&self, engine: u8) -> Duration {
        self.engines.get(usize::from(engine)).copied().unwrap_or_default()
    }

    /// How long a queue's next job could have started, its dependencies met and its predecessors started, but for credits, a
    /// turn, a resource, or a suspension. Counts at the start; of a queue it is never more than the time that has passed. What
    /// the signalling lane takes until it looks is not seen without an arbiter.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// The longest of these waits.
    #[must_use]
    pub const fn waited_most(&self) -> Duration {
        self.waited_most
    }

    /// Jobs that had to be taken off the hardware by force, since their time was over: too many soon after each other, and
    /// whoever submitted them is banned ([`DeviceConfig::ban_after`](crate::DeviceConfig::ban_after)).
    #[must_use]
    pub const fn offences(&self) -> u64 {
        self.offences
    }

    /// What resets cost that were its fault: the time they took, and what others' jobs had had of the hardware that they were
    /// lost to them. Its arbiter counts it as if it had had it.
    #[must_use]
    pub const fn fined(&self) -> Duration {
        self.fined
    }

    /// Jobs that ended so.
    #[must_use]
    pub const fn jobs(&self, outcome: Outcome) -> u64 {
        self.jobs[outcome as usize]
    }

    /// Jobs that have ended: all outcomes.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.jobs.iter().sum()
    }
}

/// Who writes a [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Whoever holds one lock.
    OneAtATime,
    Many,
}

/// The numbers behind a [`Usage`]; see the module.
#[derive(Debug)]
pub(crate) struct Counters {
    writers: Writers,
    engines: [AtomicU64; ENGINES],
    waited: AtomicU64,
    waited_most: AtomicU64,
    offences: AtomicU64,
    fined: AtomicU64,
    jobs: [AtomicU64; Outcome::ALL.len()],
}

impl Counters {
    pub(crate) fn new(writers: Writers) -> Self {
        Self {
            writers,
            engines: core::array::from_fn(|_| AtomicU64::new(0)),
            waited: AtomicU64::new(0),
            waited_most: AtomicU64::new(0),
            offences: AtomicU64::new(0),
            fined: AtomicU64::new(0),
            jobs: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn add(&self, number: &AtomicU64, by: u64) {
        match self.writers {
            Writers::OneAtATime => number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed),
            Writers::Many => {
                number.fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    /// A job has left an engine.
    #[inline]
    pub(crate) fn active(&self, engine: u8, time: Duration) {
        self.add(&self.engines[usize::from(engine) % ENGINES], nanoseconds(time));
    }

    /// A job that had to wait has started.
    #[inline]
    pub(crate) fn waited(&self, time: Duration) {
        let ns = nanoseconds(time);
        self.add(&self.waited, ns);
        self.waited_most.fetch_max(ns, Ordering::Relaxed);
    }

    /// A job was taken off by force.
    pub(crate) fn offended(&self) {
        self.add(&self.offences, 1);
    }

    /// A reset was its fault.
    pub(crate) fn fined(&self, time: Duration) {
        // Under no lock, also where others are written under one.
        self.fined.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// A job has its verdict.
    #[inline]
    pub(crate) fn ended(&self, outcome: Outcome) {
        self.add(&self.jobs[outcome as usize], 1);
    }

    pub(crate) fn read(&self) -> Usage {
        let time = |number: &AtomicU64| Duration::from_nanos(number.load(Ordering::Relaxed));
        Usage {
            engines: core::array::from_fn(|engine| time(&self.engines[engine])),
            waited: time(&self.waited),
            waited_most: time(&self.waited_most),
            offences: self.offences.load(Ordering::Relaxed),
            fined: time(&self.fined),
            jobs: core::array::from_fn(|outcome| self.jobs[outcome].load(Ordering::Relaxed)),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Counters, ENGINES_MAX, Outcome, Writers};
    use crate::fence::{Cause, FenceError};
    use core::time::Duration;

    #[test]
    fn numbers_add_up_whoever_writes() {
        for writers in [Writers::OneAtATime, Writers::Many] {
            let counters = Counters::new(writers);
            for us in [3, 1, 2] {
                counters.active(ENGINES_MAX - 1, Duration::from_micros(us));
                counters.waited(Duration::from_micros(10 * us));
            }
            counters.active(0, Duration::from_micros(1));
            counters.ended(Outcome::Innocent);
            let usage = counters.read();
            assert_eq!(usage.active(), Duration::from_micros(7));
            assert_eq!(usage.active_on(ENGINES_MAX - 1), Duration::from_micros(6));
            assert_eq!(usage.active_on(ENGINES_MAX), Duration::ZERO);
            assert_eq!((usage.waited(), usage.waited_most()), (Duration::from_micros(60), Duration::from_micros(30)));
            assert_eq!((usage.ended(), usage.jobs(Outcome::Innocent)), (1, 1));
        }
    }

    #[test]
    fn each_verdict_has_an_outcome_and_each_outcome_its_place() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
        assert_eq!(Outcome::of(Ok(())), Outcome::Ok);
        assert_eq!(Outcome::of(Err(FenceError::Faulted { code: 7 })), Outcome::Faulted);
        assert_eq!(Outcome::of(Err(FenceError::Innocent)), Outcome::Innocent);
        assert_eq!(Outcome::of(Err(FenceError::Dependency(Cause::TimedOut))), Outcome::Dependency);
    }
}
