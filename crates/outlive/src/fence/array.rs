//! Arrays: all of several fences, or any of them.
//!
//! # States
//! *being made* (its maker alone has it; `left` holds one count more than members are pending) → *pending* → *signaled*, by
//! whoever takes `left` to zero (all), or by the first to put its index into `left` (any). A member may signal while the
//! array is being made: then its signaller counts, and the maker's own count keeps the end to the maker, or loses to it.
//!
//! # Results
//! *All*: the error of the first member, in order, that has one, else `Ok`; the latest of the time stamps. *Any*: the result
//! and the time stamp of the first member to signal.
#![expect(unsafe_code, reason = "members behind a block's head; docs/unsafe.md, `fence::array`")]

use super::container::{Base, ContainerError, Member, Part, Sort};
use super::error::FenceError;
use super::state::{CONTAINER, Fence, Header, PackedLayout, Slot, State};
use super::status::Status;
use crate::exec::hub::Hub;
use crate::exec::next_id;
use crate::mem::shared::Ref;
use crate::mem::{AllocError, try_alloc};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::time::Time;
use core::alloc::Layout;
use core::ptr::NonNull;

/// An array's head. Its members follow.
#[repr(C)]
struct Array {
    base: Base,
    own: Own,
}

struct Own {
    /// All: how many members are pending, and the maker. Any: the index of the first to signal, or [`NONE`].
    left: AtomicUsize,
    /// How many members follow. Changed by the maker only.
    len: usize,
}

const NONE: usize = usize::MAX;

/// An array being made: the block and room for `capacity` members.
pub(super) struct Maker {
    block: NonNull<Array>,
    capacity: usize,
}

impl Maker {
    pub(super) fn new(sort: Sort, capacity: usize) -> Result<Self, AllocError> {
        let room = capacity.checked_mul(size_of::<Member>()).and_then(|room| room.checked_add(size_of::<Array>()));
        let bytes = room.ok_or(AllocError { bytes: usize::MAX })?;
        let layout = Layout::from_size_align(bytes, align_of::<Array>()).map_err(|_| AllocError { bytes })?;
        let packed = PackedLayout::new(layout, CONTAINER).ok_or(AllocError { bytes })?;
        let block = try_alloc(layout)?.cast::<Array>();
        let base = Base {
            header: Header::new(packed, None, AtomicU32::new(1), AtomicU64::new(1)),
            state: State::new(Slot::First),
            sort,
            context: AtomicU64::new(next_id()),
        };
        // SAFETY: fresh memory, large enough and aligned: a member's alignment is not larger than the head's.
        unsafe { block.write(Array { base, own: Own { left: AtomicUsize::new(NONE), len: 0 } }) };
        Ok(Self { block, capacity })
    }

    /// Adds a member.
    pub(super) fn push(&mut self, fence: &Fence) -> Result<(), ContainerError> {
        if fence.is_container() {
            return Err(ContainerError::Nested);
        }
        // SAFETY: nobody else knows the block.
        let own = unsafe { &mut (*self.block.as_ptr()).own };
        if own.len == self.capacity {
            return Err(AllocError { bytes: size_of::<Member>() }.into());
        }
        // SAFETY: a head and room for as many members as the capacity says are one block.
        let first = unsafe { self.block.add(1) }.cast::<Member>();
        // SAFETY: within the capacity.
        let at = unsafe { first.add(own.len) };
        // SAFETY: as above; not in use.
        unsafe { at.write(Member::new(self.block.cast(), fence.clone())) };
        own.len += 1;
        Ok(())
    }

    /// The members so far. None hangs on its fence yet, so they may be moved.
    pub(super) fn members_mut(&mut self) -> &mut [Member] {
        // SAFETY: nobody else knows the block.
        let len = unsafe { (*self.block.as_ptr()).own.len };
        // SAFETY: as in `push`.
        let first = unsafe { self.block.add(1) }.cast();
        // SAFETY: as many were written behind the head.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), len) }
    }

    /// Keeps the first `len` members.
    pub(super) fn truncate(&mut self, len: usize) {
        let drop: *mut [Member] = &raw mut self.members_mut()[len..];
        // SAFETY: nobody else knows the block.
        unsafe { (*self.block.as_ptr()).own.len = len };
        // SAFETY: beyond the new end, so dropped once.
        unsafe { drop.drop_in_place() };
    }

