//! Page tables, in memory, as the device walks them on every access.
//!
//! Levels of one page each, 512 entries of eight bytes: three reach 39 bits of address, four 48 ([`Reach`]). An entry:
//!
//! ```text
//!  63            52 51                             12 11   7   6     5     4     3     2     1     0
//! +----------------+---------------------------------+------+-----+-----+-----+-----+-----+-----+-----+
//! |  must be zero  |  page number in its memory      | zero | NUL | CAC | GRP | BLK | SYS | WR  | VAL |
//! +----------------+---------------------------------+------+-----+-----+-----+-----+-----+-----+-----+
//! ```
//!
//! `VAL` (bit 0): the entry means something. `WR` (bit 1): a leaf may be written. `SYS` (bit 2): the page lies in system
//! memory, else in the device's own. Upper levels hold `VAL` and the number of the next table, in the device's memory.
//! `BLK` (bit 3): this entry of an upper level is a leaf, of the second-lowest for a page of 2 MiB. `GRP` (bit 4): this leaf and
//! the fifteen others of its aligned group are a page of 64 KiB. `CAC` (bit 5): the device may keep what this leaf says in its
//! translation cache until that is flushed (`translation_cache`); without it, it looks each time. `NUL` (bit 6): there is no page
//! behind this leaf: it reads as zero, and what is written is dropped. Such a leaf may be a `BLK` of any level.
//!
//! Example: the leaf `0x0000_0000_0002_a007` is valid (1), writable (2), in system memory (4), page number 0x2a. Address
//! `0x12_3456_7890` uses entry 0x48 of the third level from below (bits 38..30: `0x12_3456_7890 >> 30`), which is the root of
//! three, entry 0x1a2 of the second (bits 29..21), entry 0x167 of the lowest (bits 20..12), and byte 0x890 of the page. Levels
//! are counted from below, from 0.
//!
//! The host writes entries with [`AddressSpace`](super::AddressSpace), page by page (`address_space`) and by ranges
//! (`large_pages`); only [`walk`] and `translate` read them for the device.

use core::fmt;

use super::memory::{Memory, PAGE_BYTES, index};
use super::types::{Access, DomainId, PageId, Va};

/// Levels of tables, at most.
pub const LEVELS: usize = 4;

pub(super) const VALID: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const SYSTEM: u64 = 1 << 2;
pub(super) const BLOCK: u64 = 1 << 3;
pub(super) const GROUP: u64 = 1 << 4;
pub(super) const CACHED: u64 = 1 << 5;
pub(super) const NULL: u64 = 1 << 6;
pub(super) const NUMBER_SHIFT: u32 = 12;
pub(super) const NUMBER_MASK: u64 = 0xffff_ffff;
const SPARE: u64 = !(VALID | WRITABLE | SYSTEM | (NUMBER_MASK << NUMBER_SHIFT));
pub(super) const ENTRY_BYTES: usize = 8;
pub(super) const ENTRIES: usize = PAGE_BYTES / ENTRY_BYTES;
pub(super) const PAGE_MASK: u64 = 0xfff;

/// How far page tables reach; chosen when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// 39 bits of address: three levels of tables.
    #[default]
    Bits39,
    /// 48 bits: four levels.
    Bits48,
}

impl Reach {
    /// So many bits of address.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits39 => 39,
            Self::Bits48 => 48,
        }
    }

    /// The first address out of reach.
    #[must_use]
    pub const fn end(self) -> Va {
        Va(1 << self.bits())
    }

    /// The level of the root.
    pub(super) const fn top(self) -> usize {
        match self {
            Self::Bits39 => 2,
            Self::Bits48 => 3,
        }
    }
}

/// Where a walk begins; what a device is told of an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    /// The root table.
    pub table: PageId,
    /// How far its tables reach.
    pub reach: Reach,
}

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
    /// The page; none behind a sparse mapping, which reads as zero and drops what is written.
    pub page: Option<PageId>,
    /// The tables on the way, in the memory of the root.
    pub tables: Tables,
}

/// The tables on the way below a root of four levels, by their pages: one of three levels is the first of them. Where a walk ends
/// early, the last is there several times; where the translation cache had the page, all are the root.
pub type Tables = [u32; LEVELS - 1];

/// Finds the page for one access, as the hardware does: a load from memory for each level, unless the translation cache has it.
///
/// # Errors
///
/// The fault, which carries the address.
#[inline]
pub fn walk(memory: &Memory, root: Root, va: Va, access: Access) -> Result<Walk, Fault> {
    if let Some(page) = remembered(memory, root, va, access) {
        return Ok(Walk { page, tables: [root.table.index; LEVELS - 1] });
    }
    let found = look(memory, root, va, access).map(|(tables, page)| Walk { page, tables });
    found.map_err(|reason| Fault { va, access, reason })
}

/// As [`walk`], for those who do not ask which tables were on the way.
#[inline]
pub(crate) fn translate(memory: &Memory, root: Root, va: Va, access: Access) -> Result<Option<PageId>, Fault> {
    if let Some(page) = remembered(memory, root, va, access) {
        return Ok(page);
    }
    let found = look(memory, root, va, access).map(|(_, page)| page);
    found.map_err(|reason| Fault { va, access, reason })
}

/// Looks in memory, and remembers what may be.
#[inline]
fn look(memory: &Memory, root: Root, va: Va, access: Access) -> Result<(Tables, Option<PageId>), FaultReason> {
    let (tables, entry) = descend(memory, root, va)?;
    let page = leaf(entry, root.table.domain, access)?;
    if entry & CACHED != 0 {
        remember(memory, root, va);
    }
    Ok((tables, page))
}

