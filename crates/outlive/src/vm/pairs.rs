//! A pair of an address space and a buffer: its counted object, and the lists that pairs are in.
//!
//! # States of a pair
//! ```text
//! open ──close──▶ closed ──drop of ToClear──▶ given up ──▶ handed to `clear` ──cleared──▶ cleared ──▶ freed
//!                    └──────────cleared──────────────────────────────────────────────────────▲
//! ```
//! Beside that, its mappings are *in* the space or *out* of it; `settle` takes them out some time after the close, before
//! anybody else sees the space. A pair is in at most one list: `closing` (closed, not out), `waiting` (out and given up), `done`
//! (out and cleared); each list owns a count. What is handed to `clear` and dropped there is in quarantine: its count is
//! never given back.
//!
//! A pair in the table of open buffers is counted by a handle or by the list `closing`; it leaves both table and list in `settle`,
//! which needs the space. So whoever has the space may follow the table.
//!
//! By another link it is in a list that counts nothing: of those that are open, and then, until the last of its mappings is freed, of
//! those that are out.
//!
//! # Who may touch what when
//! Lists: under the VM's lock; that of those that are out: who has the space. A pair's state: under its own, taken under the VM's
//! or by itself. The rest does not change.
#![expect(unsafe_code, reason = "counted objects, lists of pairs; docs/unsafe.md, `vm::pairs`")]

use super::bo::BoId;
use super::close::Detached;
use super::driver::{Bo, VmDriver};
use super::grace::{Grace, Ticket};
use super::handle::VmError;
use super::open_in::OpenIn;
use super::shared::VmInner;
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Lock, class};
use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::ControlFlow;
use core::ptr::NonNull;

/// A buffer in an address space, without its handles. Fields are dropped in this order.
#[repr(C)]
pub(super) struct PairInner<D: VmDriver> {
    header: ObjectHeader,
    link: Link,
    open_link: Link,
    /// In the list of all pairs of its buffer; see `open_in`.
    pub(super) bo_link: Link,
    pub(super) open_in: Ref<OpenIn>,
    pub(super) state: Lock<class::VmBoState, PairState<D>>,
    /// Its reservation is not the VM's.
    pub(super) external: bool,
    /// How many evictions of the buffer its entries have followed.
    pub(super) valid_at: AtomicU64,
    pub(super) id: BoId,
    /// The buffer's number, and its bytes.
    pub(super) key: u64,
    pub(super) size: u64,
    pub(super) data: D::VmBo,
    pub(super) bo: D::Bo,
    pub(super) vm: Object<VmInner<D>>,
}

pub(super) struct PairState<D: VmDriver> {
    pub(super) handles: usize,
    pub(super) phase: Phase,
    /// Once its mappings are out: they, and who may still use them.
    pub(super) out: Option<(Detached<OpenBo<D>>, Ticket)>,
}

/// What was read of a buffer when it was opened.
pub(super) struct BoFacts {
    pub(super) key: u64,
    pub(super) size: u64,
    pub(super) external: bool,
    pub(super) evictions: u64,
    pub(super) open_in: Ref<OpenIn>,
}

impl BoFacts {
    /// Those of `bo`, which is to be opened in `vm`, if it is of the same device.
    pub(super) fn of<D: VmDriver>(bo: &D::Bo, vm: &VmInner<D>) -> Result<Self, VmError> {
        let core = bo.core();
        let device = vm.device.shared.id;
        if core.device() != device {
            return Err(VmError::OtherDevice { bo: core.device(), vm: device });
        }
        if core.size() == 0 {
            return Err(VmError::EmptyBo);
        }
        let external = *core.reservation() != vm.reservation;
        let open_in = core.open_in_made()?;
        Ok(Self { key: core.id(), size: core.size(), external, evictions: core.evictions(), open_in })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
    GivenUp,
    Handed,
    Cleared,
}

/// Whether the mappings of a pair may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Yes,
    /// By jobs that name their buffers, and this may be one.
    Named,
    /// By jobs, or changes, that use all that is mapped; or it is not out.
    No,
}

