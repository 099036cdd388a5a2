//! Timelines: points with numbers, each a fence that signals when its own fence and every point before it have.
//!
//! # States of a point
//! *pending* (in the order; *decided* once its own fence has signaled) → *signaled*, in its turn → *collected*: nothing of the
//! timeline leads to it any more; those who hold it keep it.
//!
//! # Fields
//! - `order`, under its lock: the pending points from the oldest on, what was submitted last, and `passing`: whoever set it
//!   signals the decided ones at the front, outside the lock, and others leave theirs to it. So a signal that ends a
//!   million points is a loop.
//! - `head` and each point's `prev` own a count of the point they name. They are written under the lock, and read by walkers
//!   without one. `prev` is cut when what it names has signaled; as points signal in order, that is all there is to
//!   collect.
//! - `readers` counts the walkers; a point that was cut off while there are any lies in `limbo`, with its count, until there
//!   are none. Walker and collector meet in read-modify-writes of `readers`: a collector that reads zero has cut before
//!   any later walker looks, and after all earlier ones have left. If there is a walker at every moment, limbo grows.
//!
//! # Progress
//! The lock is held for a few instructions, never across a signal, a free or foreign code. A walk takes none.
#![expect(unsafe_code, reason = "counted links, walked without a lock; docs/unsafe.md, `fence::timeline`")]

use super::array::result_of;
use super::container::{Base, ContainerError, Member, Sort};
use super::error::FenceError;
use super::state::{ARMED, CONTAINER, Fence, Header, PackedLayout, SIGNALED, Slot, State, free_block};
use crate::exec::hub::Hub;
use crate::exec::next_id;
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapBox, free, try_alloc, try_str};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, class};
use crate::time::Time;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

/// A sequence of points with growing numbers, each a [`Fence`]. Dropping it leaves the points to those who hold them.
#[derive(Debug)]
pub struct Timeline {
    inner: Ref<Inner>,
}

/// Why a timeline has no such point, or does not take one. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimelineError {
    /// No such point was submitted yet.
    NotSubmitted {
        /// The last one that was.
        last: u64,
    },
    /// Points are numbered from 1.
    Zero,
    /// It cannot be made of this fence, or not now.
    Container(ContainerError),
}

