//! In which address spaces a buffer is open: the list of its pairs, by which whoever moves its pages finds every address space
//! whose entries lead to them.
//!
//! # States
//! A list is made when a buffer is first opened, and counted by the buffer and by each pair in it: so a pair leaves the list
//! that it came into, whatever a driver's `core` may return by then. A pair is in it exactly while it is in its VM's list of
//! pairs that are in the space.
//!
//! # Who may touch what when
//! The list: under its lock, which is taken under a VM's and a pair's, never the other way round.
//!
//! # Why whoever walks it cannot deadlock
//! The walk counts the pairs under that lock and gives it back; what it returns are handles. Their turns are taken one at a
//! time: who holds one while it waits for another is reported in debug builds, so no two who walk can wait for each other.
#![expect(unsafe_code, reason = "a list of pairs; docs/unsafe.md, `vm::open_in`")]

use super::driver::{Bo, VmDriver};
use super::edit::{Edit, EditRefused};
use super::look::Look;
use super::pairs::{PairInner, Phase};
use super::{BoCore, VmBo};
use crate::device::Device;
use crate::exec::object::Object;
use crate::mem::list::List;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sync::{Lock, class};
use core::mem::offset_of;
use core::ptr::NonNull;

/// The pairs of one buffer, all with VMs of one device. Counts none of them.
#[derive(Debug)]
pub(super) struct OpenIn {
    device: u64,
    pairs: Lock<class::BoPairs, Members>,
}

#[derive(Debug)]
struct Members {
    list: List,
    len: usize,
}

impl OpenIn {
    pub(super) fn new(device: u64) -> Self {
        Self { device, pairs: Lock::new(Members { list: List::new(), len: 0 }) }
    }

    /// Under the lock of the pair's VM, with whose other list it comes and goes.
    pub(super) fn push<D: VmDriver>(&self, pair: &PairInner<D>) {
        debug_assert_eq!(self.device, pair.vm.device.shared.id);
        let mut pairs = self.pairs.lock();
        pairs.len += 1;
        // SAFETY: new, so in no list; it takes itself out before it goes; the lock is held.
        unsafe { pairs.list.push_back(NonNull::from(&pair.bo_link)) };
    }

    pub(super) fn remove<D: VmDriver>(&self, pair: &PairInner<D>) {
        let mut pairs = self.pairs.lock();
        pairs.len -= 1;
        // SAFETY: in this list since it was opened; the lock is held.
        unsafe { pairs.list.remove(NonNull::from(&pair.bo_link)) };
    }

    /// The pairs, counted. None if they are of another device than `device`.
    fn pairs<D: VmDriver>(&self, device: &Device<D>) -> Result<HeapVec<Object<PairInner<D>>>, AllocError> {
        let mut found = HeapVec::new();
        // Ids of devices are unique, and a device has one type of driver: so these are pairs of `D`.
        if self.device != device.id() {
            return Ok(found);
        }
        loop {
            let len = self.pairs.lock().len;
            try_reserve(&mut found, len)?;
            let pairs = self.pairs.lock();
            if pairs.len > found.capacity() {
                continue;
            }
            let mut at = pairs.list.front();
            while let Some(link) = at {
                // SAFETY: only `bo_link`s of pairs of `D` are in the list, as said above.
                let pair = unsafe { link.byte_sub(offset_of!(PairInner<D>, bo_link)) }.cast::<PairInner<D>>();
                // SAFETY: a pair in the list is counted: by a handle, by `closing`, or by who waits for this lock to take
                // it out.
                let pair = unsafe { Object::from_alive(pair) };
                #[expect(clippy::disallowed_methods, reason = "there is room: it was looked at under the lock")]
                found.push(pair);
                // SAFETY: in the list, whose lock is held.
                at = unsafe { pairs.list.next(link) };
            }
            return Ok(found);
        }
    }
}

impl<D: VmDriver> VmBo<D> {
    /// A handle on each pair of `bo` and an address space of `device` that it is open in, in the order in which it was opened.
    /// For whoever takes its pages away: see [`VmBo::edit`], or [`VmBo::look`]. Allocates; must not be called in a signalling section.
    ///
    /// It may be opened in others meanwhile. Where it was closed and its mappings are still in the page tables, there is no
    /// handle: the reaper clears them.
    ///
    /// # Errors
    /// No memory.
    pub fn all(device: &Device<D>, bo: &D::Bo) -> Result<HeapVec<Self>, AllocError> {
        let mut handles = HeapVec::new();
        let core: &BoCore = bo.core();
        let Some(open_in) = core.open_in() else { return Ok(handles) };
        let pairs = open_in.pairs(device)?;
        try_reserve(&mut handles, pairs.len())?;
        for pair in pairs {
            let mut state = pair.state.lock();
            if state.phase == Phase::Open && state.handles > 0 {
                state.handles += 1;
                drop(state);
                #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved above")]
                handles.push(Self::new(pair));
            }
        }
        Ok(handles)
    }

    /// Waits for the turn to change its address space, as [`Vm::edit`](super::Vm::edit) does, and without a handle on that.
    /// Whoever goes through several address spaces takes one turn at a time.
    ///
    /// # Errors
    /// [`EditRefused`].
    #[track_caller]
    pub fn edit(&self) -> Result<Edit<D>, EditRefused> {
        let vm = &self.inner().vm;
        if vm.in_moments { Err(EditRefused::Immediate) } else { Edit::begin(vm) }
    }

    /// Waits for a moment with the space of its address space, as [`Vm::look`](super::Vm::look) does, and without a handle on
    /// that.
    ///
    /// # Errors
    /// [`EditRefused`].
    #[track_caller]
    pub fn look(&self) -> Result<Look<D>, EditRefused> {
        let vm = &self.inner().vm;
        if vm.in_moments { Look::wait(vm) } else { Err(EditRefused::Staged) }
    }

    /// Whether its address space is changed by running bind jobs: whether to [`look`](VmBo::look), or to [`edit`](VmBo::edit).
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.inner().vm.in_moments
    }
}
