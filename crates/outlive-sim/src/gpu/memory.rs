//! Memory: pages of 4 KiB in the system's memory and in each device's own, with an allocator that knows every page's owner.
//!
//! The [`Memory`] is an arena that the host and every device are handed for each call; nothing holds a pointer into it.
//! A page is *free*, or *held* by one or more holders: [`Memory::allocate`] makes the first, [`Memory::share`] adds one
//! (two devices that map one buffer), [`Memory::free`] takes one away, and with the last the page is free. Freed pages
//! are handed out again first, so that a page given back too early is soon someone else's.
//!
//! Reading and writing by page is the host's way in, and asks nobody. Devices come through page tables (`mmu`). A free
//! page can still be read and written: hardware that was not stopped in time does just that.

use core::fmt;
use core::ops::Range;

use super::observe::{Observation, Tap};
use super::page_table::Root;
use super::translation_cache::TranslationCache;
use super::types::{DomainId, OwnerId, PageId, Va};

/// Bytes in a page.
pub const PAGE_BYTES: usize = 4096;

/// Why memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The domain has fewer free pages than were asked for.
    OutOfPages {
        /// Where.
        domain: DomainId,
        /// How many were wanted.
        wanted: u32,
        /// How many there are.
        free: u32,
    },
    /// The simulating process itself has no memory left.
    OutOfHostMemory,
    /// No such domain, or no such page in it.
    NoSuchPage,
    /// The page is free already.
    NotHeld(PageId),
    /// The owner was never made.
    NoSuchOwner(OwnerId),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfPages { domain, wanted, free } => {
                write!(f, "memory {} has {free} free pages, {wanted} wanted", domain.0)
            }
            Self::OutOfHostMemory => f.write_str("the simulating process is out of memory"),
            Self::NoSuchPage => f.write_str("no such page"),
            Self::NotHeld(page) => write!(f, "{page} is free"),
            Self::NoSuchOwner(owner) => write!(f, "no owner {}", owner.0),
        }
    }
}

impl core::error::Error for MemoryError {}

/// What is known of one page.
#[derive(Debug, Clone, Copy)]
struct Page {
    owner: OwnerId,
    /// 0: free.
    holders: u32,
    /// How often it was handed out.
    generation: u32,
}

/// Whom pages are charged to.
#[derive(Debug, Clone, Copy)]
struct Owner {
    pages: u32,
    /// Its number may be given again once nothing is charged to it.
    gone: bool,
}

/// One memory. `bytes` and `pages` grow together up to `pages_max`, for which room was reserved at the start.
#[derive(Debug)]
struct Domain {
    bytes: Vec<u8>,
    pages: Vec<Page>,
    free: Vec<u32>,
    pages_max: u32,
}

/// The pages of one domain.
#[derive(Clone, Copy)]
pub(crate) struct Local<'a>(&'a [u8]);

