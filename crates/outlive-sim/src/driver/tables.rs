//! Page tables of the library's address spaces: steps as entries.
//!
//! Entries of large buffers, and of all that users map, the device may cache, so what is unmapped is flushed. Those of small
//! buffers of the driver's own ([`UNCACHED`]) it looks up each time.
//!
//! # Who touches what
//! Page tables: whoever has the turn, or the moment, at their `Vm`, and the machine's lock for each step.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use outlive::FenceError;
use outlive::vm::{
    Apply, BindCx, Edit, Flags, Flushed, ImmediateDriver, Mapping, OpenBo, Plan, Prepared, Request, Source,
    Space as Planner, StagedDriver, Step, ToClear, VaRange, VmDriver,
};

use super::bo::{Opening, SimBo};
use super::hardware::SimDriver;
use super::space::{Place, Space, VM_START};
use super::under_way::UnderWay;
use crate::gpu::{AddressSpace, MapError, Memory, MemoryError, PAGE_BYTES, PageId, Protection, Va, block_of};

/// The device does not cache what this mapping says.
pub(crate) const UNCACHED: Flags = Flags::driver(1);

/// What is kept with a buffer in an address space. Given back in this order.
#[derive(Debug)]
pub struct Opened {
    opening: Opening,
    /// Of one that the driver mapped: where it is, all of it.
    place: Option<Place>,
}

impl Opened {
    pub(crate) fn new(bo: &SimBo, tables: &SimTables, place: Option<Place>) -> Self {
        Self { opening: Opening::new(bo, tables.space.vm), place }
    }

    /// Where the driver mapped it, if it did.
    pub(crate) fn va(&self) -> Option<Va> {
        self.place.as_ref().map(|place| place.va)
    }

    /// No entry leads to the buffer any more, and no translation is remembered.
    pub(crate) fn unmapped(&self) {
        self.opening.unmapped();
    }
}

/// The page tables of an address space of the library.
#[derive(Debug)]
pub struct SimTables {
    space: Arc<Space>,
    /// Tables that changes under way may need, in these page tables.
    promised: Arc<AtomicUsize>,
    under_way: UnderWay,
    skips_flushes: AtomicBool,
    forgets_entries: AtomicBool,
}

