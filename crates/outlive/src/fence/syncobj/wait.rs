//! Waits for points of sync objects: one block for any number of them, inside a user fence. `make` makes them.
//!
//! # States of an entry
//! *not submitted* (in its object's line) → *found*: it has been given what was submitted, for good; later changes of the
//! object do not reach it → *done*: what it found has signaled, or that it was submitted was all it was for.
//!
//! # Fields
//! - An entry's `found` and `line` are under its object's lock until `found` is set; it is set once and only read after.
//! - `left` as in an array: *all*: how many entries are not done, and the maker; *any*: the index of the first.
//!
//! # Who keeps whom
//! A wait counts its objects; they do not count it. It goes with its last handle, which takes it out of every line and
//! off every fence; an object that gives it something takes a count of it under the object's lock, unless it is dying.
#![expect(unsafe_code, reason = "entries behind a block's head; docs/unsafe.md, `fence::syncobj::wait`")]

use super::cell::{InLine, Inner, Line};
use crate::exec::hub::Hub;
use crate::exec::object::Object;
use crate::fence::array::result_of;
use crate::fence::container::{Base, MemberNode};
use crate::fence::error::FenceError;
use crate::fence::state::{ARMED, Fence, Header};
use crate::mem::list::Link;
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::time::Time;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;

/// A wait's head. Its entries follow.
#[repr(C)]
pub(super) struct Wait {
    pub(super) base: Base,
    pub(super) own: Own,
}

pub(super) struct Own {
    pub(super) left: AtomicUsize,
    pub(super) all: bool,
    /// That it was submitted is enough.
    pub(super) available: bool,
    /// Changed by the maker only.
    pub(super) len: usize,
}

pub(super) const NONE: usize = usize::MAX;

/// One of the points that are waited for.
#[repr(C)]
pub(super) struct Entry {
    pub(super) at: MemberNode,
    pub(super) link: Link,
    pub(super) object: Object<Inner>,
    pub(super) number: u64,
    pub(super) line: UnsafeCell<Line>,
    pub(super) found: UnsafeCell<Option<Found>>,
}

// SAFETY: the cells and the link are touched under the object's lock, or only read, as the module says.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// What an entry has found.
#[derive(Clone)]
pub(super) enum Found {
    /// This fence; `None`: one that has signaled and was collected.
    Submitted(Option<Fence>),
    /// Nothing, and nobody is left who could submit it.
    Abandoned,
}

/// An entry that has found something and whose wait is to be told.
pub(super) struct Told {
    wait: Fence,
    entry: NonNull<Entry>,
}

impl Entry {
    unsafe fn of<'a>(link: InLine) -> &'a Self {
        // SAFETY: the caller got the link from an object's line, so it lies in an entry at this offset.
        let at = unsafe { link.byte_sub(offset_of!(Self, link)) }.cast();
        // SAFETY: a wait leaves the line before its block goes, for which it needs the lock the caller holds.
        unsafe { at.as_ref() }
    }

