//! Page tables by ranges: the largest pages that alignment allows, split where a range ends inside one.
//!
//! # Sizes
//! | page | how it is held | when |
//! |---|---|---|
//! | 2 MiB | one entry of the second level from below (`BLOCK`) | address and memory aligned to it, and no table with entries there |
//! | 64 KiB | sixteen entries alike of the lowest level (`GROUP`) | address and memory aligned to it |
//! | 4 KiB | one entry of the lowest level | otherwise |
//! | 1 GiB, 512 GiB | one entry of a level above (`BLOCK`) | sparse only, address aligned to it, and no table there |
//!
//! Sparse ranges have no memory behind them, so they take what alignment allows of each size: 1 GiB that is aligned to it takes one
//! entry, and any range at most two tables of each level.
//!
//! # Splits
//! Who unmaps part of a block leaves a table of smaller pages in its place, and who unmaps part of a group takes the mark off
//! the rest. A split needs a table, which [`AddressSpace::reserve_tables`] puts aside before: then nothing here runs out of
//! memory. A table that became empty and is in the way of a block of 2 MiB is put aside, too.
//!
//! Changing the size of a page changes nothing of what it translates to; but a translation cache may hold the large one, so
//! whoever splits flushes the whole block ([`block_of`]; of a larger one, a flush of any part of it takes all).

use super::address_space::{AddressSpace, MapError, leaf_entry, protected, table_entry};
use super::memory::{Memory, MemoryError};
use super::page_table::{
    BLOCK, CACHED, ENTRIES, ENTRY_BYTES, GROUP, NULL, NUMBER_MASK, NUMBER_SHIFT, Protection, VALID, WRITABLE, slot,
    target,
};
use super::types::{PageId, Va};

/// How large a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 64 KiB.
    Medium,
    /// 2 MiB.
    Large,
    /// 1 GiB. Sparse only.
    Huge,
    /// 512 GiB. Sparse only.
    Giant,
}

impl PageSize {
    /// In small pages.
    #[must_use]
    pub const fn pages(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Medium => 16,
            Self::Large => 1 << 9,
            Self::Huge => 1 << 18,
            Self::Giant => 1 << 27,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.pages() as u64 * 4096
    }

    /// Of an entry of `level`.
    const fn of_level(level: usize) -> Self {
        match level {
            0 => Self::Small,
            1 => Self::Large,
            2 => Self::Huge,
            _ => Self::Giant,
        }
    }
}

/// A page as the tables hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where it starts.
    pub va: Va,
    /// Its size.
    pub size: PageSize,
    /// Its first page of memory; none if it is sparse.
    pub page: Option<PageId>,
    /// Whether it may be written.
    pub protection: Protection,
}

/// The addresses to flush where `[va, va + len_bytes)` was unmapped: to the edges of the largest pages it may have cut.
#[must_use]
pub const fn block_of(va: Va, len_bytes: u64) -> (Va, u64) {
    let mask = PageSize::Large.bytes() - 1;
    let start = va.0 & !mask;
    let end = (va.0 + len_bytes + mask) & !mask;
    (Va(start), end - start)
}

/// What is to be mapped from an address on: pages that lie side by side, or none.
struct Run {
    va: Va,
    first: Option<PageId>,
    protection: Protection,
}

impl Run {
    /// Whether a page of this size may start at `at`.
    fn fits(&self, at: u64, size: PageSize) -> bool {
        let memory_fits = self.first.is_none_or(|_| {
            size <= PageSize::Large && self.page_at(at).is_some_and(|page| page.index.is_multiple_of(size.pages()))
        });
        at.is_multiple_of(size.bytes()) && memory_fits
    }

    fn page_at(&self, at: u64) -> Option<PageId> {
        // CAST: at most a run of u32::MAX pages.
        self.first.map(|first| PageId { index: first.index + ((at - self.va.0) >> 12) as u32, ..first })
    }

    /// The leaf for the page that starts at `at`.
    fn entry(&self, at: u64) -> u64 {
        CACHED | self.page_at(at).map_or(protected(self.protection) | NULL, |page| leaf_entry(page, self.protection))
    }
}

impl AddressSpace {
    /// Puts tables aside, so that there are `count` for mapping and splitting.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`]; those made so far stay.
    pub fn reserve_tables(&mut self, memory: &mut Memory, count: usize) -> Result<(), MemoryError> {
        while self.spare.len() + self.emptied.len() < count {
            let table = memory.allocate(self.root().table.domain, self.owner)?;
            self.tables += 1;
            self.spare.push(table);
        }
        // Whatever is put aside later needs no more.
        let more = usize::try_from(self.tables).unwrap_or(0).saturating_sub(self.emptied.len());
        self.emptied.try_reserve(more).map_err(|_| MemoryError::OutOfHostMemory)
    }

