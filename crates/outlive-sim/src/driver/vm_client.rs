//! `SimVm`: a client's address space in its users' hands: buffers, binds, jobs that use whatever is mapped, eviction.
//!
//! # How a job is submitted
//! It is reserved first, to wait for the changes that are under way: that may drop other jobs' payloads, which may want turns and
//! locks of their own. Then everything that it may touch is locked ([`Vm::lock_all`]); what was evicted gets pages again and its
//! entries back (the first lack of memory ends that, and the caller makes room and tries again: what has its pages keeps them);
//! then the job is committed and its `retired` hung on all of it; or it waits for too little, as the address space was changed
//! meanwhile, and the caller tries again. If it is not committed, it is dropped without turn and locks. Its payload carries a
//! [`VmUse`](outlive::vm::VmUse).
//!
//! A bind job is reserved and committed likewise; if it waits for too little it is reserved once more, here.
//!
//! An address space is staged, the client's own; or immediate, beside it in the same page tables (`vm_immediate`).
//!
//! Entries are put back for what the space says is mapped. While the bind queue has changes of it, that is not yet what the page
//! tables hold, so whoever finds something evicted waits for those first. How it is evicted: `evict`.

use alloc::sync::Arc;
use core::cell::RefCell;
use core::fmt;
use outlive::resv::{LockError, Slot, Transaction, Usage};
use outlive::trace::FenceId;
use outlive::vm::{
    BoCore, EditRefused, Flushed, Mode, OpenBo, PlanError, Request, Space, Staged, Step, VaRange, Vm, VmBo, VmError,
    VmLocks, VmPlan,
};
use outlive::{Dependency, Device, Fence, JobFences, JobQueue, OpenError, QueueConfig, Refusal, Reserved};

use super::binder::{self, BindJob, Binder, Change};
use super::bo::{Pages, SimBo};
use super::client::{SimQueue, SubmitError};
use super::hardware::SimDriver;
use super::job::{JobSpec, VmWork};
use super::machine::Shared;
use super::space::VM_START;
use super::tables::Opened;
use crate::gpu::{MapError, MemoryError, Va};

/// See the module. How it is changed is its type, as the library's.
#[derive(Debug)]
pub struct SimVm<M: Mode = Staged> {
    pub(super) vm: Vm<SimDriver, M>,
    device: Device<SimDriver>,
    pub(super) binder: JobQueue<Binder>,
    shared: Arc<Shared>,
}

/// A job that is still to be published, or was. Dropped without turn and locks.
#[derive(Debug)]
pub(super) struct Ready {
    reserved: Option<Reserved<SimDriver>>,
    /// Changes of the address space that it waits for.
    changes: Vec<FenceId>,
}

/// Why something was not done. Nothing is left of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SimVmError {
    /// There is no device memory for it: evict something, and try again.
    Memory(MemoryError),
    /// The page tables do not hold it.
    Map(MapError),
    /// Somebody still uses it: wait for this, and try again.
    Busy(Fence),
    /// Entries still lead to it: try again later.
    StillMapped,
    /// It cannot be locked.
    Lock(LockError),
    /// It cannot be planned.
    Plan(PlanError),
    /// The address space cannot be had.
    Vm(VmError),
    /// The library did not take the job.
    Refused(Refusal),
    /// The library did not open the bind queue.
    Open(OpenError),
    /// The client's queue did not take the job.
    Submit(SubmitError),
    /// Below [`VM_START`] the driver says what is mapped.
    Driver(Va),
}

impl fmt::Display for SimVmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Busy(fence) => write!(f, "in use: {fence:?}"),
            Self::StillMapped => f.write_str("page tables still lead to the buffer: try again when they are cleared"),
            Self::Lock(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::Vm(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Submit(error) => error.fmt(f),
            Self::Driver(va) => write!(f, "{va} is in the driver's range: map from {} on", Va(VM_START)),
        }
    }
}

impl core::error::Error for SimVmError {}