/// What the translation cache says. Counted as stale if that is not what the tables say.
#[inline]
#[expect(clippy::option_option, reason = "remembered or not; a page or none")]
fn remembered(memory: &Memory, root: Root, va: Va, access: Access) -> Option<Option<PageId>> {
    if memory.translations().is_empty() { None } else { recall(memory, root, va, access) }
}

#[expect(clippy::option_option, reason = "as above")]
#[inline(never)]
fn recall(memory: &Memory, root: Root, va: Va, access: Access) -> Option<Option<PageId>> {
    let page = memory.translations().look(root.table, va, access)?;
    let now = descend(memory, root, va).and_then(|(_, entry)| leaf(entry, root.table.domain, access));
    if now != Ok(page) {
        memory.translations().was_stale(va);
    }
    Some(page)
}

/// Puts what was found for `va` into the translation cache.
#[cold]
fn remember(memory: &Memory, root: Root, va: Va) {
    if let Some(span) = span_at(memory, root, va) {
        memory.translations().remember(root.table, span);
    }
}

/// The page at `va` as a whole.
fn span_at(memory: &Memory, root: Root, va: Va) -> Option<PageSpan> {
    let local = memory.local(root.table.domain)?;
    let (mut at, mut level) = (root.table.index, root.reach.top());
    let entry = loop {
        let entry = local.load_u64(at, slot(va, level) * ENTRY_BYTES)?;
        if level == 0 || entry & BLOCK != 0 {
            break entry;
        }
        at = table(entry).ok()?;
        level -= 1;
    };
    let pages = if level == 0 && entry & GROUP != 0 { 16 } else { 1 << (9 * level) };
    // CAST: less than 2^27.
    let into = ((va.0 >> 12) % u64::from(pages)) as u32;
    let start = Va((va.0 & !PAGE_MASK) - u64::from(into) * PAGE_BYTES as u64);
    let first = if entry & NULL == 0 {
        let page = target(entry & !(CACHED | BLOCK | GROUP), root.table.domain).ok()?;
        // A block's entry names its first page, each of a group its own.
        let index = if level == 0 { page.index.checked_sub(into)? } else { page.index };
        Some(PageId { index, ..page })
    } else {
        None
    };
    Some(PageSpan { start, pages, first, writable: entry & WRITABLE != 0 })
}

/// One page of any size: addresses, and the memory behind them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSpan {
    start: Va,
    /// In small pages.
    pages: u32,
    /// None where there is no memory behind.
    first: Option<PageId>,
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
    pub(super) fn page_at(self, va: Va) -> Option<PageId> {
        // CAST: less than 2^27.
        let into = ((va.0 - self.start.0) >> 12) as u32;
        self.first.map(|first| PageId { index: first.index + into, ..first })
    }
}

/// The tables on the way to `va` below a root of four levels, and the leaf. A root of three is the first of them.
#[inline]
fn descend(memory: &Memory, root: Root, va: Va) -> Result<(Tables, u64), FaultReason> {
    if va >= root.reach.end() {
        return Err(FaultReason::OutOfRange);
    }
    let local = memory.local(root.table.domain).ok_or(FaultReason::BadEntry)?;
    let load = |table, level| local.load_u64(table, slot(va, level) * ENTRY_BYTES).ok_or(FaultReason::BadEntry);
    let mut third = root.table.index;
    if root.reach == Reach::Bits48 {
        let entry = load(third, 3)?;
        match table(entry) {
            Ok(next) => third = next,
            Err(reason) => return Ok(([third; 3], null_block(entry).ok_or(reason)?)),
        }
    }
    let entry = load(third, 2)?;
    let second = match table(entry) {
        Ok(next) => next,
        Err(reason) => return Ok(([third; 3], null_block(entry).ok_or(reason)?)),
    };
    let entry = load(second, 1)?;
    if entry & (VALID | BLOCK) == VALID | BLOCK {
        return Ok(([third, second, second], in_block(entry, va)));
    }
    let lowest = table(entry)?;
    Ok(([third, second, lowest], load(lowest, 0)? & !GROUP))
}

/// The leaf that a large entry of an upper level stands for, which has no page behind it.
#[cold]
fn null_block(entry: u64) -> Option<u64> {
    let is_one = entry & (VALID | BLOCK | NULL) == VALID | BLOCK | NULL;
    is_one.then_some(entry & !BLOCK)
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

/// The page that a leaf names, or that there is none, if it allows the access.
#[inline]
fn leaf(entry: u64, local: DomainId, access: Access) -> Result<Option<PageId>, FaultReason> {
    let page = match target(entry & !CACHED, local) {
        Ok(page) => Some(page),
        Err(FaultReason::BadEntry) if is_null(entry) => None,
        Err(reason) => return Err(reason),
    };
    if access.writes() && entry & WRITABLE == 0 {
        return Err(FaultReason::ReadOnly);
    }
    Ok(page)
}

/// Whether a leaf has no page behind it, and no bit that means nothing.
#[cold]
const fn is_null(entry: u64) -> bool {
    entry & NULL != 0 && entry & SPARE & !(NULL | CACHED) == 0
}

/// Which of the 512 entries of a table of `level` is for `va`.
#[inline]
pub(super) const fn slot(va: Va, level: usize) -> usize {
    let shift = 12 + 9 * level;
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

/// Where in its page an address lies.
#[inline]
pub(crate) const fn offset_in_page(va: Va) -> usize {
    // CAST: twelve bits.
    index((va.0 & PAGE_MASK) as u32)
}
