//! A context's order: fences signal in the order of their publication, and a watchdog sees to those whose producer does not.
//!
//! The order, the next number and the timer are under the context's lock. Whoever sets `passing` signals the decided ones
//! at the front outside the lock; others leave theirs to it, so a signal from inside a callback does not recurse.
#![expect(unsafe_code, reason = "an intrusive order; docs/unsafe.md, `fence::context::order`")]

use super::bare::{Bare, decide_alone};
use crate::check;
use crate::exec::hub::Urgency;
use crate::exec::node::{LaneNode, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::exec::timer::Timer;
use crate::exec::{Executor, Lane};
use crate::fence::error::FenceError;
use crate::fence::state::{ContextInfo, Fence, Slot};
use crate::mem::AllocError;
use crate::mem::list::List;
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use crate::sync::{self, Lock, class};
use crate::time::Time;
use crate::trace::Event;
use core::fmt;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::NonNull;
use core::time::Duration;

#[repr(C)]
pub(super) struct ContextInner {
    pub(super) header: ObjectHeader,
    pub(super) info: Ref<ContextInfo>,
    watchdog: Duration,
    /// The watchdog's time begins with [`Signaler::start_clock`](super::Signaler::start_clock), not with the publication.
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

impl ContextInner {
    pub(super) fn make(
        executor: &Executor,
        info: Ref<ContextInfo>,
        watchdog: Duration,
        clock_later: bool,
    ) -> Result<Object<Self>, AllocError> {
        let hub = executor.hub();
        Object::try_new(hub, |header| {
            let timer = hub.timers.register()?;
            Ok(Self {
                header,
                info,
                watchdog,
                clock_later,
                work: LaneNode::new(Task::Run(watch)),
                state: Lock::new(Order { pending: List::new(), last_seqno: 0, passing: false, timer }),
            })
        })
    }

    pub(super) fn now(&self) -> Time {
        self.header.hub().now()
    }

    /// Gives a fence that was just allocated the next number, and starts its watchdog.
    pub(super) fn publish(&self, fence: &Fence) {
        let hub = self.header.hub();
        let now = hub.now();
        let bare = Bare::of(fence);
        let kick = {
            let mut order = self.state.lock();
            order.last_seqno += 1;
            // ORDERING: the number is published with the handle itself.
            bare.header.seqno.store(order.last_seqno, Ordering::Relaxed);
            // SAFETY: the context's lock is held.
            unsafe { (*bare.producer.get()).since = if self.clock_later { Time::NEVER } else { now } };
            // The order's own count.
            core::mem::forget(fence.clone());
            // SAFETY: a fresh block is in no list; its count keeps it in place; the lock is held.
            unsafe { order.pending.push_back(NonNull::from(&bare.link)) };
            !self.clock_later && self.arm(&mut order, now.after(self.watchdog))
        };
        if kick {
            hub.kick(Lane::Signalling);
        }
    }

    /// The watchdog's time begins for `fence`, the only pending one of a context whose clocks run later.
    pub(super) fn start_clock(&self, fence: &Fence) {
        let hub = self.header.hub();
        let now = hub.now();
        let kick = {
            let mut order = self.state.lock();
            // SAFETY: the context's lock is held.
            unsafe { (*Bare::of(fence).producer.get()).since = now };
            self.arm(&mut order, now.after(self.watchdog))
        };
        if kick {
            hub.kick(Lane::Signalling);
        }
    }

    /// Gives the result and tells that it did; false if there is one.
    pub(super) fn decide(
        &self,
        fence: &Fence,
        result: Result<(), FenceError>,
        at: Time,
        tell: impl FnOnce(&Fence),
    ) -> bool {
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
