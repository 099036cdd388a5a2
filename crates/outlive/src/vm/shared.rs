//! What is inside an address space's handles: the VM's and the pairs' counted objects, and the lists of what is to be
//! cleared.
//!
//! # Who keeps whom alive
//! ```text
//! Vm, VmUse, Edit, Binding, ToClear ──▶ VmInner ──▶ device (driver value last)
//! VmBo, ToClear, lists ──▶ PairInner ──▶ VmInner, the driver's buffer
//! VmInner ·····▶ PairInner          uncounted: through the table of open buffers
//! ```
//! A pair in the table is counted by a handle or by the list `closing`; it leaves both table and list in [`settle`], which
//! needs the turn. So whoever has the turn may follow the table.
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
//! # Who may touch what when
//! The space and the table: who has the turn, outside every lock. `State`: under the VM's lock; a pair's state: under its own,
//! taken under the VM's. Neither is held across foreign code, a drop of foreign values or an allocation.
//!
//! [`settle`]: super::edit
#![expect(unsafe_code, reason = "counted objects, lists of pairs; docs/unsafe.md, `vm::shared`")]

use super::bo::BoId;
use super::close::Detached;
use super::driver::VmDriver;
use super::grace::{Grace, Ticket};
use super::space::Space;
use super::table::Table;
use super::turn::Turn;
use crate::device::shared::DeviceInner;
use crate::exec::Lane;
use crate::exec::hub::{Hub, Urgency};
use crate::exec::node::{LaneNode, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::resv::Reservation;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Lock, class};
use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;

/// An address space without its handles. Fields are dropped in this order.
#[repr(C)]
pub(super) struct VmInner<D: VmDriver> {
    header: ObjectHeader,
    work: LaneNode,
    pub(super) state: Lock<class::VmState, State<D>>,
    pub(super) reservation: Reservation,
    pub(super) local_evictions: Ref<AtomicU64>,
    pub(super) data: D::Vm,
    pub(super) device: Object<DeviceInner<D>>,
}

/// What a VM is made of beside its space.
pub(super) struct Parts<D: VmDriver> {
    pub(super) reservation: Reservation,
    pub(super) local_evictions: Ref<AtomicU64>,
    pub(super) data: D::Vm,
    pub(super) device: Object<DeviceInner<D>>,
}

pub(super) struct State<D: VmDriver> {
    pub(super) turn: Turn,
    /// `None` while somebody has the turn.
    pub(super) body: Option<Body<D>>,
    /// The reaper's work found the turn taken.
    pub(super) work_waits: bool,
    pub(super) handles: usize,
    pub(super) closed: bool,
    pub(super) poisoned: bool,
    pub(super) whole: Whole<D>,
    pub(super) grace: Grace,
    pub(super) closing: Pairs<D>,
    pub(super) waiting: Pairs<D>,
    pub(super) done: Pairs<D>,
    /// Pairs that are in the space, by whether their reservation is the VM's. External ones are added with the VM's
    /// reservation locked.
    pub(super) externals: OpenPairs<D>,
    pub(super) locals: OpenPairs<D>,
    /// How many evictions of local buffers the last validation has answered.
    pub(super) locals_valid_at: u64,
    /// Pairs that are out of the space and not freed.
    pub(super) out: usize,
    pub(super) quarantined: usize,
    pub(super) figures: Figures,
}

/// What only the one who has the turn may touch.
pub(super) struct Body<D: VmDriver> {
    pub(super) space: Space<OpenBo<D>, D::Mapping>,
    pub(super) table: Table,
    /// Bytes of all open buffers.
    pub(super) bytes: u64,
    pub(super) bos_max: usize,
}

/// As of the last change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) mappings: usize,
    pub(super) bos: usize,
    pub(super) bytes: u64,
    pub(super) memory: usize,
}

/// How far the end of a whole VM has come.
pub(super) enum Whole<D: VmDriver> {
    Open,
    /// Closed; whoever closed it has the `ToClear`.
    Closed,
    /// That was dropped.
    GivenUp(Object<VmInner<D>>, Option<Ticket>),
    Handed,
    Cleared(Object<VmInner<D>>, Option<Ticket>),
    /// Nothing is left of what was mapped.
    Gone,
}

/// A buffer in an address space, without its handles. Fields are dropped in this order.
#[repr(C)]
pub(super) struct PairInner<D: VmDriver> {
    header: ObjectHeader,
    link: Link,
    open_link: Link,
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
#[derive(Debug, Clone, Copy)]
pub(super) struct BoFacts {
    pub(super) key: u64,
    pub(super) size: u64,
    pub(super) external: bool,
    pub(super) evictions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
    GivenUp,
    Handed,
    Cleared,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl<D: VmDriver> Counted for VmInner<D> {}
// SAFETY: `repr(C)`, the header is first.
unsafe impl<D: VmDriver> Counted for PairInner<D> {}

impl<D: VmDriver> VmInner<D> {
    pub(super) fn new(header: ObjectHeader, body: Body<D>, parts: Parts<D>) -> Self {
        let state = State {
            turn: Turn::new(),
            body: Some(body),
            work_waits: false,
            handles: 1,
            closed: false,
            poisoned: false,
            whole: Whole::Open,
            grace: Grace::new(),
            closing: Pairs::new(),
            waiting: Pairs::new(),
            done: Pairs::new(),
            externals: OpenPairs::new(),
            locals: OpenPairs::new(),
            locals_valid_at: 0,
            out: 0,
            quarantined: 0,
            figures: Figures::default(),
        };
        let Parts { reservation, local_evictions, data, device } = parts;
        let work = LaneNode::new(Task::Run(work::<D>));
        Self { header, work, state: Lock::new(state), reservation, local_evictions, data, device }
    }

