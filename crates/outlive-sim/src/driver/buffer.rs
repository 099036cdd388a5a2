//! Buffers of clients: what jobs write, read and are told by, opened and mapped by the library in the driver's range.
//!
//! # States
//! *made* (opened and mapped in one turn) → *in use* by the payloads and clients that hold it → when the last lets go, *kept*
//! for the client's next job (`space`) and taken up again, or *closed*: the library takes the mapping out and has its entries
//! cleared, and only then its pages are free. While memory is short kept ones are *purged*: their entries and pages go at once, as
//! nobody uses them.
//!
//! Jobs name what they use: a payload holds its buffers, and a use of the address space beside them
//! ([`Vm::in_use_named`]). So a buffer goes when its own jobs have retired, whatever else runs.
//!
//! A buffer that others are to read is external: it has a reservation of its own, and is opened and mapped, to read, in each
//! address space that reads it; of another device as a buffer of that one with the same memory.

use alloc::sync::Arc;
use core::fmt;
use outlive::Device;
use outlive::vm::{Bo, BoCore, Edit, EditRefused, Flags, Flushed, PlanError, Request, Rule, Source, Vm, VmBo, VmError};

use super::bo::{Pages, SimBo};
use super::hardware::SimDriver;
use super::machine::{Machine, Shared};
use super::room::make_room;
use super::space::{Place, Space};
use super::tables::{Opened, UNCACHED};
use crate::gpu::{Access, MapError, MemoryError, Observation, PAGE_BYTES, PageId, Va};

/// Buffers of more pages the device may cache the translations of.
const UNCACHED_MAX: u32 = 16;

/// Why there is no buffer. Nothing is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferError {
    /// There is no memory for it.
    Memory(MemoryError),
    /// The address space does not take it.
    Vm(VmError),
    /// It cannot be mapped there.
    Plan(PlanError),
    /// It is its client's alone: only buffers that were made for it, and outputs of jobs that are
    /// [`shared`](super::JobSpec::shared), can be read by others.
    NotShared,
    /// It is in the memory of another device.
    Unreachable,
}

impl fmt::Display for BufferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Vm(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::NotShared => f.write_str("the buffer was not made to be shared"),
            Self::Unreachable => f.write_str("the buffer is in another device's memory: share one of the system's"),
        }
    }
}

impl core::error::Error for BufferError {}

impl From<MemoryError> for BufferError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<VmError> for BufferError {
    fn from(error: VmError) -> Self {
        match error {
            VmError::NoMemory(_) => Self::Memory(MemoryError::OutOfHostMemory),
            _ => Self::Vm(error),
        }
    }
}

impl From<PlanError> for BufferError {
    fn from(error: PlanError) -> Self {
        match error.rule {
            Rule::NoMemory(_) => Self::Memory(MemoryError::OutOfHostMemory),
            _ => Self::Plan(error),
        }
    }
}

impl From<MapError> for BufferError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Memory(error) => Self::Memory(error),
            MapError::Unreachable(_) => Self::Unreachable,
            _ => Self::Memory(MemoryError::NoSuchPage),
        }
    }
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its client's alone.
    Own,
    /// Its client's, for others to read.
    Shared,
    /// Another's.
    Import,
    /// Its client's, persistent.
    Piece,
}

/// Memory, mapped in one address space. Given back when dropped, once no entry leads there any more.
#[derive(Debug)]
pub struct Buffer {
    pair: VmBo<SimDriver>,
    va: Va,
    /// They stay while this is there: it is never evicted.
    pages: Vec<PageId>,
    kind: Kind,
}

impl Buffer {
    /// Where it is, in its address space.
    #[must_use]
    pub const fn va(&self) -> Va {
        self.va
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES as u64
    }

    pub(crate) fn pages(&self) -> &[PageId] {
        &self.pages
    }

    pub(crate) fn is_in(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(self.space(), space)
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// Whether it is its client's, in the device's memory, and open nowhere else.
    pub(crate) fn may_be_kept(&self) -> bool {
        let bo = self.pair.bo();
        self.kind != Kind::Import && !bo.is_in_system() && bo.opens() == 1
    }

    fn space(&self) -> &Arc<Space> {
        self.pair.vm_data().space()
    }

    /// What is in it, copied by the host. The audit counts it as a conflict if a job on the hardware may still write
    /// there: read after `retired`, or after a `finished` without error.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut machine = self.space().shared.lock();
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE_BYTES);
        for page in &self.pages {
            machine.observe(Observation::HostTouched { page: *page, access: Access::Read });
            bytes.extend_from_slice(machine.memory.page(*page).map_or(&[][..], |page| &page[..]));
        }
        bytes
    }

    /// Gives its memory back at once: nobody uses it. False if somebody is changing the address space; then it is closed.
    fn purge(self) -> bool {
        let Some(edit) = self.pair.try_edit() else { return false };
        let (tables, bytes) = (self.pair.vm_data(), self.bytes());
        // All of the mapping, so nothing is split: cannot want memory.
        let unmapped = tables.unmap(self.va.0, bytes).is_ok();
        if unmapped {
            tables.flush(self.va.0, bytes);
            self.pair.data().unmapped();
            self.pair.bo().purge();
        }
        drop(edit);
        unmapped
    }
}

