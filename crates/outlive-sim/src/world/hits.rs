//! What a storm has hit: each deed, by where it was done from and by the stages of the jobs concerned; and, whatever the
//! deed, by what was wrong with those jobs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use outlive::{FenceError, JobFences, Status};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::gpu::FaultKind;

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
    const ALL: [Self; 5] = [Self::None, Self::Waiting, Self::Running, Self::Draining, Self::Retired];

    fn of(job: &JobFences) -> Self {
        if job.retired().is_signaled() {
            Self::Retired
        } else if job.scheduled().status() == Status::Signaled(Ok(())) {
            if job.finished().is_signaled() { Self::Draining } else { Self::Running }
        } else {
            Self::Waiting
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Retired => "retired",
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

impl Place {
    const ALL: [Self; 3] = [Self::Client, Self::Callback, Self::PayloadDrop];

    const fn words(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Callback => "callback",
            Self::PayloadDrop => "payload drop",
        }
    }
}

/// A job that was committed.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) fences: JobFences,
    pub(crate) fault: Option<FaultKind>,
}

impl Known {
    pub(crate) fn is_draining(&self) -> bool {
        Stage::of(&self.fences) == Stage::Draining
    }
}

/// What is wrong with a job, in words.
pub(crate) const fn fault_words(fault: Option<FaultKind>) -> &'static str {
    match fault {
        None => "no fault",
        Some(FaultKind::Hang) => "hang",
        Some(FaultKind::PageFault) => "page fault",
        Some(FaultKind::Error) => "error",
        Some(FaultKind::LostCompletion) => "lost completion",
    }
}

type Cell = (&'static str, Place, Stage);

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    deeds: BTreeMap<Cell, u64>,
    /// The same, by what was wrong with the jobs.
    ill: BTreeMap<Cell, u64>,
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
    pub(crate) fn deed(&mut self, what: &'static str, place: Place, jobs: &[Known]) {
        let seen: BTreeSet<(Stage, &'static str)> =
            jobs.iter().map(|job| (Stage::of(&job.fences), fault_words(job.fault))).collect();
        if seen.is_empty() {
            *self.deeds.entry((what, place, Stage::None)).or_default() += 1;
        }
        let mut last = None;
        for (stage, fault) in seen {
            *self.ill.entry((fault, place, stage)).or_default() += 1;
            if last.replace(stage) != Some(stage) {
                *self.deeds.entry((what, place, stage)).or_default() += 1;
            }
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
            Status::Signaled(Err(FenceError::Banned)) => "banned",
            Status::Signaled(Err(_)) => "other",
        };
        *self.verdicts.entry(what).or_default() += 1;
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.deeds, &other.deeds), (&mut self.ill, &other.ill)] {
            for (key, count) in theirs {
                *mine.entry(*key).or_default() += count;
            }
        }
        for (mine, theirs) in [(&mut self.faults, &other.faults), (&mut self.verdicts, &other.verdicts)] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
    }

    /// How often a deed was done from a place, over all stages; places are `client`, `callback`, `payload drop`. Once for
    /// each stage of the jobs concerned.
    #[must_use]
    pub fn count(&self, deed: &str, place: &str) -> u64 {
        let of = self.deeds.iter().filter(|((what, from, _), _)| *what == deed && from.words() == place);
        of.map(|(_, count)| count).sum()
    }

    /// The names of all deeds that are done from every place.
    pub fn deeds() -> impl Iterator<Item = &'static str> {
        super::deeds::NAMES.iter().map(|(name, _)| *name)
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

    /// The cells of both tables that were hit less than `least` times though they can be, in words. Every deed can be done
    /// from every place, and every job, whatever is wrong with it, can be in every stage then.
    #[must_use]
    pub fn below(&self, least: u64) -> Vec<String> {
        let mut low = Vec::new();
        for (rows, counts) in [(&super::deeds::NAMES[..], &self.deeds), (&FAULTS[..], &self.ill)] {
            for (what, concerns_jobs) in rows {
                for place in Place::ALL {
                    let stages = if *concerns_jobs { &Stage::ALL[1..] } else { &Stage::ALL[..1] };
                    for stage in stages {
                        let count = counts.get(&(*what, place, *stage)).copied().unwrap_or(0);
                        if count < least {
                            low.push(format!("{what} from {}, {}: {count}", place.words(), stage.words()));
                        }
                    }
                }
            }
        }
        low
    }
}

const FAULTS: [(&str, bool); 5] =
    [("no fault", true), ("hang", true), ("page fault", true), ("error", true), ("lost completion", true)];

fn table(f: &mut fmt::Formatter<'_>, title: &str, counts: &BTreeMap<Cell, u64>) -> fmt::Result {
    write!(f, "{title:<18}{:<14}", "done from")?;
    for stage in Stage::ALL {
        write!(f, "{:>10}", stage.words())?;
    }
    writeln!(f)?;
    let rows: BTreeSet<_> = counts.keys().map(|(what, place, _)| (*what, *place)).collect();
    for (what, place) in rows {
        write!(f, "{what:<18}{:<14}", place.words())?;
        for stage in Stage::ALL {
            write!(f, "{:>10}", counts.get(&(what, place, stage)).copied().unwrap_or(0))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, "deed", &self.deeds)?;
        table(f, "fault of the job", &self.ill)?;
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
