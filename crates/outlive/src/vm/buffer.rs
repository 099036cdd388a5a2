//! `VmBo`: a buffer in an address space.
//!
//! A pair of the two is unique while the buffer is open. Handles are counted apart from the pair's memory: the last handle's
//! drop closes the buffer in the VM, as [`VmBo::close`] does at once, for all handles. From then on the next [`Edit`] does not
//! see it any more, and it can be opened anew.
//!

use super::bo::BoId;
use super::clear::{ToClear, What};
use super::driver::VmDriver;
use super::edit::Edit;
use super::pairs::{PairInner, Phase};
use super::shared::Whole;
use crate::exec::object::Object;
use core::fmt;

/// A handle on a buffer that is open in an address space. The last one's drop closes it there; any context.
pub struct VmBo<D: VmDriver> {
    pair: Object<PairInner<D>>,
}

impl<D: VmDriver> VmBo<D> {
    /// Takes over a handle that is counted.
    pub(super) const fn new(pair: Object<PairInner<D>>) -> Self {
        Self { pair }
    }

    pub(super) const fn pair(&self) -> &Object<PairInner<D>> {
        &self.pair
    }

    /// By which mappings name it.
    #[must_use]
    pub fn id(&self) -> BoId {
        self.pair.id
    }

    /// The driver's buffer.
    #[must_use]
    pub fn bo(&self) -> &D::Bo {
        &self.pair.bo
    }

    /// What the driver keeps with it.
    #[must_use]
    pub fn data(&self) -> &D::VmBo {
        &self.pair.data
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        &self.pair.vm.data
    }

    /// The turn at its address space, if that has one and nobody has it: as [`Vm::try_edit`](super::Vm::try_edit).
    #[must_use]
    pub fn try_edit(&self) -> Option<Edit<D>> {
        let vm = &self.pair.vm;
        if vm.in_moments { None } else { Edit::try_begin(vm) }
    }

    /// Whether it has not been closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pair.state.lock().phase == Phase::Open
    }

    /// Closes the buffer in this address space: all of its mappings go. Cannot fail; allocates nothing; takes the same time
    /// whatever is mapped; any context. `None`: it was closed, or everything of the VM has been cleared already.
    ///
    /// Whoever is changing the address space right now still sees it until that ends.
    pub fn close(&self) -> Option<ToClear<D>> {
        self.end(false)
    }

    pub(super) const fn inner(&self) -> &Object<PairInner<D>> {
        &self.pair
    }

    fn end(&self, is_drop: bool) -> Option<ToClear<D>> {
        let pair = &self.pair;
        let mut state = pair.vm.state.lock();
        let mut own = pair.state.lock();
        own.handles -= usize::from(is_drop);
        if own.phase != Phase::Open || (is_drop && own.handles > 0) {
            let was_named = own.handles == 0 && own.out.is_some() && state.named > 0;
            drop((own, state));
            if was_named {
                pair.vm.poke();
            }
            return None;
        }
        if matches!(state.whole, Whole::Gone) {
            own.phase = Phase::Cleared;
            state.unlist(pair);
            return None;
        }
        own.phase = Phase::Closed;
        drop(own);
        state.closing.push(pair.clone());
        drop(state);
        Some(ToClear::held(What::Bo(pair.clone())))
    }
}

impl<D: VmDriver> Clone for VmBo<D> {
    fn clone(&self) -> Self {
        self.pair.state.lock().handles += 1;
        Self { pair: self.pair.clone() }
    }
}

impl<D: VmDriver> Drop for VmBo<D> {
    fn drop(&mut self) {
        drop(self.end(true));
    }
}

impl<D: VmDriver> fmt::Debug for VmBo<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmBo({})", self.pair.id)
    }
}
