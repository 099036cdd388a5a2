//! Interrupting a transaction that waits, as a signal interrupts a system call.
//!
//! # States
//! *quiet* or *raised*. A transaction that is about to sleep leaves its thread's token and looks at the flag; raising sets
//! the flag and wakes the thread whose token is there: one of the two sees the other.

use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, Lock, ParkToken, class};

/// What both sides share.
#[derive(Debug)]
pub(super) struct Flag {
    raised: AtomicBool,
    sleeper: Lock<class::FenceWaiters, Option<ParkToken>>,
}

/// What a transaction is interrupted by: [`Transaction::interruptible`](crate::resv::Transaction::interruptible) borrows it, so
/// one transaction has it at a time.
#[derive(Debug)]
pub struct Interrupt {
    flag: Ref<Flag>,
}

/// Interrupts. Clones interrupt the same.
#[derive(Debug, Clone)]
pub struct Interrupter {
    flag: Ref<Flag>,
}

impl Interrupt {
    /// A quiet one. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new() -> Result<Self, AllocError> {
        Ok(Self { flag: Ref::try_new(Flag { raised: AtomicBool::new(false), sleeper: Lock::new(None) })? })
    }

    /// Who may interrupt it.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter { flag: self.flag.clone() }
    }

    /// Makes it quiet again; whether it was raised. Any context.
    pub fn clear(&mut self) -> bool {
        self.flag.raised.swap(false, Ordering::Relaxed)
    }

    pub(super) fn flag(&self) -> Ref<Flag> {
        self.flag.clone()
    }
}

impl Flag {
    /// The thread of `token` is about to sleep; whether it is interrupted instead.
    pub(super) fn sleeps(&self, token: &ParkToken) -> bool {
        self.sleeper.lock().get_or_insert_with(|| token.clone());
        // ORDERING: either this load comes after the lock that the interrupter leaves, or the interrupter finds the token.
        self.raised.load(Ordering::Relaxed)
    }

    /// The thread is awake.
    pub(super) fn awake(&self) {
        *self.sleeper.lock() = None;
    }
}

impl Interrupter {
    /// Raises it: a transaction that waits for a lock, now or later, fails with
    /// [`LockError::Interrupted`](crate::resv::LockError::Interrupted). Any context; never blocks.
    pub fn raise(&self) {
        self.flag.raised.store(true, Ordering::Relaxed);
        let sleeper = self.flag.sleeper.lock().clone();
        if let Some(token) = sleeper {
            sync::unpark(&token);
        }
    }
}
