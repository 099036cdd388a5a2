//! Buffers and page tables for the library's address spaces.
//!
//! # Where what lies
//! A client's address space has two halves. Below [`VM_START`] this driver maps for itself: rings, commands, what jobs without
//! an address space of the library write. From there on, the library's `Vm` says what is mapped, in the same page tables, by
//! steps; these entries the device may cache, so what is unmapped is flushed.
//!
//! # Who touches what
//! Page tables: whoever has the turn at their `Vm`, and the machine's lock for each step. A buffer's place: under the
//! machine's lock; it changes only with the buffer's reservation locked and nothing on it (eviction, validation), or in its drop.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use outlive::vm::{
    Apply, Bo, BoCore, Edit, Flags, Flushed, Mapping, OpenBo, Plan, Source, Space as Planner, Step, ToClear, VmDriver,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::Space;
use super::hardware::SimDriver;
use super::machine::{Machine, Shared};
use crate::gpu::{
    AddressSpace, DomainId, MapError, Memory, MemoryError, OwnerId, PAGE_BYTES, PageId, Protection, Va, VmId, block_of,
};

/// Where the half of the library begins, in every address space.
pub const VM_START: u64 = 1 << 38;
const PAGE: u64 = PAGE_BYTES as u64;
/// What pages are taken in, largest first.
const RUNS: [u32; 3] = [512, 16, 1];

/// A buffer that can be mapped in address spaces of the library. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimBo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: BoCore,
    shared: Arc<Shared>,
    owner: OwnerId,
    place: Mutex<Place>,
    /// Where it is open. Taken under the lock of its place.
    opens: Mutex<Vec<Seen>>,
}

/// An address space in which a buffer is open.
#[derive(Debug)]
struct Seen {
    number: u64,
    space: VmId,
    /// Entries there may lead to it.
    mapped: bool,
}

/// What is kept with a buffer in an address space.
#[derive(Debug)]
pub struct Opened {
    bo: SimBo,
    number: u64,
}

impl Opened {
    pub(crate) fn new(bo: &SimBo, tables: &SimTables) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        bo.0.opens().push(Seen { number, space: tables.space.vm, mapped: false });
        Self { bo: bo.clone(), number }
    }

    /// No entry of that address space leads to the buffer any more, and no translation is remembered.
    pub(crate) fn unmapped(&self) {
        self.bo.0.opens().iter_mut().filter(|seen| seen.number == self.number).for_each(|seen| seen.mapped = false);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.bo.0.opens().retain(|seen| seen.number != self.number);
    }
}

/// Where a buffer's bytes are.
#[derive(Debug)]
enum Place {
    /// In the device's memory: pieces in order, each the first page and how many lie side by side.
    Here(Vec<(PageId, u32)>),
    /// Swapped out.
    Away(Vec<u8>),
}

impl Bo for SimBo {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

impl SimBo {
    /// Zeroed pages in the device's memory, as large as `core` says.
    pub(crate) fn new(shared: &Arc<Shared>, core: BoCore) -> Result<Self, MemoryError> {
        let mut machine = shared.lock();
        let machine = &mut *machine;
        let domain = machine.unit.gpu.as_ref().ok_or(MemoryError::NoSuchPage)?.domain();
        let owner = machine.memory.add_owner()?;
        let pages = take_pages(machine, domain, owner, core.size().div_ceil(PAGE));
        let place = match pages {
            Ok(pages) => Mutex::new(Place::Here(pages)),
            Err(error) => {
                machine.memory.remove_owner(owner);
                return Err(error);
            }
        };
        Ok(Self(Arc::new(Inner { core, shared: Arc::clone(shared), owner, place, opens: Mutex::default() })))
    }

    /// Whether its pages are in the device's memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        matches!(*self.0.place(), Place::Here(_))
    }

    /// In how many address spaces it is open.
    #[must_use]
    pub fn opens(&self) -> usize {
        self.0.opens().len()
    }

