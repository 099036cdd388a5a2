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
//! # Fields
//! The order, the next number and the timer are under the context's lock. Whoever sets `passing` signals the decided ones
//! at the front outside the lock; others leave theirs to it, so a signal from inside a callback does not recurse.
#![expect(unsafe_code, reason = "an intrusive order; docs/unsafe.md, `fence::context`")]

use super::error::FenceError;
use super::hook::Hook;
use super::state::{ContextInfo, Fence, Header, PackedLayout, Slot, State};
use crate::check;
use crate::exec::Lane;
use crate::exec::hub::Urgency;
use crate::exec::node::{LaneNode, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::exec::timer::Timer;
use crate::exec::{Executor, next_id};
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, try_alloc, try_str};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{self, Lock, class};
use crate::time::Time;
use crate::trace::Event;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::NonNull;
use core::time::Duration;

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

#[repr(C)]
struct ContextInner {
    header: ObjectHeader,
    info: Ref<ContextInfo>,
    watchdog: Duration,
    /// The watchdog's time begins with [`Signaler::start_clock`], not with the publication.
    clock_later: bool,
    work: LaneNode,
    state: Lock<class::ContextState, Order>,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for ContextInner {}

#[derive(Debug)]
struct Order {
    pending: List,
    last_seqno: u64,
    passing: bool,
    timer: Timer,
}

/// A bare fence's block: 64 bytes of fence, then what its producer keeps.
#[repr(C)]
struct Bare {
    header: Header,
    state: State,
    link: Link,
    decided: AtomicU32,
    /// Both under the context's lock.
    producer: UnsafeCell<Produced>,
}

#[derive(Clone, Copy)]
struct Produced {
    /// Since when its watchdog runs; `NEVER`: not yet.
    since: Time,
    result: Option<(Result<(), FenceError>, Time)>,
}

const SEQNO_NONE: u64 = 0;

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

/// A bare block with one count. Its number is set at publication.
fn allocate(info: Ref<ContextInfo>) -> Result<NonNull<Bare>, AllocError> {
    let layout = Layout::new::<Bare>();
    let packed = PackedLayout::new(layout, 1).ok_or(AllocError { bytes: layout.size() })?;
    let block = try_alloc(layout)?.cast::<Bare>();
    let bare = Bare {
        header: Header::new(packed, Some(info), AtomicU32::new(1), AtomicU64::new(SEQNO_NONE)),
        state: State::new(Slot::First),
        link: Link::new(),
        decided: AtomicU32::new(0),
        producer: UnsafeCell::new(Produced { since: Time::ZERO, result: None }),
    };
    // SAFETY: fresh memory of this layout.
    unsafe { block.write(bare) };
    Ok(block)
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
        let hub = executor.hub();
        let inner = Object::try_new(hub, |header| {
            let timer = hub.timers.register()?;
            Ok::<_, AllocError>(ContextInner {
                header,
                info,
                watchdog: watchdog.min(WATCHDOG_DEFAULT),
                clock_later,
                work: LaneNode::new(Task::Run(watch)),
                state: Lock::new(Order { pending: List::new(), last_seqno: 0, passing: false, timer }),
            })
        })?;
        Ok(Self { inner })
    }

    /// Memory for one fence: nothing is published and no number is taken. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn allocate(&self) -> Result<Unpublished, AllocError> {
        let block = allocate(self.inner.info.clone())?;
        // SAFETY: a fresh block with one count, which the handle takes over.
        let fence = unsafe { Fence::from_block(block.cast(), Slot::First) };
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
        let hub = inner.header.hub().clone();
        let now = hub.now();
        let bare = Bare::of(&fence);
        let kick = {
            let mut order = inner.state.lock();
            order.last_seqno += 1;
            // ORDERING: the number is published with the handle itself.
            bare.header.seqno.store(order.last_seqno, Ordering::Relaxed);
            // SAFETY: the context's lock is held.
            unsafe { (*bare.producer.get()).since = if inner.clock_later { Time::NEVER } else { now } };
            // The order's own count.
            core::mem::forget(fence.clone());
            // SAFETY: a fresh block is in no list; its count keeps it in place; the lock is held.
            unsafe { order.pending.push_back(NonNull::from(&bare.link)) };
            !inner.clock_later && inner.arm(&mut order, now.after(inner.watchdog))
        };
        if kick {
            hub.kick(Lane::Signalling);
        }
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
        let at = self.inner.header.hub().now();
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
        let hub = self.inner.header.hub();
        let now = hub.now();
        let kick = {
            let mut order = self.inner.state.lock();
            // SAFETY: the context's lock is held.
            unsafe { (*Bare::of(fence).producer.get()).since = now };
            self.inner.arm(&mut order, now.after(self.inner.watchdog))
        };
        if kick {
            hub.kick(Lane::Signalling);
        }
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
            let at = self.inner.header.hub().now();
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

impl Bare {
    /// The block of a bare fence.
    fn of(fence: &Fence) -> &Self {
        // SAFETY: bare fences are made by `allocate` only, and the header is the block's first field; the borrow keeps the
        // handle, hence the block, alive.
        unsafe { fence.header_ptr().cast::<Self>().as_ref() }
    }

    unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: the caller got the link from a context's order, so it lies in a block at this offset.
        let at = unsafe { link.byte_sub(offset_of!(Self, link)) }.cast();
        // SAFETY: the order's count keeps the block alive.
        unsafe { at.as_ref() }
    }
}

