//! The address space itself: its shape, its limits, its buffers.

use super::bo::{BoId, OpenRefused};
use super::range::{RangeError, VaRange};
use super::store::Store;
use crate::exec::next_id;
use crate::mem::{AllocError, HeapVec, try_reserve};
use core::fmt;

/// The shape of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The first address.
    pub base: u64,
    /// How many bytes; base plus length may be 2^64.
    pub len: u64,
    /// The smallest page, in bytes: a power of two. Every address, length and offset is a multiple of it.
    pub page: u64,
}

/// Why a space, or a reserved range, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceError {
    /// The page size is no power of two.
    Page(u64),
    /// The range is none.
    Range(RangeError),
    /// The range to be reserved does not lie inside the space.
    Outside {
        /// The range.
        range: VaRange,
        /// The space.
        space: VaRange,
    },
    /// Something is mapped, or reserved already, in the range to be reserved.
    InUse {
        /// What is there.
        by: VaRange,
    },
    /// No memory.
    NoMemory(AllocError),
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(page) => write!(f, "the page size {page:#x} is not a power of two"),
            Self::Range(error) => error.fmt(f),
            Self::Outside { range, space } => write!(f, "{range:?} is not inside the address space {space:?}"),
            Self::InUse { by } => write!(f, "{by:?} is in use: reserve ranges before mapping, and each once"),
            Self::NoMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SpaceError {}

/// An address space. `V` is what the driver keeps with each open buffer, `M` with each mapping; both are dropped where the
/// caller drops what [`Space::close`], [`Space::close_bo`] and commits hand out.
pub struct Space<V, M = ()> {
    pub(super) store: Store<V, M>,
    /// Never reused in this process.
    pub(super) id: u64,
    range: VaRange,
    page: u64,
    /// Ascending.
    reserved: HeapVec<VaRange>,
    limit: usize,
    poisoned: bool,
    pub(super) closed: bool,
}

impl<V, M> fmt::Debug for Space<V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({:?}, {} mappings)", self.range, self.len())
    }
}

impl<V, M> Space<V, M> {
    /// An empty space. Allocates nothing.
    ///
    /// # Errors
    /// [`SpaceError::Page`], [`SpaceError::Range`].
    pub fn new(geometry: Geometry) -> Result<Self, SpaceError> {
        let Geometry { base, len, page } = geometry;
        if !page.is_power_of_two() {
            return Err(SpaceError::Page(page));
        }
        let range = VaRange::new(base, len, page).map_err(SpaceError::Range)?;
        Ok(Self {
            store: Store::new(),
            id: next_id(),
            range,
            page,
            reserved: HeapVec::new(),
            limit: usize::MAX,
            poisoned: false,
            closed: false,
        })
    }

    /// Requests may not touch `range` from now on. Allocates.
    ///
    /// # Errors
    /// It is misaligned, outside, or in use; or no memory.
    pub fn reserve_range(&mut self, range: VaRange) -> Result<(), SpaceError> {
        self.check_reserve(range)?;
        try_reserve(&mut self.reserved, 1).map_err(SpaceError::NoMemory)?;
        self.insert_reserved(range);
        Ok(())
    }

    /// As [`Space::reserve_range`], in the memory of `wider`, which is empty, has room for one more than there are, and has the
    /// old memory then. Allocates nothing, frees nothing.
    pub(super) fn reserve_range_in(&mut self, range: VaRange, wider: &mut HeapVec<VaRange>) -> Result<(), SpaceError> {
        self.check_reserve(range)?;
        wider.append(&mut self.reserved);
        core::mem::swap(&mut self.reserved, wider);
        self.insert_reserved(range);
        Ok(())
    }

    /// How many ranges are reserved.
    pub(super) fn reserved_count(&self) -> usize {
        self.reserved.len()
    }

    /// There is room.
    fn insert_reserved(&mut self, range: VaRange) {
        let at = self.reserved.partition_point(|before| before.base() < range.base());
        self.reserved.insert(at, range);
    }

    fn check_reserve(&self, range: VaRange) -> Result<(), SpaceError> {
        VaRange::new(range.base(), range.len(), self.page).map_err(SpaceError::Range)?;
        if !self.range.contains(range) {
            return Err(SpaceError::Outside { range, space: self.range });
        }
        let mapped = self.store.range(self.store.find_from(range.base())).filter(|by| by.overlaps(range));
        match self.reserved_in(range).or(mapped) {
            Some(by) => Err(SpaceError::InUse { by }),
            None => Ok(()),
        }
    }

    /// No request may bring the number of mappings above `limit`; those that do not add any are always taken.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// As set by [`Space::set_limit`].
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// The page tables may not be as planned: an asynchronous change failed half way. From now on the space takes unmap
    /// requests only.
    pub const fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Whether [`Space::poison`] was called.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> VaRange {
        self.range
    }

    /// The smallest page, in bytes.
    #[must_use]
    pub const fn page(&self) -> u64 {
        self.page
    }

    /// How many mappings there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.store.tree.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no range has been reserved, nothing is mapped, and no buffer open.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.reserved.is_empty() && self.is_empty() && self.bos().next().is_none()
    }

    /// Bytes of memory that mappings and buffers take, room for more included.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.store.bytes() + self.reserved.capacity() * size_of::<VaRange>()
    }

    /// Opens a buffer of `size` bytes, so that it can be mapped. Whoever opens sees to it that each buffer is open once.
    ///
    /// # Errors
    /// It is empty, the space is closed, or no memory; `data` comes back.
    pub fn open_bo(&mut self, size: u64, data: V) -> Result<BoId, OpenRefused<V>> {
        if self.closed {
            return Err(OpenRefused::Closed(data));
        }
        if size == 0 {
            return Err(OpenRefused::Empty(data));
        }
        self.store.bos.open(size, data).map_err(|(error, data)| OpenRefused::NoMemory(error, data))
    }

    /// What was given to [`Space::open_bo`]; none if `bo` is not open here.
    #[must_use]
    pub fn bo(&self, bo: BoId) -> Option<&V> {
        self.store.bos.data(bo)
    }

    /// As [`Space::bo`], to be changed.
    #[must_use]
    pub fn bo_mut(&mut self, bo: BoId) -> Option<&mut V> {
        self.store.bos.data_mut(bo)
    }

    /// All open buffers, in no order.
    pub fn bos(&self) -> impl Iterator<Item = (BoId, &V)> {
        self.store.bos.iter()
    }

    /// How many mappings an open buffer has.
    #[must_use]
    pub fn mappings_of(&self, bo: BoId) -> usize {
        self.store.bos.find(bo).map_or(0, |place| place.mappings)
    }

    /// A reserved range that `range` touches.
    pub(super) fn reserved_in(&self, range: VaRange) -> Option<VaRange> {
        let at = self.reserved.partition_point(|reserved| reserved.last() < range.base());
        self.reserved.get(at).copied().filter(|reserved| reserved.overlaps(range))
    }
}
