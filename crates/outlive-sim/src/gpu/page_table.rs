//! Page tables, in memory, as the device walks them on every access.
//!
//! Three levels of one page each, 512 entries of eight bytes, reach 39 bits of address. An entry:
//!
//! ```text
//!  63            52 51                             12 11     6   5     4     3     2     1     0
//! +----------------+---------------------------------+--------+-----+-----+-----+-----+-----+-----+
//! |  must be zero  |  page number in its memory      | zero   | CAC | GRP | BLK | SYS | WR  | VAL |
//! +----------------+---------------------------------+--------+-----+-----+-----+-----+-----+-----+
//! ```
//!
//! `VAL` (bit 0): the entry means something. `WR` (bit 1): a leaf may be written. `SYS` (bit 2): the page lies in system
//! memory, else in the device's own. Upper levels hold `VAL` and the number of the next table, in the device's memory.
//! `BLK` (bit 3): this entry of the second level is a leaf, for a page of 2 MiB. `GRP` (bit 4): this leaf and the fifteen others
//! of its aligned group are a page of 64 KiB. `CAC` (bit 5): the device may keep what this leaf says in its translation cache until
//! that is flushed (`translation_cache`); without it, it looks each time.
//!
//! Example: the leaf `0x0000_0000_0002_a007` is valid (1), writable (2), in system memory (4), page number 0x2a. Address
//! `0x12_3456_7890` uses entry 0x48 of the root (bits 38..30: `0x12_3456_7890 >> 30`), entry 0x1a2 of the second level
//! (bits 29..21), entry 0x167 of the third (bits 20..12), and byte 0x890 of the page.
//!
//! The host writes entries with [`AddressSpace`], page by page here and by ranges in `large_pages`; only [`walk`] and
//! `translate` read them for the device. What [`AddressSpace::map`] maps is never cached: a cleared entry is seen by the next
//! access.

use core::fmt;

use super::memory::{Memory, MemoryError, PAGE_BYTES, index};
use super::types::{Access, DomainId, OwnerId, PageId, Va};

/// Levels of tables.
pub const LEVELS: usize = 3;
/// First address that the tables cannot reach.
pub const VA_END: u64 = 1 << 39;

pub(super) const VALID: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
const SYSTEM: u64 = 1 << 2;
pub(super) const BLOCK: u64 = 1 << 3;
pub(super) const GROUP: u64 = 1 << 4;
pub(super) const CACHED: u64 = 1 << 5;
pub(super) const NUMBER_SHIFT: u32 = 12;
pub(super) const NUMBER_MASK: u64 = 0xffff_ffff;
const SPARE: u64 = !(VALID | WRITABLE | SYSTEM | (NUMBER_MASK << NUMBER_SHIFT));
pub(super) const ENTRY_BYTES: usize = 8;
pub(super) const ENTRIES: usize = PAGE_BYTES / ENTRY_BYTES;
const PAGE_MASK: u64 = 0xfff;

/// What a mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// Why an access found no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultReason {
    /// No valid entry.
    NotMapped,
    /// A write to a page that may only be read.
    ReadOnly,
    /// The address is beyond the tables' reach.
    OutOfRange,
    /// An entry names a page that does not exist, or sets bits that mean nothing.
    BadEntry,
    /// The job's address space number names no page tables.
    NoSpace,
}

/// A page fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The address that was reached for.
    pub va: Va,
    /// What was wanted there.
    pub access: Access,
    /// What was wrong.
    pub reason: FaultReason,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page fault at {} ({:?}, {:?})", self.va, self.access, self.reason)
    }
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The page.
    pub page: PageId,
    /// The tables on the way, root first.
    pub tables: [PageId; LEVELS],
}

