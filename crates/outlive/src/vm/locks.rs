//! All reservations of an address space at once: for jobs, which may touch whatever is mapped.
//!
//! # Protocol
//! An address space's own reservation is locked first; whoever adds an external buffer has it locked while it does. So the
//! list that is read next cannot grow before the locks are given back, and a job whose fences are added under them misses no
//! buffer that was mapped before it. Buffers may leave meanwhile, which is no harm.
//!
//! # Eviction
//! A buffer counts its evictions, with its reservation locked; a pair knows how many its entries have followed. The two
//! differ from an eviction until the pair is validated, whatever else happens; nothing needs to be told to anybody. Local
//! buffers are looked through only if any of them was evicted.
//!
//! # Why it cannot deadlock
//! Reservations are taken by age ([`crate::resv`]); the turn, where somebody wants both, is taken before them.

use super::buffer::VmBo;
use super::change::VmPlan;
use super::driver::{Bo, VmDriver};
use super::pairs::{OpenPairs, PairInner};
use super::shared::{State, VmInner};
use crate::exec::object::Object;
use crate::fence::Retired;
use crate::mem::{AllocError, HeapVec, try_push, try_reserve};
use crate::resv::{Attempt, Carry, LockError, Sealed, Slot, Usage};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use core::fmt;

type Pair<D> = Object<PairInner<D>>;

/// An address space's reservations, locked by one attempt, each with room for a fence; see
/// [`Vm::lock_all`](super::Vm::lock_all).
#[must_use = "fill its slots in the sealed phase with `VmLocks::add`"]
pub struct VmLocks<'a, D: VmDriver> {
    vm: Object<VmInner<D>>,
    /// Of the address space; not where only what a job names is locked.
    own: Option<Slot<'a>>,
    external: HeapVec<(Pair<D>, Slot<'a>)>,
    /// Local buffers that are to be validated.
    local: HeapVec<Pair<D>>,
    local_evictions: u64,
}

impl<D: VmDriver> Carry for VmLocks<'_, D> {
    type In<'a> = VmLocks<'a, D>;
}

impl<'a, D: VmDriver> VmLocks<'a, D> {
    pub(super) fn lock(vm: &Object<VmInner<D>>, attempt: &mut Attempt<'a>) -> Result<Self, LockError> {
        let own = attempt.prepare(&vm.reservation)?;
        let mut pairs = gather(vm, |state| &state.externals)?;
        if sabotage::is(Sabotage::ForgetExternal) {
            pairs.pop();
        }
        let mut external = HeapVec::new();
        try_reserve(&mut external, pairs.len())?;
        for pair in pairs {
            let slot = attempt.prepare(pair.bo.core().reservation())?;
            try_push(&mut external, (pair, slot)).map_err(|(error, _)| error)?;
        }
        // Cannot change: local buffers are evicted with the address space's reservation locked.
        let local_evictions = vm.local_evictions.load(Ordering::Relaxed);
        let answered = vm.state.lock().locals_valid_at == local_evictions;
        let mut local = if answered { HeapVec::new() } else { gather(vm, |state| &state.locals)? };
        local.retain(|pair| is_evicted(pair));
        Ok(Self { vm: vm.clone(), own: Some(own), external, local, local_evictions })
    }

    pub(super) fn lock_named(
        vm: &Object<VmInner<D>>,
        attempt: &mut Attempt<'a>,
        named: &[&VmBo<D>],
    ) -> Result<Self, LockError> {
        let mut external = HeapVec::new();
        try_reserve(&mut external, named.len())?;
        for pair in named.iter().map(|bo| bo.pair()).filter(|pair| pair.vm.as_ptr() == vm.as_ptr()) {
            let slot = attempt.prepare(pair.bo.core().reservation())?;
            try_push(&mut external, (pair.clone(), slot)).map_err(|(error, _)| error)?;
        }
        Ok(Self { vm: vm.clone(), own: None, external, local: HeapVec::new(), local_evictions: 0 })
    }

    /// How many external buffers there are, or how many that were named.
    #[must_use]
    pub fn external(&self) -> usize {
        self.external.len()
    }

    /// Calls `validate` for each buffer that was evicted since it was validated last: gives it pages, and its entries what leads
    /// there. Stops at the first error; those before it are not asked for again, in this attempt or a later one.
    ///
    /// # Errors
    /// That of `validate`.
    pub fn validate<E>(&self, mut validate: impl FnMut(&D::Bo, &D::VmBo) -> Result<(), E>) -> Result<(), E> {
        let external = self.external.iter().map(|(pair, _)| pair);
        for pair in external.chain(&self.local).filter(|pair| is_evicted(pair)) {
            let evictions = pair.bo.core().evictions();
            validate(&pair.bo, &pair.data)?;
            pair.valid_at.store(evictions, Ordering::Relaxed);
        }
        if self.own.is_some() {
            self.vm.state.lock().locals_valid_at = self.local_evictions;
        }
        Ok(())
    }

    /// Hangs `fence`, of a job in this address space, on all that is locked: as `own` on the address space and its local buffers, as
    /// `external` on the others, and on those that were named (usually [`Usage::Bookkeep`], and what the job does to what it shares). Cannot fail; allocates
    /// nothing.
    pub fn add(self, sealed: &mut Sealed<'a>, own: Usage, external: Usage, fence: &Retired) {
        if let Some(slot) = self.own {
            sealed.add(slot, own, fence);
        }
        for (_, slot) in self.external {
            sealed.add(slot, external, fence);
        }
    }
}

impl<D: VmDriver> VmPlan<'_, D> {
    /// Locks what the batch must have locked: the address space's reservation, and those of all buffers that are mapped or lose
    /// a mapping; each with room for a fence. May block; allocates.
    ///
    /// # Errors
    /// [`LockError`]; hand [`LockError::Contended`] on.
    pub fn lock_bos<'a>(&self, attempt: &mut Attempt<'a>) -> Result<HeapVec<Slot<'a>>, LockError> {
        let bos = self.bos()?;
        let mut slots = HeapVec::new();
        try_reserve(&mut slots, bos.len() + 1)?;
        let named = bos.iter().filter_map(|bo| Some(self.bo(*bo)?.bo().core().reservation()));
        for reservation in core::iter::once(&self.vm().reservation).chain(named) {
            let slot = attempt.prepare(reservation)?;
            try_push(&mut slots, slot).map_err(|(error, _)| error)?;
        }
        Ok(slots)
    }
}

fn is_evicted<D: VmDriver>(pair: &PairInner<D>) -> bool {
    pair.valid_at.load(Ordering::Relaxed) != pair.bo.core().evictions()
}

/// The pairs of a list, counted.
fn gather<D: VmDriver>(vm: &VmInner<D>, list: fn(&State<D>) -> &OpenPairs<D>) -> Result<HeapVec<Pair<D>>, AllocError> {
    let mut pairs = HeapVec::new();
    loop {
        let len = list(&vm.state.lock()).len();
        try_reserve(&mut pairs, len)?;
        let state = vm.state.lock();
        if list(&state).len() > pairs.capacity() {
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "there is room: it was looked at under the lock")]
        list(&state).each(|pair| pairs.push(pair));
        return Ok(pairs);
    }
}

impl<D: VmDriver> fmt::Debug for VmLocks<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmLocks({} external)", self.external.len())
    }
}