    /// Frees tables that were put aside and not used, but for `keep`.
    pub fn free_spare(&mut self, memory: &mut Memory, keep: usize) {
        while self.spare.len() > keep.saturating_sub(self.emptied.len()) {
            let Some(table) = self.spare.pop() else { return };
            self.tables -= 1;
            // One that was freed behind its back shows in the audit.
            let _ = memory.free(table);
        }
    }

    /// Maps `pages` pages of memory that lie side by side, the first of which is `first`, from `va` on, where nothing is
    /// mapped. What was translated is kept by the translation cache until it is flushed.
    ///
    /// # Errors
    ///
    /// [`MapError`]; what came before the page at fault stays mapped. Not for want of memory if enough tables were put aside.
    pub fn map_run(
        &mut self,
        memory: &mut Memory,
        va: Va,
        (first, pages): (PageId, u32),
        protection: Protection,
    ) -> Result<(), MapError> {
        self.check_reachable(first)?;
        let len_bytes = u64::from(pages) * PageSize::Small.bytes();
        self.map_all(memory, len_bytes, &Run { va, first: Some(first), protection })
    }

    /// As [`AddressSpace::map_run`], with no memory behind: the range reads as zero, and what is written is dropped.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map_sparse(
        &mut self,
        memory: &mut Memory,
        va: Va,
        len_bytes: u64,
        protection: Protection,
    ) -> Result<(), MapError> {
        self.map_all(memory, len_bytes, &Run { va, first: None, protection })
    }

    fn map_all(&mut self, memory: &mut Memory, len_bytes: u64, run: &Run) -> Result<(), MapError> {
        let end = self.aligned_end_of(run.va, len_bytes)?;
        let root = self.root();
        self.fill(memory, (root.table, root.reach.top()), (run.va.0, end), run)
    }

    /// Nothing is mapped in `[va, va + len_bytes)` any more.
    ///
    /// # Errors
    ///
    /// [`MapError::BadAddress`], before anything was changed; [`MapError::Memory`] for want of a table to split a block with.
    pub fn unmap_range(&mut self, memory: &mut Memory, va: Va, len_bytes: u64) -> Result<(), MapError> {
        let end = self.aligned_end_of(va, len_bytes)?;
        let root = self.root();
        self.clear(memory, (root.table, root.reach.top()), (va.0, end))
    }

    /// All that is mapped, ascending, as the device finds it.
    #[must_use]
    pub fn held(&self, memory: &Memory) -> Vec<Held> {
        let mut held = Vec::new();
        let root = self.root();
        held_in(memory, (root.table, root.reach.top()), 0, &mut held);
        held
    }

    fn aligned_end_of(&self, va: Va, len_bytes: u64) -> Result<u64, MapError> {
        let end = self.end_of(va, len_bytes)?;
        if (va.0 | end).is_multiple_of(4096) { Ok(end) } else { Err(MapError::BadAddress(va)) }
    }

    /// Maps what `run` says of `[from, until)` in a table of `level`, which spans that.
    fn fill(
        &mut self,
        memory: &mut Memory,
        (table, level): (PageId, usize),
        (from, until): (u64, u64),
        run: &Run,
    ) -> Result<(), MapError> {
        if level == 0 {
            return fill_leaves(memory, table, (from, until), run);
        }
        let size = PageSize::of_level(level);
        for (at, end) in pieces(from, until, size) {
            let offset = slot(Va(at), level) * ENTRY_BYTES;
            let whole = end - at == size.bytes() && run.fits(at, size);
            if whole && self.make_way(memory, (table, level), Va(at))? {
                store(memory, table, offset, run.entry(at) | BLOCK);
            } else {
                let below = self.table_below(memory, (table, level), Va(at))?;
                self.fill(memory, (below, level - 1), (at, end), run)?;
            }
        }
        Ok(())
    }

    /// Whether a block may take an entry: if nothing is there, or small pages were and are no more.
    fn make_way(&mut self, memory: &Memory, (table, level): (PageId, usize), va: Va) -> Result<bool, MapError> {
        let entry = load(memory, table, slot(va, level));
        if entry & BLOCK != 0 {
            return Err(MapError::Occupied(va));
        }
        let Ok(below) = target(entry, table.domain) else { return Ok(true) };
        if level > 1 || (0..ENTRIES).any(|at| load(memory, below, at) & VALID != 0) {
            return Ok(false);
        }
        self.emptied.push(below);
        Ok(true)
    }

    /// Clears `[from, until)` in a table of `level`, which spans that.
    fn clear(
        &mut self,
        memory: &mut Memory,
        (table, level): (PageId, usize),
        (from, until): (u64, u64),
    ) -> Result<(), MapError> {
        if level == 0 {
            clear_leaves(memory, table, Va(from), until);
            return Ok(());
        }
        let size = PageSize::of_level(level);
        for (at, end) in pieces(from, until, size) {
            let offset = slot(Va(at), level) * ENTRY_BYTES;
            let entry = memory.load_u64(table, offset).unwrap_or(0);
            if entry & VALID == 0 {
                continue;
            }
            if entry & BLOCK != 0 && end - at == size.bytes() {
                store(memory, table, offset, 0);
                continue;
            }
            let below = match target(entry, table.domain) {
                Ok(below) if entry & BLOCK == 0 => below,
                _ => self.split(memory, (table, level), offset, entry)?,
            };
            self.clear(memory, (below, level - 1), (at, end))?;
        }
        Ok(())
    }

    /// A table of smaller pages in the place of a block of `level`, filled before it is hung in.
    fn split(
        &mut self,
        memory: &mut Memory,
        (table, level): (PageId, usize),
        offset: usize,
        entry: u64,
    ) -> Result<PageId, MapError> {
        let below = self.take_table(memory)?;
        let small = if level == 1 { (entry & !BLOCK) | GROUP } else { entry };
        for at in 0..ENTRIES {
            let page = if entry & NULL == 0 { (at as u64) << NUMBER_SHIFT } else { 0 };
            store(memory, below, at * ENTRY_BYTES, small + page);
        }
        store(memory, table, offset, table_entry(below));
        Ok(below)
    }
}

