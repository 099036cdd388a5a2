//! The state of fences: one header and one to three states in one block of memory.
//!
//! # Layout
//! `[Header 24][State 40]` is a bare fence's 64 bytes; `[Header][State × 3][job]` is a job's `scheduled`, `finished` and
//! `retired`, which share context numbers in a row, sequence number, names and count; `[Header][State][container]` is an
//! array or a timeline's point (`fence::container`). A [`Fence`] is the
//! address of one `State`; its header is found from the slot number in the state's own word.
//!
//! # States
//! The word of a [`State`]: `SIGNALED` is set once, with the error bits, by the one producer; `DONE` when every
//! registration has been acted on; `WAITERS` once anything was ever registered, so that a signal nobody waits for
//! is one compare-exchange; `ARMED` by the first registration.
//!
//! # Fields
//! - `time`: before the signal the earliest deadline hint, tagged in its top bit, moved down by compare-exchange; then the
//!   time stamp, stored before `SIGNALED` is set and never again. The tag makes a late deadline lose.
//! - `waiters`: the list and the producer hook, under their lock. Registration pushes and then sets `WAITERS`; if that
//!   finds `SIGNALED`, it takes the node out again. The signaller sets `SIGNALED` and then, if it found `WAITERS`, pops
//!   under the lock, one node at a time, and acts outside it. So each node is acted on exactly once or given back.
//!
//! # Contexts
//! Signalling (`fence::signal`) never allocates, blocks or runs foreign code: its actions are the closed menu of
//! `exec::node::Kind`.
//! Actions run without the fence's lock, except the move to a lane, whose lock ranks inside.
#![expect(unsafe_code, reason = "one block for several fences; docs/unsafe.md, `fence::state`")]

use super::hook::Hook;
use super::status::Status;
use crate::exec::hub::Ident;
use crate::mem::list::List;
use crate::mem::shared::Ref;
use crate::mem::{HeapBox, free, whole};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Lock, class};
use crate::time::Time;
use core::alloc::Layout;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// The names behind a fence, kept by every fence of the context and owning nothing but themselves.
#[derive(Debug)]
pub(crate) struct ContextInfo {
    /// The context of slot 0; slot `n` is this plus `n`.
    pub(crate) base: u64,
    pub(crate) client: u64,
    /// The device's number; 0 for a bare context.
    pub(crate) device: u64,
    /// The arbiter whose hardware executes in order; 0: none.
    pub(crate) order: u64,
    pub(crate) driver: HeapBox<str>,
    pub(crate) timeline: HeapBox<str>,
    pub(crate) ident: Ref<Ident>,
    /// Set before the first `retired` of the context signals that memory is never free, and never cleared: who kept only a
    /// later fence of the context asks here for the earlier ones.
    pub(crate) quarantined: AtomicBool,
}

/// Shared by the fences of one block.
#[repr(C)]
pub(crate) struct Header {
    refs: AtomicU32,
    layout: PackedLayout,
    /// 0 until published; written once, before any fence of the block is handed out.
    pub(crate) seqno: AtomicU64,
    /// `None` for the stub and for containers.
    pub(crate) info: Option<Ref<ContextInfo>>,
}

/// How to free a block without its type: 26 bits of size in units of 8, 4 bits of alignment, 2 bits of slots.
/// Worked example: 312 bytes aligned to 8 with 3 slots is `39 | 3 << 26 | 3 << 30` = `0xcc00_0027`.
#[derive(Clone, Copy)]
pub(crate) struct PackedLayout(u32);

impl PackedLayout {
    /// `None` for blocks of half a gigabyte and more, or oddly aligned ones.
    pub(crate) fn new(layout: Layout, slots: u32) -> Option<Self> {
        let units = u32::try_from(layout.size().div_ceil(8)).ok().filter(|units| *units < 1 << 26)?;
        let align = layout.align().trailing_zeros();
        (align < 16 && layout.size() % 8 == 0).then_some(Self(units | align << 26 | slots << 30))
    }

    /// Whether the block is a container's: see [`CONTAINER`].
    fn is_container(self) -> bool {
        self.0 >> 30 == CONTAINER
    }

    /// One slot and no size: the stub's, which is never freed.
    pub(crate) const fn bare() -> Self {
        Self(1 << 30)
    }

    fn layout(self) -> Layout {
        let size = (self.0 & 0x03ff_ffff) as usize * 8;
        let align = 1_usize << ((self.0 >> 26) & 0xf);
        // SAFETY: these are the parts of a layout that `new` took apart.
        unsafe { Layout::from_size_align_unchecked(size, align) }
    }

    fn slots(self) -> usize {
        (self.0 >> 30) as usize
    }
}

impl Header {
    pub(crate) const fn new(
        layout: PackedLayout,
        info: Option<Ref<ContextInfo>>,
        refs: AtomicU32,
        seqno: AtomicU64,
    ) -> Self {
        Self { refs, layout, seqno, info }
    }
}

/// One fence.
#[repr(C)]
pub(crate) struct State {
    pub(super) word: AtomicU32,
    pub(super) waiters: Lock<class::FenceWaiters, Waiters>,
    pub(super) time: AtomicU64,
}

