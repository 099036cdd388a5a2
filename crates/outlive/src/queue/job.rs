//! A job's one block of memory: its three fences, what the queue keeps of it, two dependency nodes, and the payload.
//!
//! # Layout
//! `[Header][State × 3][JobCore][payload]`, `repr(C)`. Nothing in front of the payload has the driver's type, so the queue
//! works on [`JobCore`]s and a fence frees the block by the layout stored in its header.
//!
//! # Stages
//! ```text
//! reserved ──commit──▶ waiting ──start──▶ running ─┐
//!    └─commit_when─▶ pending ──▶ waiting ──────────┴▶ finished ──▶ retired ──▶ reaped
//! ```
//! *Reserved* belongs to its `Reserved`, with three counts of the block: the lists', the one of the handle that `commit` gives
//! out, and its completion's, which reaping gives back if the job never started. From *pending* on it is in one of its
//! queue's lists. *Reaped*: the payload was dropped, the queue is let go, and the block points to no driver code or data any
//! more: only fences keep it.
//!
//! # Fields
//! - `link`, `cells`: under the queue's lock, except that `busy` lends the payload to a driver call outside it.
//! - `queue`: counted from reservation to reaping. Whoever may still need it after another might reap the job takes a count
//!   of its own first; `waiting` and `settled` hold reaping back (see `pass`).
//! - `nodes`, `more`: the owner's until committed; then each is its fence's registration, or resolved and empty.
#![expect(unsafe_code, reason = "a typed tail behind an untyped head; docs/unsafe.md, `queue::job`")]

use super::deps::{self, DepNode, MoreNode};
use super::disposal::Disposal;
use super::shared::QueueShared;
use crate::exec::object::Object;
use crate::fence::{Fence, Header, PackedLayout, Slot, State};
use crate::mem::list::Link;
use crate::mem::{AllocError, HeapBox, try_alloc};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::time::Time;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::NonNull;

/// How many dependency nodes are inside the block.
pub(crate) const INLINE_NODES: usize = 2;

/// The untyped part of a job.
#[repr(C)]
pub(crate) struct JobCore {
    pub(crate) link: Link,
    queue: UnsafeCell<Option<Object<QueueShared>>>,
    drop_payload: unsafe fn(NonNull<Self>),
    pub(crate) disposal: Disposal,
    /// Unresolved dependencies, and one more until it is committed.
    pub(crate) waiting: AtomicU32,
    cells: UnsafeCell<Cells>,
    /// The newest job of its own queue it depends on.
    pub(crate) own: UnsafeCell<Option<Fence>>,
    pub(crate) nodes: [DepNode; INLINE_NODES],
    pub(crate) more: UnsafeCell<Option<HeapBox<[MoreNode]>>>,
}

/// What changes under the queue's lock.
#[derive(Debug)]
pub(crate) struct Cells {
    pub(crate) stage: Stage,
    pub(crate) flags: Flags,
    pub(crate) step: Step,
    pub(crate) credits: u32,
    pub(crate) bytes: u64,
    /// Its timeout before it starts, as nanoseconds; then when that is over; once settled, how long it was on the hardware,
    /// as nanoseconds, if it was. In stage *pending*: until when it may wait.
    pub(crate) due: Time,
    /// While it waits for its turn with an arbiter: when it was committed.
    pub(crate) started: Time,
    /// When the hardware, or whoever decided, was done.
    pub(crate) ended: Time,
}

/// Where a job is: see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Reserved,
    Pending,
    Waiting,
    Running,
}

/// Yes-or-no facts of a job.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each set once")]
pub(crate) struct Flags {
    /// A driver call has the payload.
    pub(crate) busy: bool,
    /// `scheduled` has signaled, or is about to, with `Ok`.
    pub(crate) scheduled: bool,
    /// Credits were returned and the queue knows that the hardware is done, or never began.
    pub(crate) settled: bool,
    /// Some dependency was left to the hardware: its error is looked up at the end.
    pub(crate) native: bool,
    /// An error of the own-queue dependency fails this one.
    pub(crate) own_fails: bool,
    /// Some node of it names, or may come to name, a fence. Does not change after the reservation.
    pub(crate) nodes: bool,
    /// Holds what `acquire` took.
    pub(crate) acquired: bool,
    /// Its time was up, and the hardware still has it: counted by its queue.
    pub(crate) overdue: bool,
    /// Its principal was blamed for it.
    pub(crate) offence: bool,
}

/// How far the library has gone to get a running job off the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `due` is its timeout.
    Running,
    /// Decided; `due` is the end of its drain time.
    Draining,
    /// `cancel` was called; `due` is when that has failed.
    Canceling,
    /// Left to the device's recovery, which has its own watchdog.
    Resetting,
}

/// A whole block for payloads of type `P`.
#[repr(C)]
struct JobBlock<P> {
    header: Header,
    states: [State; 3],
    core: JobCore,
    payload: UnsafeCell<ManuallyDrop<P>>,
}

/// From the block's start to the core; the same for every payload, whose alignment is at most that of the block's start.
const CORE_OFFSET: usize = offset_of!(JobBlock<()>, core);

