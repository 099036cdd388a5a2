//! One point of a timeline: its block, from making room to the end.
#![expect(unsafe_code, reason = "links inside a container's block; docs/unsafe.md, `fence::timeline::point`")]

use super::Inner;
use super::order::Place;
use crate::fence::container::{Base, Member, Sort};
use crate::fence::state::{CONTAINER, Fence, Header, PackedLayout, Slot, State, free_block};
use crate::mem::list::Link;
use crate::mem::shared::Ref;
use crate::mem::{AllocError, free, try_alloc};
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::{self, NonNull};

/// One point's block.
#[repr(C)]
pub(super) struct Point {
    pub(super) base: Base,
    pub(super) own: Own,
}

pub(super) struct Own {
    pub(super) member: Member,
    pub(super) inner: Ref<Inner>,
    pub(super) prev: AtomicPtr<Header>,
    /// Below it in limbo.
    pub(super) under: AtomicPtr<Header>,
    /// [`Place::below`].
    pub(super) below: u64,
    pub(super) link: Link,
    /// Under the order's lock.
    pub(super) turn: UnsafeCell<Turn>,
}

pub(super) struct Turn {
    pub(super) pending: bool,
    pub(super) decided: bool,
}

/// Memory for one point.
pub(in crate::fence) struct Room {
    block: NonNull<Point>,
    packed: PackedLayout,
}

// SAFETY: memory that nobody else knows.
unsafe impl Send for Room {}
// SAFETY: as above; a reference gives nothing.
unsafe impl Sync for Room {}

impl Room {
    pub(in crate::fence) fn new() -> Result<Self, AllocError> {
        let layout = Layout::new::<Point>();
        let packed = PackedLayout::new(layout, CONTAINER).ok_or(AllocError { bytes: layout.size() })?;
        Ok(Self { block: try_alloc(layout)?.cast(), packed })
    }

    /// The point, with two counts: for what is returned, and for the timeline's head.
    pub(super) fn fill(self, place: Place, fence: &Fence, inner: &Ref<Inner>) -> Fence {
        let Self { block, packed } = *ManuallyDrop::new(self);
        let base = Base {
            header: Header::new(packed, None, AtomicU32::new(2), AtomicU64::new(place.number)),
            state: State::new(Slot::First),
            sort: Sort::Point,
            context: AtomicU64::new(place.context),
        };
        let own = Own {
            member: Member::new(block.cast(), fence.clone()),
            inner: inner.clone(),
            prev: AtomicPtr::new(ptr::null_mut()),
            under: AtomicPtr::new(ptr::null_mut()),
            below: place.below,
            link: Link::new(),
            turn: UnsafeCell::new(Turn { pending: false, decided: false }),
        };
        // SAFETY: fresh memory of this layout.
        unsafe { block.write(Point { base, own }) };
        // SAFETY: a block with one state, one of whose counts this takes over.
        unsafe { Fence::from_block(block.cast(), Slot::First) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used.
        unsafe { free(self.block.cast(), Layout::new::<Point>()) };
    }
}

/// A point that was cut off, with its count, or null.
#[must_use = "to be collected"]
pub(in crate::fence) struct Cut(pub(super) *mut Header);

impl Point {
    /// # Safety
    /// `at` is null or a point that is not freed during `'a`.
    pub(super) unsafe fn at<'a>(at: *mut Header) -> Option<&'a Self> {
        // SAFETY: the caller's promise; a point's block starts with its header.
        unsafe { at.cast::<Self>().as_ref() }
    }

    /// # Safety
    /// A [`Walk`](super::walk::Walk) of its timeline lasts through `'a`.
    pub(super) unsafe fn prev<'a>(&self) -> Option<&'a Self> {
        // ORDERING: Acquire pairs with the head's Release, through the lock of who linked it.
        // SAFETY: linked when it was read under the walk, so not freed before that ends.
        unsafe { Self::at(self.own.prev.load(Ordering::Acquire)) }
    }

    pub(super) unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: the caller got the link from a timeline's order, so it lies in a point at this offset.
        let at = unsafe { link.byte_sub(offset_of!(Self, own) + offset_of!(Own, link)) }.cast();
        // SAFETY: a point leaves the order before its block goes.
        unsafe { at.as_ref() }
    }

    pub(super) fn number(&self) -> u64 {
        self.base.header.seqno.load(Ordering::Relaxed)
    }

    pub(super) fn handle(&self) -> Fence {
        // SAFETY: alive and linked, hence counted; the handle lent here is cloned, not dropped.
        let lent = unsafe { Fence::from_block(NonNull::from(&self.base.header), Slot::First) };
        Fence::clone(&ManuallyDrop::new(lent))
    }
}

pub(super) fn own(fence: &Fence) -> &Own {
    // SAFETY: the callers have looked at the sort: a point's block.
    &unsafe { fence.header_ptr().cast::<Point>().as_ref() }.own
}

/// # Safety
/// The last handle and link of a point's block is gone.
pub(in crate::fence) unsafe fn drop_own(header: NonNull<Header>) {
    let point = header.cast::<Point>();
    // SAFETY: a point's block. Shared, because a signaller may still be looking at it.
    let own = unsafe { &(*point.as_ptr()).own };
    own.member.leave();
    {
        let mut order = own.inner.order.lock();
        // SAFETY: the lock is held.
        if unsafe { (*own.turn.get()).pending } {
            // SAFETY: in the order, and the lock is held.
            unsafe { order.leave(NonNull::from(&own.link)) };
        }
    }
    // The points before it, one after another: a chain of a million must not need a deep stack.
    let mut next = NonNull::new(own.prev.swap(ptr::null_mut(), Ordering::AcqRel));
    while let Some(before) = next.take() {
        // SAFETY: the link's count; a walker that could be on it would hold a later point than this.
        if unsafe { Fence::give_back(before, 1) } {
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
