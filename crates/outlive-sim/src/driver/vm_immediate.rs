//! `SimVm<Immediate>`: what users map, changed only when the jobs of a bind queue run. It is an address space of the library beside
//! the client's own, in the same page tables: that one keeps what the driver maps for itself.
//!
//! # Who touches what
//! Page tables for a batch are put aside when it is accepted, beside all others' in those page tables, and what is left of them
//! goes back on the reaper. Nothing here has the space for longer than a moment.

use core::cell::RefCell;
use outlive::resv::{Slot, Transaction, Usage};
use outlive::vm::{Geometry, Immediate, Request, Vm, VmBo, VmConfig, VmError};
use outlive::{Dependency, JobFences, QueueConfig};

use super::binder::{BindJob, Change};
use super::bo::SimBo;
use super::client::SimQueue;
use super::hardware::SimDriver;
use super::job::JobSpec;
use super::space::VM_START;
use super::tables::{Opened, SimTables};
use super::vm_client::{SimVm, SimVmError};
use crate::gpu::{PAGE_BYTES, Va};

impl SimVm<Immediate> {
    /// What users map in the page tables of `client`, changed only by the jobs of a bind queue of its own. The client's other
    /// address space gives that range up.
    ///
    /// # Errors
    /// [`SimVmError`]; [`SpaceError::InUse`](outlive::vm::SpaceError) if users have mapped something there already.
    pub fn immediate(client: &SimQueue) -> Result<Self, SimVmError> {
        let (other, device) = (client.vm(), client.queue().device());
        let len = other.data().space().reach.end().0 - VM_START;
        let geometry = Geometry { base: VM_START, len, page: PAGE_BYTES as u64 };
        let vm = Vm::immediate(device, VmConfig::new(geometry), SimTables::beside(other.data()))?;
        let range = vm.look()?.range();
        other.edit()?.reserve_range(range).map_err(VmError::Space)?;
        Self::with(vm, device, QueueConfig::new("bind"))
    }

    /// Opens a buffer here.
    ///
    /// # Errors
    /// [`SimVmError::Vm`].
    pub fn open(&self, bo: &SimBo) -> Result<VmBo<SimDriver>, SimVmError> {
        Ok(self.vm.open(bo, || Opened::new(bo, self.vm.data(), None))?)
    }

    /// Changes the address space in a job of the bind queue, after `after`: against what is mapped when it runs. All memory that
    /// it can need is taken here. The buffers that it maps are resident until then: it hangs on their reservations.
    ///
    /// # Errors
    /// [`SimVmError`].
    pub fn bind(&self, requests: &[Request], after: Vec<Dependency>) -> Result<JobFences, SimVmError> {
        let prepared = self.vm.prepare(requests)?;
        let tables = self.vm.data().put_aside(&prepared)?;
        let reserved = self.binder.reserve_after(BindJob::new(), after);
        let mut reserved = reserved.map_err(|refused| SimVmError::Refused(refused.kind))?;
        let prepared = RefCell::new(Some(prepared));
        let bound = Transaction::new().run::<Vec<Slot<'_>>, _>(
            |attempt| prepared.borrow().as_ref().map_or(Ok(Vec::new()), |prepared| prepared.lock_bos(attempt)),
            |sealed, slots| {
                let Some(prepared) = prepared.take() else { unreachable!("taken here, once") };
                reserved.bind(Change::Immediate(prepared.accept(tables)));
                let fences = reserved.commit();
                for slot in slots {
                    sealed.add(slot, Usage::Kernel, &fences.retired());
                }
                fences
            },
        );
        Ok(bound?)
    }

    /// As [`SimVm::submit`](SimVm::<outlive::vm::Staged>::submit).
    ///
    /// # Errors
    /// As there.
    pub fn submit(&self, queue: &SimQueue, spec: JobSpec, va: u64, bytes: u64) -> Result<JobFences, SimVmError> {
        let mut job = self.reserve(queue, spec, Va(va), bytes)?;
        self.publish(&mut job, |bo| self.bring_back(bo))
    }

    /// Puts the entries of `bo` back. No change is under way, and none can be submitted, so what is seen in one moment still holds
    /// in the next; memory for page tables is taken in between.
    fn bring_back(&self, bo: &SimBo) -> Result<(), SimVmError> {
        let Some(pair) = self.vm.look()?.find_bo(bo) else { return Ok(()) };
        let mut ranges = Vec::with_capacity(self.vm.look()?.mappings_of(pair.id()));
        ranges.extend(self.vm.look()?.of_bo(pair.id()).map(|mapping| mapping.range));
        for range in ranges {
            self.vm.data().prepare(Va(range.base()), range.len()).map_err(SimVmError::Map)?;
        }
        self.map_again(&*self.vm.look()?, &pair)
    }
}
