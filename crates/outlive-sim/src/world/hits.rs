//! What a storm has hit: each deed, by where it was done from and by the stages of the jobs concerned.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::fmt;
use outlive::{FenceError, JobFences, Status};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// None is concerned.
    None,
    /// Committed, not on the hardware.
    Waiting,
    /// On the hardware, no verdict.
    Running,
    /// With a verdict, while the hardware may still touch its memory.
    Draining,
    /// All over.
    Retired,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Waiting, Self::Running, Self::Draining, Self::Retired];

    pub(crate) fn of(job: &JobFences) -> Self {
        if job.retired().is_signaled() {
            Self::Retired
        } else if job.scheduled().status() == Status::Signaled(Ok(())) {
            if job.finished().is_signaled() { Self::Draining } else { Self::Running }
        } else {
            Self::Waiting
        }
    }
}

/// Where a deed was done from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The client's own thread.
    Client,
    /// A closure on a fence, on the notify lane.
    Callback,
    /// A payload's drop: on the reaper, or in somebody's `reserve`.
    PayloadDrop,
}

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    deeds: BTreeMap<(&'static str, Place, Stage), u64>,
    faults: BTreeMap<&'static str, u64>,
    verdicts: BTreeMap<&'static str, u64>,
}

/// Shared with deeds that are done elsewhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHits(Arc<Mutex<Hits>>);

impl SharedHits {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Hits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hits {
    /// A deed that concerns `jobs`: counted once for each stage that one of them is in.
    pub(crate) fn deed(&mut self, what: &'static str, place: Place, jobs: &[JobFences]) {
        let mut stages: BTreeSet<Stage> = jobs.iter().map(Stage::of).collect();
        if stages.len() > 1 {
            stages.remove(&Stage::Retired);
        }
        if stages.is_empty() {
            stages.insert(Stage::None);
        }
        for stage in stages {
            *self.deeds.entry((what, place, stage)).or_default() += 1;
        }
    }

    pub(crate) fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    pub(crate) fn verdict(&mut self, job: &JobFences) {
        let what = match job.finished().status() {
            Status::Pending => "none",
            Status::Signaled(Ok(())) => "ok",
            Status::Signaled(Err(FenceError::Canceled)) => "canceled",
            Status::Signaled(Err(FenceError::TimedOut)) => "timed out",
            Status::Signaled(Err(FenceError::DeviceLost)) => "device lost",
            Status::Signaled(Err(FenceError::Faulted { .. })) => "faulted",
            Status::Signaled(Err(FenceError::Innocent)) => "innocent",
            Status::Signaled(Err(FenceError::Dependency(_))) => "dependency",
            Status::Signaled(Err(_)) => "other",
        };
        *self.verdicts.entry(what).or_default() += 1;
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.deeds {
            *self.deeds.entry(*key).or_default() += count;
        }
        for (mine, theirs) in [(&mut self.faults, &other.faults), (&mut self.verdicts, &other.verdicts)] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
    }

    /// How often a deed was done from a place, over all stages; places are `client`, `callback`, `payload drop`.
    #[must_use]
    pub fn count(&self, deed: &str, place: &str) -> u64 {
        let of = self.deeds.iter().filter(|((what, from, _), _)| *what == deed && from.words() == place);
        of.map(|(_, count)| count).sum()
    }

    /// How often a fault was injected.
    #[must_use]
    pub fn faults(&self, fault: &str) -> u64 {
        self.faults.get(fault).copied().unwrap_or(0)
    }

    /// How many jobs got a verdict.
    #[must_use]
    pub fn verdicts(&self, verdict: &str) -> u64 {
        self.verdicts.get(verdict).copied().unwrap_or(0)
    }
}

impl Place {
    const fn words(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Callback => "callback",
            Self::PayloadDrop => "payload drop",
        }
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}{:<14}", "deed", "done from")?;
        for stage in Stage::ALL {
            write!(f, "{:>10}", alloc::format!("{stage:?}").to_lowercase())?;
        }
        writeln!(f)?;
        let rows: BTreeSet<_> = self.deeds.keys().map(|(what, place, _)| (*what, *place)).collect();
        for (what, place) in rows {
            write!(f, "{what:<18}{:<14}", place.words())?;
            for stage in Stage::ALL {
                write!(f, "{:>10}", self.deeds.get(&(what, place, stage)).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        for (title, counts) in [("faults", &self.faults), ("verdicts", &self.verdicts)] {
            write!(f, "{title}:")?;
            for (what, count) in counts {
                write!(f, " {what} {count},")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