impl SimTables {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        let (skips_flushes, forgets_entries) = (AtomicBool::new(false), AtomicBool::new(false));
        let promised = Arc::new(AtomicUsize::new(0));
        Self { space, promised, under_way: UnderWay::default(), skips_flushes, forgets_entries }
    }

    /// For another address space of the library with entries in the same page tables, elsewhere.
    pub(crate) fn beside(other: &Self) -> Self {
        Self { promised: Arc::clone(&other.promised), ..Self::new(Arc::clone(&other.space)) }
    }

    pub(crate) const fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// What binds still change.
    pub(crate) const fn under_way(&self) -> &UnderWay {
        &self.under_way
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
        let maps = || plan.steps().iter().filter(|step| matches!(step, Step::Map { .. }));
        self.promise_tables(|covers| {
            let of_step = |step: &Step| tables_for(step.mapping().range, step.source(), covers);
            plan.splits(covers) + maps().map(of_step).sum::<u64>()
        })
    }

    /// The same for a batch that is to be run, whatever is mapped then.
    pub(crate) fn put_aside(&self, batch: &Prepared) -> Result<SpareTables, MemoryError> {
        let count = self.promise_tables(|covers| {
            let of_request = |request: &Request| match *request {
                Request::Map { va, len, source, .. } => range(va, len).map_or(0, |at| tables_for(at, source, covers)),
                // What is there, whatever it is, may be mapped again.
                Request::Protect { va, len, .. } => range(va, len).map_or(0, |at| touched(at, covers)),
                Request::Unmap { .. } => 0,
            };
            batch.splits(covers) + batch.requests().iter().map(of_request).sum::<u64>()
        })?;
        Ok(SpareTables { space: Arc::clone(&self.space), promised: Arc::clone(&self.promised), count })
    }

    /// A table of each level below the root for each block of its size that is touched, or cut: so many as `of_level` says for
    /// blocks of 2^`covers` bytes.
    fn promise_tables(&self, of_level: impl Fn(u32) -> u64) -> Result<usize, MemoryError> {
        let most: u64 = (21..self.space.reach.bits()).step_by(9).map(of_level).sum();
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
        give_back(&self.space, &self.promised, tables);
    }

    /// Makes the tables for `len` bytes at `va`, so that mapping there does not run out of memory half way.
    pub(crate) fn prepare(&self, va: Va, len: u64) -> Result<(), MapError> {
        let promised = self.promised.load(Ordering::Relaxed);
        self.with(|tables, memory| {
            tables.prepare(memory, va, len)?;
            // It may have taken some that are promised.
            tables.reserve_tables(memory, promised).map_err(MapError::Memory)
        })
    }

    fn with<T>(
        &self,
        change: impl FnOnce(&mut AddressSpace, &mut Memory) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        with(&self.space, change)
    }

    /// Maps what `mapping` says: of `bo`, as far as that has pages.
    pub(crate) fn map<M>(&self, mapping: &Mapping<M>, bo: Option<&SimBo>) -> Result<(), MapError> {
        let protection = if mapping.flags.has(Flags::READ_ONLY) { Protection::ReadOnly } else { Protection::ReadWrite };
        let how = How { protection, cached: !mapping.flags.has(UNCACHED) };
        let (va, len) = (mapping.range.base(), mapping.range.len());
        if mapping.source == Source::Sparse {
            return self.with(|tables, memory| tables.map_sparse(memory, Va(va), len, protection));
        }
        let Some(bo) = bo else { return Ok(()) };
        let (mut done, window) = match mapping.source {
            Source::Bo { offset, .. } => return self.map_piece((va, len), (bo, offset), how),
            Source::Repeated { offset, window, phase, .. } => {
                let first = (window - phase).min(len);
                self.map_piece((va, first), (bo, offset + phase), how)?;
                (first, (offset, window))
            }
            Source::Sparse => return Ok(()),
        };
        while done < len {
            let piece = window.1.min(len - done);
            self.map_piece((va + done, piece), (bo, window.0), how)?;
            done += piece;
        }
        Ok(())
    }

    fn map_piece(&self, (va, len): (u64, u64), (bo, offset): (&SimBo, u64), as_: How) -> Result<(), MapError> {
        self.with(|tables, memory| {
            bo.map_pieces(self.space.vm, (offset, len), |at, (first, pages)| match as_ {
                How { protection, cached: true } => tables.map_run(memory, Va(va + at), (first, pages), protection),
                How { protection, cached: false } => map_pages(tables, memory, Va(va + at), (first, pages), protection),
            })
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

    /// Where a mapping's entries are written next: takes out what was closed there and is still to be cleared (`under_way`). The
    /// tables that the mapping may need do for splitting it.
    fn take_over(&self, range: VaRange) -> Result<(), MapError> {
        if range.base() < VM_START {
            // The driver's own places are given back when they are cleared.
            return Ok(());
        }
        self.with(|tables, memory| {
            self.under_way.writes(range);
            tables.unmap_range(memory, Va(range.base()), range.len())
        })?;
        self.flush(range.base(), range.len());
        Ok(())
    }

    /// Takes the entries of `range` out, which was closed, as far as they are `to_clear`'s.
    fn clear(&self, edit: &Edit<SimDriver>, to_clear: &ToClear<SimDriver>, range: VaRange) -> Result<(), MapError> {
        let mut parts: Vec<_> = edit.still_there(to_clear, range).collect();
        self.with(|tables, memory| {
            parts.extend(self.under_way.unwritten_in(range));
            // In one piece where they touch, so that what is unmapped whole is not split before.
            parts.sort_unstable_by_key(|part| part.base());
            let pieces = parts.chunk_by(|one, next| one.last().checked_add(1).is_none_or(|end| next.base() <= end));
            for (first, last) in
                pieces.filter_map(|piece| piece.first().zip(piece.iter().map(|part| part.last()).max()))
            {
                tables.unmap_range(memory, Va(first.base()), last - first.base() + 1)?;
            }
            Ok(())
        })?;
        self.flush(range.base(), range.len());
        Ok(())
    }

    /// Does what `step` says, and flushes. `bo` is what is behind a mapping.
    pub(crate) fn carry_out<'b, M>(
        &self,
        step: &Step<M>,
        bo: impl FnOnce() -> Option<&'b SimBo>,
    ) -> Result<(), MapError> {
        match step {
            Step::Map { mapping } => {
                self.take_over(mapping.range)?;
                self.map(mapping, bo())
            }
            Step::Unmap { .. } | Step::Remap { .. } => {
                let gone = step.changes();
                self.unmap(gone.base(), gone.len())?;
                self.flush(gone.base(), gone.len());
                Ok(())
            }
        }
    }
}

/// Page tables that were put aside for a batch; dropped, what it has not used goes back.
#[derive(Debug)]
pub struct SpareTables {
    space: Arc<Space>,
    promised: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for SpareTables {
    fn drop(&mut self) {
        give_back(&self.space, &self.promised, self.count);
    }
}

fn give_back(space: &Space, promised: &AtomicUsize, tables: usize) {
    let left = promised.fetch_sub(tables, Ordering::Relaxed) - tables;
    // There are tables as long as somebody has the space.
    let _ = with(space, |tables, memory| {
        tables.free_spare(memory, left);
        Ok(())
    });
}

fn with<T>(
    space: &Space,
    change: impl FnOnce(&mut AddressSpace, &mut Memory) -> Result<T, MapError>,
) -> Result<T, MapError> {
    let mut machine = space.shared.lock();
    let now = machine.now;
    let machine = &mut *machine;
    machine.memory.tap_mut().set_time(now);
    let tables = machine.unit.spaces.tables_mut(space.vm).ok_or(MapError::Memory(MemoryError::NoSuchPage))?;
    change(tables, &mut machine.memory)
}

/// How a piece is mapped.
#[derive(Debug, Clone, Copy)]
struct How {
    protection: Protection,
    cached: bool,
}

fn map_pages(
    tables: &mut AddressSpace,
    memory: &mut Memory,
    va: Va,
    (first, pages): (PageId, u32),
    protection: Protection,
) -> Result<(), MapError> {
    for (at, index) in (0_u64..).zip(first.index..first.index + pages) {
        tables.map(memory, va.add(at * PAGE_BYTES as u64), PageId { index, ..first }, protection)?;
    }
    Ok(())
}

/// The most tables whose entries cover 2^`covers` bytes together that a mapping at `at` can need: for a sparse one, which takes as
/// large entries as fit, those at its ends.
fn tables_for(at: VaRange, source: Source, covers: u32) -> u64 {
    let touched = touched(at, covers);
    if source == Source::Sparse { touched.min(2) } else { touched }
}

/// How many blocks of 2^`covers` bytes it touches.
const fn touched(at: VaRange, covers: u32) -> u64 {
    (at.last() >> covers) - (at.base() >> covers) + 1
}

/// The range of a request that was checked.
fn range(va: u64, len: u64) -> Option<VaRange> {
    VaRange::new(va, len, PAGE_BYTES as u64).ok()
}

impl Apply<OpenBo<SimDriver>, ()> for &SimTables {
    type Error = MapError;

    fn apply(&mut self, space: &Planner<OpenBo<SimDriver>>, step: &Step) -> Result<(), MapError> {
        self.carry_out(step, || Some(space.bo(step.source().bo()?)?.bo()))
    }

    fn undo(&mut self, space: &Planner<OpenBo<SimDriver>>, step: &Step) {
        let gone = step.changes();
        let bo = step.source().bo().and_then(|bo| space.bo(bo)).map(OpenBo::bo);
        let undone = match step {
            Step::Map { .. } => {
                let undone = self.unmap(gone.base(), gone.len());
                self.flush(gone.base(), gone.len());
                undone
            }
            Step::Unmap { mapping, .. } => self.map(mapping, bo),
            Step::Remap { unmap, .. } => {
                let old = unmap.range;
                let undone = self.unmap(old.base(), old.len()).and_then(|()| self.map(unmap, bo));
                self.flush(old.base(), old.len());
                undone
            }
        };
        debug_assert!(undone.is_ok(), "the tables are there: {undone:?}");
    }
}

impl VmDriver for SimDriver {
    type Bo = SimBo;
    type Vm = SimTables;
    type VmBo = Opened;
    type Mapping = ();
}

impl StagedDriver for SimDriver {
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
        let tables = to_clear.vm_data();
        // Nothing is split that was not when something was mapped over it: cannot want memory.
        let mut ranges = edit.clearing(&to_clear).map(|mapping| mapping.range);
        if ranges.any(|range| tables.clear(edit, &to_clear, range).is_err()) {
            return;
        }
        match to_clear.bo() {
            Some((_, opened)) => opened.unmapped(),
            None => edit.bos().for_each(|(_, open)| open.data().unmapped()),
        }
        to_clear.cleared(Flushed::by_driver());
    }
}

impl ImmediateDriver for SimDriver {
    type Room = SpareTables;

    fn bind(&self, cx: &mut BindCx<'_, Self>, step: &Step<&()>) -> Result<(), FenceError> {
        let behind = cx.bo(step.source());
        // There was room for all that it can need.
        cx.vm.carry_out(step, || behind.map(|(bo, _)| bo)).map_err(|_| FenceError::DriverBug)
    }

    fn flush(&self, _vm: &SimTables) -> Result<Flushed, FenceError> {
        // Each step has.
        Ok(Flushed::by_driver())
    }
}
