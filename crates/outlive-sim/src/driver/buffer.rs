//! Address spaces and buffers of clients, freed by being dropped.
//!
//! A [`Space`] lives as long as a client, a ring or a buffer of it does; a [`Buffer`] as long as a job or a client holds
//! it. Dropping takes the machine's lock for a moment and may happen anywhere, but frees at once: so whoever drops the
//! last handle must know that the hardware is done. Jobs do, because the library drops payloads only then.
//!
//! # Kept buffers
//! A space that has a ring keeps a few of its dropped buffers, mapped, for its next jobs. They stay charged to it, within
//! what a client may have for itself ([`OWN_PAGES_MAX`]), and go when memory is short anywhere, or with its last ring. For
//! the checkers a kept page is as good as free: a job that uses it when it is laid aside, or touches it before it is
//! taken up again, is a defect.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::machine::{Machine, Shared};
use crate::gpu::{
    Access, AddressSpace, DomainId, GpuError, MapError, MemoryError, Observation, OwnerId, PAGE_BYTES, PageId,
    Protection, Va, VmId,
};

/// Where buffers begin; below that nothing is mapped.
const BUFFERS_START: u64 = 0x10_0000;
/// Up to so many pages of rings, page tables and kept buffers of a client, none is given back: 128 KiB.
const OWN_PAGES_MAX: usize = 32;

/// Pages, and where they are mapped. Only the machine gives it back: dropping it does nothing.
#[derive(Debug)]
pub(crate) struct Piece {
    va: Va,
    pages: Vec<PageId>,
}

/// An address space, behind the machine's lock.
#[derive(Debug)]
pub(crate) struct SpaceState {
    tables: AddressSpace,
    owner: OwnerId,
    next: u64,
    /// Ranges given back, by their pages.
    free: BTreeMap<u32, Vec<Va>>,
    /// Dropped buffers, mapped, for the next jobs.
    kept: Vec<Piece>,
    kept_pages: usize,
    /// Pages of its rings.
    ring_pages: usize,
}

impl SpaceState {
    fn take_range(&mut self, pages: u32) -> Va {
        if let Some(va) = self.free.get_mut(&pages).and_then(Vec::pop) {
            return va;
        }
        let va = Va(self.next);
        // A page between buffers stays empty, so that a stray access faults.
        self.next += (u64::from(pages) + 1) * PAGE_BYTES as u64;
        va
    }

    fn give_back_range(&mut self, piece: &Piece) {
        let pages = u32::try_from(piece.pages.len()).unwrap_or(0);
        self.free.entry(pages).or_default().push(piece.va);
    }

    fn take_kept(&mut self, pages: u32) -> Option<Piece> {
        let at = self.kept.iter().rposition(|piece| u32::try_from(piece.pages.len()) == Ok(pages))?;
        let piece = self.kept.swap_remove(at);
        self.kept_pages -= piece.pages.len();
        Some(piece)
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
    fn place(vm: VmId) -> usize {
        usize::try_from(vm.0).unwrap_or(usize::MAX)
    }

    fn get(&mut self, vm: VmId) -> Option<&mut SpaceState> {
        self.0.get_mut(Self::place(vm))?.as_mut()
    }

    fn insert(&mut self, vm: VmId, state: SpaceState) {
        let at = Self::place(vm);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(state);
    }

    fn remove(&mut self, vm: VmId) -> Option<SpaceState> {
        self.0.get_mut(Self::place(vm))?.take()
    }

    /// The page tables of one.
    pub(crate) fn tables(&self, vm: VmId) -> Option<&AddressSpace> {
        self.0.get(Self::place(vm))?.as_ref().map(|state| &state.tables)
    }

    pub(crate) fn tables_mut(&mut self, vm: VmId) -> Option<&mut AddressSpace> {
        self.get(vm).map(|state| &mut state.tables)
    }

    #[cfg(test)]
    pub(crate) const fn size(&self) -> usize {
        self.0.len()
    }
}

/// A client's address space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    /// Our number for it; the hardware's too, unless those are leased.
    pub(crate) vm: VmId,
}

impl Space {
    /// A new one, known to the device.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self, GpuError> {
        let mut machine = shared.lock();
        let vm = machine.unit.free_vms.pop().unwrap_or_else(|| {
            machine.unit.next_vm += 1;
            VmId(machine.unit.next_vm - 1)
        });
        let made = match machine.make_space(vm) {
            Err(error) if error.is_shortage() && machine.give_kept_back() => machine.make_space(vm),
            made => made,
        };
        match made {
            Ok(()) => Ok(Self { shared: Arc::clone(shared), vm }),
            Err(error) => {
                machine.unit.free_vms.push(vm);
                Err(error)
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
        // With its last ring it kept nothing any more. A table that was freed behind its back shows in the audit.
        let _ = state.tables.destroy(&mut machine.memory);
        machine.memory.remove_owner(state.owner);
        machine.unit.free_vms.push(self.vm);
    }
}

/// Pages of device memory, mapped in one address space. Given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    space: Arc<Space>,
    piece: Piece,
    protection: Protection,
}

