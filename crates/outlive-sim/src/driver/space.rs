//! Address spaces as the device has them: page tables, a number, and the range that this driver takes for itself.
//!
//! # Who decides what is mapped
//! The library's `Vm` of the client, in all of it. A [`Space`] is what that needs of the machine: it lives as long as the `Vm`'s
//! inside, a ring or a job does, and its page tables are changed by steps only (`tables`).
//!
//! # The driver's range
//! From [`DRIVER_START`] to [`VM_START`] this driver says where buffers go ([`Place`]), as a kernel driver does for its own in a
//! user's address space; from there on users do. Below is nothing, so that an address of 0 faults. A ring is not
//! here: the firmware reads it through its own page tables.
//!
//! # Kept buffers
//! A space that has a ring keeps a few buffers of jobs that are done, open and mapped, for the next ones. They stay charged to it,
//! within what a client may have for itself ([`OWN_PAGES_MAX`]), and go when memory is short anywhere (`buffer`), or
//! with its last ring. For the checkers a kept page is as good as free: a job that uses it when it is laid aside, or touches
//! it before it is taken up again, is a defect.
//!
//! A kept buffer is a handle of the library's behind the machine's lock: it is moved in and out there, and dropped without.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use outlive::Device;

use super::buffer::Buffer;
use super::hardware::SimDriver;
use super::machine::{Machine, Shared};
use super::room::make_room;
use crate::gpu::{AddressSpace, GpuError, MemoryError, Observation, OwnerId, PAGE_BYTES, PageSize, Reach, Va, VmId};

/// Where users' mappings begin, in every address space.
pub const VM_START: u64 = 1 << 38;
/// Where the driver's begin; below that nothing is mapped.
pub(crate) const DRIVER_START: u64 = 0x10_0000;
/// Up to so many pages of rings, page tables and kept buffers of a client, none is given back: 128 KiB.
const OWN_PAGES_MAX: usize = 32;

/// An address space, behind the machine's lock.
#[derive(Debug)]
pub(crate) struct SpaceState {
    tables: AddressSpace,
    owner: OwnerId,
    /// The next place in the driver's range.
    next: u64,
    /// Places given back, by their pages.
    free: BTreeMap<u32, Vec<Va>>,
    /// Buffers for the next jobs.
    kept: Vec<Buffer>,
    kept_pages: usize,
    /// Pages of its rings.
    ring_pages: usize,
}

impl SpaceState {
    fn take_place(&mut self, pages: u32) -> Option<Va> {
        if let Some(va) = self.free.get_mut(&pages).and_then(Vec::pop) {
            return Some(va);
        }
        let sizes = [PageSize::Large, PageSize::Medium, PageSize::Small];
        let align = sizes.into_iter().find(|size| size.pages() <= pages).unwrap_or(PageSize::Small).bytes();
        let va = self.next.next_multiple_of(align);
        // A page between buffers stays empty, so that a stray access faults.
        let next = va + (u64::from(pages) + 1) * PAGE_BYTES as u64;
        if next > VM_START {
            return None;
        }
        self.next = next;
        Some(Va(va))
    }

    /// Whether so many pages more may be kept.
    fn may_keep(&self, pages: usize) -> bool {
        let tables = usize::try_from(self.tables.tables()).unwrap_or(OWN_PAGES_MAX);
        self.ring_pages > 0 && self.ring_pages + tables + self.kept_pages + pages <= OWN_PAGES_MAX
    }
}

/// All address spaces, by their numbers, which are used again.
#[derive(Debug, Default)]
pub(crate) struct Spaces(Vec<Option<SpaceState>>);

impl Spaces {
    fn at(vm: VmId) -> usize {
        usize::try_from(vm.0).unwrap_or(usize::MAX)
    }

    fn get(&mut self, vm: VmId) -> Option<&mut SpaceState> {
        self.0.get_mut(Self::at(vm))?.as_mut()
    }

    fn insert(&mut self, vm: VmId, state: SpaceState) {
        let at = Self::at(vm);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(state);
    }

    fn remove(&mut self, vm: VmId) -> Option<SpaceState> {
        self.0.get_mut(Self::at(vm))?.take()
    }

    /// The page tables of one.
    pub(crate) fn tables(&self, vm: VmId) -> Option<&AddressSpace> {
        self.0.get(Self::at(vm))?.as_ref().map(|state| &state.tables)
    }

    pub(crate) fn tables_mut(&mut self, vm: VmId) -> Option<&mut AddressSpace> {
        self.get(vm).map(|state| &mut state.tables)
    }

    /// What each of them keeps.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> Vec<&[Buffer]> {
        self.0.iter().flatten().map(|state| &state.kept[..]).collect()
    }

    #[cfg(test)]
    pub(crate) const fn size(&self) -> usize {
        self.0.len()
    }
}

/// A client's address space on the device.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    /// Our number for it; the hardware's too, unless those are leased.
    pub(crate) vm: VmId,
    /// How far its page tables reach.
    pub(crate) reach: Reach,
}

