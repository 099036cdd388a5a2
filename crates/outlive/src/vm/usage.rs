//! What keeps what is mapped in its place: jobs, and changes whose page tables are still to follow.

use super::driver::VmDriver;
use super::grace::Side;
use super::shared::{VmInner, Whole};
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