impl Buffer {
    /// Makes a piece somebody's to drop.
    pub(crate) fn owning(space: &Arc<Space>, piece: Piece) -> Self {
        Self { space: Arc::clone(space), piece, protection: Protection::ReadWrite }
    }

    /// Fresh pages of the system's memory, to read and write.
    pub(crate) fn in_system(space: &Arc<Space>, bytes: u64) -> Result<Self, MemoryError> {
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).map_err(|_| MemoryError::OutOfHostMemory)?;
        let piece = space.shared.lock().make_piece(space.vm, DomainId::SYSTEM, pages)?;
        Ok(Self::owning(space, piece))
    }

    /// Pages of the device's memory, to read and write: kept ones as they were left, else zeroed.
    pub(crate) fn in_device(space: &Arc<Space>, bytes: u64) -> Result<Self, MemoryError> {
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).map_err(|_| MemoryError::OutOfHostMemory)?;
        let piece = space.shared.lock().take_piece(space.vm, pages)?;
        Ok(Self::owning(space, piece))
    }

    /// The same pages, to read, in another address space, perhaps of another device: then they must be the system's. They
    /// are free once both are dropped.
    pub(crate) fn share_into(&self, space: &Arc<Space>) -> Result<Self, MemoryError> {
        let mut machine = space.shared.lock();
        let now = machine.now;
        machine.memory.tap_mut().set_time(now);
        for (at, page) in self.pages().iter().enumerate() {
            if let Err(error) = machine.memory.share(*page) {
                for shared in &self.pages()[..at] {
                    let _ = machine.memory.free(*shared);
                }
                return Err(error);
            }
        }
        let piece = machine.map(space.vm, self.pages().to_vec(), Protection::ReadOnly)?;
        drop(machine);
        Ok(Self { space: Arc::clone(space), piece, protection: Protection::ReadOnly })
    }

    /// Where it is, in its address space.
    #[must_use]
    pub const fn va(&self) -> Va {
        self.piece.va
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.piece.bytes()
    }

    pub(crate) fn pages(&self) -> &[PageId] {
        &self.piece.pages
    }

    pub(crate) fn is_in(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    /// What is in it, copied by the host. The audit counts it as a conflict if a job on the hardware may still write
    /// there: read after `retired`, or after a `finished` without error.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut machine = self.space.shared.lock();
        let mut bytes = Vec::with_capacity(self.pages().len() * PAGE_BYTES);
        for page in self.pages() {
            machine.observe(Observation::HostTouched { page: *page, access: Access::Read });
            bytes.extend_from_slice(machine.memory.page(*page).map_or(&[][..], |page| &page[..]));
        }
        bytes
    }

    /// Gives its memory back under the lock that the caller holds. Of what is left of the buffer only the handle on its
    /// space does anything when it is dropped, and only if it is the last.
    pub(crate) fn give_back(&mut self, machine: &mut Machine) {
        machine.give_piece_back(self.space.vm, self.piece.take(), self.protection);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Self { space, piece, protection } = self;
        if !piece.pages.is_empty() {
            space.shared.lock().give_piece_back(space.vm, piece.take(), *protection);
        }
    }
}

impl Piece {
    fn take(&mut self) -> Self {
        Self { va: self.va, pages: core::mem::take(&mut self.pages) }
    }

    pub(crate) const fn va(&self) -> Va {
        self.va
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES as u64
    }
}

impl Machine {
    fn make_space(&mut self, vm: VmId) -> Result<(), GpuError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let numbered = !self.unit.ids.are_leased();
        let Some(gpu) = &mut self.unit.gpu else { return Err(GpuError::Unplugged) };
        let owner = self.memory.add_owner()?;
        let tables = match AddressSpace::new(&mut self.memory, gpu.domain(), owner) {
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
        let state = SpaceState { tables, owner, next: BUFFERS_START, free, kept, kept_pages: 0, ring_pages: 0 };
        self.unit.spaces.insert(vm, state);
        Ok(())
    }