    /// What is in it, copied by the host, wherever it is.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let machine = self.0.shared.lock();
        match &*self.0.place() {
            Place::Here(pieces) => bytes_of(&machine.memory, pieces),
            Place::Away(bytes) => bytes.clone(),
        }
    }

    /// Moves it out of the device's memory, where nothing may use it, unless entries lead to it. Whether it is out.
    pub(crate) fn move_out(&self) -> bool {
        let mut machine = self.0.shared.lock();
        let mut place = self.0.place();
        let bytes = match &*place {
            Place::Here(_) if self.0.opens().iter().any(|seen| seen.mapped) => return false,
            Place::Here(pieces) => bytes_of(&machine.memory, pieces),
            Place::Away(_) => return true,
        };
        if let Place::Here(pieces) = core::mem::replace(&mut *place, Place::Away(bytes)) {
            free_pages(&mut machine, &pieces);
        }
        true
    }

    /// Moves it back.
    pub(crate) fn move_in(&self) -> Result<(), MemoryError> {
        let mut machine = self.0.shared.lock();
        let machine = &mut *machine;
        let mut place = self.0.place();
        let Place::Away(bytes) = &*place else { return Ok(()) };
        let domain = machine.unit.gpu.as_ref().ok_or(MemoryError::NoSuchPage)?.domain();
        let pieces = take_pages(machine, domain, self.0.owner, self.0.core.size().div_ceil(PAGE))?;
        let mut chunks = bytes.chunks_exact(PAGE_BYTES);
        for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
            if let (Some(page), Some(chunk)) = (machine.memory.page_mut(page), chunks.next()) {
                page.copy_from_slice(chunk);
            }
        }
        *place = Place::Here(pieces);
        Ok(())
    }
}

impl Inner {
    /// Under the machine's lock.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opens(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries in `space` lead to it from now on. Under the machine's lock.
    fn mapped_in(&self, space: VmId) {
        self.opens().iter_mut().filter(|seen| seen.space == space).for_each(|seen| seen.mapped = true);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut machine = self.shared.lock();
        if let Place::Here(pieces) = &*self.place() {
            free_pages(&mut machine, pieces);
        }
        machine.memory.remove_owner(self.owner);
    }
}

fn pages_of((first, count): (PageId, u32)) -> impl Iterator<Item = PageId> {
    (first.index..first.index + count).map(move |index| PageId { index, ..first })
}

fn bytes_of(memory: &Memory, pieces: &[(PageId, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
        bytes.extend_from_slice(memory.page(page).map_or(&[][..], |page| &page[..]));
    }
    bytes
}

fn free_pages(machine: &mut Machine, pieces: &[(PageId, u32)]) {
    let now = machine.now;
    machine.memory.tap_mut().set_time(now);
    for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
        // A page that was freed behind its back shows in the audit.
        let _ = machine.memory.free(page);
    }
}

/// So many pages, side by side as far as there are such; all or none.
fn take_pages(
    machine: &mut Machine,
    domain: DomainId,
    owner: OwnerId,
    pages: u64,
) -> Result<Vec<(PageId, u32)>, MemoryError> {
    let now = machine.now;
    machine.memory.tap_mut().set_time(now);
    let mut left = u32::try_from(pages).map_err(|_| MemoryError::OutOfHostMemory)?;
    let free = machine.memory.free_pages(domain);
    if free < left {
        return Err(MemoryError::OutOfPages { domain, wanted: left, free });
    }
    let mut pieces = Vec::new();
    let mut sizes = RUNS.into_iter();
    let mut size = sizes.next();
    while let Some(run) = size.filter(|_| left > 0) {
        match (run <= left).then(|| machine.memory.allocate_run(domain, owner, run)) {
            Some(Ok(first)) => {
                pieces.push((first, run));
                left -= run;
            }
            Some(Err(_)) | None => size = sizes.next(),
        }
    }
    if left > 0 {
        free_pages(machine, &pieces);
        return Err(MemoryError::OutOfPages { domain, wanted: left, free });
    }
    Ok(pieces)
}