/// What a fresh block is counted for: see the module.
const COUNTS: u32 = 3;

/// A job's block, with `payload` in it and [`COUNTS`]; or `payload` back.
pub(crate) fn allocate<P>(
    queue: Object<QueueShared>,
    payload: P,
    cells: Cells,
    more: Option<HeapBox<[MoreNode]>>,
) -> Result<NonNull<JobCore>, (AllocError, P)> {
    let layout = Layout::new::<JobBlock<P>>().pad_to_align();
    let error = AllocError { bytes: layout.size() };
    // A payload aligned to more than the words before it would move the core behind padding of its own.
    if offset_of!(JobBlock<P>, core) != CORE_OFFSET {
        return Err((error, payload));
    }
    let Some(packed) = PackedLayout::new(layout, 3) else { return Err((error, payload)) };
    let raw = match try_alloc(layout) {
        Ok(raw) => raw.cast::<JobBlock<P>>(),
        Err(error) => return Err((error, payload)),
    };
    let info = queue.info.clone();
    let core = JobCore {
        link: Link::new(),
        queue: UnsafeCell::new(Some(queue)),
        drop_payload: drop_payload::<P>,
        disposal: Disposal::new(),
        waiting: AtomicU32::new(1),
        cells: UnsafeCell::new(cells),
        own: UnsafeCell::new(None),
        nodes: [DepNode::new(0), DepNode::new(1)],
        more: UnsafeCell::new(more),
    };
    let block = JobBlock {
        header: Header::new(packed, Some(info), AtomicU32::new(COUNTS), AtomicU64::new(0)),
        states: [State::new(Slot::First), State::new(Slot::Finished), State::new(Slot::Retired)],
        core,
        payload: UnsafeCell::new(ManuallyDrop::new(payload)),
    };
    // SAFETY: fresh memory of this layout.
    unsafe { raw.write(block) };
    // SAFETY: inside the block.
    let core = unsafe { raw.byte_add(CORE_OFFSET) }.cast::<JobCore>();
    let mut fresh = core;
    // SAFETY: fresh and not shared yet.
    let more = unsafe { fresh.as_mut() }.more.get_mut().as_deref_mut();
    for node in more.into_iter().flatten() {
        node.set_job(core);
    }
    Ok(core)
}

/// Bytes of a job without its payload.
pub(crate) const JOB_BYTES: usize = size_of::<JobBlock<()>>();

impl JobCore {
    /// The block's header.
    pub(crate) fn header(at: NonNull<Self>) -> NonNull<Header> {
        // SAFETY: cores are only made inside blocks, at this offset.
        unsafe { at.byte_sub(CORE_OFFSET) }.cast()
    }

    /// The payload of a job made with a `P`.
    pub(crate) fn payload<P>(at: NonNull<Self>) -> NonNull<P> {
        // SAFETY: the payload lies in the same block.
        unsafe { Self::header(at).byte_add(offset_of!(JobBlock<P>, payload)) }.cast()
    }

    /// The handle on `finished` that goes to who reserved the job.
    ///
    /// # Safety
    /// Called once for a job, by its owner, who gives it up.
    pub(crate) unsafe fn first_fence(at: NonNull<Self>) -> Fence {
        // SAFETY: a job's block has all three, and was made with a count for this.
        unsafe { Fence::from_block(Self::header(at), Slot::Finished) }
    }

    /// One of its fences, lent: no count is taken.
    ///
    /// # Safety
    /// The block is alive while the result is.
    pub(crate) unsafe fn lend(at: NonNull<Self>, slot: Slot) -> ManuallyDrop<Fence> {
        // SAFETY: a job's block has all three, alive by the caller's promise.
        ManuallyDrop::new(unsafe { Fence::from_block(Self::header(at), slot) })
    }

    /// The job of one of its fences.
    pub(crate) fn of(fence: &Fence) -> NonNull<Self> {
        debug_assert!(fence.is_jobs(), "a bare fence belongs to no job");
        // SAFETY: a job's block has its core at this offset.
        unsafe { fence.header_ptr().byte_add(CORE_OFFSET) }.cast()
    }

    /// Takes one more count of the block.
    pub(crate) fn retain(at: NonNull<Self>) {
        // SAFETY: the caller has the job, hence its block.
        let lent = unsafe { Self::lend(at, Slot::First) };
        core::mem::forget(Fence::clone(&lent));
    }

    /// Gives a count of the block back.
    ///
    /// # Safety
    /// The count is the caller's.
    pub(crate) unsafe fn release(at: NonNull<Self>) {
        // SAFETY: the caller's promise.
        unsafe { Fence::release(Self::header(at)) };
    }

    pub(crate) fn from_link(link: NonNull<Link>) -> NonNull<Self> {
        // The link is the first field.
        link.cast()
    }

    /// # Safety
    /// The block is alive, and the queue's lock is held, or the caller is the only owner (reserved, or taken out of a list).
    pub(crate) unsafe fn cells<'a>(at: NonNull<Self>) -> &'a mut Cells {
        // SAFETY: alive by the caller's promise.
        let cell = unsafe { at.as_ref() }.cells.get();
        // SAFETY: the caller's right.
        unsafe { &mut *cell }
    }

