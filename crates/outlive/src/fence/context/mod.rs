//! `FenceContext` and `Signaler`: bare fences, numbered in the order of their publication.
//!
//! # States of a fence here
//! *allocated* ([`Unpublished`]: memory only, no number) → *pending* (in the context's order, its watchdog running) →
//! *decided* (its producer, the producer's drop, or the watchdog gave a result; one compare-exchange says who) →
//! *signaled*, in its turn.
//!
//! # Guarantee
//! Fences of one context signal in sequence order: a result given out of turn is held until its predecessors have
//! signaled, which the watchdog makes finite. Each signals exactly once.
//!
//! # Who may touch what
//! What a context has is in `order`, a fence's block in `bare`; here are the handles, which have no state of their own.

mod bare;
mod order;

use super::error::FenceError;
use super::hook::Hook;
use super::state::{ContextInfo, Fence};
use crate::check;
use crate::exec::object::Object;
use crate::exec::{Executor, next_id};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, try_str};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::AtomicBool;
use crate::time::Time;
pub(super) use bare::{allocate_alone, decide_alone};
use core::time::Duration;
use order::ContextInner;

/// How long a producer may take, 10 s, if nothing else was chosen; also the most that can be.
pub const WATCHDOG_DEFAULT: Duration = Duration::from_secs(10);

/// The names of a fence context.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Who issues ("driver name" of `dma_fence`).
    pub driver: &'a str,
    /// What for ("timeline name").
    pub timeline: &'a str,
}

/// Issues bare fences, numbered from 1. Dropping it does not touch the fences it issued; each has its own producer.
#[derive(Debug)]
pub struct FenceContext {
    inner: Object<ContextInner>,
}

pub(crate) fn info(
    executor: &Executor,
    names: Names<'_>,
    client: u64,
    device: u64,
    order: u64,
    base: u64,
) -> Result<Ref<ContextInfo>, AllocError> {
    Ref::try_new(ContextInfo {
        base,
        client,
        device,
        order,
        driver: try_str(names.driver)?,
        timeline: try_str(names.timeline)?,
        ident: executor.hub().ident.clone(),
        quarantined: AtomicBool::new(false),
    })
}

impl FenceContext {
    /// A context on `executor`, whose producers have [`WATCHDOG_DEFAULT`]. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(executor: &Executor, names: Names<'_>) -> Result<Self, AllocError> {
        Self::with_watchdog(executor, names, WATCHDOG_DEFAULT)
    }

    /// A context whose producers must signal within `watchdog` of publication; else their fence fails with
    /// [`FenceError::TimedOut`] and a report. At most [`WATCHDOG_DEFAULT`]: every fence is finite.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn with_watchdog(executor: &Executor, names: Names<'_>, watchdog: Duration) -> Result<Self, AllocError> {
        Self::make(executor, names, watchdog, false)
    }

    /// A context whose producers' time begins when somebody waits for their fence: preempt fences.
    pub(crate) fn with_clock_later(executor: &Executor, names: Names<'_>) -> Result<Self, AllocError> {
        Self::make(executor, names, WATCHDOG_DEFAULT, true)
    }

    fn make(executor: &Executor, names: Names<'_>, watchdog: Duration, clock_later: bool) -> Result<Self, AllocError> {
        let info = info(executor, names, 0, 0, 0, next_id())?;
        Ok(Self { inner: ContextInner::make(executor, info, watchdog.min(WATCHDOG_DEFAULT), clock_later)? })
    }

    /// Memory for one fence: nothing is published and no number is taken. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn allocate(&self) -> Result<Unpublished, AllocError> {
        let fence = bare::allocate(self.inner.info.clone())?;
        Ok(Unpublished { fence, inner: self.inner.clone() })
    }

    /// The context's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.info.base
    }
}

/// Memory of a fence that is not published. Dropping it leaves no trace and no hole in the numbers.
#[derive(Debug)]
#[must_use = "publish it, or drop it without a trace"]
pub struct Unpublished {
    fence: Fence,
    inner: Object<ContextInner>,
}

impl Unpublished {
    /// Lets the producer hear of the first waiter and of deadlines.
    pub fn with_hook(self, hook: Hook) -> Self {
        self.fence.attach(hook);
        self
    }

    /// Takes the next number and starts the watchdog. Cannot fail; any context; does not allocate or block.
    #[track_caller]
    pub fn publish(self) -> (Signaler, Fence) {
        let _section = check::signalling();
        let Self { fence, inner } = self;
        inner.publish(&fence);
        check::published(&fence);
        (Signaler { fence: Some(fence.clone()), inner }, fence)
    }
}

/// The right and the duty to signal one fence. Unique; used up by signalling. Dropping it signals
/// [`FenceError::Canceled`]; forgetting it leaves the fence to its watchdog.
#[derive(Debug)]
#[must_use = "dropping it signals `Canceled`"]
pub struct Signaler {
    fence: Option<Fence>,
    inner: Object<ContextInner>,
}

impl Signaler {
    /// Gives the result, now. In its turn among the context's fences it signals, here or where a predecessor does. Any
    /// context, interrupts included; never blocks or allocates. Late, after the watchdog, it changes nothing.
    pub fn signal(self, result: Result<(), FenceError>) {
        let at = self.inner.now();
        self.signal_at(result, at);
    }

    /// As [`Signaler::signal`], with the hardware's own time on the executor's clock.
    pub fn signal_at(mut self, result: Result<(), FenceError>, at: Time) {
        if let Some(fence) = self.fence.take() {
            self.inner.decide(&fence, result, at, |_| ());
        }
    }

    /// In a context of [`FenceContext::with_clock_later`], with one pending fence at a time: its watchdog's time begins.
    pub(crate) fn start_clock(&self) {
        let Some(fence) = &self.fence else { return };
        self.inner.start_clock(fence);
    }

    /// The fence this will signal.
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }
}

impl Drop for Signaler {
    fn drop(&mut self) {
        if let Some(fence) = self.fence.take() {
            let at = self.inner.now();
            self.inner.decide(&fence, Err(FenceError::Canceled), at, |fence| {
                // Counted by this and by the context's order.
                if check::ON && fence.count() > 2 {
                    check::dropped(fence);
                }
            });
        }
        if sabotage::is(Sabotage::KeepIssuer) {
            core::mem::forget(self.inner.clone());
        }
    }
}