    /// The array. From here on members may signal.
    pub(super) fn finish(self) -> Fence {
        let fence = self.into_fence();
        let array = array(&fence);
        if array.base.sort == Sort::All {
            finish_all(&fence, &array.own)
        } else {
            finish_any(&fence, &array.own)
        }
        fence
    }

    fn into_fence(self) -> Fence {
        let header = core::mem::ManuallyDrop::new(self).block.cast();
        // SAFETY: a block with one state, whose only count this takes over.
        unsafe { Fence::from_block(header, Slot::First) }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // SAFETY: as in `into_fence`: a block that was not finished ends like any other.
        drop(unsafe { Fence::from_block(self.block.cast(), Slot::First) });
    }
}

fn finish_all(fence: &Fence, own: &Own) {
    // ORDERING: nobody counts yet; registration publishes it.
    own.left.store(own.len + 1, Ordering::Relaxed);
    let mut signaled = 1;
    for member in members(fence) {
        // SAFETY: idle, in the block; `drop_own` takes it off.
        if !unsafe { member.hang() } {
            signaled += 1;
        }
    }
    if own.left.fetch_sub(signaled, Ordering::AcqRel) == signaled {
        let (result, at) = all_results(fence);
        fence.signal_unseen(result, at);
    }
}

fn finish_any(fence: &Fence, own: &Own) {
    for (index, member) in members(fence).iter().enumerate() {
        // SAFETY: as in `finish_all`.
        if !unsafe { member.hang() } {
            if let Some((result, at)) = win(own, index, member) {
                fence.signal_unseen(result, at);
            }
            return;
        }
    }
}

/// Makes `member` the first to have signaled, if it is.
fn win(own: &Own, index: usize, member: &Member) -> Option<(Result<(), FenceError>, Time)> {
    // ORDERING: Release: who reads the winner's index has seen the array signal, or nothing of it.
    own.left.compare_exchange(NONE, index, Ordering::AcqRel, Ordering::Relaxed).ok()?;
    result_of(&member.fence)
}

pub(super) fn result_of(fence: &Fence) -> Option<(Result<(), FenceError>, Time)> {
    let Status::Signaled(result) = fence.status() else { return None };
    Some((result, fence.timestamp().unwrap_or(Time::ZERO)))
}

/// Of an array all of whose members have signaled.
fn all_results(fence: &Fence) -> (Result<(), FenceError>, Time) {
    let mut all = (Ok(()), Time::ZERO);
    for (result, at) in members(fence).iter().filter_map(|member| result_of(&member.fence)) {
        all = (all.0.and(result), all.1.max(at));
    }
    all
}

fn array(fence: &Fence) -> &Array {
    // SAFETY: the callers have looked at the sort: an array's block.
    unsafe { fence.header_ptr().cast::<Array>().as_ref() }
}

/// The members of an array; of other fences, none.
pub(super) fn members(fence: &Fence) -> &[Member] {
    if !matches!(fence.sort(), Some(Sort::All | Sort::Any)) {
        return &[];
    }
    // SAFETY: an array's block, in which members follow the head.
    let first = unsafe { fence.header_ptr().cast::<Array>().add(1) }.cast();
    // SAFETY: that many follow.
    unsafe { core::slice::from_raw_parts(first.as_ptr(), array(fence).own.len) }
}

/// The member whose result an array of "any" shows.
pub(super) fn winner(any: &Fence) -> Option<&Fence> {
    let index = array(any).own.left.load(Ordering::Acquire);
    members(any).get(index).map(|member| &member.fence)
}