/// Where buffers are made: an address space and its device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'a> {
    pub(crate) vm: &'a Vm<SimDriver>,
    pub(crate) device: &'a Device<SimDriver>,
    /// Nothing is waited for, and no room made.
    pub(crate) at_once: bool,
}

impl Home<'_> {
    pub(crate) fn space(&self) -> &Arc<Space> {
        self.vm.data().space()
    }

    /// So many pages of the device's memory, zeroed, to read and write. `shared`: by others, too.
    pub(crate) fn in_device(&self, pages: u32, shared: bool) -> Result<Buffer, BufferError> {
        let kind = if shared { Kind::Shared } else { Kind::Own };
        loop {
            match self.make(pages, Pages::Small, kind) {
                Err(BufferError::Memory(MemoryError::OutOfPages { .. }))
                    if !self.at_once && make_room(self.device, &[]) => {}
                made => return made,
            }
        }
    }

    /// The same of the system's memory, for others to read.
    pub(crate) fn in_system(&self, pages: u32) -> Result<Buffer, BufferError> {
        self.make(pages, Pages::System, Kind::Shared)
    }

    fn make(&self, pages: u32, from: Pages, kind: Kind) -> Result<Buffer, BufferError> {
        let bytes = u64::from(pages) * PAGE_BYTES as u64;
        let core = match kind {
            Kind::Own => BoCore::local(self.vm, bytes),
            Kind::Shared | Kind::Import | Kind::Piece => BoCore::new(self.device, bytes).map_err(VmError::from)?,
        };
        let bo = SimBo::new(&self.space().shared, core, from)?;
        self.buffer(&bo, pages, kind)
    }

    /// Another client's buffer, perhaps of another device, to read here.
    pub(crate) fn import(&self, buffer: &Buffer) -> Result<Buffer, BufferError> {
        let bo = buffer.pair.bo();
        if buffer.kind == Kind::Own {
            return Err(BufferError::NotShared);
        }
        let pages = u32::try_from(buffer.pages.len()).map_err(|_| MemoryError::OutOfHostMemory)?;
        if bo.core().device() == self.device.id() {
            return self.buffer(bo, pages, Kind::Import);
        }
        let bo = bo.import(self.device).ok_or(BufferError::Unreachable)?;
        self.buffer(&bo, pages, Kind::Import)
    }

    fn buffer(&self, bo: &SimBo, pages: u32, kind: Kind) -> Result<Buffer, BufferError> {
        let (va, pair) = self.map(bo, pages, kind)?;
        let pages = pair.bo().pages();
        Ok(Buffer { pair, va, pages, kind })
    }

    /// Opens and maps all of `bo` in the driver's range; where that was done, another handle.
    pub(crate) fn map(&self, bo: &SimBo, pages: u32, kind: Kind) -> Result<(Va, VmBo<SimDriver>), BufferError> {
        let mut edit = self.turn()?;
        match edit.find_bo(bo).and_then(|pair| Some((pair.data().va()?, pair))) {
            Some(open) => Ok(open),
            None => self.map_anew(&mut edit, bo, pages, kind),
        }
    }

    fn map_anew(
        &self,
        edit: &mut Edit<SimDriver>,
        bo: &SimBo,
        pages: u32,
        kind: Kind,
    ) -> Result<(Va, VmBo<SimDriver>), BufferError> {
        let (mut tables, len) = (self.vm.data(), u64::from(pages) * PAGE_BYTES as u64);
        let place = Place::take(self.space(), pages)?;
        let va = place.va;
        tables.prepare(va, len)?;
        let pair = edit.open(bo, || Opened::new(bo, tables, Some(place)))?;
        let cached = if kind == Kind::Piece || pages > UNCACHED_MAX { Flags::NONE } else { UNCACHED };
        let flags = if kind == Kind::Import { cached.with(Flags::READ_ONLY) } else { cached };
        let source = Source::Bo { bo: pair.id(), offset: 0 };
        let plan = edit.plan(&[Request::Map { va: va.0, len, source, flags, data: () }])?;
        let binding = plan.apply(&mut tables).map_err(|undone| undone.error)?;
        drop(binding.flushed(Flushed::by_driver()));
        Ok((va, pair))
    }

    /// Whoever has it has it for a moment.
    pub(crate) fn turn(&self) -> Result<Edit<SimDriver>, VmError> {
        if self.at_once { self.vm.try_edit().ok_or(EditRefused::InCallback.into()) } else { Ok(self.vm.edit()?) }
    }
}

/// Frees what address spaces of the device keep for their next jobs; false if that is nothing. Not under the machine's lock.
pub(crate) fn give_kept_back(shared: &Shared) -> bool {
    let kept = shared.lock().take_all_kept();
    kept.into_iter().filter_map(|buffer| buffer.purge().then_some(())).count() > 0
}

/// Keeps buffers for the next job of `space`, or lets them go. Not under the machine's lock.
pub(crate) fn keep(space: &Arc<Space>, buffers: [Option<Buffer>; 2]) {
    let mut machine = space.shared.lock();
    let left = buffers.map(|buffer| buffer.and_then(|buffer| machine.keep(space.vm, buffer)));
    drop(machine);
    drop(left);
}

impl Machine {
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
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