/// Finds the page for one access, as the hardware does: three loads from memory, nothing remembered.
///
/// # Errors
///
/// The fault, which carries the address.
#[inline]
pub fn walk(memory: &Memory, root: PageId, va: Va, access: Access) -> Result<Walk, Fault> {
    if let Some(page) = remembered(memory, root, va, access) {
        return Ok(Walk { page, tables: [root; LEVELS] });
    }
    let found = descend(memory, root, va).and_then(|(tables, entry)| {
        let page = leaf(entry, root.domain, access)?;
        if entry & CACHED != 0 {
            remember(memory, root, va);
        }
        Ok((tables, page))
    });
    match found {
        Ok(([second, third], page)) => {
            let table = |index| PageId { domain: root.domain, index };
            Ok(Walk { page, tables: [root, table(second), table(third)] })
        }
        Err(reason) => Err(Fault { va, access, reason }),
    }
}

/// As [`walk`], for those who do not ask which tables were on the way.
#[inline]
pub(crate) fn translate(memory: &Memory, root: PageId, va: Va, access: Access) -> Result<PageId, Fault> {
    if let Some(page) = remembered(memory, root, va, access) {
        return Ok(page);
    }
    let found = descend(memory, root, va).and_then(|(_, entry)| {
        let page = leaf(entry, root.domain, access)?;
        if entry & CACHED != 0 {
            remember(memory, root, va);
        }
        Ok(page)
    });
    found.map_err(|reason| Fault { va, access, reason })
}

/// What the translation cache says. Counted as stale if that is not what the tables say.
#[inline]
fn remembered(memory: &Memory, root: PageId, va: Va, access: Access) -> Option<PageId> {
    let page = memory.translations().look(root, va, access)?;
    let now = descend(memory, root, va).and_then(|(_, entry)| leaf(entry, root.domain, access));
    if now != Ok(page) {
        memory.translations().was_stale(va);
    }
    Some(page)
}

/// Puts what was found for `va` into the translation cache.
#[cold]
fn remember(memory: &Memory, root: PageId, va: Va) {
    if let Some(span) = span_at(memory, root, va) {
        memory.translations().remember(root, span);
    }
}

/// The page at `va` as a whole.
fn span_at(memory: &Memory, root: PageId, va: Va) -> Option<PageSpan> {
    let local = memory.local(root.domain)?;
    let second = table(local.load_u64(root.index, slot(va, 0) * ENTRY_BYTES)?).ok()?;
    let entry = local.load_u64(second, slot(va, 1) * ENTRY_BYTES)?;
    let (entry, pages) = if entry & (VALID | BLOCK) == VALID | BLOCK {
        (in_block(entry, va), 512)
    } else {
        let leaf = local.load_u64(table(entry).ok()?, slot(va, 2) * ENTRY_BYTES)?;
        (leaf & !GROUP, if leaf & GROUP == 0 { 1 } else { 16 })
    };
    let page = target(entry & !CACHED, root.domain).ok()?;
    // CAST: less than 512.
    let into = ((va.0 >> 12) % u64::from(pages)) as u32;
    let start = Va((va.0 & !PAGE_MASK) - u64::from(into) * PAGE_BYTES as u64);
    let first = PageId { index: page.index.checked_sub(into)?, ..page };
    Some(PageSpan { start, pages, first, writable: entry & WRITABLE != 0 })
}

/// One page of any size: addresses, and the memory behind them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSpan {
    start: Va,
    /// In small pages.
    pages: u32,
    first: PageId,
    pub(crate) writable: bool,
}

impl PageSpan {
    pub(super) const fn has(self, va: Va) -> bool {
        self.overlaps(va, 1)
    }

    pub(super) const fn overlaps(self, va: Va, len_bytes: u64) -> bool {
        let end = self.start.0 + self.pages as u64 * PAGE_BYTES as u64;
        self.start.0 < va.0.saturating_add(len_bytes) && va.0 < end
    }

    /// The small page at `va`, which lies inside.
    pub(super) const fn page_at(self, va: Va) -> PageId {
        // CAST: less than 512.
        PageId { index: self.first.index + ((va.0 - self.start.0) >> 12) as u32, ..self.first }
    }
}

