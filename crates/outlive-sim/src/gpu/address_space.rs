//! The host's side of page tables: it makes them, maps and unmaps page by page here and by ranges in `large_pages`, and in the end
//! frees them. What [`AddressSpace::map`] maps is never cached: a cleared entry is seen by the next access.
//!
//! It belongs to whoever has the memory exclusively, so there is nothing to wait for.

use core::fmt;

use super::memory::{Memory, MemoryError};
use super::page_table::{
    BLOCK, ENTRIES, ENTRY_BYTES, NUMBER_SHIFT, PAGE_MASK, Protection, Reach, Root, SYSTEM, VALID, WRITABLE, slot,
    target,
};
use super::types::{DomainId, OwnerId, PageId, Va};

/// Why the host could not change a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// There is no memory for a page table.
    Memory(MemoryError),
    /// The address is not at the start of a page, or out of reach.
    BadAddress(Va),
    /// Something is mapped there already.
    Occupied(Va),
    /// Nothing is mapped there.
    NotMapped(Va),
    /// The page lies in another device's memory.
    Unreachable(PageId),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::BadAddress(va) => write!(f, "address {va} is no page in reach"),
            Self::Occupied(va) => write!(f, "something is mapped at {va}"),
            Self::NotMapped(va) => write!(f, "nothing is mapped at {va}"),
            Self::Unreachable(page) => write!(f, "{page} is in another device's memory"),
        }
    }
}

impl core::error::Error for MapError {}

/// The host's side of one address space: its tables, which it changes and in the end frees.
///
/// Dropping it frees nothing; the tables are given back by [`AddressSpace::destroy`], once the hardware is done.
#[derive(Debug)]
#[must_use = "its tables are freed only by `destroy`"]
pub struct AddressSpace {
    root: Root,
    pub(super) owner: OwnerId,
    pub(super) tables: u32,
    /// Put aside and never used; part of `tables`.
    pub(super) spare: Vec<PageId>,
    /// Once used and empty now; part of `tables`. A job that walked through one may still be running.
    pub(super) emptied: Vec<PageId>,
}

impl AddressSpace {
    /// An empty address space of 39 bits with its root table in `domain`, the memory of the device that shall walk it.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`].
    pub fn new(memory: &mut Memory, domain: DomainId, owner: OwnerId) -> Result<Self, MemoryError> {
        Self::reaching(memory, domain, owner, Reach::Bits39)
    }

    /// As [`AddressSpace::new`], of so many bits.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`].
    pub fn reaching(memory: &mut Memory, domain: DomainId, owner: OwnerId, reach: Reach) -> Result<Self, MemoryError> {
        let root = Root { table: memory.allocate(domain, owner)?, reach };
        Ok(Self { root, owner, tables: 1, spare: Vec::new(), emptied: Vec::new() })
    }

    /// The root table, which the device is told.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// Pages that the tables take.
    #[must_use]
    pub const fn tables(&self) -> u32 {
        self.tables
    }

    /// Makes the tables for `[va, va + len_bytes)`, so that mapping there needs no memory.
    ///
    /// # Errors
    ///
    /// [`MapError::Memory`] or [`MapError::BadAddress`]; tables made so far stay.
    pub fn prepare(&mut self, memory: &mut Memory, va: Va, len_bytes: u64) -> Result<(), MapError> {
        let end = self.end_of(va, len_bytes)?;
        let mut at = va.0 & !PAGE_MASK;
        while at < end {
            self.leaf_table(memory, Va(at))?;
            // The next table starts 2 MiB further on: 0x3f_f000 -> 0x40_0000.
            at = (at | 0x1f_ffff) + 1;
        }
        Ok(())
    }

    /// Maps one page. Cannot fail for want of memory where [`AddressSpace::prepare`] went before.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then.
    pub fn map(&mut self, memory: &mut Memory, va: Va, page: PageId, protection: Protection) -> Result<(), MapError> {
        if va.0 & PAGE_MASK != 0 || va >= self.root.reach.end() {
            return Err(MapError::BadAddress(va));
        }
        self.check_reachable(page)?;
        let table = self.leaf_table(memory, va)?;
        let at = slot(va, 0) * ENTRY_BYTES;
        if memory.load_u64(table, at).is_some_and(|entry| entry & VALID != 0) {
            return Err(MapError::Occupied(va));
        }
        let entry = leaf_entry(page, protection);
        memory.store_u64(table, at, entry).ok_or(MapError::Memory(MemoryError::NoSuchPage))
    }