    /// `pages` pages to read and write: kept ones as they were left, else fresh ones, zeroed.
    pub(crate) fn take_piece(&mut self, vm: VmId, pages: u32) -> Result<Piece, MemoryError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let state = self.unit.spaces.get(vm).ok_or(MemoryError::NoSuchPage)?;
        if let Some(piece) = state.take_kept(pages) {
            for page in &piece.pages {
                self.memory.tap_mut().observe(Observation::PageTakenUp { page: *page });
            }
            return Ok(piece);
        }
        let domain = self.unit.gpu.as_ref().ok_or(MemoryError::NoSuchPage)?.domain();
        match self.make_piece(vm, domain, pages) {
            Err(MemoryError::OutOfPages { .. }) if self.give_kept_back() => self.make_piece(vm, domain, pages),
            made => made,
        }
    }

    fn make_piece(&mut self, vm: VmId, domain: DomainId, pages: u32) -> Result<Piece, MemoryError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let owner = self.unit.spaces.get(vm).ok_or(MemoryError::NoSuchPage)?.owner;
        let mut list = Vec::new();
        self.memory.allocate_many(domain, owner, pages, &mut list)?;
        self.map(vm, list, Protection::ReadWrite)
    }

    /// Writes commands and the like into one of `pages`, before the hardware knows of them. `start` counts from the first.
    pub(crate) fn write(&mut self, pages: &[PageId], start: u64, bytes: &[u8]) {
        // CAST: an offset in a buffer, which memory holds.
        let (at, offset) = (start as usize / PAGE_BYTES, start as usize % PAGE_BYTES);
        let Some(page) = pages.get(at) else { return };
        self.observe(Observation::HostTouched { page: *page, access: Access::Write });
        if let Some(page) = self.memory.page_mut(*page).and_then(|page| page.get_mut(offset..offset + bytes.len())) {
            page.copy_from_slice(bytes);
        }
    }

    /// Maps held pages; frees them if it cannot.
    fn map(&mut self, vm: VmId, pages: Vec<PageId>, protection: Protection) -> Result<Piece, MemoryError> {
        let count = u32::try_from(pages.len()).map_err(|_| MemoryError::OutOfHostMemory)?;
        let state = self.unit.spaces.get(vm).ok_or(MemoryError::NoSuchPage)?;
        let piece = Piece { va: state.take_range(count), pages };
        for (at, page) in piece.pages.iter().enumerate() {
            let to = piece.va.add((at * PAGE_BYTES) as u64);
            if let Err(error) = state.tables.map(&mut self.memory, to, *page, protection) {
                // Those behind the one that failed are not mapped.
                self.unmap(vm, &piece);
                return Err(match error {
                    MapError::Memory(error) => error,
                    _ => MemoryError::NoSuchPage,
                });
            }
        }
        Ok(piece)
    }

    /// Keeps a piece for the space's next job, if it may and nobody else has a part in it; else frees it.
    pub(crate) fn give_piece_back(&mut self, vm: VmId, piece: Piece, protection: Protection) {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let Some(state) = self.unit.spaces.get(vm) else { return };
        let only_here = |page: &PageId| page.domain != DomainId::SYSTEM && self.memory.holders(*page) == 1;
        let own = protection == Protection::ReadWrite && piece.pages.iter().all(only_here);
        if own && state.may_keep(piece.pages.len()) {
            for page in &piece.pages {
                self.memory.tap_mut().observe(Observation::PageLaidAside { page: *page });
            }
            state.kept_pages += piece.pages.len();
            state.kept.push(piece);
        } else {
            self.unmap(vm, &piece);
        }
    }

    fn unmap(&mut self, vm: VmId, piece: &Piece) {
        let Some(state) = self.unit.spaces.get(vm) else { return };
        for (at, page) in piece.pages.iter().enumerate() {
            let _ = state.tables.unmap(&mut self.memory, piece.va.add((at * PAGE_BYTES) as u64));
            let _ = self.memory.free(*page);
        }
        state.give_back_range(piece);
    }

    /// Frees what spaces keep; false if that is nothing.
    pub(crate) fn give_kept_back(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.unit.next_vm {
            any |= self.give_kept_of(VmId(at));
        }
        any
    }

    fn give_kept_of(&mut self, vm: VmId) -> bool {
        let Some(state) = self.unit.spaces.get(vm) else { return false };
        let kept = core::mem::take(&mut state.kept);
        state.kept_pages = 0;
        for piece in &kept {
            self.unmap(vm, piece);
        }
        !kept.is_empty()
    }

    /// The space has a ring of so many pages.
    pub(crate) fn ring_came(&mut self, vm: VmId, pages: usize) {
        if let Some(state) = self.unit.spaces.get(vm) {
            state.ring_pages += pages;
        }
    }

    /// It has that ring no more. One without rings submits nothing, so it keeps nothing.
    pub(crate) fn ring_went(&mut self, vm: VmId, pages: usize) {
        let Some(state) = self.unit.spaces.get(vm) else { return };
        state.ring_pages = state.ring_pages.saturating_sub(pages);
        if state.ring_pages == 0 {
            self.give_kept_of(vm);
        }
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