/// # Safety
/// `at` is one of the members of `fence`, an array, and its own fence has signaled.
pub(super) unsafe fn advance(fence: &Fence, at: NonNull<Member>, hub: &Ref<Hub>) {
    let array = array(fence);
    if array.base.sort == Sort::All {
        // ORDERING: AcqRel: the last one sees what came before all the others' signals.
        let before = array.own.left.fetch_sub(1, Ordering::AcqRel);
        if before == 1 || (before == 2 && sabotage::is(Sabotage::ArrayBeforeLast)) {
            let (result, stamp) = all_results(fence);
            fence.signal(result, stamp, hub);
        }
        return;
    }
    let first: *const Member = members(fence).as_ptr();
    // SAFETY: one of the members, the caller's promise, so both are in one allocation.
    let index = unsafe { at.as_ptr().cast_const().offset_from(first) }.unsigned_abs();
    // SAFETY: as above.
    if let Some((result, stamp)) = win(&array.own, index, unsafe { at.as_ref() }) {
        fence.signal(result, stamp, hub);
    }
}

/// # Safety
/// The last handle of an array's block is gone.
pub(super) unsafe fn drop_own(header: NonNull<Header>) {
    let array = header.cast::<Array>();
    // SAFETY: an array's block.
    let len = unsafe { (*array.as_ptr()).own.len };
    // SAFETY: as many members follow the head.
    let first = unsafe { array.add(1).cast::<Member>() };
    // SAFETY: as above. Shared, because a signaller may still be looking at a member.
    unsafe { core::slice::from_raw_parts(first.as_ptr(), len) }.iter().for_each(Member::leave);
    // SAFETY: no signaller knows them any more.
    unsafe { core::ptr::slice_from_raw_parts_mut(first.as_ptr(), len).drop_in_place() };
    // SAFETY: an array's block.
    let own = unsafe { &raw mut (*array.as_ptr()).own };
    // SAFETY: the last access to it.
    unsafe { own.drop_in_place() };
}

impl Fence {
    /// A fence that signals once all of `fences` have: with the error of the first, in order, that failed, else `Ok`, at the
    /// time of the last. Every member is kept, those that have signaled too, for their errors and for
    /// [`Fence::for_each_leaf`]; [`Fence::merge`] is the cheaper one, if all one wants is to wait. Arrays and points among
    /// `fences` are replaced by what they are made of. One member is returned as it is; none at all is done at once.
    /// Otherwise allocates. Its context is its own; its number is 1.
    ///
    /// # Errors
    /// [`ContainerError::Nested`] for an array of "any" beside others, [`ContainerError::OutOfMemory`].
    pub fn all_of(fences: &[Self]) -> Result<Self, ContainerError> {
        Self::all_of_each(fences.iter())
    }

    pub(super) fn all_of_each<'a>(fences: impl Iterator<Item = &'a Self> + Clone) -> Result<Self, ContainerError> {
        let mut count = 0;
        let mut one = None;
        for fence in fences.clone() {
            fence.parts(&mut |part| {
                let (Part::Leaf(fence) | Part::Any(fence)) = part;
                count += 1;
                one = (count == 1).then(|| fence.clone());
                Ok::<(), ContainerError>(())
            })?;
        }
        if let Some(one) = one {
            return Ok(one);
        }
        let mut maker = Maker::new(Sort::All, count)?;
        for fence in fences {
            fence.parts(&mut |part| {
                let (Part::Leaf(fence) | Part::Any(fence)) = part;
                maker.push(fence)
            })?;
        }
        Ok(maker.finish())
    }

    /// A fence that signals with the first of `fences` that does, with its result and at its time; if several have, the lowest
    /// in order. The others may still be pending then: where memory is to be touched, ask each. Arrays of "any" among
    /// `fences` are replaced by their members. One member is returned as it is. Otherwise allocates.
    ///
    /// # Errors
    /// [`ContainerError::Empty`], [`ContainerError::Nested`] for other containers among several,
    /// [`ContainerError::OutOfMemory`].
    pub fn any_of(fences: &[Self]) -> Result<Self, ContainerError> {
        if let [one] = fences {
            return Ok(one.clone());
        }
        let width = |fence: &Self| if fence.sort() == Some(Sort::Any) { members(fence).len() } else { 1 };
        let count = fences.iter().map(width).sum();
        if count == 0 {
            return Err(ContainerError::Empty);
        }
        let mut maker = Maker::new(Sort::Any, count)?;
        for fence in fences {
            if fence.sort() == Some(Sort::Any) {
                members(fence).iter().try_for_each(|member| maker.push(&member.fence))?;
            } else {
                maker.push(fence)?;
            }
        }
        Ok(maker.finish())
    }
}
