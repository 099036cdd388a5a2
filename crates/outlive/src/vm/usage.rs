//! What keeps what is mapped in its place: jobs, and changes whose page tables are still to follow.

use super::driver::VmDriver;
use super::grace::Side;
use super::handle::{Vm, VmError};
use super::mode::Mode;
use super::shared::{VmInner, Whole};
use crate::exec::object::Object;
use core::fmt;

/// A job's hold on an address space: everything that was mapped when it was made stays in the page tables, and its pages are
/// not freed, until it is dropped. A job's payload carries one; payloads are dropped after `retired`, so what a running job
/// uses is cleared after that, and never if the job is in quarantine. It keeps the inside of the VM, and is no handle.
///
/// That is the job of an interface where jobs may touch whatever is mapped. Where each job says which buffers it touches, its
/// payload carries their [`VmBo`](super::VmBo)s and a *named* use ([`Vm::in_use_named`](super::Vm::in_use_named)): it keeps the
/// page tables and those buffers, and nothing else (nor what a mapping holds that a bind job takes out). Both kinds may be at work in one address space.
///
/// Made where a job is reserved; allocates nothing. Dropped in any context.
pub struct VmUse<D: VmDriver> {
    vm: Object<VmInner<D>>,
    what: Uses,
}

#[derive(Debug, Clone, Copy)]
enum Uses {
    /// All that is mapped.
    All(Side),
    /// Buffers whose handles lie beside it.
    Named,
}

impl<D: VmDriver> VmUse<D> {
    /// Of all that is mapped.
    pub(super) fn enter(vm: &Object<VmInner<D>>) -> Self {
        let side = vm.state.lock().grace.enter();
        Self { vm: vm.clone(), what: Uses::All(side) }
    }

    /// As a job's, which cannot begin once the address space is closed.
    pub(super) fn of_job(vm: &Object<VmInner<D>>, named: bool) -> Result<Self, VmError> {
        let mut state = vm.state.lock();
        if state.closed {
            return Err(VmError::Closed);
        }
        let what = if named {
            state.named += 1;
            Uses::Named
        } else {
            Uses::All(state.grace.enter())
        };
        drop(state);
        Ok(Self { vm: vm.clone(), what })
    }

    /// Whether it is of this address space.
    #[must_use]
    pub fn is_of<M: Mode>(&self, vm: &Vm<D, M>) -> bool {
        self.vm.as_ptr() == vm.inner().as_ptr()
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
            let ended = match self.what {
                Uses::All(side) => state.grace.leave(side),
                Uses::Named => {
                    state.named -= 1;
                    state.named == 0
                }
            };
            let whole_waits = matches!(state.whole, Whole::GivenUp(..) | Whole::Cleared(..));
            ended && (whole_waits || state.leaving.is_some() || !state.waiting.is_empty() || !state.done.is_empty())
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