/// The second and the third table on the way to `va`, and the leaf.
#[inline]
fn descend(memory: &Memory, root: PageId, va: Va) -> Result<([u32; LEVELS - 1], u64), FaultReason> {
    if va.0 >= VA_END {
        return Err(FaultReason::OutOfRange);
    }
    let local = memory.local(root.domain).ok_or(FaultReason::BadEntry)?;
    let load = |table, level| local.load_u64(table, slot(va, level) * ENTRY_BYTES).ok_or(FaultReason::BadEntry);
    let second = table(load(root.index, 0)?)?;
    let entry = load(second, 1)?;
    if entry & (VALID | BLOCK) == VALID | BLOCK {
        return Ok(([second, second], in_block(entry, va)));
    }
    let third = table(entry)?;
    Ok(([second, third], load(third, 2)? & !GROUP))
}

/// The leaf that a table of small pages would have for `va` in the place of a block.
const fn in_block(entry: u64, va: Va) -> u64 {
    // CAST: nine bits.
    (entry & !BLOCK) + (((va.0 >> 12) % 512) << NUMBER_SHIFT)
}

/// The table, in the device's own memory, that an entry of an upper level names.
#[inline]
const fn table(entry: u64) -> Result<u32, FaultReason> {
    match entry & (VALID | SPARE | SYSTEM) {
        // CAST: masked to 32 bits.
        VALID => Ok(((entry >> NUMBER_SHIFT) & NUMBER_MASK) as u32),
        bits if bits & VALID == 0 => Err(FaultReason::NotMapped),
        _ => Err(FaultReason::BadEntry),
    }
}

/// The page that a leaf names, if it allows the access.
#[inline]
fn leaf(entry: u64, local: DomainId, access: Access) -> Result<PageId, FaultReason> {
    let page = target(entry & !CACHED, local)?;
    if access.writes() && entry & WRITABLE == 0 {
        return Err(FaultReason::ReadOnly);
    }
    Ok(page)
}

/// Which of the 512 entries of a table of `level` is for `va`.
#[inline]
pub(super) fn slot(va: Va, level: usize) -> usize {
    let shift = 30 - 9 * level;
    // CAST: nine bits.
    (va.0 >> shift) as usize % ENTRIES
}

/// The page that an entry names.
#[inline]
pub(super) fn target(entry: u64, local: DomainId) -> Result<PageId, FaultReason> {
    if entry & VALID == 0 {
        return Err(FaultReason::NotMapped);
    }
    if entry & SPARE != 0 {
        return Err(FaultReason::BadEntry);
    }
    let domain = if entry & SYSTEM == 0 { local } else { DomainId::SYSTEM };
    // CAST: masked to 32 bits.
    Ok(PageId { domain, index: ((entry >> NUMBER_SHIFT) & NUMBER_MASK) as u32 })
}

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
    root: PageId,
    pub(super) owner: OwnerId,
    pub(super) tables: u32,
    /// Put aside and never used; part of `tables`.
    pub(super) spare: Vec<PageId>,
    /// Once used and empty now; part of `tables`. A job that walked through one may still be running.
    pub(super) emptied: Vec<PageId>,
}

impl AddressSpace {
    /// An empty address space with its root table in `domain`, the memory of the device that shall walk it.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`].
    pub fn new(memory: &mut Memory, domain: DomainId, owner: OwnerId) -> Result<Self, MemoryError> {
        let root = memory.allocate(domain, owner)?;
        Ok(Self { root, owner, tables: 1, spare: Vec::new(), emptied: Vec::new() })
    }

    /// The root table, which the device is told.
    #[must_use]
    pub const fn root(&self) -> PageId {
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
        let end = va.0.checked_add(len_bytes).filter(|end| *end <= VA_END);
        let end = end.ok_or(MapError::BadAddress(va))?;
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
        if va.0 & PAGE_MASK != 0 || va.0 >= VA_END {
            return Err(MapError::BadAddress(va));
        }
        if page.domain != DomainId::SYSTEM && page.domain != self.root.domain {
            return Err(MapError::Unreachable(page));
        }
        let table = self.leaf_table(memory, va)?;
        let at = slot(va, LEVELS - 1) * ENTRY_BYTES;
        if memory.load_u64(table, at).is_some_and(|entry| entry & VALID != 0) {
            return Err(MapError::Occupied(va));
        }
        let entry = leaf_entry(page, protection);
        memory.store_u64(table, at, entry).ok_or(MapError::Memory(MemoryError::NoSuchPage))
    }