macro_rules! from {
    ($($error:ident in $variant:ident)*) => {
        $(impl From<$error> for SimVmError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from! { LockError in Lock PlanError in Plan VmError in Vm MemoryError in Memory OpenError in Open SubmitError in Submit }

impl From<EditRefused> for SimVmError {
    fn from(error: EditRefused) -> Self {
        Self::Vm(VmError::Refused(error))
    }
}

impl<M: Mode> SimVm<M> {
    pub(super) fn with(
        vm: Vm<SimDriver, M>,
        device: &Device<SimDriver>,
        binds: QueueConfig,
    ) -> Result<Self, SimVmError> {
        let binder = Device::new(device.executor(), Binder)?.queue(binds, ())?;
        let shared = Arc::clone(&vm.data().space().shared);
        Ok(Self { vm, device: device.clone(), binder, shared })
    }

    /// The library's address space: to open buffers in, to look at.
    #[must_use]
    pub const fn vm(&self) -> &Vm<SimDriver, M> {
        &self.vm
    }

    pub(crate) const fn device(&self) -> &Device<SimDriver> {
        &self.device
    }

    /// The bind queue.
    #[must_use]
    pub const fn binder(&self) -> &JobQueue<Binder> {
        &self.binder
    }

    /// A buffer that only this address space may have: it shares the reservation. Zeroed.
    ///
    /// # Errors
    /// [`SimVmError::Memory`].
    pub fn local(&self, bytes: u64) -> Result<SimBo, SimVmError> {
        Ok(SimBo::new(&self.shared, BoCore::local(&self.vm, bytes), Pages::Large)?)
    }

    /// A buffer with a reservation of its own, to be opened in several. Zeroed.
    ///
    /// # Errors
    /// [`SimVmError::Memory`].
    pub fn external(&self, bytes: u64) -> Result<SimBo, SimVmError> {
        let core = BoCore::new(&self.device, bytes).map_err(|error| SimVmError::Vm(error.into()))?;
        Ok(SimBo::new(&self.shared, core, Pages::Large)?)
    }

    /// Reserves a job that works here, behind what is being bound. Not under the turn or a reservation.
    pub(super) fn reserve(&self, queue: &SimQueue, mut spec: JobSpec, at: Va, bytes: u64) -> Result<Ready, SimVmError> {
        spec.vm = Some(VmWork { at, bytes, in_use: self.vm.in_use()? });
        let changes = self.changes()?;
        spec.after.extend(changes.iter().cloned().map(Dependency::from));
        let payload = queue.payload(&mut spec)?;
        let reserved = Some(queue.reserve_payload(payload, spec, 0)?);
        Ok(Ready { reserved, changes: changes.iter().map(Fence::id).collect() })
    }

    /// Locks all, has what was evicted brought back, and publishes; or leaves the job where it is.
    pub(super) fn publish(
        &self,
        job: &mut Ready,
        bring_back: impl Fn(&SimBo) -> Result<(), SimVmError>,
    ) -> Result<JobFences, SimVmError> {
        let submitted = Transaction::new().try_run::<VmLocks<'_, SimDriver>, _, SimVmError>(
            |attempt| {
                let locks = self.vm.lock_all(attempt)?;
                locks.validate(|bo, _| {
                    self.no_changes_under_way()?;
                    bo.move_in()?;
                    bring_back(bo)
                })?;
                Ok(locks)
            },
            |sealed, locks| {
                if self.changes()?.iter().any(|change| !job.changes.contains(&change.id())) {
                    return Err(SubmitError::Raced.into());
                }
                let reserved = job.reserved.take().unwrap_or_else(|| unreachable!("committed here, once"));
                let fences = reserved.commit();
                locks.add(sealed, Usage::Bookkeep, Usage::Write, &fences.retired());
                Ok(fences)
            },
        );
        submitted?
    }

    /// What the space says is mapped is what the page tables hold, and stays so while its reservation is locked.
    fn no_changes_under_way(&self) -> Result<(), SimVmError> {
        self.changes()?.pop().map_or(Ok(()), |change| Err(SimVmError::Busy(change)))
    }

    /// Changes that binds are still to carry out.
    fn changes(&self) -> Result<Vec<Fence>, SimVmError> {
        let changes = self.vm.reservation().snapshot(Usage::Kernel).map_err(|error| SimVmError::Vm(error.into()))?;
        let changes = changes.iter().map(|(_, change)| Fence::clone(change));
        Ok(changes.filter(|change| !change.is_signaled()).collect())
    }

    /// Puts the entries of `bo` back.
    pub(super) fn map_again(&self, space: &Space<OpenBo<SimDriver>>, pair: &VmBo<SimDriver>) -> Result<(), SimVmError> {
        for mapping in space.of_bo(pair.id()) {
            // Some may be there: mapped since, or its eviction was given up. They lead where these will.
            let range = mapping.range;
            self.vm.data().unmap(range.base(), range.len()).map_err(SimVmError::Map)?;
            self.vm.data().map(&mapping, Some(pair.bo())).map_err(SimVmError::Map)?;
        }
        Ok(())
    }
}

impl SimVm {
    /// The address space of `client`, and a bind queue of its own.
    ///
    /// # Errors
    /// [`SimVmError`].
    pub fn new(client: &SimQueue) -> Result<Self, SimVmError> {
        Self::with_queue(client, QueueConfig::new("bind"))
    }

    /// As [`SimVm::new`], with a bind queue made so: whose it is, for one.
    ///
    /// # Errors
    /// [`SimVmError`].
    pub fn with_queue(client: &SimQueue, binds: QueueConfig) -> Result<Self, SimVmError> {
        Self::with(client.vm().clone(), client.queue().device(), binds)
    }

    /// Opens a buffer here.
    ///
    /// # Errors
    /// [`SimVmError::Vm`].
    pub fn open(&self, bo: &SimBo) -> Result<VmBo<SimDriver>, SimVmError> {
        Ok(self.vm.open(bo, || Opened::new(bo, self.vm.data(), None))?)
    }

    /// Changes the address space and its page tables, all or nothing, and flushes. What is unmapped must not be in use.
    ///
    /// # Errors
    /// [`SimVmError::Busy`]: a bind is still to change the same addresses. [`SimVmError`].
    pub fn change(&self, requests: &[Request]) -> Result<(), SimVmError> {
        of_users(requests)?;
        let mut edit = self.vm.edit()?;
        let plan = edit.plan(requests)?;
        if let Some(change) = self.vm.data().under_way().touching(&ranges_of(&plan)).pop() {
            return Err(SimVmError::Busy(change));
        }
        let promised = self.vm.data().promise(&plan)?;
        let applied = plan.apply(&mut self.vm.data());
        self.vm.data().keep_promise(promised);
        let binding = applied.map_err(|undone| SimVmError::Map(undone.error))?;
        drop(binding.flushed(Flushed::by_driver()));
        Ok(())
    }

    /// Changes the address space now and its page tables in a job of the bind queue, after `after`, and after what other bind
    /// queues still change of the same addresses. The buffers that it maps are resident until then: it hangs on their
    /// reservations.
    ///
    /// # Errors
    /// [`SimVmError`].
    pub fn bind(&self, requests: &[Request], after: Vec<Dependency>) -> Result<JobFences, SimVmError> {
        of_users(requests)?;
        let mut earlier = Vec::new();
        loop {
            let after = after.iter().cloned().chain(earlier.iter().cloned().map(Dependency::from));
            let reserved = self.binder.reserve_after(BindJob::new(), after);
            let mut reserved = Some(reserved.map_err(|refused| SimVmError::Refused(refused.kind))?);
            let mut edit = self.vm.edit()?;
            let plan = edit.plan(requests)?;
            let ranges = ranges_of(&plan);
            let touching = self.vm.data().under_way().touching(&ranges);
            if touching.iter().all(|change| earlier.contains(change)) {
                return self.publish_bind(plan, ranges, &mut reserved);
            }
            earlier = touching;
        }
    }

    /// Locks what `plan` needs, which changes `ranges`, and publishes its job; or leaves that where it is.
    fn publish_bind(
        &self,
        plan: VmPlan<'_, SimDriver>,
        ranges: Vec<VaRange>,
        reserved: &mut Option<Reserved<Binder>>,
    ) -> Result<JobFences, SimVmError> {
        let plan = RefCell::new(Some(plan));
        let bound = Transaction::new().run::<Vec<Slot<'_>>, _>(
            |attempt| plan.borrow().as_ref().map_or(Ok(Vec::new()), |plan| plan.lock_bos(attempt)),
            |sealed, slots| {
                let Some(plan) = plan.take() else { unreachable!("taken here, once") };
                let promised = self.vm.data().promise(&plan)?;
                let bo = |step: &Step| match step {
                    Step::Map { mapping } => Some(plan.bo(mapping.source.bo()?)?.bo().clone()),
                    Step::Unmap { .. } | Step::Remap { .. } => None,
                };
                let bos = plan.steps().iter().map(bo).collect();
                let maps: Vec<_> =
                    plan.steps().iter().filter(|step| matches!(step, Step::Map { .. })).map(Step::changes).collect();
                let mut reserved = reserved.take().unwrap_or_else(|| unreachable!("committed here, once"));
                self.vm.data().under_way().add_unwritten(maps.into_iter());
                reserved.bind(Change::Staged(binder::Staged::new(plan.commit(), bos, promised)));
                let fences = reserved.commit();
                self.vm.data().under_way().add(ranges, &fences.retired().into_fence());
                for slot in slots {
                    sealed.add(slot, Usage::Kernel, &fences.retired());
                }
                Ok(fences)
            },
        );
        bound?
    }

    /// Submits a job that does its work on `bytes` bytes at `va` of this address space. It waits for what is being bound.
    ///
    /// # Errors
    /// [`SimVmError::Memory`]: something that was evicted has no room. Make some and call again: what has its pages back by
    /// then keeps them. [`SimVmError::Busy`]: something was evicted, and changes that are still to be carried out come first.
    /// [`SubmitError::Raced`]: somebody bound something meanwhile; try again.
    pub fn submit(&self, queue: &SimQueue, spec: JobSpec, va: u64, bytes: u64) -> Result<JobFences, SimVmError> {
        // It may need a turn of its own, for its commands.
        let mut job = self.reserve(queue, spec, Va(va), bytes)?;
        let edit = self.vm.edit()?;
        self.publish(&mut job, |bo| match edit.find_bo(bo) {
            Some(pair) => self.map_again(&edit, &pair),
            None => Ok(()),
        })
    }
}

/// What the steps of `plan` change.
fn ranges_of(plan: &VmPlan<'_, SimDriver>) -> Vec<VaRange> {
    plan.steps().iter().map(Step::changes).collect()
}

/// A user may change what users mapped.
fn of_users(requests: &[Request]) -> Result<(), SimVmError> {
    let va = |request: &Request| match *request {
        Request::Map { va, .. } | Request::Unmap { va, .. } | Request::Protect { va, .. } => va,
    };
    match requests.iter().map(va).find(|va| *va < VM_START) {
        Some(va) => Err(SimVmError::Driver(Va(va))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "vm_client_tests.rs"]
mod tests;