impl Local<'_> {
    /// The eight bytes at `offset`, which is at most 4088, of page number `page`; none if there is no such page.
    #[inline]
    pub(crate) fn load_u64(self, page: u32, offset: usize) -> Option<u64> {
        let bytes = self.0.get(index(page) * PAGE_BYTES + offset..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// All memory of the simulated machine, and the tap on which the checkers listen.
#[derive(Debug)]
pub struct Memory {
    domains: Vec<Domain>,
    owners: Vec<Owner>,
    /// Numbers of owners that are gone, and charged nothing any more.
    free_owners: Vec<OwnerId>,
    tap: Tap,
    translations: TranslationCache,
}

impl Memory {
    /// A machine with `system_bytes` of system memory, rounded down to pages.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfHostMemory`].
    pub fn new(system_bytes: u64) -> Result<Self, MemoryError> {
        let (domains, owners, free_owners) = (Vec::new(), Vec::new(), Vec::new());
        let (tap, translations) = (Tap::default(), TranslationCache::default());
        let mut memory = Self { domains, owners, free_owners, tap, translations };
        memory.add_domain(system_bytes)?;
        Ok(memory)
    }

    /// Adds the memory of a device. Only its address range is taken; bytes are taken as pages are used.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfHostMemory`], also for more than 2^32 pages or 65535 domains.
    pub fn add_domain(&mut self, bytes: u64) -> Result<DomainId, MemoryError> {
        let host_full = |_| MemoryError::OutOfHostMemory;
        let id = u16::try_from(self.domains.len()).map_err(|_| MemoryError::OutOfHostMemory)?;
        let pages_max = u32::try_from(bytes / 4096).map_err(|_| MemoryError::OutOfHostMemory)?;
        let pages = usize::try_from(pages_max).map_err(|_| MemoryError::OutOfHostMemory)?;
        let mut domain = Domain { bytes: Vec::new(), pages: Vec::new(), free: Vec::new(), pages_max };
        domain.bytes.try_reserve_exact(pages * PAGE_BYTES).map_err(host_full)?;
        domain.pages.try_reserve_exact(pages).map_err(host_full)?;
        domain.free.try_reserve_exact(pages).map_err(host_full)?;
        self.domains.try_reserve(1).map_err(host_full)?;
        self.domains.push(domain);
        Ok(DomainId(id))
    }

    /// Makes an owner to charge pages to.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfHostMemory`].
    pub fn add_owner(&mut self) -> Result<OwnerId, MemoryError> {
        if let Some(owner) = self.free_owners.pop() {
            self.owners[index(owner.0)].gone = false;
            return Ok(owner);
        }
        let id = u32::try_from(self.owners.len());
        let id = id.map_err(|_| MemoryError::OutOfHostMemory)?;
        self.owners.try_reserve(1).map_err(|_| MemoryError::OutOfHostMemory)?;
        self.owners.push(Owner { pages: 0, gone: false });
        Ok(OwnerId(id))
    }

    /// Lets an owner go. Its number is given again once nothing is charged to it.
    pub fn remove_owner(&mut self, owner: OwnerId) {
        let Some(known) = self.owners.get_mut(index(owner.0)) else { return };
        if !core::mem::replace(&mut known.gone, true) && known.pages == 0 {
            self.free_owners.push(owner);
        }
    }

    #[cfg(test)]
    pub(crate) const fn owners(&self) -> usize {
        self.owners.len()
    }

    /// One zeroed page.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfPages`], or an unknown domain or owner.
    pub fn allocate(&mut self, domain: DomainId, owner: OwnerId) -> Result<PageId, MemoryError> {
        let charged = index(owner.0);
        if charged >= self.owners.len() {
            return Err(MemoryError::NoSuchOwner(owner));
        }
        let room = self.domains.get_mut(usize::from(domain.0)).ok_or(MemoryError::NoSuchPage)?;
        let at = room.take().ok_or(MemoryError::OutOfPages { domain, wanted: 1, free: 0 })?;
        let meta = &mut room.pages[index(at)];
        *meta = Page { owner, holders: 1, generation: meta.generation.wrapping_add(1) };
        self.owners[charged].pages += 1;
        let page = PageId { domain, index: at };
        self.tap.observe(Observation::PageAllocated { page, owner });
        Ok(page)
    }

    /// Appends `count` zeroed pages to `out`: all, or none.
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`], and [`MemoryError::OutOfHostMemory`] if `out` cannot grow.
    pub fn allocate_many(
        &mut self,
        domain: DomainId,
        owner: OwnerId,
        count: u32,
        out: &mut Vec<PageId>,
    ) -> Result<(), MemoryError> {
        let free = self.free_pages(domain);
        if free < count {
            return Err(MemoryError::OutOfPages { domain, wanted: count, free });
        }
        out.try_reserve(index(count)).map_err(|_| MemoryError::OutOfHostMemory)?;
        for _ in 0..count {
            out.push(self.allocate(domain, owner)?);
        }
        Ok(())
    }

    /// Adds a holder to a held page.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NotHeld`] for a free page.
    pub fn share(&mut self, page: PageId) -> Result<(), MemoryError> {
        let meta = self.meta_mut(page)?;
        if meta.holders == 0 {
            return Err(MemoryError::NotHeld(page));
        }
        meta.holders += 1;
        Ok(())
    }

    /// Takes a holder away; with the last the page is free and its owner is charged one less.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NotHeld`] for a page that is free already.
    pub fn free(&mut self, page: PageId) -> Result<(), MemoryError> {
        let meta = self.meta_mut(page)?;
        if meta.holders == 0 {
            return Err(MemoryError::NotHeld(page));
        }
        meta.holders -= 1;
        if meta.holders == 0 {
            let owner = meta.owner;
            self.domains[usize::from(page.domain.0)].free.push(page.index);
            let charged = &mut self.owners[index(owner.0)];
            charged.pages -= 1;
            if charged.gone && charged.pages == 0 {
                self.free_owners.push(owner);
            }
            self.tap.observe(Observation::PageFreed { page });
        }
        Ok(())
    }

    /// Pages of `domain` that nobody holds; 0 for an unknown domain.
    #[must_use]
    pub fn free_pages(&self, domain: DomainId) -> u32 {
        self.domains.get(usize::from(domain.0)).map_or(0, Domain::free_pages)
    }

    /// Pages charged to `owner`.
    #[must_use]
    pub fn pages_of(&self, owner: OwnerId) -> u32 {
        self.owners.get(index(owner.0)).map_or(0, |owner| owner.pages)
    }

    /// How often a page was handed out, and 0 for a page that never was.
    #[must_use]
    pub fn generation(&self, page: PageId) -> u32 {
        self.meta(page).map_or(0, |meta| meta.generation)
    }

    /// How many hold a page; 0 for a free one.
    #[must_use]
    pub fn holders(&self, page: PageId) -> u32 {
        self.meta(page).map_or(0, |meta| meta.holders)
    }

    /// The bytes of a page, held or free; none if no such page was ever handed out.
    #[must_use]
    #[inline]
    pub fn page(&self, page: PageId) -> Option<&[u8; PAGE_BYTES]> {
        let domain = self.domains.get(usize::from(page.domain.0))?;
        domain.bytes.get(index(page.index) * PAGE_BYTES..)?.first_chunk()
    }

    /// The bytes of a page to write, as [`Memory::page`].
    #[inline]
    pub fn page_mut(&mut self, page: PageId) -> Option<&mut [u8; PAGE_BYTES]> {
        let domain = self.domains.get_mut(usize::from(page.domain.0))?;
        domain.bytes.get_mut(index(page.index) * PAGE_BYTES..)?.first_chunk_mut()
    }

    /// The eight bytes at `offset` of a page, little endian; none if they do not lie in one.
    #[must_use]
    #[inline]
    pub fn load_u64(&self, page: PageId, offset: usize) -> Option<u64> {
        self.page(page)?.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// All pages of one domain, to load several words from; none for an unknown domain.
    #[inline]
    pub(crate) fn local(&self, domain: DomainId) -> Option<Local<'_>> {
        self.domains.get(usize::from(domain.0)).map(|domain| Local(&domain.bytes))
    }

    /// Writes eight bytes at `offset` of a page, little endian; none if they do not lie in one.
    #[inline]
    pub fn store_u64(&mut self, page: PageId, offset: usize, value: u64) -> Option<()> {
        *self.page_mut(page)?.get_mut(offset..)?.first_chunk_mut()? = value.to_le_bytes();
        Some(())
    }

    /// Copies within one page or between two, each named with an offset; false if a range does not lie in its page.
    pub(crate) fn copy(&mut self, from: (PageId, usize), to: (PageId, usize), len: usize) -> bool {
        let (Some(source), Some(target)) = (self.range_of(from, len), self.range_of(to, len)) else { return false };
        let (read, written) = (usize::from(from.0.domain.0), usize::from(to.0.domain.0));
        if let Ok([read, written]) = self.domains.get_disjoint_mut([read, written]) {
            written.bytes[target].copy_from_slice(&read.bytes[source]);
        } else {
            self.domains[read].bytes.copy_within(source, target.start);
        }
        true
    }

    /// Where bytes of a page are in its domain.
    fn range_of(&self, (page, offset): (PageId, usize), len: usize) -> Option<Range<usize>> {
        self.page(page)?.get(offset..offset.checked_add(len)?)?;
        let start = index(page.index) * PAGE_BYTES + offset;
        Some(start..start + len)
    }

    /// What the checkers listen to.
    #[must_use]
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }

    /// What the checkers listen to, to report to or to take from.
    #[inline]
    pub const fn tap_mut(&mut self) -> &mut Tap {
        &mut self.tap
    }

    #[inline]
    pub(crate) const fn translations(&self) -> &TranslationCache {
        &self.translations
    }

    /// Makes the device forget its translations of `[va, va + len_bytes)` in the address space of `root`. Done when it
    /// returns.
    pub fn flush_translations(&self, root: Root, va: Va, len_bytes: u64) {
        self.translations.flush(root.table, va, len_bytes);
    }

    /// How often a device used a translation that it remembered, and how often that was not what its page tables said.
    #[must_use]
    pub fn translation_hits(&self) -> (u64, u64) {
        let (hits, stale, _) = self.translations.figures();
        (hits, stale)
    }

    /// `pages` zeroed pages that lie side by side, aligned to their number, which is 16 or 512 (or 1).
    ///
    /// # Errors
    ///
    /// As [`Memory::allocate`]; [`MemoryError::OutOfPages`] also if there are as many, but not side by side.
    pub fn allocate_run(&mut self, domain: DomainId, owner: OwnerId, pages: u32) -> Result<PageId, MemoryError> {
        if pages == 1 {
            return self.allocate(domain, owner);
        }
        let free = self.free_pages(domain);
        let room = self.domains.get_mut(usize::from(domain.0)).ok_or(MemoryError::NoSuchPage)?;
        let first = room.bring_run_up(pages).ok_or(MemoryError::OutOfPages { domain, wanted: pages, free })?;
        for _ in 0..pages {
            self.allocate(domain, owner)?;
        }
        Ok(PageId { domain, index: first })
    }

    fn meta(&self, page: PageId) -> Option<&Page> {
        self.domains.get(usize::from(page.domain.0))?.pages.get(index(page.index))
    }

    fn meta_mut(&mut self, page: PageId) -> Result<&mut Page, MemoryError> {
        let domain = self.domains.get_mut(usize::from(page.domain.0));
        let domain = domain.ok_or(MemoryError::NoSuchPage)?;
        domain.pages.get_mut(index(page.index)).ok_or(MemoryError::NoSuchPage)
    }
}

