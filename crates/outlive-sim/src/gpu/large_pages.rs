//! Page tables by ranges: the largest pages that alignment allows, split where a range ends inside one.
//!
//! # Sizes
//! | page | how it is held | when |
//! |---|---|---|
//! | 2 MiB | one entry of the second level (`BLOCK`) | address and memory aligned to it, and no table with entries there |
//! | 64 KiB | sixteen entries alike of the last level (`GROUP`) | address and memory aligned to it |
//! | 4 KiB | one entry of the last level | otherwise |
//!
//! # Splits
//! Who unmaps part of a block leaves a table of small pages in its place, and who unmaps part of a group takes the mark off
//! the rest. A split needs a table, which [`AddressSpace::reserve_tables`] puts aside before: then nothing here runs out of
//! memory. A table that became empty and is in the way of a block is put aside, too.
//!
//! Changing the size of a page changes nothing of what it translates to; but a translation cache may hold the large one, so
//! whoever splits flushes the whole block ([`block_of`]).

use super::memory::{Memory, MemoryError};
use super::page_table::{
    AddressSpace, BLOCK, CACHED, ENTRIES, ENTRY_BYTES, GROUP, MapError, NUMBER_MASK, NUMBER_SHIFT, Protection, VA_END,
    VALID, WRITABLE, leaf_entry, slot, target,
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
}

impl PageSize {
    /// In small pages.
    #[must_use]
    pub const fn pages(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Medium => 16,
            Self::Large => 512,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.pages() as u64 * 4096
    }
}

/// A page as the tables hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where it starts.
    pub va: Va,
    /// Its size.
    pub size: PageSize,
    /// Its first page of memory.
    pub page: PageId,
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