pub(crate) struct Waiters {
    pub(super) list: List,
    pub(crate) hook: Option<Hook>,
}

/// Which fence of its block. A bare fence is slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Slot {
    First = 0,
    Finished = 1,
    Retired = 2,
}

pub(super) const SIGNALED: u32 = 1;
pub(super) const DONE: u32 = 1 << 1;
pub(super) const WAITERS: u32 = 1 << 2;
pub(super) const ARMED: u32 = 1 << 3;
const SLOT_SHIFT: u32 = 4;
/// In place of a number of slots: one state and a container's own part. No block has two states.
pub(super) const CONTAINER: u32 = 2;
pub(super) const DEADLINE: u64 = 1 << 63;

impl State {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new(slot: Slot) -> Self {
        Self {
            word: AtomicU32::new((slot as u32) << SLOT_SHIFT),
            waiters: Lock::new(Waiters { list: List::new(), hook: None }),
            time: AtomicU64::new(DEADLINE | Time::NEVER.as_ns()),
        }
    }

    #[cfg(any(loom, shuttle))]
    pub(crate) fn new(slot: Slot) -> Self {
        Self {
            word: AtomicU32::new((slot as u32) << SLOT_SHIFT),
            waiters: Lock::new(Waiters { list: List::new(), hook: None }),
            time: AtomicU64::new(DEADLINE | Time::NEVER.as_ns()),
        }
    }

    /// The stub's state: signaled at the origin of time.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn stub() -> Self {
        Self {
            word: AtomicU32::new(SIGNALED | DONE),
            waiters: Lock::new(Waiters { list: List::new(), hook: None }),
            time: AtomicU64::new(0),
        }
    }
}

/// A promise that something will have ended: signaled exactly once, by its one producer, with a result.
///
/// Whoever merely holds a `Fence` cannot signal it, and it keeps nothing of its issuer alive: queue, device, executor and
/// driver code may all be gone. Context, sequence number, names, error and time stamp stay readable for ever. Clones are
/// handles on the same fence; comparing compares identity.
///
/// # Contexts
/// Reading, cloning and dropping: any, interrupts included. Waiting and registering: see there.
pub struct Fence {
    at: NonNull<State>,
}

// SAFETY: everything behind the pointer is atomic or locked, and counted.
unsafe impl Send for Fence {}
// SAFETY: as above.
unsafe impl Sync for Fence {}

const REFS_MAX: u32 = u32::MAX / 2;

impl Fence {
    /// A handle on the fence in `slot` of the block whose first field is `header`, taking over one count.
    ///
    /// # Safety
    /// `header` starts a block `repr(C)` with at least `slot + 1` states behind the header, derived from a pointer to the
    /// whole block, and the count is the caller's to give away.
    pub(crate) unsafe fn from_block(header: NonNull<Header>, slot: Slot) -> Self {
        // SAFETY: the caller's promise.
        let at = unsafe { header.byte_add(size_of::<Header>() + slot as usize * size_of::<State>()) };
        Self { at: at.cast() }
    }

    #[inline]
    pub(crate) fn header_ptr(&self) -> NonNull<Header> {
        // SAFETY: the layout of blocks: see the module. The state's own word says which slot it is.
        unsafe { self.at.byte_sub(size_of::<Header>() + self.slot_number() * size_of::<State>()) }.cast()
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the block is alive while this handle is.
        unsafe { self.header_ptr().as_ref() }
    }

    pub(crate) fn state(&self) -> &State {
        // SAFETY: as above.
        unsafe { self.at.as_ref() }
    }

    #[inline]
    fn slot_number(&self) -> usize {
        // ORDERING: these bits never change.
        ((self.state().word.load(Ordering::Relaxed) >> SLOT_SHIFT) & 3) as usize
    }

    #[inline]
    pub(crate) fn slot(&self) -> Slot {
        match self.slot_number() {
            0 => Slot::First,
            1 => Slot::Finished,
            _ => Slot::Retired,
        }
    }

    /// The fence in another slot of the same block. `self` is a job's.
    pub(crate) fn sibling(&self, slot: Slot) -> Self {
        let header = self.header_ptr();
        debug_assert!(self.header().layout.slots() > slot as usize, "a bare fence has no siblings");
        self.retain();
        // SAFETY: a job's block has all three slots, and a count was just taken.
        unsafe { Self::from_block(header, slot) }
    }

    /// How the fence in another slot of the same block stands. `self` is a job's.
    pub(crate) fn sibling_status(&self, slot: Slot) -> Status {
        // SAFETY: a job's block has all three slots, and is alive while `self` is; no count is taken, so none is given back.
        ManuallyDrop::new(unsafe { Self::from_block(self.header_ptr(), slot) }).status()
    }

    /// Whether it belongs to a job: then it has siblings.
    pub(crate) fn is_jobs(&self) -> bool {
        self.header().layout.slots() == 3
    }

    /// How many handles there are, this one included.
    pub(super) fn count(&self) -> u32 {
        self.header().refs.load(Ordering::Relaxed)
    }