impl Domain {
    fn free_pages(&self) -> u32 {
        let untouched = self.pages_max - u32::try_from(self.pages.len()).unwrap_or(self.pages_max);
        untouched + u32::try_from(self.free.len()).unwrap_or(0)
    }

    /// Sees to it that the next pages taken are an aligned run, in order: puts them on top of the free list.
    fn bring_run_up(&mut self, pages: u32) -> Option<u32> {
        let is_free = |at: u32| self.pages.get(index(at)).is_none_or(|page| page.holders == 0);
        let mut first = 0;
        while first + pages <= self.pages_max && !(first..first + pages).all(is_free) {
            first += pages;
        }
        if first + pages > self.pages_max {
            return None;
        }
        // Pages never handed out up to its end are as if given back.
        while self.pages.len() < index(first + pages) {
            let at = u32::try_from(self.pages.len()).ok()?;
            self.pages.push(Page { owner: OwnerId(0), holders: 0, generation: 0 });
            self.bytes.resize(self.bytes.len() + PAGE_BYTES, 0);
            self.free.push(at);
        }
        self.free.retain(|at| !(first..first + pages).contains(at));
        self.free.extend((first..first + pages).rev());
        Some(first)
    }

    /// A page off the free list, else the next one never used; zeroed. Allocates nothing: the room was reserved.
    fn take(&mut self) -> Option<u32> {
        if let Some(at) = self.free.pop() {
            let start = index(at) * PAGE_BYTES;
            self.bytes[start..start + PAGE_BYTES].fill(0);
            return Some(at);
        }
        let at = u32::try_from(self.pages.len()).ok()?;
        if at >= self.pages_max {
            return None;
        }
        self.pages.push(Page { owner: OwnerId(0), holders: 0, generation: 0 });
        self.bytes.resize(self.bytes.len() + PAGE_BYTES, 0);
        Some(at)
    }
}

/// A 32-bit number as an index.
#[inline]
pub(crate) const fn index(n: u32) -> usize {
    // CAST: usize has at least 32 bits wherever the simulator runs.
    n as usize
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
