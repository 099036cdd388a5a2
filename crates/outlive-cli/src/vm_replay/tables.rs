//! The page tables of the simulated device, changed by the steps as its driver would change them.
//!
//! A BO lies in one piece in the device's memory, aligned to 2 MiB, so that pages are as large as its mappings allow. Only its
//! page numbers are made up, no memory: nothing is read or written here but page tables. They reach 48 bits of address.

use alloc::collections::BTreeMap;
use core::fmt;

use outlive::vm::{Apply, BoId, Flags, Mapping, Source, Space, Step};
use outlive_sim::gpu::{AddressSpace, MapError, Memory, MemoryError, PageId, Protection, Reach, Va};

use super::json;

/// For page tables, in a replay.
pub(super) const TABLE_BYTES: u64 = 256 << 20;
const PAGE: u64 = 0x1000;
/// Small pages in the largest.
const ALIGN: u64 = 512;

/// Why the device cannot hold what a script wants.
#[derive(Debug)]
pub(super) enum Unheld {
    PageSize(u64),
    /// The last address of the space.
    OutOfReach(u64),
    TooLarge,
    Map(MapError),
}

impl fmt::Display for Unheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageSize(page) => write!(f, "the simulated device's smallest page is 0x1000, not {page:#x}"),
            Self::TooLarge => f.write_str("the simulated device has memory for 16 TiB of BOs"),
            Self::OutOfReach(last) => {
                let end = Reach::Bits48.end();
                write!(
                    f,
                    "the simulated device's page tables reach addresses below {end}, and the space ends at {last:#x}"
                )
            }
            Self::Map(MapError::Memory(_)) => f.write_str("the simulated device has no memory for more page tables"),
            Self::Map(error) => write!(f, "the simulated device: {error}"),
        }
    }
}

/// See the module.
pub(super) struct Tables {
    memory: Memory,
    space: AddressSpace,
    /// Where each BO lies.
    bos: BTreeMap<BoId, PageId>,
    next: u64,
}

impl Tables {
    /// With so many bytes of memory for page tables.
    pub(super) fn new(bytes: u64) -> Result<Self, MemoryError> {
        let mut memory = Memory::new(0)?;
        let domain = memory.add_domain(bytes)?;
        let owner = memory.add_owner()?;
        let space = AddressSpace::reaching(&mut memory, domain, owner, Reach::Bits48)?;
        Ok(Self { memory, space, bos: BTreeMap::new(), next: 0 })
    }

    /// Whether they can be those of `space`.
    pub(super) fn check(space: &Space<String>) -> Result<(), Unheld> {
        let last = space.range().last();
        if space.page() < PAGE {
            return Err(Unheld::PageSize(space.page()));
        }
        if last >= Reach::Bits48.end().0 { Err(Unheld::OutOfReach(last)) } else { Ok(()) }
    }

    /// Finds a place for a BO.
    pub(super) fn open(&mut self, bo: BoId, size: u64) -> Result<(), Unheld> {
        let first = u32::try_from(self.next).map_err(|_| Unheld::TooLarge)?;
        let end = self.next.checked_add(size.div_ceil(PAGE)).filter(|end| *end <= 1 << 32).ok_or(Unheld::TooLarge)?;
        self.next = end.next_multiple_of(ALIGN);
        self.bos.insert(bo, PageId { domain: self.space.root().table.domain, index: first });
        Ok(())
    }

