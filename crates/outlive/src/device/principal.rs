//! `Principal`: who is charged for jobs until they have retired, so that hanging, closing and coming back in a loop gains
//! nothing.
//!
//! Charging is atomic adds with roll-back on refusal; it never blocks and is exact at rest.

use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::queue::Refusal;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A user or a group of queues with common limits. Clones are the same principal.
#[derive(Debug, Clone)]
pub struct Principal {
    account: Ref<Account>,
}

#[derive(Debug)]
struct Account {
    limits: Charges,
    jobs: AtomicU64,
    bytes: AtomicU64,
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
        Ok(Self { account: Ref::try_new(Account { limits, jobs: AtomicU64::new(0), bytes: AtomicU64::new(0) })? })
    }

    /// What is charged now.
    #[must_use]
    pub fn charged(&self) -> Charges {
        Charges { jobs: self.account.jobs.load(Ordering::Relaxed), bytes: self.account.bytes.load(Ordering::Relaxed) }
    }

    pub(crate) fn charge(&self, bytes: u64) -> Result<(), Refusal> {
        add(&self.account.jobs, 1, self.account.limits.jobs)?;
        add(&self.account.bytes, bytes, self.account.limits.bytes).inspect_err(|_| {
            self.account.jobs.fetch_sub(1, Ordering::Relaxed);
        })
    }

    pub(crate) fn refund(&self, bytes: u64) {
        self.account.jobs.fetch_sub(1, Ordering::Relaxed);
        self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
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
