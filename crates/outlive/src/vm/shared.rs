//! What is inside an address space's handles: the VM's counted object, its state, its work on the reaper.
//!
//! # Who keeps whom alive
//! ```text
//! Vm, VmUse, Edit, Look, Binding, Bind, ToClear ──▶ VmInner ──▶ device (driver value last)
//! VmBo, ToClear, lists ──▶ PairInner ──▶ VmInner, the driver's buffer
//! VmInner ·····▶ PairInner          uncounted: through the table of open buffers
//! ```
//! Pairs are in `pairs`.
//!
//! # Who may touch what when
//! The space and the table: who has the turn, or the moment, outside every lock. `State`: under the VM's lock; a pair's state: under its own,
//! taken under the VM's. Neither is held across foreign code, a drop of foreign values or an allocation.
#![expect(unsafe_code, reason = "a counted object; docs/unsafe.md, `vm::shared`")]

use super::batch::Batches;
use super::body::Body;
use super::driver::VmDriver;
use super::grace::{Grace, Ticket};
use super::pairs::{OpenPairs, PairInner, Pairs};
use super::turn::Turn;
use crate::device::shared::DeviceInner;
use crate::exec::Lane;
use crate::exec::hub::{Hub, Urgency};
use crate::exec::node::{LaneNode, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::mem::shared::Ref;
use crate::resv::Reservation;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Lock, class};
use core::mem::offset_of;
use core::ptr::NonNull;

/// An address space without its handles. Fields are dropped in this order.
#[repr(C)]
pub(super) struct VmInner<D: VmDriver> {
    header: ObjectHeader,
    work: LaneNode,
    work_off: LaneNode,
    /// The reaper's work, as the way of working has it.
    sweep: Sweep<D>,
    /// Changed by running jobs: nobody has the space for longer than a moment.
    pub(super) in_moments: bool,
    pub(super) state: Lock<class::VmState, State<D>>,
    pub(super) reservation: Reservation,
    pub(super) local_evictions: Ref<AtomicU64>,
    pub(super) data: D::Vm,
    pub(super) device: Object<DeviceInner<D>>,
}

/// A VM's work on the reaper.
pub(super) type Sweep<D> = fn(&Object<VmInner<D>>);

/// What a VM is made of beside its space.
pub(super) struct Parts<D: VmDriver> {
    pub(super) sweep: Sweep<D>,
    pub(super) in_moments: bool,
    pub(super) reservation: Reservation,
    pub(super) local_evictions: Ref<AtomicU64>,
    pub(super) data: D::Vm,
    pub(super) device: Object<DeviceInner<D>>,
}

pub(super) struct State<D: VmDriver> {
    pub(super) turn: Turn,
    /// Whose the space is for a moment, if it is in moments.
    pub(super) moment: Turn,
    /// `None` while somebody has the turn, or the moment.
    pub(super) body: Option<Body<D>>,
    /// Batches whose job has begun, for whoever has the space next.
    pub(super) begun: Batches<D>,
    /// Those that were carried out, to be dropped.
    pub(super) spent: Batches<D>,
    /// Who may use the mappings that were set apart after batches took them out.
    pub(super) leaving: Option<Ticket>,
    /// The reaper's work did not get the turn, or the moment.
    pub(super) work_waits: bool,
    pub(super) handles: usize,
    pub(super) closed: bool,
    pub(super) poisoned: bool,
    pub(super) whole: Whole<D>,
    pub(super) grace: Grace,
    /// Jobs that use only the buffers whose handles they have.
    pub(super) named: usize,
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

// SAFETY: `repr(C)`, the header is first.
unsafe impl<D: VmDriver> Counted for VmInner<D> {}

impl<D: VmDriver> VmInner<D> {
    pub(super) fn new(header: ObjectHeader, body: Body<D>, parts: Parts<D>) -> Self {
        let state = State {
            turn: Turn::new(),
            moment: Turn::new(),
            body: Some(body),
            begun: Batches::new(),
            spent: Batches::new(),
            leaving: None,
            work_waits: false,
            handles: 1,
            closed: false,
            poisoned: false,
            whole: Whole::Open,
            grace: Grace::new(),
            named: 0,
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
        let Parts { sweep, in_moments, reservation, local_evictions, data, device } = parts;
        let state = Lock::new(state);
        let work = LaneNode::new(Task::Run(work::<D>));
        let work_off = LaneNode::new(Task::Run(work_off::<D>));
        Self { header, work, work_off, sweep, in_moments, state, reservation, local_evictions, data, device }
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

    /// Has what has begun carried out on the signalling lane. Any context.
    pub(super) fn poke_signalling(&self) {
        let object = self.object();
        let item = NonNull::from(&self.work_off);
        // SAFETY: the forgotten count keeps the item in place until `work_off` takes it over.
        unsafe {
            self.header.hub().schedule(Lane::Signalling, item, Urgency::Now, || core::mem::forget(object.clone()));
        }
    }
}

/// On the reaper lane.
unsafe fn work<D: VmDriver>(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `work` of a VM, counted when it was queued.
    let vm = unsafe { item.byte_sub(offset_of!(VmInner<D>, work)) }.cast::<VmInner<D>>();
    // SAFETY: takes that count over.
    let vm = unsafe { Object::from_raw(vm) };
    (vm.sweep)(&vm);
}

/// On the signalling lane.
unsafe fn work_off<D: VmDriver>(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `work_off` of a VM, counted when it was queued.
    let vm = unsafe { item.byte_sub(offset_of!(VmInner<D>, work_off)) }.cast::<VmInner<D>>();
    // SAFETY: takes that count over.
    let vm = unsafe { Object::from_raw(vm) };
    super::moment::work_off(&vm);
}

impl<D: VmDriver> State<D> {
    /// A pair's mappings may come.
    pub(super) fn list(&mut self, pair: &PairInner<D>) {
        if pair.external {
            self.externals.push(pair)
        } else {
            self.locals.push(pair)
        }
        pair.open_in.push(pair);
    }

    /// They are out, or the whole VM was cleared.
    pub(super) fn unlist(&mut self, pair: &PairInner<D>) {
        if pair.external {
            self.externals.remove(pair)
        } else {
            self.locals.remove(pair)
        }
        pair.open_in.remove(pair);
    }
}
