//! What one queue, or one group, has had of the hardware; and those of them that are ready, in the orders a choice needs.

use super::Virtual;
use crate::mem::AllocError;
use crate::mem::tree::Tree;
use crate::sabotage::{self, Sabotage};
use crate::sched::Priority;
use core::time::Duration;

/// Hardware time, 5 ms, that a client who comes back may be behind at most.
pub const CREDIT: Duration = Duration::from_millis(5);

/// How many of the earliest that would end are looked at for one that is not ahead.
const LOOKED_AT: usize = 4;

/// How long a job is, for the order among those of whom nothing is known.
pub(super) const UNKNOWN_NS: u64 = 1_000_000;

/// A weight, in quarters: weight 100 at normal priority is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight(u32);

impl Weight {
    pub(super) const fn new(weight: u32, priority: Priority) -> Self {
        let quarters = match priority {
            Priority::Low => 1,
            Priority::Normal => 4,
            Priority::High | Priority::Realtime => 16,
        };
        Self(if weight == 0 { 1 } else { weight.saturating_mul(quarters) })
    }

    /// Virtual time per nanosecond.
    const fn inverse(self) -> u64 {
        (400 << 32) / self.0 as u64
    }
}

/// What a queue and a group have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) had: Virtual,
    weight: Weight,
    inverse: u64,
    /// Moving average of its jobs' hardware time; zero until one has ended.
    average_ns: u64,
    pub(super) on_hardware: u32,
}

impl Account {
    pub(super) const fn new(had: Virtual, weight: Weight) -> Self {
        Self { had, weight, inverse: weight.inverse(), average_ns: 0, on_hardware: 0 }
    }

    /// What a job of it takes, once one has ended.
    pub(super) fn average_ns(&self) -> Option<u64> {
        (self.average_ns > 0).then_some(self.average_ns)
    }

    /// What a job of it takes, as far as can be told.
    pub(super) const fn job_ns(&self, assumed_ns: u64) -> u64 {
        if self.average_ns == 0 { assumed_ns } else { self.average_ns }
    }

    /// What it has had when its jobs on the hardware have ended.
    fn start(&self) -> Virtual {
        let job_ns = self.average_ns().map_or(CREDIT.as_nanos(), u128::from);
        self.had + u128::from(self.on_hardware) * job_ns * u128::from(self.inverse)
    }

    /// That, and what it has had when one more has. `more`: others wait behind that one.
    pub(super) fn tags(&self, more: bool) -> Tags {
        let start = self.start();
        let unknown = (self.average_ns == 0).then_some(more);
        // What is assumed changes with every job that ends, so it is not kept in an order.
        let job_ns = if unknown.is_some() { UNKNOWN_NS } else { self.average_ns };
        Tags { start, finish: start + u128::from(job_ns) * u128::from(self.inverse), weight: self.weight, unknown }
    }

    /// A job of it has ended.
    pub(super) fn pay(&mut self, ns: u64) {
        self.on_hardware = self.on_hardware.saturating_sub(1);
        self.charge(ns);
        average(&mut self.average_ns, ns);
    }

    /// It counts as having had `ns`.
    pub(super) fn charge(&mut self, ns: u64) {
        if !sabotage::is(Sabotage::ChargeNobody) {
            self.had += u128::from(ns) * u128::from(self.inverse);
        }
    }

    /// No further below `floor` than the credit.
    pub(super) fn lift(&mut self, floor: Virtual) {
        let least = floor.saturating_sub(CREDIT.as_nanos() * u128::from(self.inverse));
        self.had += least.saturating_sub(self.start());
    }

    /// Another weight: what is owed or due, measured from `floor`, stays the same in hardware time.
    pub(super) fn reweigh(&mut self, weight: Weight, floor: Virtual) {
        if weight == self.weight {
            return;
        }
        let (old, new) = (u128::from(self.inverse.max(1)), u128::from(weight.inverse()));
        // Nanoseconds in between, so that nothing overflows.
        self.had = match self.had.checked_sub(floor) {
            Some(ahead) => floor + ahead / old * new,
            None => floor.saturating_sub((floor - self.had) / old * new),
        };
        (self.weight, self.inverse) = (weight, weight.inverse());
    }
}

/// A moving average of about the last four; zero only before the first.
fn average(average_ns: &mut u64, ns: u64) {
    let next = if *average_ns == 0 { ns } else { *average_ns - *average_ns / 4 + ns / 4 };
    *average_ns = next.max(1);
}

/// Where somebody ready stands: before and after the job that would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tags {
    start: Virtual,
    finish: Virtual,
    weight: Weight,
    /// None of its jobs has ended; and whether there are more behind this one.
    unknown: Option<bool>,
}

/// The ready members of one set, of the many that share a [`Ready`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) count: u32,
    /// Of which none of their jobs has ended, with more than one waiting.
    crowds: u32,
    weights: u64,
    /// Of start times weight.
    starts: u128,
    /// The start of whoever had had least, when last one started: only rises.
    pub(super) floor: Virtual,
}

