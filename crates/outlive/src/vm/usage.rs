//! What keeps what is mapped in its place: jobs, and changes whose page tables are not yet as planned.

use super::clear::Flushed;
use super::driver::VmDriver;
use super::grace::Side;
use super::plan::Done;
use super::shared::{VmInner, Whole};
use super::step::Step;
use crate::exec::object::Object;
use core::fmt;

/// A job's hold on an address space: everything that was mapped when it was made stays in the page tables, and its pages are
/// not freed, until it is dropped. A job's payload carries one; payloads are dropped after `retired`, so what a running job
/// uses is cleared after that, and never if the job is in quarantine. It keeps the inside of the VM, and is no handle.
///
/// Made where a job is reserved ([`Vm::in_use`](super::Vm::in_use)); allocates nothing. Dropped in any context.
pub struct VmUse<D: VmDriver> {
    vm: Object<VmInner<D>>,
    side: Side,
}

impl<D: VmDriver> VmUse<D> {
    pub(super) fn enter(vm: &Object<VmInner<D>>) -> Self {
        let side = vm.state.lock().grace.enter();
        Self { vm: vm.clone(), side }
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        &self.vm.data
    }

    /// The page tables may not be as planned: see [`Vm::poison`](super::Vm::poison). Any context.
    pub fn poison(&self) {
        self.vm.state.lock().poisoned = true;
    }
}

impl<D: VmDriver> Drop for VmUse<D> {
    fn drop(&mut self) {
        let poke = {
            let mut state = self.vm.state.lock();
            let ended = state.grace.leave(self.side);
            let whole_waits = matches!(state.whole, Whole::GivenUp(..) | Whole::Cleared(..));
            ended && (whole_waits || !state.waiting.is_empty() || !state.done.is_empty())
        };
        if poke {
            self.vm.poke();
        }
    }
}

impl<D: VmDriver> fmt::Debug for VmUse<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VmUse")
    }
}

/// A committed change whose page tables are still to follow, or to be flushed: a value that a bind job's payload can carry.
/// Until it ends, no page that was mapped when it was committed is freed.
///
/// Dropped before [`Binding::flushed`], it poisons the VM: nobody knows what its page tables hold. The steps are dropped with
/// it, so drop it where the driver's data may be dropped.
#[must_use = "dropping it poisons the address space: say that the page tables are as planned with `flushed`"]
pub struct Binding<D: VmDriver> {
    /// `None` once it was taken.
    done: Option<Done<D::Mapping>>,
    in_use: VmUse<D>,
}

impl<D: VmDriver> Binding<D> {
    pub(super) const fn new(done: Done<D::Mapping>, in_use: VmUse<D>) -> Self {
        Self { done: Some(done), in_use }
    }

    /// What is to be done to the page tables, in this order.
    #[must_use]
    pub fn steps(&self) -> &[Step<D::Mapping>] {
        self.done.as_ref().map_or(&[], Done::steps)
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        self.in_use.vm_data()
    }

    /// The page tables are as planned, and flushed as far as something was unmapped. What the change leaves over comes back,
    /// to be dropped where that is legal. Any context.
    pub fn flushed(mut self, flushed: Flushed) -> Option<Done<D::Mapping>> {
        let Flushed { .. } = flushed;
        self.done.take()
    }
}

impl<D: VmDriver> Drop for Binding<D> {
    fn drop(&mut self) {
        if self.done.as_ref().is_some_and(|done| !done.steps().is_empty()) {
            self.in_use.poison();
        }
    }
}

impl<D: VmDriver> fmt::Debug for Binding<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({} steps)", self.steps().len())
    }
}
