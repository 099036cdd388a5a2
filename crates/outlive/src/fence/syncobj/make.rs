//! A wait for points being made: a head and room for so many entries, filled one after another, then told.
#![expect(unsafe_code, reason = "entries behind a block's head; docs/unsafe.md, `fence::syncobj::make`")]

use super::cell::{Inner, Line};
use super::wait::{Entry, Found, NONE, Own, Wait, entries, one_less, own, proceed};
use crate::exec::object::Object;
use crate::fence::container::{Base, MemberNode, Sort};
use crate::fence::state::{CONTAINER, Fence, Header, PackedLayout, Slot, State};
use crate::mem::list::Link;
use crate::mem::{AllocError, try_alloc};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::time::Time;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// A wait being made: room for as many entries as it was made for.
pub(super) struct Maker {
    block: NonNull<Wait>,
    capacity: usize,
}

impl Maker {
    /// `first` lends its names.
    pub(super) fn new(capacity: usize, all: bool, available: bool, first: Option<&Inner>) -> Result<Self, AllocError> {
        let room = capacity.checked_mul(size_of::<Entry>()).and_then(|room| room.checked_add(size_of::<Wait>()));
        let bytes = room.ok_or(AllocError { bytes: usize::MAX })?;
        let layout = Layout::from_size_align(bytes, align_of::<Wait>()).map_err(|_| AllocError { bytes })?;
        let packed = PackedLayout::new(layout, CONTAINER).ok_or(AllocError { bytes })?;
        let block = try_alloc(layout)?.cast::<Wait>();
        let base = Base {
            header: Header::new(packed, first.map(|first| first.info.clone()), AtomicU32::new(1), AtomicU64::new(1)),
            state: State::new(Slot::First),
            sort: Sort::Wait,
            context: AtomicU64::new(0),
        };
        let own = Own { left: AtomicUsize::new(NONE), all, available, len: 0 };
        // SAFETY: fresh memory, large enough and aligned: an entry's alignment is not larger than the head's.
        unsafe { block.write(Wait { base, own }) };
        Ok(Self { block, capacity })
    }

    /// Adds an entry, with what it has found if it has.
    pub(super) fn push(&mut self, object: Object<Inner>, number: u64, found: Option<Found>) {
        // SAFETY: nobody else knows the block.
        let own = unsafe { &mut (*self.block.as_ptr()).own };
        assert!(own.len < self.capacity, "as many entries as it was made for");
        // SAFETY: a head and room for as many entries as the capacity says are one block.
        let first = unsafe { self.block.add(1) }.cast::<Entry>();
        // SAFETY: within the capacity.
        let at = unsafe { first.add(own.len) };
        let entry = Entry {
            at: MemberNode::new(self.block.cast()),
            link: Link::new(),
            object,
            number,
            line: UnsafeCell::new(Line::Out),
            found: UnsafeCell::new(found),
        };
        // SAFETY: as above; not in use.
        unsafe { at.write(entry) };
        own.len += 1;
    }

    /// The wait. From here on entries may find something, and be done.
    pub(super) fn finish(self) -> Fence {
        let wait = self.into_fence();
        let own = own(&wait);
        let Some(hub) = entries(&wait).first().map(|entry| entry.object.hub()) else {
            wait.signal_unseen(Ok(()), Time::ZERO);
            return wait;
        };
        if own.all {
            // One count more, so that the end is the maker's, or comes after all entries were looked at.
            // ORDERING: nobody counts yet; registration publishes it.
            own.left.store(own.len + 1, Ordering::Relaxed);
        }
        for entry in entries(&wait) {
            if stand_in_line(entry) {
                proceed(&wait, entry, hub);
            }
            if !own.all && wait.is_signaled() {
                break;
            }
        }
        if own.all {
            one_less(&wait, hub);
        }
        wait.clone()
    }

    fn into_fence(self) -> Fence {
        let header = ManuallyDrop::new(self).block.cast();
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

/// Puts an entry that has found nothing in its object's line; true if it has found something.
fn stand_in_line(entry: &Entry) -> bool {
    let mut held = entry.object.lock();
    // SAFETY: the object's lock is held.
    let found = unsafe { &mut *entry.found.get() };
    if found.is_some() {
        return true;
    }
    if let Ok(now) = held.payload.find(entry.number) {
        *found = Some(Found::Submitted(now));
        return true;
    }
    // SAFETY: the object's lock is held.
    unsafe { *entry.line.get() = Line::Waiting };
    // SAFETY: in no list; taken out before its block goes; the lock is held.
    unsafe { held.waiting.push_back(NonNull::from(&entry.link)) };
    false
}
