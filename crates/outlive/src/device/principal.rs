//! `Principal`: who is charged for jobs until they have retired, so that hanging, closing and coming back in a loop gains
//! nothing; and what it has used from the beginning.
//!
//! Who hangs the hardware too often is banned (`ban`): its queues refuse jobs until that is lifted.
//!
//! A principal may belong to a group, which is a principal too: what is charged to it, and what it uses, counts for both.
//! Charging is atomic adds with roll-back on refusal; it never blocks and is exact at rest.

use super::ban::{BanRule, Offences};
use super::usage::{Counters, Outcome, Usage, Writers};
use crate::exec::next_id;
use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::queue::Refusal;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Lock, class};
use crate::time::Time;
use core::time::Duration;

/// A user or a group of queues with common limits. Clones are the same principal.
#[derive(Debug, Clone)]
pub struct Principal {
    account: Ref<Account>,
}

#[derive(Debug)]
struct Account {
    id: u64,
    group: Option<Principal>,
    limits: Charges,
    jobs: AtomicU64,
    bytes: AtomicU64,
    counters: Counters,
    offences: Lock<class::Offences, Offences>,
    /// Written under the lock of `offences`.
    banned: AtomicBool,
}

/// What is, or may be, charged at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charges {
    /// Jobs reserved and not retired.
    pub jobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Charges {
    /// No limit.
    pub const UNLIMITED: Self = Self { jobs: u64::MAX, bytes: u64::MAX };
}

impl Principal {
    /// A principal with `limits`. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(limits: Charges) -> Result<Self, AllocError> {
        Self::with_group(limits, None)
    }

    /// A member of `group`, with `limits` of its own: a job is charged to both and must be within the limits of both; the
    /// group's usage is that of all its members, also of those that are gone. A group may be in a group. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn member_of(group: &Self, limits: Charges) -> Result<Self, AllocError> {
        Self::with_group(limits, Some(group.clone()))
    }

    fn with_group(limits: Charges, group: Option<Self>) -> Result<Self, AllocError> {
        let account = Account {
            id: next_id(),
            group,
            limits,
            jobs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            counters: Counters::new(Writers::Many),
            offences: Lock::new(Offences::new()),
            banned: AtomicBool::new(false),
        };
        Ok(Self { account: Ref::try_new(account)? })
    }

    /// Its number, never reused in a process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.account.id
    }

    /// What is charged now.
    #[must_use]
    pub fn charged(&self) -> Charges {
        Charges { jobs: self.account.jobs.load(Ordering::Relaxed), bytes: self.account.bytes.load(Ordering::Relaxed) }
    }

    /// What its queues have had, from the beginning, on all devices. Takes no lock; any context.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.account.counters.read()
    }

    /// Whether it, or a group it is in, is banned: its queues, on all devices, refuse jobs with [`Refusal::Banned`], and those
    /// committed fail with [`Banned`](crate::FenceError::Banned). Closing queues and opening others changes nothing. See
    /// [`DeviceConfig::ban_after`](crate::DeviceConfig::ban_after). Takes no lock; any context.
    #[must_use]
    pub fn is_banned(&self) -> bool {
        // ORDERING: Acquire pairs with `offend`: the offences that led to it are counted.
        self.line().any(|principal| principal.account.banned.load(Ordering::Acquire))
    }

    /// Lifts its ban, with a clean record; not that of a group it is in. Its queues accept jobs again, the same ones too.
    /// Any context; never blocks.
    pub fn lift_ban(&self) {
        let mut offences = self.account.offences.lock();
        offences.lift();
        self.account.banned.store(false, Ordering::Release);
    }

    /// A job of it was taken off the hardware by force. Whether it is banned for that, now. Its group is not to blame.
    pub(crate) fn offend(&self, now: Time, rule: BanRule) -> bool {
        self.line().for_each(|principal| principal.account.counters.offended());
        let mut offences = self.account.offences.lock();
        let banned = offences.offend(now, rule);
        if banned {
            self.account.banned.store(true, Ordering::Release);
        }
        banned
    }

    /// It, its group, that one's group.
    fn line(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |principal| principal.account.group.as_ref())
    }

    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Refusal> {
        for (before, principal) in self.line().enumerate() {
            if let Err(refusal) = principal.charge_alone(bytes) {
                self.line().take(before).for_each(|principal| principal.refund_alone(bytes));
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn charge_alone(&self, bytes: u64) -> Result<(), Refusal> {
        add(&self.account.jobs, 1, self.account.limits.jobs)?;
        add(&self.account.bytes, bytes, self.account.limits.bytes).inspect_err(|_| {
            self.account.jobs.fetch_sub(1, Ordering::Relaxed);
        })
    }

    pub(crate) fn refund(&self, bytes: u64) {
        self.line().for_each(|principal| principal.refund_alone(bytes));
    }

    fn refund_alone(&self, bytes: u64) {
        self.account.jobs.fetch_sub(1, Ordering::Relaxed);
        self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn active(&self, engine: u8, time: Duration) {
        self.line().for_each(|principal| principal.account.counters.active(engine, time));
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.line().for_each(|principal| principal.account.counters.waited(time));
    }

    pub(crate) fn fined(&self, time: Duration) {
        self.line().for_each(|principal| principal.account.counters.fined(time));
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.line().for_each(|principal| principal.account.counters.ended(outcome));
    }
}

fn add(counter: &AtomicU64, more: u64, limit: u64) -> Result<(), Refusal> {
    let mut charged = counter.load(Ordering::Relaxed);
    loop {
        let next = charged.saturating_add(more);
        if next > limit {
            return Err(Refusal::OverLimit { charged, limit });
        }
        match counter.compare_exchange_weak(charged, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => charged = now,
        }
    }
}