    /// # Safety
    /// `link` is in a line whose lock is held.
    pub(super) unsafe fn number(link: InLine) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { Self::of(link) }.number
    }

    /// Gives it what was submitted.
    ///
    /// # Safety
    /// As for [`Entry::number`]; it moves to the second list.
    pub(super) unsafe fn give(link: InLine, found: Found) {
        // SAFETY: the caller's promise.
        let entry = unsafe { Self::of(link) };
        // SAFETY: under the object's lock, and not set yet.
        unsafe { *entry.found.get() = Some(found) };
        // SAFETY: under the object's lock.
        unsafe { *entry.line.get() = Line::Found };
    }

    /// It was taken out of the second list: whom to tell, unless that is dying.
    ///
    /// # Safety
    /// It was in a line whose lock is held.
    pub(super) unsafe fn leave_line(link: InLine) -> Option<Told> {
        // SAFETY: the caller's promise.
        let entry = unsafe { Self::of(link) };
        // SAFETY: under the object's lock.
        unsafe { *entry.line.get() = Line::Out };
        // SAFETY: a dying wait needs the lock to go.
        let wait = unsafe { Fence::from_maybe_dying(entry.at.container()) }?;
        Some(Told { wait, entry: NonNull::from(entry) })
    }

    /// What it has found, if it has.
    fn found(&self) -> Option<Found> {
        let _held = self.object.lock();
        // SAFETY: the object's lock is held.
        unsafe { (*self.found.get()).clone() }
    }

    /// Whether what it has found is still there.
    fn is_current(&self) -> bool {
        let now = self.object.payload().find(self.number).ok().flatten();
        matches!(self.found(), Some(Found::Submitted(found)) if found == now)
    }

    fn result(&self, hub: &Ref<Hub>) -> (Result<(), FenceError>, Time) {
        match self.found() {
            Some(Found::Submitted(Some(fence))) => result_of(&fence).unwrap_or((Ok(()), hub.now())),
            Some(Found::Abandoned) => (Err(FenceError::Canceled), hub.now()),
            Some(Found::Submitted(None)) | None => (Ok(()), hub.now()),
        }
    }
}

impl Told {
    pub(super) fn tell(self, hub: &Ref<Hub>) {
        // SAFETY: in the block of the wait, which the handle keeps.
        let entry = unsafe { self.entry.as_ref() };
        proceed(&self.wait, entry, hub);
    }
}

/// An entry has found something: waits for that, or is done.
pub(super) fn proceed(wait: &Fence, entry: &Entry, hub: &Ref<Hub>) {
    let found = entry.found();
    let enough = own(wait).available || sabotage::is(Sabotage::SubmittedIsSignaled);
    if let (false, Some(Found::Submitted(Some(fence)))) = (enough, &found) {
        // SAFETY: idle, in the wait's block; `drop_own` takes it off.
        if unsafe { entry.at.hang(fence) } {
            // Whoever waits already has told only those entries that had found something by then.
            if wait.word() & ARMED != 0 {
                fence.arm();
            }
            if let Some(at) = wait.deadline() {
                fence.set_deadline(at);
            }
            return;
        }
    }
    done(wait, entry, hub);
}

/// An entry is done.
fn done(wait: &Fence, entry: &Entry, hub: &Ref<Hub>) {
    let own = own(wait);
    if own.all {
        return one_less(wait, hub);
    }
    let index = entries(wait).iter().position(|one| core::ptr::eq(one, entry)).unwrap_or(NONE);
    // ORDERING: Release: who reads the index sees what that entry found.
    if own.left.compare_exchange(NONE, index, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        let (result, at) = if available(own, entry) { (Ok(()), hub.now()) } else { entry.result(hub) };
        wait.signal(result, at, hub);
    }
}

/// One of what must come before the end of a wait for all has.
pub(super) fn one_less(wait: &Fence, hub: &Ref<Hub>) {
    // ORDERING: AcqRel: the last one sees what the others found.
    let before = own(wait).left.fetch_sub(1, Ordering::AcqRel);
    let last = before == 1 || (before == 2 && sabotage::is(Sabotage::WaitForAllButOne));
    if last && !(sabotage::is(Sabotage::ForgetSnapshot) && entries(wait).iter().any(|entry| !entry.is_current())) {
        end_all(wait, hub);
    }
}

/// Whether that something was submitted is the entry's whole result.
fn available(own: &Own, entry: &Entry) -> bool {
    own.available && !matches!(entry.found(), Some(Found::Abandoned))
}

/// All entries are done: the first error in order, the latest time stamp.
fn end_all(wait: &Fence, hub: &Ref<Hub>) {
    let own = own(wait);
    let mut all = (Ok(()), Time::ZERO);
    for entry in entries(wait) {
        let (result, at) = if available(own, entry) { (Ok(()), hub.now()) } else { entry.result(hub) };
        all = (all.0.and(result), all.1.max(at));
    }
    wait.signal(all.0, all.1, hub);
}

