//! Timelines: points with numbers, each a fence that signals when its own fence and every point before it have.
//!
//! # States of a point
//! *pending* (in the order; *decided* once its own fence has signaled) → *signaled*, in its turn → *collected*: nothing of the
//! timeline leads to it any more; those who hold it keep it.
//!
//! # Fields
//! - `order`, under its lock: the pending points, and who signals them (`order`).
//! - `head` and each point's `prev` own a count of the point they name (`point`). They are written under the lock, and read by
//!   walkers without one (`walk`). `prev` is cut when what it names has signaled; as points signal in order, that is all there is
//!   to collect.
//!
//! # Progress
//! The lock is held for a few instructions, never across a signal, a free or foreign code. A walk takes none.
#![expect(unsafe_code, reason = "makes points and hands them out; docs/unsafe.md, `fence::timeline`")]

mod error;
mod order;
mod point;
mod walk;

use super::container::{ContainerError, Sort};
use super::state::{Fence, Header};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapBox, try_str};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::sync::{Lock, class};
use core::fmt;
use core::ptr::{self, NonNull};
pub use error::TimelineError;
use order::Order;
pub(super) use order::advance;
pub(super) use point::{Cut, Room, drop_own};
use point::{Point, own};
use walk::{Walk, Walkers};
pub(super) use walk::{arm, contents, deadline};

/// A sequence of points with growing numbers, each a [`Fence`]. Dropping it leaves the points to those who hold them.
#[derive(Debug)]
pub struct Timeline {
    inner: Ref<Inner>,
}

struct Inner {
    name: HeapBox<str>,
    head: AtomicPtr<Header>,
    walkers: Walkers,
    /// The number up to which all is done.
    done: AtomicU64,
    order: Lock<class::TimelineState, Order>,
}

impl Timeline {
    /// A timeline without points, called `name`. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(name: &str) -> Result<Self, AllocError> {
        let inner = Ref::try_new(Inner {
            name: try_str(name)?,
            head: AtomicPtr::new(ptr::null_mut()),
            walkers: Walkers::new(),
            done: AtomicU64::new(0),
            order: Lock::new(Order::new()),
        })?;
        Ok(Self { inner })
    }

    /// Adds point `number`, which signals when `fence` and every earlier point have: with `fence`'s own result, and the latest
    /// of the time stamps. A number not above the last one's makes a point *out of turn*: it takes the last one's number,
    /// in a context of its own, and stands for all numbers up to that. Allocates.
    ///
    /// # Errors
    /// [`TimelineError::Zero`]; [`ContainerError::Nested`] if `fence` is a point itself: [`Fence::merge`] makes one
    /// fence of what it waits for; no memory.
    pub fn add(&self, number: u64, fence: &Fence) -> Result<Fence, TimelineError> {
        if number == 0 {
            return Err(TimelineError::Zero);
        }
        if fence.sort() == Some(Sort::Point) {
            return Err(TimelineError::Container(ContainerError::Nested));
        }
        let (point, old) = self.add_in(Room::new()?, number, fence);
        self.collect(old);
        Ok(point)
    }

    /// As [`Timeline::add`], but allocates nothing, and leaves to the caller what can be collected. Number 0 on a timeline
    /// without points makes a point before the first. `fence` is no point.
    pub(super) fn add_in(&self, room: Room, number: u64, fence: &Fence) -> (Fence, Cut) {
        debug_assert_ne!(fence.sort(), Some(Sort::Point), "points are flat");
        let mut order = self.inner.order.lock();
        let place = order.place(number);
        let point = room.fill(place, fence, &self.inner);
        let old = self.inner.publish(&mut order, &point);
        (point, Cut(old))
    }

    /// Gives up what [`Timeline::add_in`] cut off.
    pub(super) fn collect(&self, cut: Cut) {
        self.inner.walkers.retire(cut.0);
    }

    /// The newest point, pending or not; `None` before the first.
    pub(super) fn newest(&self) -> Option<Fence> {
        let _walk = Walk::new(&self.inner);
        // SAFETY: under a walk, the head is whole.
        unsafe { Point::at(self.inner.head.load(Ordering::Acquire)) }.map(Point::handle)
    }

    /// The fence of point `number`, or of the next one there is, if that number was left out. `None`: it has signaled and
    /// was collected; so has 0. Takes no lock and allocates nothing; any context.
    ///
    /// # Errors
    /// [`TimelineError::NotSubmitted`].
    pub fn find(&self, number: u64) -> Result<Option<Fence>, TimelineError> {
        if number == 0 {
            return Ok(None);
        }
        let _walk = Walk::new(&self.inner);
        // SAFETY: under a walk, the head is whole.
        let mut at = unsafe { Point::at(self.inner.head.load(Ordering::Acquire)) };
        let last = at.map_or(0, Point::number);
        if number > last {
            return Err(TimelineError::NotSubmitted { last });
        }
        while let Some(point) = at {
            let exact = sabotage::is(Sabotage::ExactPointOnly);
            if point.own.below < number && (!exact || point.number() == number) {
                return Ok(Some(point.handle()));
            }
            // SAFETY: under a walk.
            at = unsafe { point.prev() };
        }
        Ok(None)
    }

    /// The number up to which all points have signaled.
    #[must_use]
    pub fn signaled(&self) -> u64 {
        // ORDERING: Acquire: who reads a number sees what came before those points' signals.
        self.inner.done.load(Ordering::Acquire)
    }

    /// The number of the last point that was added; 0 before the first.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.inner.order.lock().last()
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        let head = self.inner.head.swap(ptr::null_mut(), Ordering::AcqRel);
        if let Some(head) = NonNull::new(head) {
            // SAFETY: the head's count. Nobody walks from it: this is the only handle.
            unsafe { Fence::release(head) };
        }
    }
}

pub(super) fn name(point: &Fence) -> &str {
    &own(point).inner.name
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} done up to {}", self.name, self.done.load(Ordering::Relaxed))
    }
}