    /// Takes one page out and says which it was. The tables stay.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`].
    pub fn unmap(&mut self, memory: &mut Memory, va: Va) -> Result<PageId, MapError> {
        let walk = walk(memory, self.root, va, Access::Read).map_err(|_| MapError::NotMapped(va))?;
        let at = slot(va, LEVELS - 1) * ENTRY_BYTES;
        memory.store_u64(walk.tables[LEVELS - 1], at, 0).ok_or(MapError::NotMapped(va))?;
        Ok(walk.page)
    }

    /// Frees all tables. What they map is the caller's.
    ///
    /// # Errors
    ///
    /// As [`Memory::free`], if a table was freed behind its back; the others are freed all the same.
    pub fn destroy(self, memory: &mut Memory) -> Result<(), MemoryError> {
        let mut tables = alloc::vec![(self.root, 0)];
        let mut result = Ok(());
        for table in self.spare.into_iter().chain(self.emptied) {
            result = result.and(memory.free(table));
        }
        while let Some((table, level)) = tables.pop() {
            if level + 1 < LEVELS {
                push_children(memory, table, level, &mut tables);
            }
            result = result.and(memory.free(table));
        }
        result
    }

    /// The last-level table for `va`, made if it is missing.
    pub(super) fn leaf_table(&mut self, memory: &mut Memory, va: Va) -> Result<PageId, MapError> {
        let mut table = self.root;
        for level in 0..LEVELS - 1 {
            let at = slot(va, level) * ENTRY_BYTES;
            let entry = memory.load_u64(table, at).unwrap_or(0);
            if let Ok(next) = target(entry, self.root.domain) {
                table = next;
                continue;
            }
            if entry & (VALID | BLOCK) == VALID | BLOCK {
                return Err(MapError::Occupied(va));
            }
            let next = self.take_table(memory)?;
            let entry = VALID | (u64::from(next.index) << NUMBER_SHIFT);
            memory.store_u64(table, at, entry).ok_or(MapError::BadAddress(va))?;
            table = next;
        }
        Ok(table)
    }
}

impl AddressSpace {
    /// An empty table: one that was put aside, or a new one.
    pub(super) fn take_table(&mut self, memory: &mut Memory) -> Result<PageId, MapError> {
        if let Some(table) = self.emptied.pop().or_else(|| self.spare.pop()) {
            return Ok(table);
        }
        let table = memory.allocate(self.root.domain, self.owner).map_err(MapError::Memory)?;
        self.tables += 1;
        Ok(table)
    }
}

/// A leaf of the last level, not to be cached.
pub(super) fn leaf_entry(page: PageId, protection: Protection) -> u64 {
    let system = if page.domain == DomainId::SYSTEM { SYSTEM } else { 0 };
    let writable = if protection == Protection::ReadWrite { WRITABLE } else { 0 };
    VALID | writable | system | (u64::from(page.index) << NUMBER_SHIFT)
}

/// Adds the tables that `table` names.
fn push_children(memory: &Memory, table: PageId, level: usize, out: &mut Vec<(PageId, usize)>) {
    for at in 0..ENTRIES {
        let entry = memory.load_u64(table, at * ENTRY_BYTES).unwrap_or(0);
        if let Ok(child) = target(entry, table.domain) {
            out.push((child, level + 1));
        }
    }
}

/// Where in its page an address lies.
#[inline]
pub(crate) const fn offset_in_page(va: Va) -> usize {
    // CAST: twelve bits.
    index((va.0 & PAGE_MASK) as u32)
}

#[cfg(test)]
#[path = "page_table_tests.rs"]
mod tests;