/// The page tables of an address space of the library, which are those of its client.
#[derive(Debug)]
pub struct SimTables {
    space: Arc<Space>,
    /// Tables that changes under way may need.
    promised: AtomicUsize,
    skips_flushes: AtomicBool,
    forgets_entries: AtomicBool,
}

impl SimTables {
    pub(crate) const fn new(space: Arc<Space>) -> Self {
        let (skips_flushes, forgets_entries) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { space, promised: AtomicUsize::new(0), skips_flushes, forgets_entries }
    }

    /// Test only: commits a driver's bug, flushing nothing any more.
    pub fn skip_flushes(&self, skips: bool) {
        self.skips_flushes.store(skips, Ordering::Relaxed);
    }

    /// Test only: commits a driver's bug, leaving this address space's entries when a buffer is evicted.
    pub fn forget_entries(&self, forgets: bool) {
        self.forgets_entries.store(forgets, Ordering::Relaxed);
    }

    pub(crate) fn forgets_entries(&self) -> bool {
        self.forgets_entries.load(Ordering::Relaxed)
    }

    /// Makes the tables that `plan` may need, beside those promised to others. Whoever carries it out gives the promise back.
    pub(crate) fn promise<V>(&self, plan: &Plan<'_, V>) -> Result<usize, MemoryError> {
        let most = plan.tables(21) + plan.tables(30) + plan.splits(21);
        let most = usize::try_from(most).map_err(|_| MemoryError::OutOfHostMemory)?;
        let promised = self.promised.fetch_add(most, Ordering::Relaxed) + most;
        let reserved = self.with(|tables, memory| tables.reserve_tables(memory, promised).map_err(MapError::Memory));
        match reserved {
            Ok(()) => Ok(most),
            Err(error) => {
                self.keep_promise(most);
                Err(if let MapError::Memory(error) = error { error } else { MemoryError::NoSuchPage })
            }
        }
    }

    /// What was promised has been used as far as it was needed: the rest goes back.
    pub(crate) fn keep_promise(&self, tables: usize) {
        let left = self.promised.fetch_sub(tables, Ordering::Relaxed) - tables;
        // There are tables as long as this has its space.
        let _ = self.with(|tables, memory| {
            tables.free_spare(memory, left);
            Ok(())
        });
    }

    fn with<T>(
        &self,
        change: impl FnOnce(&mut AddressSpace, &mut Memory) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        let mut machine = self.space.shared.lock();
        let now = machine.now;
        let machine = &mut *machine;
        machine.memory.tap_mut().set_time(now);
        let tables = machine.unit.spaces.tables_mut(self.space.vm).ok_or(MapError::Memory(MemoryError::NoSuchPage))?;
        change(tables, &mut machine.memory)
    }

    /// Maps what `mapping` says of `bo`, as far as that has pages.
    pub(crate) fn map<M>(&self, mapping: &Mapping<M>, bo: &SimBo) -> Result<(), MapError> {
        let protection = if mapping.flags.has(Flags::READ_ONLY) { Protection::ReadOnly } else { Protection::ReadWrite };
        let (va, len) = (mapping.range.base(), mapping.range.len());
        let (mut done, window) = match mapping.source {
            Source::Bo { offset, .. } => return self.map_piece((va, len), (bo, offset), protection),
            Source::Repeated { offset, window, phase, .. } => {
                let first = (window - phase).min(len);
                self.map_piece((va, first), (bo, offset + phase), protection)?;
                (first, (offset, window))
            }
            Source::Sparse => return Ok(()),
        };
        while done < len {
            let piece = window.1.min(len - done);
            self.map_piece((va + done, piece), (bo, window.0), protection)?;
            done += piece;
        }
        Ok(())
    }

