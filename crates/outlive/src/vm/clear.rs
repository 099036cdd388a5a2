//! What has left an address space and is still in its page tables: the owner of those pages.
//!
//! # States
//! *held* by whoever closed → *given up* (dropped: on the VM's own list) → *handed* to the driver's
//! [`clear`](StagedDriver::clear) (or, step by step, its [`bind`](ImmediateDriver::bind)) once no job may use it any more → *cleared* → freed. Whoever holds it may say at once that it
//! is cleared. Dropped by `clear`, it is in quarantine.
//!
//! # Guarantee
//! The buffer, the driver's data of its mappings and, for a whole VM, the driver's data of that live until it has been said
//! that the entries are cleared and flushed **and** every job and every change that had begun before the mappings left has
//! ended.
//!
//! # Contexts
//! Dropping it and [`ToClear::cleared`] are legal everywhere, the signalling path included: they allocate nothing, free
//! nothing, take a lock for a few instructions, and leave the rest to the reaper.

use super::close::BoIter;
use super::driver::VmDriver;
#[cfg(doc)]
use super::driver::{ImmediateDriver, StagedDriver};
use super::mapping::Mapping;
use super::pairs::{Over, PairInner, Phase};
use super::shared::{VmInner, Whole};
use super::{Edit, Iter, OpenBo, Space, VaRange};
use crate::exec::object::Object;
use crate::sabotage::{self, Sabotage};
use core::fmt;

/// The driver's word that no translation to what is freed next can be used any more: the entries are cleared, every
/// translation cache that may have had them was flushed, and the flush has completed.
#[derive(Debug)]
#[must_use = "give it to `ToClear::cleared` or `Binding::flushed`"]
pub struct Flushed(());

impl Flushed {
    /// You say so.
    pub const fn by_driver() -> Self {
        Self(())
    }
}

/// A closed buffer in an address space, or a closed address space, whose mappings are still in the page tables. It owns their
/// pages: they are freed once it was said to be cleared, and all who may have used them have ended.
#[must_use = "the mappings are still in the page tables; dropped, the driver is asked to clear them on the reaper"]
pub struct ToClear<D: VmDriver> {
    /// `None` while it is being dropped.
    what: Option<What<D>>,
    /// The driver's `clear` got it.
    handed: bool,
}

pub(super) enum What<D: VmDriver> {
    Bo(Object<PairInner<D>>),
    Vm(Object<VmInner<D>>),
}

impl<D: VmDriver> What<D> {
    fn vm(&self) -> &Object<VmInner<D>> {
        match self {
            Self::Bo(pair) => &pair.vm,
            Self::Vm(vm) => vm,
        }
    }
}

impl<D: VmDriver> ToClear<D> {
    pub(super) const fn held(what: What<D>) -> Self {
        Self { what: Some(what), handed: false }
    }

    pub(super) const fn handed(what: What<D>) -> Self {
        Self { what: Some(what), handed: true }
    }

    pub(super) fn what(&self) -> &What<D> {
        match &self.what {
            Some(what) => what,
            None => unreachable!("taken by value or in the drop only"),
        }
    }

    /// The buffer and what the driver keeps with it; `None` for a whole address space.
    #[must_use]
    pub fn bo(&self) -> Option<(&D::Bo, &D::VmBo)> {
        match self.what() {
            What::Bo(pair) => Some((&pair.bo, &pair.data)),
            What::Vm(_) => None,
        }
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        &self.what().vm().data
    }

    /// Whether a job or a change that began before the mappings left may still use them, or they have not left yet: they do
    /// when the next [`Edit`] begins. Clearing them now would let such a job fault. Any context.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let state = self.what().vm().state.lock();
        match self.what() {
            What::Bo(pair) => pair.state.lock().over(&state.grace, state.named) != Over::Yes,
            What::Vm(_) => state.grace.live() + state.named > 0,
        }
    }

    /// Its entries are cleared and flushed. What it owns is freed on the reaper, once nothing that began before it left may
    /// use it. Any context; never blocks.
    pub fn cleared(mut self, flushed: Flushed) {
        let Flushed(()) = flushed;
        if let Some(what) = self.what.take() {
            cleared(what);
        }
    }

    /// The device is gone and can make no DMA for good, so nothing needs to be cleared. Any context; never blocks.
    ///
    /// # Errors
    /// It is not, or that could not be excluded when it was unplugged.
    pub fn quiesced(self) -> Result<(), Self> {
        if self.what().vm().device.shared.is_quiesced_for_good() {
            self.cleared(Flushed(()));
            Ok(())
        } else {
            Err(self)
        }
    }

    pub(super) fn is_of(&self, vm: &Object<VmInner<D>>) -> bool {
        self.what().vm().as_ptr() == vm.as_ptr()
    }
}

