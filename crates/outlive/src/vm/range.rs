//! Ranges of GPU virtual addresses, checked when they are made.

use core::fmt;

/// A range of GPU virtual addresses: not empty, aligned, and without wrapping past the end of the 64-bit space.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaRange {
    base: u64,
    /// The last address inside, so that a range may end at 2^64.
    last: u64,
}

/// Why two numbers are no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// No length.
    Empty,
    /// Base or length is no multiple of the page size.
    Misaligned {
        /// The offending number.
        value: u64,
        /// The page size.
        page: u64,
    },
    /// Base plus length exceeds 2^64.
    Wraps {
        /// The base.
        base: u64,
        /// The length.
        len: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the range is empty: give it at least one page"),
            Self::Misaligned { value, page } => write!(f, "{value:#x} is not a multiple of the page size {page:#x}"),
            Self::Wraps { base, len } => write!(f, "{base:#x} plus {len:#x} exceeds 2^64"),
        }
    }
}

impl core::error::Error for RangeError {}

impl fmt::Debug for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.base, self.last)
    }
}

impl VaRange {
    /// `len` bytes from `base` on, in pages of `page` bytes (a power of two).
    ///
    /// Worked example: base `0xffff_ffff_ffff_f000`, length `0x1000` is the last page there is; its last address is 2^64 - 1.
    ///
    /// # Errors
    /// [`RangeError`].
    pub const fn new(base: u64, len: u64, page: u64) -> Result<Self, RangeError> {
        if len == 0 {
            return Err(RangeError::Empty);
        }
        let mask = page.wrapping_sub(1);
        if base & mask != 0 {
            return Err(RangeError::Misaligned { value: base, page });
        }
        if len & mask != 0 {
            return Err(RangeError::Misaligned { value: len, page });
        }
        match base.checked_add(len - 1) {
            Some(last) => Ok(Self { base, last }),
            None => Err(RangeError::Wraps { base, len }),
        }
    }

    /// The first address.
    #[must_use]
    pub const fn base(self) -> u64 {
        self.base
    }

    /// The last address inside.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }

    /// From the first to the last address inside.
    pub(crate) const fn between(base: u64, last: u64) -> Self {
        debug_assert!(base <= last);
        Self { base, last }
    }

    /// Bytes inside. The whole 64-bit space, whose length is no 64-bit number, is no range that can be made.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no range is empty")]
    pub const fn len(self) -> u64 {
        self.last - self.base + 1
    }

    /// Whether `va` lies inside.
    #[must_use]
    pub const fn has(self, va: u64) -> bool {
        self.base <= va && va <= self.last
    }

    /// What the two have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (base, last) = (self.base.max(other.base), self.last.min(other.last));
        (base <= last).then_some(Self { base, last })
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base <= other.last && other.base <= self.last
    }

    /// Whether `other` lies inside.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.base <= other.base && other.last <= self.last
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{RangeError, VaRange};

    const PAGE: u64 = 0x1000;

    #[test]
    fn the_edge_of_the_space_is_a_range_and_beyond_is_none() {
        let top = VaRange::new(0xffff_ffff_ffff_f000, PAGE, PAGE).unwrap();
        assert_eq!(top.last(), u64::MAX);
        assert_eq!(VaRange::new(0, 0, PAGE), Err(RangeError::Empty));
        assert_eq!(VaRange::new(0x10, PAGE, PAGE), Err(RangeError::Misaligned { value: 0x10, page: PAGE }));
        let wraps = VaRange::new(0xffff_ffff_ffff_f000, 2 * PAGE, PAGE);
        assert_eq!(wraps, Err(RangeError::Wraps { base: 0xffff_ffff_ffff_f000, len: 2 * PAGE }));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let range = |page: u64, pages: u64| VaRange::new(page * PAGE, pages * PAGE, PAGE).unwrap();
        assert!(!range(0, 2).overlaps(range(2, 1)));
        assert!(range(0, 3).overlaps(range(2, 1)));
        assert!(range(0, 3).contains(range(2, 1)) && !range(0, 3).contains(range(2, 2)));
    }
}