impl Space {
    /// A new one, known to `device`.
    pub(crate) fn new(device: &Device<SimDriver>, reach: Reach) -> Result<Self, GpuError> {
        let shared = device.driver().shared();
        loop {
            let made = shared.lock().make_space(reach);
            match made {
                Err(error) if error.is_shortage() && make_room(device, &[]) => {}
                made => return Ok(Self { shared: Arc::clone(shared), vm: made?, reach }),
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut machine = self.shared.lock();
        let now = machine.now;
        let Some(state) = machine.unit.spaces.remove(self.vm) else { return };
        let numbered = !machine.unit.ids.are_leased();
        if let Some(gpu) = machine.unit.gpu.as_mut().filter(|_| numbered) {
            gpu.unbind_vm(self.vm);
        }
        machine.memory.tap_mut().set_time(now);
        // What it kept would have kept it. A table that was freed behind its back shows in the audit.
        let _ = state.tables.destroy(&mut machine.memory);
        machine.memory.remove_owner(state.owner);
        machine.unit.free_vms.push(self.vm);
    }
}

/// Addresses in the driver's range of a space. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    space: Arc<Space>,
    pub(crate) va: Va,
    pages: u32,
}

impl Place {
    /// Room for so many pages.
    pub(crate) fn take(space: &Arc<Space>, pages: u32) -> Result<Self, MemoryError> {
        let mut machine = space.shared.lock();
        let va = machine.unit.spaces.get(space.vm).and_then(|state| state.take_place(pages));
        let va = va.ok_or(MemoryError::OutOfHostMemory)?;
        Ok(Self { space: Arc::clone(space), va, pages })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut machine = self.space.shared.lock();
        if let Some(state) = machine.unit.spaces.get(self.space.vm) {
            state.free.entry(self.pages).or_default().push(self.va);
        }
    }
}

impl Machine {
    fn make_space(&mut self, reach: Reach) -> Result<VmId, GpuError> {
        let vm = self.unit.free_vms.pop().unwrap_or_else(|| {
            self.unit.next_vm += 1;
            VmId(self.unit.next_vm - 1)
        });
        let made = self.make_space_numbered(vm, reach);
        if made.is_err() {
            self.unit.free_vms.push(vm);
        }
        made.map(|()| vm)
    }

    fn make_space_numbered(&mut self, vm: VmId, reach: Reach) -> Result<(), GpuError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let numbered = !self.unit.ids.are_leased();
        let Some(gpu) = &mut self.unit.gpu else { return Err(GpuError::Unplugged) };
        let owner = self.memory.add_owner()?;
        let tables = match AddressSpace::reaching(&mut self.memory, gpu.domain(), owner, reach) {
            Ok(tables) => tables,
            Err(error) => {
                self.memory.remove_owner(owner);
                return Err(error.into());
            }
        };
        if numbered && let Err(error) = gpu.bind_vm(vm, &tables) {
            let _ = tables.destroy(&mut self.memory);
            self.memory.remove_owner(owner);
            return Err(error);
        }
        let (free, kept) = (BTreeMap::new(), Vec::new());
        let state = SpaceState { tables, owner, next: DRIVER_START, free, kept, kept_pages: 0, ring_pages: 0 };
        self.unit.spaces.insert(vm, state);
        Ok(())
    }

    /// A kept buffer of so many pages, as it was left.
    pub(crate) fn take_kept(&mut self, vm: VmId, pages: u32, shared: bool) -> Option<Buffer> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let state = self.unit.spaces.get(vm)?;
        let fits = |kept: &Buffer| u32::try_from(kept.pages().len()) == Ok(pages) && kept.is_shared() == shared;
        let buffer = state.kept.swap_remove(state.kept.iter().rposition(fits)?);
        state.kept_pages -= buffer.pages().len();
        for page in buffer.pages() {
            self.memory.tap_mut().observe(Observation::PageTakenUp { page: *page });
        }
        Some(buffer)
    }

    /// Keeps a buffer for the space's next job, if it may and nobody else has a part in it; else it comes back, to be dropped
    /// without the lock.
    pub(crate) fn keep(&mut self, vm: VmId, buffer: Buffer) -> Option<Buffer> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let state = self.unit.spaces.get(vm).filter(|state| state.may_keep(buffer.pages().len()));
        let Some(state) = state.filter(|_| buffer.may_be_kept()) else { return Some(buffer) };
        for page in buffer.pages() {
            self.memory.tap_mut().observe(Observation::PageLaidAside { page: *page });
        }
        state.kept_pages += buffer.pages().len();
        state.kept.push(buffer);
        None
    }

    /// What all spaces of the device keep, taken from them.
    pub(crate) fn take_all_kept(&mut self) -> Vec<Buffer> {
        let mut all = Vec::new();
        for state in self.unit.spaces.0.iter_mut().flatten() {
            state.kept_pages = 0;
            all.append(&mut state.kept);
        }
        all
    }

    /// The space has a ring of so many pages.
    pub(crate) fn ring_came(&mut self, vm: VmId, pages: usize) {
        if let Some(state) = self.unit.spaces.get(vm) {
            state.ring_pages += pages;
        }
    }

    /// It has that ring no more. One without rings submits nothing, so it keeps nothing: what it kept is to be dropped without
    /// the lock.
    pub(crate) fn ring_went(&mut self, vm: VmId, pages: usize) -> Vec<Buffer> {
        let Some(state) = self.unit.spaces.get(vm) else { return Vec::new() };
        state.ring_pages = state.ring_pages.saturating_sub(pages);
        if state.ring_pages > 0 {
            return Vec::new();
        }
        state.kept_pages = 0;
        core::mem::take(&mut state.kept)
    }
}
