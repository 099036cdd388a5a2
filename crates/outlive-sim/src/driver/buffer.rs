//! Address spaces and buffers of clients, freed by being dropped.
//!
//! A [`Space`] lives as long as a client, a ring or a buffer of it does; a [`Buffer`] as long as a job or a client holds
//! it. Dropping takes the machine's lock for a moment and may happen anywhere, but frees at once: so whoever drops the
//! last handle must know that the hardware is done. Jobs do, because the library drops payloads only then.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::machine::{Machine, Shared};
use crate::gpu::{
    Access, AddressSpace, GpuError, MapError, MemoryError, Observation, OwnerId, PAGE_BYTES, PageId, Protection, Va,
    VmId,
};

/// Where buffers begin; below that nothing is mapped.
const BUFFERS_START: u64 = 0x10_0000;

/// An address space, behind the machine's lock.
#[derive(Debug)]
pub(crate) struct SpaceState {
    tables: AddressSpace,
    owner: OwnerId,
    next: u64,
    /// Ranges given back, by their pages.
    free: BTreeMap<u32, Vec<Va>>,
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
}

/// A client's address space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vm: VmId,
}

impl Space {
    /// A new one, known to the device.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self, GpuError> {
        let mut machine = shared.lock();
        let vm = machine.free_vms.pop().unwrap_or_else(|| {
            machine.next_vm += 1;
            VmId(machine.next_vm - 1)
        });
        match machine.make_space(vm) {
            Ok(()) => Ok(Self { shared: Arc::clone(shared), vm }),
            Err(error) => {
                machine.free_vms.push(vm);
                Err(error)
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut machine = self.shared.lock();
        let now = machine.now;
        let Some(state) = machine.spaces.remove(&self.vm) else { return };
        if let Some(gpu) = &mut machine.gpu {
            gpu.unbind_vm(self.vm);
        }
        machine.memory.tap_mut().set_time(now);
        // A table that was freed behind its back shows in the audit.
        let _ = state.tables.destroy(&mut machine.memory);
        machine.free_vms.push(self.vm);
    }
}

/// Pages of device memory, mapped in one address space. Given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    space: Arc<Space>,
    va: Va,
    pages: Vec<PageId>,
}

impl Buffer {
    /// `pages` fresh pages, zeroed, to read and write.
    pub(crate) fn new(space: &Arc<Space>, pages: u32) -> Result<Self, MemoryError> {
        let mut machine = space.shared.lock();
        let owner = machine.space(space.vm)?.owner;
        let domain = machine.gpu.as_ref().ok_or(MemoryError::NoSuchPage)?.domain();
        let mut list = Vec::new();
        let now = machine.now;
        machine.memory.tap_mut().set_time(now);
        machine.memory.allocate_many(domain, owner, pages, &mut list)?;
        machine.map(space, list, Protection::ReadWrite)
    }

    /// The same pages, to read, in another address space. They are free once both are dropped.
    pub(crate) fn share_into(&self, space: &Arc<Space>) -> Result<Self, MemoryError> {
        let mut machine = space.shared.lock();
        for (at, page) in self.pages.iter().enumerate() {
            if let Err(error) = machine.memory.share(*page) {
                for shared in &self.pages[..at] {
                    let _ = machine.memory.free(*shared);
                }
                return Err(error);
            }
        }
        machine.map(space, self.pages.clone(), Protection::ReadOnly)
    }

    /// Where it is, in its address space.
    #[must_use]
    pub const fn va(&self) -> Va {
        self.va
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES as u64
    }

    pub(crate) fn pages(&self) -> &[PageId] {
        &self.pages
    }

    pub(crate) fn is_in(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    /// What is in it, copied by the host. The audit counts it as a conflict if a job on the hardware may still write
    /// there: read after `retired`, or after a `finished` without error.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut machine = self.space.shared.lock();
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE_BYTES);
        for page in &self.pages {
            machine.observe(Observation::HostTouched { page: *page, access: Access::Read });
            bytes.extend_from_slice(machine.memory.page(*page).map_or(&[][..], |page| &page[..]));
        }
        bytes
    }

    /// Writes commands and the like, before the hardware knows of them.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut machine = self.space.shared.lock();
        for (page, chunk) in self.pages.iter().zip(bytes.chunks(PAGE_BYTES)) {
            machine.observe(Observation::HostTouched { page: *page, access: Access::Write });
            if let Some(page) = machine.memory.page_mut(*page) {
                page[..chunk.len()].copy_from_slice(chunk);
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut machine = self.space.shared.lock();
        let now = machine.now;
        machine.memory.tap_mut().set_time(now);
        machine.unmap(self.space.vm, self.va, &self.pages);
    }
}

impl Machine {
    fn make_space(&mut self, vm: VmId) -> Result<(), GpuError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let owner = self.memory.add_owner()?;
        let Some(gpu) = &mut self.gpu else { return Err(GpuError::Unplugged) };
        let tables = AddressSpace::new(&mut self.memory, gpu.domain(), owner)?;
        if let Err(error) = gpu.bind_vm(vm, &tables) {
            let _ = tables.destroy(&mut self.memory);
            return Err(error);
        }
        self.spaces.insert(vm, SpaceState { tables, owner, next: BUFFERS_START, free: BTreeMap::new() });
        Ok(())
    }

    fn space(&mut self, vm: VmId) -> Result<&mut SpaceState, MemoryError> {
        self.spaces.get_mut(&vm).ok_or(MemoryError::NoSuchPage)
    }

    /// Maps held pages; frees them if it cannot.
    fn map(&mut self, space: &Arc<Space>, pages: Vec<PageId>, protection: Protection) -> Result<Buffer, MemoryError> {
        let count = u32::try_from(pages.len()).map_err(|_| MemoryError::OutOfHostMemory)?;
        let state = self.spaces.get_mut(&space.vm).ok_or(MemoryError::NoSuchPage)?;
        let va = state.take_range(count);
        for (at, page) in pages.iter().enumerate() {
            let to = va.add((at * PAGE_BYTES) as u64);
            if let Err(error) = state.tables.map(&mut self.memory, to, *page, protection) {
                for (at, page) in pages.iter().enumerate() {
                    // Those behind the one that failed are not mapped.
                    let _ = state.tables.unmap(&mut self.memory, va.add((at * PAGE_BYTES) as u64));
                    let _ = self.memory.free(*page);
                }
                state.free.entry(count).or_default().push(va);
                return Err(match error {
                    MapError::Memory(error) => error,
                    _ => MemoryError::NoSuchPage,
                });
            }
        }
        Ok(Buffer { space: Arc::clone(space), va, pages })
    }

    fn unmap(&mut self, vm: VmId, va: Va, pages: &[PageId]) {
        let Some(state) = self.spaces.get_mut(&vm) else { return };
        for (at, page) in pages.iter().enumerate() {
            let _ = state.tables.unmap(&mut self.memory, va.add((at * PAGE_BYTES) as u64));
            let _ = self.memory.free(*page);
        }
        state.free.entry(u32::try_from(pages.len()).unwrap_or(0)).or_default().push(va);
    }
}
