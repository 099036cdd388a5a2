//! A bare fence's block: the fence, then what its producer keeps. One compare-exchange on `decided` says whose result counts.
#![expect(unsafe_code, reason = "blocks found by header or link; docs/unsafe.md, `fence::context::bare`")]

use crate::fence::error::FenceError;
use crate::fence::state::{ContextInfo, Fence, Header, PackedLayout, Slot, State};
use crate::mem::list::Link;
use crate::mem::shared::Ref;
use crate::mem::{AllocError, try_alloc};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::time::Time;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;

/// A bare fence's block: 64 bytes of fence, then what its producer keeps.
#[repr(C)]
pub(super) struct Bare {
    pub(super) header: Header,
    state: State,
    pub(super) link: Link,
    pub(super) decided: AtomicU32,
    /// Both under the context's lock.
    pub(super) producer: UnsafeCell<Produced>,
}

#[derive(Clone, Copy)]
pub(super) struct Produced {
    /// Since when its watchdog runs; `NEVER`: not yet.
    pub(super) since: Time,
    pub(super) result: Option<(Result<(), FenceError>, Time)>,
}

const SEQNO_NONE: u64 = 0;

/// A bare fence. Its number is set at publication.
pub(super) fn allocate(info: Ref<ContextInfo>) -> Result<Fence, AllocError> {
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
    // SAFETY: a fresh block with one count, which the handle takes over.
    Ok(unsafe { Fence::from_block(block.cast(), Slot::First) })
}

impl Bare {
    /// The block of a bare fence.
    pub(super) fn of(fence: &Fence) -> &Self {
        // SAFETY: bare fences are made by `allocate` only, and the header is the block's first field; the borrow keeps the
        // handle, hence the block, alive.
        unsafe { fence.header_ptr().cast::<Self>().as_ref() }
    }

    pub(super) unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: the caller got the link from a context's order, so it lies in a block at this offset.
        let at = unsafe { link.byte_sub(offset_of!(Self, link)) }.cast();
        // SAFETY: the order's count keeps the block alive.
        unsafe { at.as_ref() }
    }
}

/// Decides bare fence `fence`; false if somebody else has.
pub(in crate::fence) fn decide_alone(fence: &Fence) -> bool {
    // ORDERING: only the exchange matters; the result travels under a lock or in the signal itself.
    Bare::of(fence).decided.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// A fence that belongs to no order.
pub(in crate::fence) fn allocate_alone(info: Ref<ContextInfo>, seqno: u64) -> Result<Fence, AllocError> {
    let fence = allocate(info)?;
    fence.header().seqno.store(seqno, Ordering::Relaxed);
    Ok(fence)
}