impl Sum {
    pub(super) const EMPTY: Self = Self { count: 0, crowds: 0, weights: 0, starts: 0, floor: 0 };

    /// Whether more than one job waits, of somebody of whom nothing is known.
    pub(super) const fn has_more(&self) -> bool {
        self.count > 1 || self.crowds > 0
    }

    fn add(&mut self, tags: &Tags) {
        self.count += 1;
        self.crowds += u32::from(tags.unknown == Some(true));
        self.weights += u64::from(tags.weight.0);
        self.starts = self.starts.wrapping_add(tags.start.wrapping_mul(u128::from(tags.weight.0)));
    }

    fn sub(&mut self, tags: &Tags) {
        self.count -= 1;
        self.crowds -= u32::from(tags.unknown == Some(true));
        self.weights -= u64::from(tags.weight.0);
        self.starts = self.starts.wrapping_sub(tags.start.wrapping_mul(u128::from(tags.weight.0)));
    }

    /// Whether one who starts there has had no more than the average.
    fn is_behind(&self, start: Virtual) -> bool {
        start.wrapping_mul(u128::from(self.weights)) <= self.starts
    }
}

/// Sets of those who are ready, each in the order of start and of finish: `(set, tag, who)`. Those of whom nothing is known
/// are apart, with their start and virtual time per nanosecond: first who has no more behind this job.
#[derive(Debug)]
pub(super) struct Ready {
    by_start: Tree<(u32, Virtual, u32), ()>,
    by_finish: Tree<(u32, Virtual, u32), Virtual>,
    unknown: Tree<(u32, bool, Virtual, u32), (Virtual, u64)>,
}

impl Ready {
    pub(super) const fn new() -> Self {
        Self { by_start: Tree::new(), by_finish: Tree::new(), unknown: Tree::new() }
    }

    pub(super) fn reserve(&mut self, most: usize) -> Result<(), AllocError> {
        self.by_start.try_reserve(most)?;
        self.by_finish.try_reserve(most)?;
        self.unknown.try_reserve(most)
    }

    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Moves `who` of `set` from where it was, if it was ready, to where it is, if it is. There is room for everybody.
    pub(super) fn place(&mut self, set: u32, sum: &mut Sum, who: u32, was: Option<Tags>, is: Option<Tags>) {
        if was == is {
            return;
        }
        if let Some(tags) = was {
            sum.sub(&tags);
            self.by_start.remove(&(set, tags.start, who));
            match tags.unknown {
                None => self.by_finish.remove(&(set, tags.finish, who)).is_some(),
                Some(more) => self.unknown.remove(&(set, more, tags.finish, who)).is_some(),
            };
        }
        if let Some(tags) = is {
            sum.add(&tags);
            let _ = self.by_start.insert((set, tags.start, who), ());
            let _ = match tags.unknown {
                None => self.by_finish.insert((set, tags.finish, who), tags.start).is_ok(),
                Some(more) => {
                    let value = (tags.start, tags.weight.inverse());
                    self.unknown.insert((set, more, tags.finish, who), value).is_ok()
                }
            };
        }
    }

    /// Of those of `set` who are not ahead of the average, the one who would end first, if a job of those of whom nothing is
    /// known takes `assumed_ns`; at any rate the one who has had least.
    pub(super) fn pick(&self, set: u32, sum: &Sum, assumed_ns: u64) -> Option<u32> {
        let from = self.by_finish.range_from(&(set, 0, 0)).take(LOOKED_AT).take_while(|((of, ..), _)| *of == set);
        let mut known = from.filter(|(_, start)| sum.is_behind(**start)).map(|((_, finish, who), _)| (*finish, *who));
        let from = self.unknown.range_from(&(set, false, 0, 0)).take(LOOKED_AT).take_while(|((of, ..), _)| *of == set);
        let mut unknown = from
            .filter(|(_, (start, _))| sum.is_behind(*start))
            .map(|((.., who), (start, inverse))| (start + u128::from(assumed_ns) * u128::from(*inverse), *who));
        let behind = match (known.next(), unknown.next()) {
            (Some(one), Some(other)) if other.0 < one.0 => Some(other),
            (one, other) => one.or(other),
        };
        behind.map(|(_, who)| who).or_else(|| Some(self.least(set)?.1))
    }

    fn least(&self, set: u32) -> Option<(Virtual, u32)> {
        let ((of, start, who), ()) = self.by_start.range_from(&(set, 0, 0)).next()?;
        (*of == set).then_some((*start, *who))
    }

    /// Somebody of `set` starts: its floor rises to whoever has had least.
    pub(super) fn raise_floor(&self, set: u32, sum: &mut Sum) {
        if let Some((least, _)) = self.least(set) {
            sum.floor = if sabotage::is(Sabotage::FloorFalls) { least / 2 } else { sum.floor.max(least) };
        }
    }
}
