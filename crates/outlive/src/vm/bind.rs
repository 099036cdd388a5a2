//! Bind jobs of an [`Immediate`](super::Immediate) address space.
//!
//! # States
//! ```text
//!   Vm ──prepare──▶ VmPrepared ──accept(room)──▶ Bind ──run(completion)──▶ carried out, its job completed
//!         may fail       │ the driver puts page     │      in the signalling path; allocates and waits for nothing
//!                        │ tables aside here        └── drop: it was promised, and never ran: the VM is poisoned
//!                        └── drop: no trace
//! ```
//!
//! # Contexts
//! Preparing allocates and may block. Accepting cannot fail, so it belongs between a job's `reserve` and its `commit`. `run` is
//! for a driver's [`run`](crate::Driver::run): all that was put aside and is left over, and what the mappings held that went, is
//! dropped on the reaper; the latter when every job that had begun before has ended.

use super::Space;
use super::batch::{Batch, Node};
use super::driver::{BindCx, ImmediateDriver, VmDriver};
use super::edit::Edit;
use super::handle::VmError;
use super::immediate::{Cause, Prepared, Ran, copied, no_memory_for};
use super::moment::{self, Moment};
use super::pairs::{OpenBo, PairInner};
use super::request::Request;
use super::shared::VmInner;
use super::store::Wider;
use super::usage::VmUse;
use crate::FenceError;
use crate::exec::object::Object;
use crate::mem::{AllocError, HeapBox, HeapVec, try_box, try_push, try_reserve};
use crate::queue::Completion;
use crate::resv::{Attempt, LockError, Slot};
use core::fmt;
use core::ops::Deref;

/// A batch with all the memory of the library that it can need, whatever is mapped when it is run. It reads as the [`Prepared`]
/// inside, which says what the driver must put aside. Dropped, it leaves no trace; that drops the driver's data.
#[must_use = "a batch changes nothing until it is accepted and run"]
pub struct VmPrepared<D: ImmediateDriver> {
    vm: Object<VmInner<D>>,
    node: HeapBox<Node<D, Own<D>>>,
    prepared: Prepared<D::Mapping>,
}

/// An accepted batch, for a bind job's payload: whoever submits jobs behind it counts on it. So dropped without having been
/// run (its queue was closed, or what it depended on failed), it poisons the VM, as its page tables are not what was promised.
/// That drops the driver's data, so not in the signalling path: a job's payload is dropped on the reaper.
#[must_use = "dropping it poisons the address space: run it"]
pub struct Bind<D: ImmediateDriver> {
    vm: Object<VmInner<D>>,
    /// `None` once it runs.
    node: Option<HeapBox<Node<D, Own<D>>>>,
}

/// What a batch owns until the reaper drops it.
struct Own<D: ImmediateDriver> {
    prepared: Option<Prepared<D::Mapping>>,
    /// The buffers that it maps, and what the driver keeps with them, live as long.
    bos: HeapVec<Object<PairInner<D>>>,
    room: Option<D::Room>,
    done: Option<Completion>,
    result: Result<(), FenceError>,
    /// Only to be dropped.
    ran: Option<Ran<D::Mapping>>,
}

/// Prepares a batch: looks what it needs in one moment, asks for memory, and takes it in another. The turn keeps others from
/// promising the same room in between.
#[track_caller]
pub(super) fn prepare<D: ImmediateDriver>(
    vm: &Object<VmInner<D>>,
    requests: &[Request<D::Mapping>],
) -> Result<VmPrepared<D>, VmError> {
    let no_memory = |error: AllocError| VmError::Plan(no_memory_for(requests)(error));
    let own = copied(requests).map_err(no_memory)?;
    let mut bos = HeapVec::new();
    try_reserve(&mut bos, requests.len()).map_err(no_memory)?;
    let batch = Own { prepared: None, bos, room: None, done: None, result: Ok(()), ran: None };
    let mut node = try_box(Node::new(batch)).map_err(|(error, _)| no_memory(error))?;

    let _turn = Edit::begin(vm)?;
    let (room, slots) = {
        let moment = Moment::wait(vm)?;
        let space = &moment.body().space;
        let room = space.room_for_all(requests).map_err(VmError::Plan)?;
        (room, space.store.slots_for(room))
    };
    let mut wider = slots.map(Wider::try_new).transpose().map_err(no_memory)?;
    let mut moment = Moment::wait(vm)?;
    let space = &mut moment.body_mut().space;
    if let Some(wider) = &mut wider {
        space.store.move_to(wider);
    }
    let sources = requests.iter().filter_map(|request| match request {
        Request::Map { source, .. } => source.bo(),
        Request::Unmap { .. } | Request::Protect { .. } => None,
    });
    for open in sources.filter_map(|bo| space.bo(bo)) {
        #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved above")]
        node.batch.bos.push(open.counted());
    }
    let prepared = space.prepare_in_room(own, room);
    // The old memory goes with the space given back.
    drop(moment);
    Ok(VmPrepared { vm: vm.clone(), node, prepared: prepared.map_err(no_memory)? })
}

impl<D: ImmediateDriver> VmPrepared<D> {
    /// The driver has put aside what the page tables can need: from now on it must run. Any context; cannot fail.
    pub fn accept(self, room: D::Room) -> Bind<D> {
        let Self { vm, mut node, prepared } = self;
        node.batch.prepared = Some(prepared);
        node.batch.room = Some(room);
        Bind { vm, node: Some(node) }
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        &self.vm.data
    }