impl<D: VmDriver> Drop for ToClear<D> {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            give_up(what, self.handed);
        }
    }
}

impl<D: VmDriver> fmt::Debug for ToClear<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.what, Some(What::Vm(_))) { "ToClear(address space)" } else { "ToClear(buffer)" })
    }
}

/// Onto the VM's list; into quarantine if the driver gave it up. Any context.
fn give_up<D: VmDriver>(what: What<D>, handed: bool) {
    if sabotage::is(Sabotage::ReleaseBeforeCleared) && !handed {
        return cleared(what);
    }
    let vm = what.vm().clone();
    let mut left = None;
    {
        let mut state = vm.state.lock();
        match what {
            What::Bo(pair) if handed => {
                state.quarantined += 1;
                core::mem::forget(pair);
            }
            What::Vm(whole) if handed => {
                state.quarantined += 1;
                core::mem::forget(whole);
            }
            What::Bo(pair) => {
                let mut own = pair.state.lock();
                own.phase = Phase::GivenUp;
                let is_out = own.out.is_some();
                drop(own);
                if is_out {
                    state.waiting.push(pair);
                } else {
                    left = Some(pair);
                }
            }
            What::Vm(whole) => state.whole = Whole::GivenUp(whole, None),
        }
    }
    vm.poke();
    drop(left);
}

/// The driver says that it is cleared and flushed. Any context.
fn cleared<D: VmDriver>(what: What<D>) {
    let vm = what.vm().clone();
    let mut left = None;
    {
        let mut state = vm.state.lock();
        match what {
            What::Bo(pair) => {
                let mut own = pair.state.lock();
                own.phase = Phase::Cleared;
                let is_out = own.out.is_some();
                drop(own);
                if is_out {
                    state.done.push(pair);
                } else {
                    left = Some(pair);
                }
            }
            What::Vm(whole) => state.whole = Whole::Cleared(whole, None),
        }
    }
    vm.poke();
    drop(left);
}

impl<D: VmDriver> Edit<D> {
    /// The mappings that `to_clear` stands for: for a buffer's in no order, for a whole address space ascending. None if it is
    /// of another address space.
    #[must_use]
    pub fn clearing(&self, to_clear: &ToClear<D>) -> Clearing<'_, D> {
        Clearing::of(self, self.vm(), to_clear)
    }

    /// The parts of `range`, that of a mapping of [`Edit::clearing`], where its entries still are, ascending. Where something was
    /// mapped since the close, be that mapped now or closed in its turn and still to be cleared for itself, other entries have
    /// taken their place. For a whole address space: `range`.
    ///
    /// So it is once the entries of what was mapped since are written. A driver that writes them later, in bind jobs, also clears
    /// where they are still to be written.
    pub fn still_there<'a>(&'a self, to_clear: &'a ToClear<D>, range: VaRange) -> impl Iterator<Item = VaRange> + 'a {
        let (whole, pair) = match to_clear.what() {
            _ if !to_clear.is_of(self.vm()) => (None, None),
            What::Vm(_) => (Some(range), None),
            What::Bo(pair) => (None, Some(pair)),
        };
        let parts = pair.map(|pair| self.body().still_there(pair, range));
        whole.into_iter().chain(parts.into_iter().flatten())
    }
}

impl<'a, D: VmDriver> Clearing<'a, D> {
    /// What `to_clear` stands for in `space`, which is that of `vm`.
    pub(super) fn of(space: &'a Space<OpenBo<D>, D::Mapping>, vm: &Object<VmInner<D>>, to_clear: &ToClear<D>) -> Self {
        if !to_clear.is_of(vm) {
            return Self(Either::None);
        }
        match to_clear.what() {
            What::Vm(_) => Self(Either::Whole(space.iter())),
            What::Bo(pair) => match &pair.state.lock().out {
                Some((detached, _)) => Self(Either::Bo(space.detached(detached))),
                None => Self(Either::None),
            },
        }
    }
}

/// The mappings of a [`ToClear`]; see [`Edit::clearing`].
pub struct Clearing<'a, D: VmDriver>(Either<'a, D>);

enum Either<'a, D: VmDriver> {
    Bo(BoIter<'a, OpenBo<D>, D::Mapping>),
    Whole(Iter<'a, OpenBo<D>, D::Mapping>),
    None,
}

impl<'a, D: VmDriver> Iterator for Clearing<'a, D> {
    type Item = Mapping<&'a D::Mapping>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Either::Bo(mappings) => mappings.next(),
            Either::Whole(mappings) => mappings.next(),
            Either::None => None,
        }
    }
}

impl<D: VmDriver> fmt::Debug for Clearing<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clearing")
    }
}