/// Decides bare fence `fence`; false if somebody else has.
pub(super) fn decide_alone(fence: &Fence) -> bool {
    // ORDERING: only the exchange matters; the result travels under a lock or in the signal itself.
    Bare::of(fence).decided.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// A block for a fence that belongs to no order.
pub(super) fn allocate_alone(info: Ref<ContextInfo>, seqno: u64) -> Result<Fence, AllocError> {
    let block = allocate(info)?;
    // SAFETY: fresh, with one count, which the handle takes over.
    let fence = unsafe { Fence::from_block(block.cast(), Slot::First) };
    fence.header().seqno.store(seqno, Ordering::Relaxed);
    Ok(fence)
}

impl ContextInner {
    /// Gives the result and tells that it did; false if there is one.
    fn decide(&self, fence: &Fence, result: Result<(), FenceError>, at: Time, tell: impl FnOnce(&Fence)) -> bool {
        if !decide_alone(fence) {
            return false;
        }
        // Only what was decided here is told, and before it is signaled.
        tell(fence);
        let _section = check::signalling();
        if sabotage::is(Sabotage::SignalOutOfOrder) {
            fence.signal(result, at, self.header.hub());
        }
        let order = self.state.lock();
        // SAFETY: the context's lock is held.
        let produced = unsafe { &mut *Bare::of(fence).producer.get() };
        produced.result = Some((result, at));
        check::took(fence, at.since(produced.since).as_nanos());
        self.pass(order);
        true
    }

    /// Signals the decided fences at the front, unless somebody is at it.
    fn pass<'a>(&'a self, mut order: sync::Guard<'a, class::ContextState, Order>) {
        if order.passing {
            return;
        }
        order.passing = true;
        while let Some(link) = order.pending.front() {
            // SAFETY: in the order.
            let bare = unsafe { Bare::from_link(link) };
            // SAFETY: the context's lock is held.
            let Some((result, at)) = (unsafe { (*bare.producer.get()).result }) else { break };
            // SAFETY: it is the front, and the lock is held.
            unsafe { order.pending.remove(link) };
            // SAFETY: takes over the order's count on the block.
            let fence = unsafe { Fence::from_block(NonNull::from(&bare.header), Slot::First) };
            drop(order);
            fence.signal(result, at, self.header.hub());
            drop(fence);
            order = self.state.lock();
        }
        order.passing = false;
    }

    fn arm(&self, order: &mut Order, at: Time) -> bool {
        if sabotage::is(Sabotage::NoWatchdog) {
            return false;
        }
        self.header.hub().timers.arm(&mut order.timer, at, NonNull::from(&self.header), fire)
    }

    /// The watchdog: fails what its producer let go by, oldest first, and arms for the next.
    fn expire(&self) {
        let hub = self.header.hub();
        let now = hub.now();
        loop {
            let mut order = self.state.lock();
            hub.timers.fired(&mut order.timer, now);
            let Some((bare, since)) = order.first_undecided() else { return };
            let due = since.after(self.watchdog);
            if due > now {
                self.arm(&mut order, due);
                return;
            }
            // SAFETY: the order's count keeps it alive; the handle lent here is cloned, not dropped.
            let lent = unsafe { Fence::from_block(NonNull::from(&bare.header), Slot::First) };
            let fence = Fence::clone(&ManuallyDrop::new(lent));
            drop(order);
            if self.decide(&fence, Err(FenceError::TimedOut), now, check::expired) {
                hub.trace(|| Event::WatchdogExpired { fence: fence.id() });
            }
        }
    }
}

impl Order {
    /// The oldest fence without a result, and since when its watchdog runs. Others before it are decided: somebody is about to
    /// signal them.
    fn first_undecided<'a>(&self) -> Option<(&'a Bare, Time)> {
        let mut at = self.pending.front();
        while let Some(link) = at {
            // SAFETY: in the order, whose lock is held.
            let bare = unsafe { Bare::from_link(link) };
            // SAFETY: as above.
            let produced = unsafe { *bare.producer.get() };
            // ORDERING: a producer that has just decided gives its result under the lock next.
            if produced.result.is_none() && bare.decided.load(Ordering::Relaxed) == 0 {
                return Some((bare, produced.since));
            }
            // SAFETY: in the order, whose lock is held.
            at = unsafe { self.pending.next(link) };
        }
        None
    }
}

/// Under the timers' lock: queues the watchdog's work, if the context is still alive.
unsafe fn fire(owner: NonNull<ObjectHeader>) {
    // SAFETY: the timers' lock keeps the owner's memory: it takes its timer out under it.
    let Some(inner) = (unsafe { Object::<ContextInner>::from_maybe_dying(owner.cast()) }) else { return };
    let item = NonNull::from(&inner.work);
    let hub = inner.header.hub().clone();
    // SAFETY: the count forgotten by the claim keeps the item in place until `watch` takes it over.
    unsafe { hub.schedule(Lane::Signalling, item, Urgency::Now, || core::mem::forget(inner.clone())) };
}

/// On the signalling lane: the watchdog's work.
unsafe fn watch(item: NonNull<LaneNode>) {
    let _section = check::signalling();
    // SAFETY: `item` is the field `work` of a context, counted when it was queued.
    let inner = unsafe { item.byte_sub(offset_of!(ContextInner, work)) }.cast::<ContextInner>();
    // SAFETY: takes over that count.
    let inner = unsafe { Object::from_raw(inner) };
    inner.expire();
}

impl Drop for ContextInner {
    fn drop(&mut self) {
        // Each pending fence's signaler counts this, so none is left, unless one was forgotten: then this is not reached.
        let mut order = self.state.lock();
        self.header.hub().timers.unregister(&mut order.timer);
    }
}

impl fmt::Debug for ContextInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextInner({})", self.info.base)
    }
}