    /// Locks what the batch must have locked when it is submitted, so that the buffers it maps stay where they are until it has
    /// run: the address space's reservation and those of the buffers; each with room for its job's fence. Of the buffers whose
    /// mappings it takes out or cuts, which nobody knows yet, some may be evicted when it runs. May block; allocates.
    ///
    /// # Errors
    /// [`LockError`]; hand [`LockError::Contended`] on.
    pub fn lock_bos<'a>(&self, attempt: &mut Attempt<'a>) -> Result<HeapVec<Slot<'a>>, LockError> {
        lock(&self.vm, self.bos().map(|(bo, _)| bo), self.node.batch.bos.len(), attempt)
    }

    /// The buffers that it maps, one for each map request, and what the driver keeps with them in this address space.
    pub fn bos(&self) -> impl Iterator<Item = (&D::Bo, &D::VmBo)> {
        self.node.batch.bos.iter().map(|pair| (&pair.bo, &pair.data))
    }
}

/// The address space's reservation and those of `bos`.
fn lock<'a, 'b, D: VmDriver>(
    vm: &VmInner<D>,
    bos: impl Iterator<Item = &'b D::Bo>,
    count: usize,
    attempt: &mut Attempt<'a>,
) -> Result<HeapVec<Slot<'a>>, LockError> {
    use super::driver::Bo;
    let mut slots = HeapVec::new();
    try_reserve(&mut slots, count + 1)?;
    let reservations = core::iter::once(&vm.reservation).chain(bos.map(|bo| bo.core().reservation()));
    for reservation in reservations {
        let slot = attempt.prepare(reservation)?;
        try_push(&mut slots, slot).map_err(|(error, _)| error)?;
    }
    Ok(slots)
}

impl<D: ImmediateDriver> Deref for VmPrepared<D> {
    type Target = Prepared<D::Mapping>;

    fn deref(&self) -> &Self::Target {
        &self.prepared
    }
}

impl<D: ImmediateDriver> fmt::Debug for VmPrepared<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prepared.fmt(f)
    }
}

impl<D: ImmediateDriver> Bind<D> {
    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        &self.vm.data
    }

    /// Works the batch out against what is mapped, has [`ImmediateDriver::bind`] carry it out step by step and
    /// [`ImmediateDriver::flush`] flush, and completes its job. Here and now; if somebody has the space for a moment, by them at the
    /// end of that, in the order in which batches of this address space have begun. For [`Driver::run`](crate::Driver::run); any
    /// context; never waits, allocates nothing, drops nothing of the driver's.
    ///
    /// The job fails with the driver's error, and the VM is poisoned; what was carried out stays, and can be unmapped. It fails
    /// with [`FenceError::Canceled`] if the VM was closed meanwhile, or poisoned and the batch not only unmaps.
    pub fn run(mut self, done: Completion) {
        if let Some(mut node) = self.node.take() {
            node.batch.done = Some(done);
            moment::begin(&self.vm, node);
        }
    }
}

impl<D: ImmediateDriver> Drop for Bind<D> {
    fn drop(&mut self) {
        let promised = self.node.as_ref().and_then(|node| node.batch.prepared.as_ref());
        if promised.is_some_and(|prepared| !prepared.requests().is_empty()) {
            self.vm.state.lock().poisoned = true;
        }
    }
}

impl<D: ImmediateDriver> fmt::Debug for Bind<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.node.as_ref().and_then(|node| node.batch.prepared.as_ref());
        write!(f, "Bind({} requests)", requests.map_or(0, |prepared| prepared.requests().len()))
    }
}

impl<D: ImmediateDriver> Batch<D> for Own<D> {
    fn carry_out(&mut self, vm: &Object<VmInner<D>>, space: &mut Space<OpenBo<D>, D::Mapping>) {
        let Some(prepared) = self.prepared.take() else { return };
        let driver = &vm.device.driver;
        let room = &mut self.room;
        let mut touched = false;
        let ran = prepared.run(space, |space, step| {
            touched = true;
            driver.bind(&mut BindCx { vm: &vm.data, room: room.as_mut(), space, closing: None }, step)
        });
        let (ran, mut result) = match ran {
            Ok(ran) => (ran, Ok(())),
            Err(failed) => match failed.cause {
                Cause::Driver(error) => (failed.ran, Err(error)),
                Cause::Refused(_) | Cause::OtherSpace => (failed.ran, Err(FenceError::Canceled)),
            },
        };
        self.ran = Some(ran);
        if touched {
            if let Err(error) = driver.flush(&vm.data) {
                result = Err(error);
                if !vm.device.shared.is_quiesced_for_good() {
                    // Translations may lead to what has gone, so nothing that goes is free from now on.
                    core::mem::forget(VmUse::enter(vm));
                    vm.state.lock().quarantined += 1;
                }
            }
        }
        if result.is_err() && !space.is_closed() {
            space.poison();
            vm.state.lock().poisoned = true;
        }
        self.result = result;
    }

    fn tell(&mut self) {
        if let Some(done) = self.done.take() {
            done.complete(self.result);
        }
    }
}