fn head(wait: &Fence) -> &Wait {
    // SAFETY: the callers have looked at the sort: a wait's block.
    unsafe { wait.header_ptr().cast::<Wait>().as_ref() }
}

pub(super) fn own(wait: &Fence) -> &Own {
    &head(wait).own
}

pub(super) fn entries(wait: &Fence) -> &[Entry] {
    // SAFETY: a wait's block, in which entries follow the head.
    let first = unsafe { wait.header_ptr().cast::<Wait>().add(1) }.cast();
    // SAFETY: that many follow.
    unsafe { core::slice::from_raw_parts(first.as_ptr(), own(wait).len) }
}

/// The entry that ended a wait for any.
pub(super) fn first(wait: &Fence) -> Option<usize> {
    let own = own(wait);
    // ORDERING: Acquire pairs with the exchange in `done`.
    Some(own.left.load(Ordering::Acquire)).filter(|index| !own.all && *index != NONE)
}

/// On the clock of its objects' executor.
pub(super) fn now(wait: &Fence) -> Time {
    entries(wait).first().map_or(Time::ZERO, |entry| entry.object.hub().now())
}

fn each_found(wait: &Fence, visit: impl Fn(&Fence)) {
    for entry in entries(wait) {
        if let Some(Found::Submitted(Some(fence))) = entry.found() {
            visit(&fence);
        }
    }
}

/// Tells the producers of what was found that somebody waits.
pub(in crate::fence) fn arm(wait: &Fence) {
    if !own(wait).available {
        each_found(wait, Fence::arm);
    }
}

/// Passes a hint on to what was found; what is found later gets it then.
pub(in crate::fence) fn deadline(wait: &Fence, at: Time) {
    each_found(wait, |fence| fence.set_deadline(at));
}

/// # Safety
/// `at` starts an entry of `wait`, and what it hung on has signaled.
pub(in crate::fence) unsafe fn advance(wait: &Fence, at: NonNull<MemberNode>, hub: &Ref<Hub>) {
    // SAFETY: in the block, which the handle keeps.
    let entry = unsafe { at.cast::<Entry>().as_ref() };
    if !sabotage::is(Sabotage::ForgetSnapshot) || entry.is_current() {
        done(wait, entry, hub);
    }
}

/// # Safety
/// The last handle of a wait's block is gone.
pub(in crate::fence) unsafe fn drop_own(header: NonNull<Header>) {
    let wait = header.cast::<Wait>();
    // SAFETY: a wait's block.
    let len = unsafe { (*wait.as_ptr()).own.len };
    // SAFETY: as many entries follow the head.
    let first = unsafe { wait.add(1).cast::<Entry>() };
    // SAFETY: as above. Shared, because an object or a signaller may still be looking at an entry.
    for entry in unsafe { core::slice::from_raw_parts(first.as_ptr(), len) } {
        leave(entry);
    }
    // SAFETY: neither objects nor signallers know them any more.
    unsafe { core::ptr::slice_from_raw_parts_mut(first.as_ptr(), len).drop_in_place() };
    // SAFETY: a wait's block.
    let own = unsafe { &raw mut (*wait.as_ptr()).own };
    // SAFETY: the last access to it.
    unsafe { own.drop_in_place() };
}

/// Takes an entry out of its object's line, and off what it found.
fn leave(entry: &Entry) {
    let found = {
        let mut held = entry.object.lock();
        // SAFETY: the object's lock is held.
        let line = unsafe { core::mem::replace(&mut *entry.line.get(), Line::Out) };
        let link = NonNull::from(&entry.link);
        match line {
            // SAFETY: its line says that it is in this list, whose lock is held.
            Line::Waiting => unsafe { held.waiting.remove(link) },
            // SAFETY: as above.
            Line::Found => unsafe { held.found.remove(link) },
            Line::Out => {}
        }
        // SAFETY: the object's lock is held.
        unsafe { (*entry.found.get()).clone() }
    };
    if let Some(Found::Submitted(Some(fence))) = found {
        entry.at.leave(&fence);
    }
}