    /// Whether it is made of others.
    pub(crate) fn is_container(&self) -> bool {
        self.header().layout.is_container()
    }

    /// A handle on the first fence of a block that may be dying; `None` if it is.
    ///
    /// # Safety
    /// The block is not freed while this runs.
    pub(super) unsafe fn from_maybe_dying(header: NonNull<Header>) -> Option<Self> {
        // SAFETY: the caller's promise. A reference to the count alone: of a dying block the rest is being written to.
        let refs = unsafe { &(*header.as_ptr()).refs };
        let mut seen = refs.load(Ordering::Relaxed);
        loop {
            if seen == 0 {
                return None;
            }
            // ORDERING: whoever asks found the block under a lock, which orders its fields.
            match refs.compare_exchange_weak(seen, (seen + 1).min(REFS_MAX), Ordering::Relaxed, Ordering::Relaxed) {
                // SAFETY: a count was just taken.
                Ok(_) => return Some(unsafe { Self::from_block(header, Slot::First) }),
                Err(now) => seen = now,
            }
        }
    }

    /// Whether there is another handle. Only a hint: others come and go.
    #[cfg(all(feature = "linux", target_os = "linux", not(loom), not(shuttle)))]
    pub(crate) fn is_shared(&self) -> bool {
        self.header().refs.load(Ordering::Relaxed) > 1
    }

    pub(super) fn retain(&self) {
        // ORDERING: made from an existing reference. A count that ran away saturates: the block leaks, it is never freed.
        let before = self.header().refs.fetch_add(1, Ordering::Relaxed);
        if before >= REFS_MAX {
            self.header().refs.store(REFS_MAX, Ordering::Relaxed);
        }
    }

    /// # Safety
    /// The block of `header` was not freed, and one count on it is the caller's to give back.
    pub(crate) unsafe fn release(header: NonNull<Header>) {
        // SAFETY: passed on.
        unsafe { Self::release_many(header, 1) };
    }

    /// # Safety
    /// As for [`Fence::release`], and `counts` are the caller's, at least one.
    #[inline]
    pub(crate) unsafe fn release_many(header: NonNull<Header>, counts: u32) {
        // SAFETY: passed on.
        if unsafe { Self::give_back(header, counts) } {
            // SAFETY: the last count.
            unsafe { free_block(header) };
        }
    }

    /// Gives counts back; true if they were the last: the block is the caller's to free then.
    ///
    /// # Safety
    /// As for [`Fence::release_many`].
    #[inline]
    pub(super) unsafe fn give_back(header: NonNull<Header>, counts: u32) -> bool {
        // SAFETY: the caller's promise.
        let refs = unsafe { &header.as_ref().refs };
        // ORDERING: Release pairs with the Acquire load below, a load because ThreadSanitizer knows no fences.
        let before = refs.fetch_sub(counts, Ordering::Release);
        if before >= REFS_MAX {
            refs.store(REFS_MAX, Ordering::Relaxed);
            return false;
        }
        if before == counts {
            refs.load(Ordering::Acquire);
        }
        before == counts
    }

    #[inline]
    pub(crate) fn word(&self) -> u32 {
        // ORDERING: Acquire pairs with the Release of the signal: who sees `SIGNALED` sees the time stamp and all that the
        // producer did before.
        self.state().word.load(Ordering::Acquire)
    }
}

/// Apart, so that giving a count back is a few instructions.
///
/// # Safety
/// The caller had the last count on the block.
#[inline(never)]
pub(super) unsafe fn free_block(header: NonNull<Header>) {
    let header = whole(header);
    // SAFETY: the caller holds the last count.
    let packed = unsafe { header.as_ref() }.layout;
    if packed.slots() == 3 {
        // SAFETY: three slots are a job's block, whose core is behind them.
        unsafe { crate::queue::job::drop_core(header) };
    }
    let states = if packed.is_container() {
        // SAFETY: a container's block, whose last handle is gone.
        unsafe { super::container::drop_own(header) };
        1
    } else {
        packed.slots()
    };
    for slot in 0..states {
        // SAFETY: the layout of blocks.
        let state = unsafe { header.byte_add(size_of::<Header>() + slot * size_of::<State>()) }.cast::<State>();
        // SAFETY: the last access to this state.
        unsafe { state.drop_in_place() };
    }
    // SAFETY: the last access to the header.
    unsafe { header.drop_in_place() };
    // SAFETY: the block was allocated by `mem` with this layout.
    unsafe { free(header.cast(), packed.layout()) };
}

impl Clone for Fence {
    fn clone(&self) -> Self {
        self.retain();
        Self { at: self.at }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: this handle's count.
        unsafe { Self::release(self.header_ptr()) };
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Fence {}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({} {:?})", self.id(), self.status())
    }
}

#[cfg(not(any(loom, shuttle)))]
const _: () = {
    assert!(size_of::<Fence>() == 8);
    assert!(!cfg!(target_os = "linux") || size_of::<Header>() + size_of::<State>() <= 64, "a fence is 64 bytes");
};