impl AddressSpace {
    /// Puts tables aside, so that there are `count` for mapping and splitting.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`]; those made so far stay.
    pub fn reserve_tables(&mut self, memory: &mut Memory, count: usize) -> Result<(), MemoryError> {
        while self.spare.len() + self.emptied.len() < count {
            let table = memory.allocate(self.root().domain, self.owner)?;
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
        let end = va.0.checked_add(u64::from(pages) * PageSize::Small.bytes()).filter(|end| *end <= VA_END);
        let end = end.ok_or(MapError::BadAddress(va))?;
        let (mut at, mut page) = (va, first);
        while at.0 < end {
            let left = end - at.0;
            let fits = |size: PageSize| {
                at.0.is_multiple_of(size.bytes()) && page.index.is_multiple_of(size.pages()) && left >= size.bytes()
            };
            let size = if fits(PageSize::Large) && self.map_block(memory, at, page, protection)? {
                PageSize::Large
            } else {
                let size = if fits(PageSize::Medium) { PageSize::Medium } else { PageSize::Small };
                self.map_leaves(memory, at, page, size, protection)?;
                size
            };
            at = at.add(size.bytes());
            page.index += size.pages();
        }
        Ok(())
    }

    /// Nothing is mapped in `[va, va + len_bytes)` any more.
    ///
    /// # Errors
    ///
    /// [`MapError::BadAddress`], before anything was changed; [`MapError::Memory`] for want of a table to split a block with.
    pub fn unmap_range(&mut self, memory: &mut Memory, va: Va, len_bytes: u64) -> Result<(), MapError> {
        let end = va.0.checked_add(len_bytes).filter(|end| *end <= VA_END && (va.0 | *end).is_multiple_of(4096));
        let end = end.ok_or(MapError::BadAddress(va))?;
        let mut at = va.0;
        while at < end {
            let block = at & !(PageSize::Large.bytes() - 1);
            let block_end = block + PageSize::Large.bytes();
            let until = end.min(block_end);
            if let Some(second) = self.second_level(memory, Va(at)) {
                let entry_at = slot(Va(at), 1) * ENTRY_BYTES;
                let entry = memory.load_u64(second, entry_at).unwrap_or(0);
                if entry & (VALID | BLOCK) == VALID | BLOCK && at == block && until == block_end {
                    store(memory, second, entry_at, 0);
                } else if entry & VALID != 0 {
                    let table = match target(entry, self.root().domain) {
                        Ok(table) if entry & BLOCK == 0 => table,
                        _ => self.split(memory, (second, entry_at), entry)?,
                    };
                    clear_leaves(memory, table, Va(at), until);
                }
            }
            at = until;
        }
        Ok(())
    }

    /// All that is mapped, ascending, as the device finds it.
    #[must_use]
    pub fn held(&self, memory: &Memory) -> Vec<Held> {
        let mut held = Vec::new();
        let domain = self.root().domain;
        for top in 0..ENTRIES {
            let Ok(second) = target(load(memory, self.root(), top), domain) else { continue };
            for middle in 0..ENTRIES {
                let va = ((top as u64) << 30) | ((middle as u64) << 21);
                let entry = load(memory, second, middle);
                if entry & (VALID | BLOCK) == VALID | BLOCK {
                    held.extend(describe(entry & !BLOCK, va, PageSize::Large, domain));
                } else if let Ok(table) = target(entry, domain) {
                    held_in(memory, table, va, &mut held);
                }
            }
        }
        held
    }

    /// Maps a block, unless small pages are mapped in its place.
    fn map_block(
        &mut self,
        memory: &mut Memory,
        va: Va,
        page: PageId,
        protection: Protection,
    ) -> Result<bool, MapError> {
        let second = self.second_level_made(memory, va)?;
        let entry_at = slot(va, 1) * ENTRY_BYTES;
        let entry = memory.load_u64(second, entry_at).unwrap_or(0);
        if entry & BLOCK != 0 {
            return Err(MapError::Occupied(va));
        }
        if let Ok(table) = target(entry, self.root().domain) {
            if (0..ENTRIES).any(|at| load(memory, table, at) & VALID != 0) {
                return Ok(false);
            }
            self.emptied.push(table);
        }
        store(memory, second, entry_at, leaf_entry(page, protection) | BLOCK | CACHED);
        Ok(true)
    }

    fn map_leaves(
        &mut self,
        memory: &mut Memory,
        va: Va,
        page: PageId,
        size: PageSize,
        protection: Protection,
    ) -> Result<(), MapError> {
        let table = self.leaf_table(memory, va)?;
        let group = if size == PageSize::Medium { GROUP } else { 0 };
        let first = slot(va, 2);
        let count = usize::try_from(size.pages()).unwrap_or(1);
        if (first..first + count).any(|at| load(memory, table, at) & VALID != 0) {
            return Err(MapError::Occupied(va));
        }
        for (at, index) in (first..first + count).zip(page.index..) {
            let entry = leaf_entry(PageId { index, ..page }, protection) | group | CACHED;
            store(memory, table, at * ENTRY_BYTES, entry);
        }
        Ok(())
    }

    /// A table of small pages in the place of a block, filled before it is hung in.
    fn split(
        &mut self,
        memory: &mut Memory,
        (second, entry_at): (PageId, usize),
        entry: u64,
    ) -> Result<PageId, MapError> {
        let table = self.take_table(memory)?;
        for at in 0..ENTRIES {
            let page = (at as u64) << NUMBER_SHIFT;
            store(memory, table, at * ENTRY_BYTES, ((entry & !BLOCK) + page) | GROUP);
        }
        store(memory, second, entry_at, VALID | (u64::from(table.index) << NUMBER_SHIFT));
        Ok(table)
    }

    /// The second-level table for `va`, if there is one.
    fn second_level(&self, memory: &Memory, va: Va) -> Option<PageId> {
        target(load(memory, self.root(), slot(va, 0)), self.root().domain).ok()
    }

    fn second_level_made(&mut self, memory: &mut Memory, va: Va) -> Result<PageId, MapError> {
        if let Some(second) = self.second_level(memory, va) {
            return Ok(second);
        }
        let second = self.take_table(memory)?;
        let entry = VALID | (u64::from(second.index) << NUMBER_SHIFT);
        store(memory, self.root(), slot(va, 0) * ENTRY_BYTES, entry);
        Ok(second)
    }
}

/// Clears the entries from `va` to `until` in the last-level table `table`. Of a group that is cut, the rest is small pages.
fn clear_leaves(memory: &mut Memory, table: PageId, va: Va, until: u64) {
    let first = slot(va, 2);
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

fn held_in(memory: &Memory, table: PageId, va: u64, held: &mut Vec<Held>) {
    let mut at = 0;
    while at < ENTRIES {
        let entry = load(memory, table, at);
        let size = if entry & GROUP == 0 { PageSize::Small } else { PageSize::Medium };
        held.extend(describe(entry & !GROUP, va | ((at as u64) << 12), size, table.domain));
        at += usize::try_from(size.pages()).unwrap_or(1);
    }
}

fn describe(entry: u64, va: u64, size: PageSize, domain: super::types::DomainId) -> Option<Held> {
    let page = target(entry & !CACHED, domain).ok()?;
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