impl<D: VmDriver> PairState<D> {
    pub(super) fn over(&self, grace: &Grace, named: usize) -> Over {
        match &self.out {
            Some((_, ticket)) if grace.is_over(*ticket) => {
                if named == 0 || self.handles == 0 {
                    Over::Yes
                } else {
                    Over::Named
                }
            }
            _ => Over::No,
        }
    }
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl<D: VmDriver> Counted for PairInner<D> {}

impl<D: VmDriver> PairInner<D> {
    pub(super) fn new(
        header: ObjectHeader,
        id: BoId,
        facts: BoFacts,
        data: D::VmBo,
        bo: D::Bo,
        vm: Object<VmInner<D>>,
    ) -> Self {
        let state = PairState { handles: 1, phase: Phase::Open, out: None };
        let BoFacts { key, size, external, evictions, open_in } = facts;
        Self {
            header,
            link: Link::new(),
            open_link: Link::new(),
            bo_link: Link::new(),
            open_in,
            state: Lock::new(state),
            external,
            valid_at: AtomicU64::new(evictions),
            id,
            key,
            size,
            data,
            bo,
            vm,
        }
    }
}

/// A list of pairs that owns a count of each. Under the VM's lock.
pub(super) struct Pairs<D: VmDriver> {
    list: List,
    pairs: PhantomData<Object<PairInner<D>>>,
}

impl<D: VmDriver> Pairs<D> {
    pub(super) const fn new() -> Self {
        Self { list: List::new(), pairs: PhantomData }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends a pair that is in no list.
    pub(super) fn push(&mut self, pair: Object<PairInner<D>>) {
        let link = NonNull::from(&pair.link);
        core::mem::forget(pair);
        // SAFETY: in no other list (the states above); the forgotten count keeps it in place; the lock that gives access
        // to `self` is held.
        unsafe { self.list.push_back(link) };
    }

    pub(super) fn pop(&mut self) -> Option<Object<PairInner<D>>> {
        // SAFETY: as in `push`.
        let link = unsafe { self.list.pop_front() }?;
        // SAFETY: only links of pairs are in the list, and this takes the count of `push` over.
        Some(unsafe { Object::from_raw(pair_of(link)) })
    }

    /// Takes the first out for which `look` breaks with true; none if it breaks with false before.
    pub(super) fn take_first(
        &mut self,
        mut look: impl FnMut(&PairInner<D>) -> ControlFlow<bool>,
    ) -> Option<Object<PairInner<D>>> {
        let mut at = self.list.front();
        while let Some(link) = at {
            let pair = pair_of::<D>(link);
            // SAFETY: as in `pop`; alive while it is in the list, which is borrowed.
            match look(unsafe { pair.as_ref() }) {
                // SAFETY: in the list, whose lock is held.
                ControlFlow::Continue(()) => at = unsafe { self.list.next(link) },
                ControlFlow::Break(false) => return None,
                ControlFlow::Break(true) => {
                    // SAFETY: in the list, whose lock is held.
                    unsafe { self.list.remove(link) };
                    // SAFETY: takes the count of `push` over.
                    return Some(unsafe { Object::from_raw(pair) });
                }
            }
        }
        None
    }
}

/// A list of pairs that counts none of them. Under the VM's lock: of those that are open. Each leaves before it goes: when its
/// mappings do, or, once the whole VM was cleared, with its last handle or after it. Then, with the space: of those that are
/// out, in that order, until the last of their mappings is freed.
pub(super) struct OpenPairs<D: VmDriver> {
    list: List,
    len: usize,
    pairs: PhantomData<NonNull<PairInner<D>>>,
}

// SAFETY: pairs are `Send + Sync`, and whoever has the list has the VM's lock.
unsafe impl<D: VmDriver> Send for OpenPairs<D> {}

impl<D: VmDriver> OpenPairs<D> {
    pub(super) const fn new() -> Self {
        Self { list: List::new(), len: 0, pairs: PhantomData }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, pair: &PairInner<D>) {
        self.len += 1;
        // SAFETY: in no list: it is new, or was taken out of the one before; it is taken out of this before it goes; who has
        // the list exclusively has what guards it.
        unsafe { self.list.push_back(NonNull::from(&pair.open_link)) };
    }