/// `[from, until)` cut at the edges of pages of `size`.
fn pieces(from: u64, until: u64, size: PageSize) -> impl Iterator<Item = (u64, u64)> {
    let mut at = from;
    core::iter::from_fn(move || {
        let start = at;
        at = until.min((start | (size.bytes() - 1)) + 1);
        (start < until).then_some((start, at))
    })
}

/// Maps small pages, and groups of them where those fit.
fn fill_leaves(memory: &mut Memory, table: PageId, (from, until): (u64, u64), run: &Run) -> Result<(), MapError> {
    for (start, end) in pieces(from, until, PageSize::Medium) {
        let whole = end - start == PageSize::Medium.bytes() && run.fits(start, PageSize::Medium);
        let group = if whole { GROUP } else { 0 };
        let small = || pieces(start, end, PageSize::Small).map(|(at, _)| at);
        if let Some(taken) = small().find(|at| load(memory, table, slot(Va(*at), 0)) & VALID != 0) {
            return Err(MapError::Occupied(Va(taken)));
        }
        for at in small() {
            store(memory, table, slot(Va(at), 0) * ENTRY_BYTES, run.entry(at) | group);
        }
    }
    Ok(())
}

/// Clears the entries from `va` to `until` in the lowest table `table`. Of a group that is cut, the rest is small pages.
fn clear_leaves(memory: &mut Memory, table: PageId, va: Va, until: u64) {
    let first = slot(va, 0);
    // CAST: at most 512.
    let count = ((until - va.0) >> 12) as usize;
    let groups = first / 16 * 16..(first + count).div_ceil(16) * 16;
    for at in groups {
        let entry = load(memory, table, at);
        if (first..first + count).contains(&at) {
            store(memory, table, at * ENTRY_BYTES, 0);
        } else if entry & GROUP != 0 && is_cut(at, first, count) {
            store(memory, table, at * ENTRY_BYTES, entry & !GROUP);
        }
    }
}

/// Whether the group of entry `at` has an entry among the `count` from `first` on.
fn is_cut(at: usize, first: usize, count: usize) -> bool {
    let group = at / 16 * 16;
    group < first + count && first < group + 16
}

/// Adds what a table of `level` holds, whose first entry is for `va`.
fn held_in(memory: &Memory, (table, level): (PageId, usize), va: u64, held: &mut Vec<Held>) {
    let size = PageSize::of_level(level);
    let mut at = 0;
    while at < ENTRIES {
        let entry = load(memory, table, at);
        let start = va + at as u64 * size.bytes();
        let is_group = level == 0 && entry & GROUP != 0;
        at += if is_group { 16 } else { 1 };
        if level == 0 || entry & BLOCK != 0 {
            let size = if is_group { PageSize::Medium } else { size };
            held.extend(describe(entry & !(GROUP | BLOCK), start, size, table));
        } else if let Ok(below) = target(entry, table.domain) {
            held_in(memory, (below, level - 1), start, held);
        }
    }
}

fn describe(entry: u64, va: u64, size: PageSize, table: PageId) -> Option<Held> {
    let page = if entry & NULL == 0 { Some(target(entry & !CACHED, table.domain).ok()?) } else { None };
    let protection = if entry & WRITABLE == 0 { Protection::ReadOnly } else { Protection::ReadWrite };
    Some(Held { va: Va(va), size, page, protection })
}

fn load(memory: &Memory, table: PageId, at: usize) -> u64 {
    memory.load_u64(table, at * ENTRY_BYTES).unwrap_or(0)
}

/// Into a table of its own, which is there.
fn store(memory: &mut Memory, table: PageId, offset: usize, entry: u64) {
    let stored = memory.store_u64(table, offset, entry);
    debug_assert!(stored.is_some() && entry >> NUMBER_SHIFT <= NUMBER_MASK, "a table of this address space");
}

#[cfg(test)]
#[path = "large_pages_tests.rs"]
mod tests;