    /// Takes one page out that [`AddressSpace::map`] has mapped, and says which it was. The tables stay.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`].
    pub fn unmap(&mut self, memory: &mut Memory, va: Va) -> Result<PageId, MapError> {
        if va >= self.root.reach.end() {
            return Err(MapError::NotMapped(va));
        }
        let (mut table, at) = (self.root.table, slot(va, 0) * ENTRY_BYTES);
        for level in (1..=self.root.reach.top()).rev() {
            let entry = memory.load_u64(table, slot(va, level) * ENTRY_BYTES).unwrap_or(0);
            table = target(entry, table.domain).map_err(|_| MapError::NotMapped(va))?;
        }
        let entry = memory.load_u64(table, at).unwrap_or(0);
        let page = target(entry, table.domain).map_err(|_| MapError::NotMapped(va))?;
        memory.store_u64(table, at, 0).ok_or(MapError::NotMapped(va))?;
        Ok(page)
    }

    /// Frees all tables. What they map is the caller's.
    ///
    /// # Errors
    ///
    /// As [`Memory::free`], if a table was freed behind its back; the others are freed all the same.
    pub fn destroy(self, memory: &mut Memory) -> Result<(), MemoryError> {
        let mut tables = alloc::vec![(self.root.table, self.root.reach.top())];
        let mut result = Ok(());
        for table in self.spare.into_iter().chain(self.emptied) {
            result = result.and(memory.free(table));
        }
        while let Some((table, level)) = tables.pop() {
            if level > 0 {
                push_children(memory, table, level, &mut tables);
            }
            result = result.and(memory.free(table));
        }
        result
    }

    /// The end of a range in reach.
    pub(super) fn end_of(&self, va: Va, len_bytes: u64) -> Result<u64, MapError> {
        let end = va.0.checked_add(len_bytes).filter(|end| *end <= self.root.reach.end().0);
        end.ok_or(MapError::BadAddress(va))
    }

    /// Whether the device whose tables these are can reach the page.
    pub(super) fn check_reachable(&self, page: PageId) -> Result<(), MapError> {
        let reachable = page.domain == DomainId::SYSTEM || page.domain == self.root.table.domain;
        if reachable { Ok(()) } else { Err(MapError::Unreachable(page)) }
    }

    /// The last-level table for `va`, made if it is missing.
    fn leaf_table(&mut self, memory: &mut Memory, va: Va) -> Result<PageId, MapError> {
        let mut table = self.root.table;
        for level in (1..=self.root.reach.top()).rev() {
            table = self.table_below(memory, (table, level), va)?;
        }
        Ok(table)
    }

    /// The table that the one of `level` has for `va`, made if it is missing.
    pub(super) fn table_below(
        &mut self,
        memory: &mut Memory,
        (table, level): (PageId, usize),
        va: Va,
    ) -> Result<PageId, MapError> {
        let at = slot(va, level) * ENTRY_BYTES;
        let entry = memory.load_u64(table, at).unwrap_or(0);
        if let Ok(next) = target(entry, table.domain) {
            return Ok(next);
        }
        if entry & (VALID | BLOCK) == VALID | BLOCK {
            return Err(MapError::Occupied(va));
        }
        let next = self.take_table(memory)?;
        memory.store_u64(table, at, table_entry(next)).ok_or(MapError::BadAddress(va))?;
        Ok(next)
    }

    /// An empty table: one that was put aside, or a new one.
    pub(super) fn take_table(&mut self, memory: &mut Memory) -> Result<PageId, MapError> {
        if let Some(table) = self.emptied.pop().or_else(|| self.spare.pop()) {
            return Ok(table);
        }
        let table = memory.allocate(self.root.table.domain, self.owner).map_err(MapError::Memory)?;
        self.tables += 1;
        Ok(table)
    }
}

/// A leaf of the last level, not to be cached.
pub(super) fn leaf_entry(page: PageId, protection: Protection) -> u64 {
    let system = if page.domain == DomainId::SYSTEM { SYSTEM } else { 0 };
    protected(protection) | system | (u64::from(page.index) << NUMBER_SHIFT)
}

/// A leaf without a page.
pub(super) fn protected(protection: Protection) -> u64 {
    let writable = if protection == Protection::ReadWrite { WRITABLE } else { 0 };
    VALID | writable
}

/// An entry of an upper level.
pub(super) fn table_entry(table: PageId) -> u64 {
    VALID | (u64::from(table.index) << NUMBER_SHIFT)
}

/// Adds the tables that `table` names.
fn push_children(memory: &Memory, table: PageId, level: usize, out: &mut Vec<(PageId, usize)>) {
    for at in 0..ENTRIES {
        let entry = memory.load_u64(table, at * ENTRY_BYTES).unwrap_or(0);
        if let Ok(child) = target(entry, table.domain) {
            out.push((child, level - 1));
        }
    }
}

#[cfg(test)]
#[path = "page_table_tests.rs"]
mod tests;