    pub(super) fn remove(&mut self, pair: &PairInner<D>) {
        self.len -= 1;
        // SAFETY: in this list, says the caller, who has it exclusively.
        unsafe { self.list.remove(NonNull::from(&pair.open_link)) };
    }

    /// Those behind `pair`, which is in the list.
    pub(super) fn behind(&self, pair: &PairInner<D>) -> impl Iterator<Item = &PairInner<D>> {
        // SAFETY: in this list, says the caller; nobody changes it while it is borrowed.
        let next = |link| unsafe { self.list.next(link) };
        core::iter::successors(next(NonNull::from(&pair.open_link)), move |link| next(*link)).map(|link| {
            // SAFETY: alive as long as it is in the list, which is borrowed.
            unsafe { pair_of_open::<D>(link).as_ref() }
        })
    }

    /// Each, counted. `visit` runs under the VM's lock.
    pub(super) fn each(&self, mut visit: impl FnMut(Object<PairInner<D>>)) {
        let mut at = self.list.front();
        while let Some(link) = at {
            let pair = pair_of_open::<D>(link);
            // SAFETY: a pair in the list is counted: by a handle, by `closing`, or by who takes it out of the list next.
            visit(unsafe { Object::from_alive(pair) });
            // SAFETY: in the list, whose lock is held.
            at = unsafe { self.list.next(link) };
        }
    }
}

fn pair_of<D: VmDriver>(link: NonNull<Link>) -> NonNull<PairInner<D>> {
    // SAFETY: `link` is the field of a pair.
    unsafe { link.byte_sub(offset_of!(PairInner<D>, link)) }.cast()
}

fn pair_of_open<D: VmDriver>(link: NonNull<Link>) -> NonNull<PairInner<D>> {
    // SAFETY: `link` is the field `open_link` of a pair.
    unsafe { link.byte_sub(offset_of!(PairInner<D>, open_link)) }.cast()
}

/// An open buffer, as whoever has the turn at its VM sees it. Not counted.
pub struct OpenBo<D: VmDriver> {
    pair: NonNull<PairInner<D>>,
}

// SAFETY: a pointer to a `PairInner`, which is `Send + Sync`, followed only while its referent is known to live.
unsafe impl<D: VmDriver> Send for OpenBo<D> {}
// SAFETY: as above.
unsafe impl<D: VmDriver> Sync for OpenBo<D> {}

impl<D: VmDriver> OpenBo<D> {
    /// Points to nothing yet: nobody else sees the space before it was replaced.
    pub(super) const fn unset() -> Self {
        Self { pair: NonNull::dangling() }
    }

    pub(super) fn new(pair: &Object<PairInner<D>>) -> Self {
        Self { pair: pair.as_ptr() }
    }

    pub(super) fn inner(&self) -> &PairInner<D> {
        // SAFETY: `self` was reached through the space, so the caller has it, and the pair has not left the table: it is counted
        // by a handle or by `closing`, and leaves that only where somebody has the space.
        unsafe { self.pair.as_ref() }
    }

    /// What the driver keeps with it.
    #[must_use]
    pub fn data(&self) -> &D::VmBo {
        &self.inner().data
    }

    /// The driver's buffer.
    #[must_use]
    pub fn bo(&self) -> &D::Bo {
        &self.inner().bo
    }

    /// One more count of the pair.
    pub(super) fn counted(&self) -> Object<PairInner<D>> {
        // SAFETY: as in `inner`: alive.
        unsafe { Object::from_alive(self.pair) }
    }

    /// One more count of the pair, whose state is locked, and says that it has handles.
    pub(super) fn pair(&self, state: &PairState<D>) -> Object<PairInner<D>> {
        debug_assert!(state.handles > 0);
        // SAFETY: a handle gives itself up under that lock before its count: so a counted one is left.
        unsafe { Object::from_alive(self.pair) }
    }
}

impl<D: VmDriver> fmt::Debug for OpenBo<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenBo")
    }
}