    /// Its queue, which is alive: the job has not been reaped.
    ///
    /// # Safety
    /// The job is not reaped while the result is used: the caller holds a dependency count, the right to settle it, the
    /// queue's lock with the job in a list, or owns it.
    pub(crate) unsafe fn queue<'a>(at: NonNull<Self>) -> &'a Object<QueueShared> {
        // SAFETY: alive by the caller's promise.
        let cell = unsafe { at.as_ref() }.queue.get();
        // SAFETY: written before the job was shared, and taken only by reaping.
        match unsafe { &*cell } {
            Some(queue) => queue,
            None => unreachable!("a job that was reaped has no queue"),
        }
    }

    /// Whether it has no queue any more. Only a defect can make that a question for who has not settled the job.
    ///
    /// # Safety
    /// The block is alive, and the job is not being reaped at this moment.
    pub(crate) unsafe fn is_reaped(at: NonNull<Self>) -> bool {
        // SAFETY: alive by the caller's promise.
        let cell = unsafe { at.as_ref() }.queue.get();
        // SAFETY: changed by reaping only.
        unsafe { &*cell }.is_none()
    }

    /// The own-queue dependency's cell.
    ///
    /// # Safety
    /// The block is alive; the cell is written before the commit, read after, and taken by reaping.
    pub(crate) unsafe fn own<'a>(at: NonNull<Self>) -> Option<&'a Fence> {
        // SAFETY: alive by the caller's promise.
        let cell = unsafe { at.as_ref() }.own.get();
        // SAFETY: as said.
        unsafe { (*cell).as_ref() }
    }

    /// The job's number, as traces and drivers name it.
    pub(crate) fn id(at: NonNull<Self>) -> crate::trace::FenceId {
        // SAFETY: the caller has the job, hence its block.
        unsafe { Self::lend(at, Slot::Finished) }.id()
    }

    /// Drops the payload in place, lets the queue go, and gives the list's count of the block back, with that of a completion
    /// that there never was. Where blocking is legal: the payload's `Drop` is foreign.
    ///
    /// # Safety
    /// The job is in no list, settled, and the caller has the list's count.
    pub(crate) unsafe fn reap(at: NonNull<Self>) -> Option<Object<QueueShared>> {
        // SAFETY: alive by the list's count; the caller is the only owner.
        let started = unsafe { Self::cells(at) }.stage == Stage::Running;
        let guard = Reap { at, counts: if started { 1 } else { 2 } };
        // SAFETY: as above; reaping is the last use of these fields.
        let core = unsafe { at.as_ref() };
        // SAFETY: as above.
        let queue = unsafe { (*core.queue.get()).take() };
        // SAFETY: settled, and no dependency is left.
        unsafe { deps::clear(at) };
        crate::check::foreign_drop();
        // SAFETY: retired and settled, so the payload is nobody else's, and this happens once.
        unsafe { (core.drop_payload)(at) };
        drop(guard);
        queue
    }

    /// Takes the payload out instead of dropping it: the job was never committed.
    ///
    /// # Safety
    /// As for [`JobCore::reap`], and `P` is the payload's type.
    pub(crate) unsafe fn unreserve<P>(at: NonNull<Self>) -> P {
        let _guard = Reap { at, counts: COUNTS };
        // SAFETY: the caller owns the job.
        let core = unsafe { at.as_ref() };
        // SAFETY: never committed, so no node was armed.
        unsafe { deps::clear(at) };
        // SAFETY: as above.
        drop(unsafe { (*core.queue.get()).take() });
        // SAFETY: read once; the block is released without dropping the payload.
        unsafe { Self::payload::<P>(at).read() }
    }
}

/// Gives the counts back also when a payload's `Drop` panics.
struct Reap {
    at: NonNull<JobCore>,
    counts: u32,
}

impl Drop for Reap {
    fn drop(&mut self) {
        // SAFETY: the counts that `reap` or `unreserve` was called with.
        unsafe { Fence::release_many(JobCore::header(self.at), self.counts) };
    }
}

unsafe fn drop_payload<P>(at: NonNull<JobCore>) {
    // SAFETY: made with a `P`, dropped once.
    unsafe { JobCore::payload::<P>(at).drop_in_place() };
}

/// For a fence that frees its block: drops what the core still has (resolved nodes and, in tests, model-checked cells).
///
/// # Safety
/// `header` starts a job's block, whose last count was given back.
pub(crate) unsafe fn drop_core(header: NonNull<Header>) {
    // SAFETY: the offset of every job's core.
    let core = unsafe { header.byte_add(CORE_OFFSET) }.cast::<JobCore>();
    // SAFETY: the last access.
    unsafe { core.drop_in_place() };
}

impl fmt::Debug for JobCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobCore({:?}, {} unresolved)", self.disposal, self.waiting.load(Ordering::Relaxed))
    }
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(!cfg!(target_os = "linux") || JOB_BYTES <= 320, "a job is at most 320 bytes without its payload");