impl fmt::Display for TimelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubmitted { last } => write!(f, "nobody submitted that point yet; the last one is {last}"),
            Self::Zero => f.write_str("points are numbered from 1"),
            Self::Container(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TimelineError {}

impl From<AllocError> for TimelineError {
    fn from(error: AllocError) -> Self {
        Self::Container(error.into())
    }
}

struct Inner {
    name: HeapBox<str>,
    head: AtomicPtr<Header>,
    readers: AtomicUsize,
    limbo: AtomicPtr<Header>,
    /// The number up to which all is done.
    done: AtomicU64,
    order: Lock<class::TimelineState, Order>,
}

struct Order {
    pending: List,
    passing: bool,
    /// The context of points from here on: a new one after each that came out of turn.
    context: u64,
    last: u64,
    /// The latest time stamp so far.
    stamp: Time,
}

/// One point's block.
#[repr(C)]
struct Point {
    base: Base,
    own: Own,
}

struct Own {
    member: Member,
    inner: Ref<Inner>,
    prev: AtomicPtr<Header>,
    /// Below it in limbo.
    under: AtomicPtr<Header>,
    /// The number of the point before; 0 for the first and for one out of turn, which stands for all numbers up to its own.
    below: u64,
    link: Link,
    /// Under the order's lock.
    turn: UnsafeCell<Turn>,
}

struct Turn {
    pending: bool,
    decided: bool,
}

impl Timeline {
    /// A timeline without points, called `name`. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(name: &str) -> Result<Self, AllocError> {
        let order = Order { pending: List::new(), passing: false, context: next_id(), last: 0, stamp: Time::ZERO };
        let inner = Ref::try_new(Inner {
            name: try_str(name)?,
            head: AtomicPtr::new(ptr::null_mut()),
            readers: AtomicUsize::new(0),
            limbo: AtomicPtr::new(ptr::null_mut()),
            done: AtomicU64::new(0),
            order: Lock::new(order),
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
        let (block, packed) = room.take();
        let mut order = self.inner.order.lock();
        let in_turn = number > order.last;
        let below = if in_turn { order.last } else { 0 };
        if in_turn {
            order.last = number;
        } else {
            order.context = next_id();
        }
        let base = Base {
            // One count for the handle, one for the head.
            header: Header::new(packed, None, AtomicU32::new(2), AtomicU64::new(order.last)),
            state: State::new(Slot::First),
            sort: Sort::Point,
            context: AtomicU64::new(order.context),
        };
        let own = Own {
            member: Member::new(block.cast(), fence.clone()),
            inner: self.inner.clone(),
            prev: AtomicPtr::new(ptr::null_mut()),
            under: AtomicPtr::new(ptr::null_mut()),
            below,
            link: Link::new(),
            turn: UnsafeCell::new(Turn { pending: false, decided: false }),
        };
        // SAFETY: fresh memory of this layout.
        unsafe { block.write(Point { base, own }) };
        // SAFETY: a block with one state, one of whose counts this takes over.
        let point = unsafe { Fence::from_block(block.cast(), Slot::First) };
        let old = self.inner.publish(&mut order, &point);
        (point, Cut(old))
    }

    /// Gives up what [`Timeline::add_in`] cut off.
    pub(super) fn collect(&self, cut: Cut) {
        self.inner.retire(cut.0);
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
        self.inner.order.lock().last
    }
}

/// Memory for one point.
pub(super) struct Room {
    block: NonNull<Point>,
    packed: PackedLayout,
}

// SAFETY: memory that nobody else knows.
unsafe impl Send for Room {}
// SAFETY: as above; a reference gives nothing.
unsafe impl Sync for Room {}

/// A point that was cut off, with its count, or null.
#[must_use = "to be collected"]
pub(super) struct Cut(*mut Header);

impl Room {
    pub(super) fn new() -> Result<Self, AllocError> {
        let layout = Layout::new::<Point>();
        let packed = PackedLayout::new(layout, CONTAINER).ok_or(AllocError { bytes: layout.size() })?;
        Ok(Self { block: try_alloc(layout)?.cast(), packed })
    }

    fn take(self) -> (NonNull<Point>, PackedLayout) {
        let this = core::mem::ManuallyDrop::new(self);
        (this.block, this.packed)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used.
        unsafe { free(self.block.cast(), Layout::new::<Point>()) };
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

impl Inner {
    /// Makes `point` the head, and hangs it on its fence. Returns what was the head, if that was all done.
    fn publish(&self, order: &mut Order, point: &Fence) -> *mut Header {
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

    /// Gives up the count on a point that was cut off, once no walker can be on it.
    fn retire(&self, cut: *mut Header) {
        if cut.is_null() {
            return;
        }
        self.bury(cut);
        self.collect();
    }

    fn bury(&self, cut: *mut Header) {
        // SAFETY: in limbo or on the way there, so counted.
        let Some(point) = (unsafe { Point::at(cut) }) else { return };
        let mut top = self.limbo.load(Ordering::Relaxed);
        loop {
            point.own.under.store(top, Ordering::Relaxed);
            // ORDERING: Release publishes `under`.
            match self.limbo.compare_exchange_weak(top, cut, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Empties limbo, unless somebody walks: then the last walker does.
    fn collect(&self) {
        loop {
            let mut cut = self.limbo.swap(ptr::null_mut(), Ordering::AcqRel);
            if cut.is_null() {
                return;
            }
            // ORDERING: a read-modify-write reads the latest value, and the next walker's reads from it.
            let walked = self.readers.fetch_add(0, Ordering::AcqRel) != 0;
            // SAFETY: what is in limbo is counted.
            while let Some(point) = unsafe { Point::at(cut) } {
                let here = cut;
                cut = point.own.under.load(Ordering::Relaxed);
                if walked {
                    self.bury(here);
                } else if let Some(header) = NonNull::new(here) {
                    // SAFETY: limbo's count; no walker is on it, for it was cut off before there was none.
                    unsafe { Fence::release(header) };
                }
            }
            if !walked || self.readers.fetch_add(0, Ordering::AcqRel) != 0 {
                return;
            }
        }
    }
}

/// While it lives, no point that can be reached through links is freed.
struct Walk<'a> {
    inner: &'a Inner,
}

impl<'a> Walk<'a> {
    fn new(inner: &'a Inner) -> Self {
        // ORDERING: AcqRel: see `collect`.
        inner.readers.fetch_add(1, Ordering::AcqRel);
        Self { inner }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        // ORDERING: Release: all looks come before the collector's free.
        if self.inner.readers.fetch_sub(1, Ordering::AcqRel) == 1 && !self.inner.limbo.load(Ordering::Acquire).is_null()
        {
            self.inner.collect();
        }
    }
}

impl Point {
    /// # Safety
    /// `at` is null or a point that is not freed during `'a`.
    unsafe fn at<'a>(at: *mut Header) -> Option<&'a Self> {
        // SAFETY: the caller's promise; a point's block starts with its header.
        unsafe { at.cast::<Self>().as_ref() }
    }

    /// # Safety
    /// A [`Walk`] of its timeline lasts through `'a`.
    unsafe fn prev<'a>(&self) -> Option<&'a Self> {
        // ORDERING: Acquire pairs with the head's Release, through the lock of who linked it.
        // SAFETY: linked when it was read under the walk, so not freed before that ends.
        unsafe { Self::at(self.own.prev.load(Ordering::Acquire)) }
    }

    unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: the caller got the link from a timeline's order, so it lies in a point at this offset.
        let at = unsafe { link.byte_sub(offset_of!(Self, own) + offset_of!(Own, link)) }.cast();
        // SAFETY: a point leaves the order before its block goes.
        unsafe { at.as_ref() }
    }

    fn number(&self) -> u64 {
        self.base.header.seqno.load(Ordering::Relaxed)
    }

    fn handle(&self) -> Fence {
        // SAFETY: alive and linked, hence counted; the handle lent here is cloned, not dropped.
        let lent = unsafe { Fence::from_block(NonNull::from(&self.base.header), Slot::First) };
        Fence::clone(&core::mem::ManuallyDrop::new(lent))
    }
}

fn own(fence: &Fence) -> &Own {
    // SAFETY: the callers have looked at the sort: a point's block.
    &unsafe { fence.header_ptr().cast::<Point>().as_ref() }.own
}

pub(super) fn name(point: &Fence) -> &str {
    &own(point).inner.name
}

/// Calls `visit` for the fence of this point, then of those before it, back to the oldest that is left.
pub(super) fn contents<E>(point: &Fence, mut visit: impl FnMut(&Fence) -> Result<(), E>) -> Result<(), E> {
    let _walk = Walk::new(&own(point).inner);
    // SAFETY: held by the caller.
    let mut at = unsafe { Point::at(point.header_ptr().as_ptr()) };
    while let Some(point) = at {
        visit(&point.own.member.fence)?;
        // SAFETY: under a walk.
        at = unsafe { point.prev() };
    }
    Ok(())
}

/// Goes back from `point`, and on while `onward` says so of the next one.
fn back_from(point: &Fence, visit: impl Fn(&Fence), onward: impl Fn(&Fence) -> bool) {
    let _walk = Walk::new(&own(point).inner);
    // SAFETY: held by the caller.
    let mut at = unsafe { Point::at(point.header_ptr().as_ptr()) };
    while let Some(point) = at {
        visit(&point.own.member.fence);
        // SAFETY: under a walk.
        at = unsafe { point.prev() }.filter(|prev| onward(&prev.handle()));
    }
}

/// Arms all that `point`, which has just been armed, waits for. Before one that was armed earlier all are.
pub(super) fn arm(point: &Fence) {
    let first = |prev: &Fence| prev.state().word.fetch_or(ARMED, Ordering::AcqRel) & (ARMED | SIGNALED) == 0;
    back_from(point, Fence::arm, first);
}

/// Passes a hint on. Before a point that has an earlier one all do.
pub(super) fn deadline(point: &Fence, at: Time) {
    back_from(point, |fence| fence.set_deadline(at), |prev| prev.lower_deadline(at));
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
pub(super) fn advance(point: &Fence, hub: &Ref<Hub>) {
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
        inner.retire(cut);
        let Some(Next { fence, number, result, at }) = next else { return };
        // ORDERING: Release: see `Timeline::signaled`. Before the signal, so that who sees that sees this.
        inner.done.store(number, Ordering::Release);
        if let Some(fence) = fence {
            fence.signal(result, at, hub);
        }
        order = inner.order.lock();
    }
}

/// # Safety
/// The last handle and link of a point's block is gone.
pub(super) unsafe fn drop_own(header: NonNull<Header>) {
    let point = header.cast::<Point>();
    // SAFETY: a point's block. Shared, because a signaller may still be looking at it.
    let own = unsafe { &(*point.as_ptr()).own };
    own.member.leave();
    {
        let mut order = own.inner.order.lock();
        // SAFETY: the lock is held.
        if unsafe { (*own.turn.get()).pending } {
            // SAFETY: in the order, and the lock is held.
            unsafe { order.pending.remove(NonNull::from(&own.link)) };
        }
    }
    // The points before it, one after another: a chain of a million must not need a deep stack.
    let mut next = NonNull::new(own.prev.swap(ptr::null_mut(), Ordering::AcqRel));
    while let Some(before) = next.take() {
        // SAFETY: the link's count; a walker that could be on it would hold a later point than this.
        if unsafe { Fence::give_back(before) } {
            // SAFETY: that was the last one, so this side alone knows the block.
            let prev = unsafe { &(*before.cast::<Point>().as_ptr()).own.prev };
            next = NonNull::new(prev.swap(ptr::null_mut(), Ordering::AcqRel));
            // SAFETY: as above.
            unsafe { free_block(before) };
        }
    }
    // SAFETY: a point's block.
    let own = unsafe { &raw mut (*point.as_ptr()).own };
    // SAFETY: the last access to it.
    unsafe { own.drop_in_place() };
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} done up to {}", self.name, self.done.load(Ordering::Relaxed))
    }
}