    pub(super) fn hub(&self) -> &Ref<Hub> {
        self.header.hub()
    }

    fn object(&self) -> Object<Self> {
        // SAFETY: alive: the caller has a reference, and this is the object it was made as.
        unsafe { Object::from_alive(NonNull::from(self)) }
    }

    /// Queues the VM's work on the reaper. Any context.
    pub(super) fn poke(&self) {
        let object = self.object();
        let item = NonNull::from(&self.work);
        // SAFETY: the forgotten count keeps the item in place until `work` takes it over.
        unsafe {
            self.header.hub().schedule(Lane::Reaper, item, Urgency::Lazy, || core::mem::forget(object.clone()));
        }
    }
}

/// On the reaper lane.
unsafe fn work<D: VmDriver>(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `work` of a VM, counted when it was queued.
    let vm = unsafe { item.byte_sub(offset_of!(VmInner<D>, work)) }.cast::<VmInner<D>>();
    // SAFETY: takes that count over.
    let vm = unsafe { Object::from_raw(vm) };
    super::work::run(&vm);
}

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
        let BoFacts { key, size, external, evictions } = facts;
        Self {
            header,
            link: Link::new(),
            open_link: Link::new(),
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
    const fn new() -> Self {
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

    /// The first, lent.
    pub(super) fn front(&self) -> Option<&PairInner<D>> {
        let link = self.list.front()?;
        // SAFETY: as in `pop`; alive while it is in the list, which is borrowed.
        Some(unsafe { pair_of::<D>(link).as_ref() })
    }
}

/// A list of pairs that counts none of them. Under the VM's lock. Each takes itself out before it goes: when its mappings do,
/// or, once the whole VM was cleared, with its last handle or after it.
pub(super) struct OpenPairs<D: VmDriver> {
    list: List,
    len: usize,
    pairs: PhantomData<NonNull<PairInner<D>>>,
}

// SAFETY: pairs are `Send + Sync`, and whoever has the list has the VM's lock.
unsafe impl<D: VmDriver> Send for OpenPairs<D> {}

impl<D: VmDriver> OpenPairs<D> {
    const fn new() -> Self {
        Self { list: List::new(), len: 0, pairs: PhantomData }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, pair: &PairInner<D>) {
        self.len += 1;
        // SAFETY: new, so in no list; it takes itself out before it goes; the lock is held.
        unsafe { self.list.push_back(NonNull::from(&pair.open_link)) };
    }

    fn remove(&mut self, pair: &PairInner<D>) {
        self.len -= 1;
        // SAFETY: in this list since it was opened; the lock is held.
        unsafe { self.list.remove(NonNull::from(&pair.open_link)) };
    }

    /// Each, counted. `visit` runs under the VM's lock.
    pub(super) fn each(&self, mut visit: impl FnMut(Object<PairInner<D>>)) {
        let mut at = self.list.front();
        while let Some(link) = at {
            // SAFETY: only `open_link`s of pairs are in the list.
            let pair = unsafe { link.byte_sub(offset_of!(PairInner<D>, open_link)) }.cast::<PairInner<D>>();
            // SAFETY: a pair in the list is counted: by a handle, by `closing`, or by who takes it out of the list next.
            visit(unsafe { Object::from_alive(pair) });
            // SAFETY: in the list, whose lock is held.
            at = unsafe { self.list.next(link) };
        }
    }
}

impl<D: VmDriver> State<D> {
    /// A pair's mappings may come.
    pub(super) fn list(&mut self, pair: &PairInner<D>) {
        if pair.external { self.externals.push(pair) } else { self.locals.push(pair) }
    }

    /// They are out, or the whole VM was cleared.
    pub(super) fn unlist(&mut self, pair: &PairInner<D>) {
        if pair.external { self.externals.remove(pair) } else { self.locals.remove(pair) }
    }
}

fn pair_of<D: VmDriver>(link: NonNull<Link>) -> NonNull<PairInner<D>> {
    // SAFETY: `link` is the field of a pair.
    unsafe { link.byte_sub(offset_of!(PairInner<D>, link)) }.cast()
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
        // SAFETY: `self` was reached through the space, so the caller has the turn, and the pair has not left the table: it
        // is counted by a handle or by `closing`, and leaves that only under the turn.
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
