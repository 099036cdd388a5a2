//! The order in which points signal: each after its own fence and every point before it.
//!
//! All under the timeline's lock. Whoever sets `passing` signals the decided ones at the front, outside the lock, and others
//! leave theirs to it. So a signal that ends a million points is a loop.
#![expect(unsafe_code, reason = "an intrusive order; docs/unsafe.md, `fence::timeline::order`")]

use super::Inner;
use super::point::{Point, own};
use crate::exec::hub::Hub;
use crate::exec::next_id;
use crate::fence::array::result_of;
use crate::fence::error::FenceError;
use crate::fence::state::{Fence, Header};
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use core::ptr::{self, NonNull};

/// The points that have not signaled, from the oldest on.
pub(super) struct Order {
    pending: List,
    passing: bool,
    /// The context of points from here on: a new one after each that came out of turn.
    context: u64,
    last: u64,
    /// The latest time stamp so far.
    stamp: Time,
}

/// Where a point comes.
pub(super) struct Place {
    pub(super) context: u64,
    pub(super) number: u64,
    /// The number of the point before; 0 for the first and for one out of turn, which stands for all numbers up to its own.
    pub(super) below: u64,
}

impl Order {
    pub(super) fn new() -> Self {
        Self { pending: List::new(), passing: false, context: next_id(), last: 0, stamp: Time::ZERO }
    }

    /// The number of the last point; 0 before the first.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The next point is to be `number`.
    pub(super) fn place(&mut self, number: u64) -> Place {
        let in_turn = number > self.last;
        let below = if in_turn { self.last } else { 0 };
        if in_turn {
            self.last = number;
        } else {
            self.context = next_id();
        }
        Place { context: self.context, number: self.last, below }
    }

    /// # Safety
    /// `link` is a point's in this order, whose lock is held.
    pub(super) unsafe fn leave(&mut self, link: NonNull<Link>) {
        // SAFETY: the caller's promise.
        unsafe { self.pending.remove(link) };
    }
}

impl Inner {
    /// Makes `point` the head, and hangs it on its fence. Returns what was the head, if that was all done.
    pub(super) fn publish(&self, order: &mut Order, point: &Fence) -> *mut Header {
        let own = own(point);
        let idle = order.pending.is_empty() && !order.passing;
        let old = self.head.load(Ordering::Relaxed);
        if !idle {
            own.prev.store(old, Ordering::Relaxed);
        }
        let in_turn = idle || sabotage::is(Sabotage::PointOutOfTurn);
        // SAFETY: idle, in the point's block; `drop_own` takes it off. Quiet, so no foreign code runs under the lock.
        let hung = unsafe { own.member.hang() };
        // SAFETY: the lock is held.
        let turn = unsafe { &mut *own.turn.get() };
        turn.decided = !hung;
        if let Some((result, at)) = result_of(&own.member.fence).filter(|_| in_turn && !hung) {
            order.stamp = order.stamp.max(at);
            self.done.store(point.seqno(), Ordering::Release);
            point.signal_unseen(result, order.stamp);
        } else {
            turn.pending = true;
            // SAFETY: in no list; taken out before its block goes; the lock is held.
            unsafe { order.pending.push_back(NonNull::from(&own.link)) };
        }
        // ORDERING: Release publishes the block.
        self.head.store(point.header_ptr().as_ptr(), Ordering::Release);
        if idle { old } else { ptr::null_mut() }
    }
}

/// What leaves the order to be signaled.
struct Next {
    /// `None` if it is dying.
    fence: Option<Fence>,
    number: u64,
    result: Result<(), FenceError>,
    at: Time,
}

impl Order {
    /// Cuts off what precedes the front: it has signaled.
    fn cut(&self) -> *mut Header {
        let Some(link) = self.pending.front() else { return ptr::null_mut() };
        // SAFETY: in the order, whose lock is held.
        let front = unsafe { Point::from_link(link) };
        // ORDERING: Release: comes before the collector's look at the walkers.
        front.own.prev.swap(ptr::null_mut(), Ordering::AcqRel)
    }

    /// Takes the front out, if its own fence has signaled.
    fn pop(&mut self) -> Option<Next> {
        let link = self.pending.front()?;
        // SAFETY: in the order, whose lock is held.
        let point = unsafe { Point::from_link(link) };
        // SAFETY: the lock is held.
        let turn = unsafe { &mut *point.own.turn.get() };
        let forced = sabotage::is(Sabotage::PointWithoutFence).then_some((Ok(()), self.stamp));
        if !turn.decided && forced.is_none() {
            return None;
        }
        let (result, at) = result_of(&point.own.member.fence).or(forced)?;
        // SAFETY: the front, and the lock is held.
        unsafe { self.pending.remove(link) };
        turn.pending = false;
        self.stamp = self.stamp.max(at);
        // SAFETY: a dying point needs the lock to go.
        let fence = unsafe { Fence::from_maybe_dying(NonNull::from(&point.base.header)) };
        Some(Next { fence, number: point.number(), result, at: self.stamp })
    }
}

/// The own fence of `point` has signaled: signals what is in its turn now, unless somebody is at it.
pub(in crate::fence) fn advance(point: &Fence, hub: &Ref<Hub>) {
    let own = own(point);
    let inner = &own.inner;
    let mut order = inner.order.lock();
    // SAFETY: the lock is held.
    unsafe { (*own.turn.get()).decided = true };
    if order.passing {
        return;
    }
    order.passing = true;
    loop {
        let cut = order.cut();
        let next = order.pop();
        order.passing = next.is_some();
        drop(order);
        inner.walkers.retire(cut);
        let Some(Next { fence, number, result, at }) = next else { return };
        // ORDERING: Release: see `Timeline::signaled`. Before the signal, so that who sees that sees this.
        inner.done.store(number, Ordering::Release);
        if let Some(fence) = fence {
            fence.signal(result, at, hub);
        }
        order = inner.order.lock();
    }
}