    fn map_piece(&self, (va, len): (u64, u64), (bo, offset): (&SimBo, u64), to: Protection) -> Result<(), MapError> {
        self.with(|tables, memory| {
            let place = bo.0.place();
            let Place::Here(pieces) = &*place else { return Ok(()) };
            bo.0.mapped_in(self.space.vm);
            let (mut at, end) = (offset, offset + len);
            let mut start = 0;
            for (first, count) in pieces {
                let past = start + u64::from(*count) * PAGE;
                if at < end && at < past {
                    // CAST: at most a piece of 512 pages.
                    let (into, pages) = (((at - start) / PAGE) as u32, ((end.min(past) - at) / PAGE) as u32);
                    let page = PageId { index: first.index + into, ..*first };
                    tables.map_run(memory, Va(va + (at - offset)), (page, pages), to)?;
                    at = end.min(past);
                }
                start = past;
            }
            Ok(())
        })
    }

    pub(crate) fn unmap(&self, va: u64, len: u64) -> Result<(), MapError> {
        self.with(|tables, memory| tables.unmap_range(memory, Va(va), len))
    }

    /// Waits until the device has forgotten what was mapped there.
    pub(crate) fn flush(&self, va: u64, len: u64) {
        if self.skips_flushes.load(Ordering::Relaxed) {
            return;
        }
        let (va, len) = block_of(Va(va), len);
        // There are tables as long as this has its space.
        let _ = self.with(|tables, memory| {
            memory.flush_translations(tables.root(), va, len);
            Ok(())
        });
    }

    /// Does what `step` says, and flushes. `bo` is what is behind a mapping.
    pub(crate) fn carry_out<'b>(&self, step: &Step, bo: impl FnOnce() -> Option<&'b SimBo>) -> Result<(), MapError> {
        match step {
            Step::Map { mapping } => match bo() {
                Some(bo) => self.map(mapping, bo),
                None => Ok(()),
            },
            Step::Unmap { .. } | Step::Remap { .. } => {
                let gone = step.changes();
                self.unmap(gone.base(), gone.len())?;
                self.flush(gone.base(), gone.len());
                Ok(())
            }
        }
    }
}

impl Apply<OpenBo<SimDriver>, ()> for &SimTables {
    type Error = MapError;

    fn apply(&mut self, space: &Planner<OpenBo<SimDriver>>, step: &Step) -> Result<(), MapError> {
        self.carry_out(step, || Some(space.bo(step.source().bo()?)?.bo()))
    }

    fn undo(&mut self, space: &Planner<OpenBo<SimDriver>>, step: &Step) {
        let gone = step.changes();
        let undone = match (step, step.source().bo().and_then(|bo| space.bo(bo))) {
            (Step::Map { .. }, _) => {
                let undone = self.unmap(gone.base(), gone.len());
                self.flush(gone.base(), gone.len());
                undone
            }
            (Step::Unmap { mapping, .. }, Some(open)) => self.map(mapping, open.bo()),
            (Step::Remap { unmap, .. }, Some(open)) => {
                let old = unmap.range;
                let undone = self.unmap(old.base(), old.len()).and_then(|()| self.map(unmap, open.bo()));
                self.flush(old.base(), old.len());
                undone
            }
            (Step::Unmap { .. } | Step::Remap { .. }, None) => Ok(()),
        };
        debug_assert!(undone.is_ok(), "the tables are there: {undone:?}");
    }
}

impl VmDriver for SimDriver {
    type Bo = SimBo;
    type Vm = SimTables;
    type VmBo = Opened;
    type Mapping = ();

    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
        let tables = to_clear.vm_data();
        for range in edit.clearing(&to_clear).map(|mapping| mapping.range) {
            // Whole mappings, so nothing is split: cannot want memory.
            if tables.unmap(range.base(), range.len()).is_err() {
                return;
            }
            tables.flush(range.base(), range.len());
        }
        match to_clear.bo() {
            Some((_, opened)) => opened.unmapped(),
            None => edit.bos().for_each(|(_, open)| open.data().unmapped()),
        }
        to_clear.cleared(Flushed::by_driver());
    }
}

impl fmt::Display for SimBo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer {}", self.core().id())
    }
}