    pub(super) fn close(&mut self, bo: BoId, mappings: &[Mapping]) {
        for mapping in mappings {
            // It was mapped, so it is in reach; a table to split with is not needed where whole mappings go.
            let unmapped = self.unmap(mapping.range.base(), mapping.range.len());
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
        self.bos.remove(&bo);
    }

    fn unmap(&mut self, va: u64, len: u64) -> Result<(), Unheld> {
        self.space.unmap_range(&mut self.memory, Va(va), len).map_err(Unheld::Map)
    }

    /// Maps what `mapping` says, which lies in `[va, va + len)`.
    fn map(&mut self, mapping: &Mapping) -> Result<(), Unheld> {
        let (va, len) = (mapping.range.base(), mapping.range.len());
        let protection = if mapping.flags.has(Flags::READ_ONLY) { Protection::ReadOnly } else { Protection::ReadWrite };
        match mapping.source {
            Source::Sparse => self.space.map_sparse(&mut self.memory, Va(va), len, protection).map_err(Unheld::Map),
            Source::Bo { bo, offset } => self.map_piece((va, len), (bo, offset), protection),
            Source::Repeated { bo, offset, window, phase } => {
                let (mut done, mut into) = (0, phase);
                while done < len {
                    let piece = (window - into).min(len - done);
                    self.map_piece((va + done, piece), (bo, offset + into), protection)?;
                    (done, into) = (done + piece, 0);
                }
                Ok(())
            }
        }
    }

    fn map_piece(&mut self, (va, len): (u64, u64), (bo, offset): (BoId, u64), to: Protection) -> Result<(), Unheld> {
        let Some(first) = self.bos.get(&bo).copied() else { return Ok(()) };
        let too_large = |_| Unheld::TooLarge;
        let into = u32::try_from(offset / PAGE).map_err(too_large)?;
        let pages = u32::try_from(len / PAGE).map_err(too_large)?;
        let first = PageId { index: first.index + into, ..first };
        self.space.map_run(&mut self.memory, Va(va), (first, pages), to).map_err(Unheld::Map)
    }

    /// What the device holds, ascending; pages alike that go on from each other as one, and those of a window that is repeated.
    pub(super) fn held(&self, name: &impl Fn(BoId) -> String) -> Vec<json::Pages> {
        let mut all: Vec<json::Pages> = Vec::new();
        let mut last_bo = None;
        for held in self.space.held(&self.memory) {
            let place = held.page.and_then(|page| {
                let below = self.bos.iter().filter(|(_, first)| first.index <= page.index);
                let (bo, first) = below.max_by_key(|(_, first)| first.index)?;
                Some((*bo, u64::from(page.index - first.index) * PAGE))
            });
            let page = json::Page {
                va: held.va.0,
                page: held.size.bytes(),
                offset: place.map(|(_, offset)| offset),
                read_only: held.protection == Protection::ReadOnly,
            };
            let bo = place.map(|(bo, _)| bo);
            let goes_on = last_bo == Some(bo) && all.last_mut().is_some_and(|last| last.take(page));
            if !goes_on {
                all.push(json::Pages::new(page, bo.map(name)));
                last_bo = Some(bo);
            }
        }
        json::Pages::fold(all)
    }
}

impl Apply<String, ()> for Tables {
    type Error = Unheld;

    fn apply(&mut self, _space: &Space<String>, step: &Step) -> Result<(), Unheld> {
        match step {
            Step::Map { mapping } => {
                let mapped = self.map(mapping);
                if mapped.is_err() {
                    self.unmap(mapping.range.base(), mapping.range.len())?;
                }
                mapped
            }
            // What may be kept is mapped anew all the same: a larger page may fit then.
            Step::Unmap { .. } | Step::Remap { .. } => {
                let gone = step.changes();
                self.unmap(gone.base(), gone.len())
            }
        }
    }

    fn undo(&mut self, _space: &Space<String>, step: &Step) {
        let changed = step.changes();
        let undone = match step {
            Step::Map { .. } => self.unmap(changed.base(), changed.len()),
            Step::Unmap { mapping, .. } => self.map(mapping),
            Step::Remap { unmap, .. } => {
                // All of it anew, so that its pages are as large as they were.
                let old = unmap.range;
                self.unmap(old.base(), old.len()).and_then(|()| self.map(unmap))
            }
        };
        debug_assert!(undone.is_ok(), "the tables are there: {undone:?}");
    }
}
