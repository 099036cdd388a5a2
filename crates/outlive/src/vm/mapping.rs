//! Mappings as values: a range, what is behind it, and how it may be used.

use super::bo::BoId;
use super::range::VaRange;
use core::fmt;

/// How a mapping may be used: bits of the library and bits of the driver. Both survive splits and take part in `keep`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    /// None: the GPU may read and write.
    pub const NONE: Self = Self(0);
    /// The GPU may only read.
    pub const READ_ONLY: Self = Self(1);

    /// The driver's own flags (caching, protection, what a page table entry has): the low 24 bits of `bits`.
    #[must_use]
    pub const fn driver(bits: u32) -> Self {
        Self(bits << 8)
    }

    /// What [`Flags::driver`] was given.
    #[must_use]
    pub const fn driver_bits(self) -> u32 {
        self.0 >> 8
    }

    /// Those of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` does not have.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x})", self.0)
    }
}

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A range of a buffer, as long as the mapping.
    Bo {
        /// The buffer.
        bo: BoId,
        /// Where the range starts in it, in bytes.
        offset: u64,
    },
    /// A window of a buffer, over and over.
    Repeated {
        /// The buffer.
        bo: BoId,
        /// Where the window starts in it, in bytes.
        offset: u64,
        /// How long the window is, in bytes.
        window: u64,
        /// Where in the window the mapping starts, in bytes: zero in a request, perhaps not in what a split leaves.
        phase: u64,
    },
    /// Nothing: reads yield what the hardware says, writes go nowhere.
    Sparse,
}

impl Source {
    /// The buffer, if there is one.
    #[must_use]
    pub const fn bo(self) -> Option<BoId> {
        match self {
            Self::Bo { bo, .. } | Self::Repeated { bo, .. } => Some(bo),
            Self::Sparse => None,
        }
    }

    /// What is behind a mapping that starts `by` bytes further on.
    ///
    /// Worked example: a window of 0x3000 bytes of which a mapping starts with the second page (phase 0x1000) has, 0x5000
    /// bytes further on, its first page again: (0x1000 + 0x5000) mod 0x3000 = 0.
    #[must_use]
    pub const fn advanced(self, by: u64) -> Self {
        match self {
            // OVERFLOW: the request was checked to end inside the buffer.
            Self::Bo { bo, offset } => Self::Bo { bo, offset: offset + by },
            // OVERFLOW: phase and remainder are below the window, which is within a 64-bit buffer; the sum may wrap for
            // windows above 2^63, so the remainder of `phase` comes off first.
            Self::Repeated { bo, offset, window, phase } => {
                let by = by % window;
                let phase = if phase >= window - by { phase - (window - by) } else { phase + by };
                Self::Repeated { bo, offset, window, phase }
            }
            Self::Sparse => Self::Sparse,
        }
    }
}

/// A mapping: a value, nothing that points into the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mapping<M = ()> {
    /// Where.
    pub range: VaRange,
    /// What is behind it.
    pub source: Source,
    /// How it may be used.
    pub flags: Flags,
    /// The driver's.
    pub data: M,
}

impl<M> Mapping<M> {
    /// Whether both lead to the same bytes in the same manner wherever both are, which they are somewhere.
    pub(crate) fn agrees_with<N>(&self, other: &Mapping<N>) -> bool {
        let at = self.range.base().max(other.range.base());
        self.flags == other.flags && self.source_at(at) == other.source_at(at)
    }

    /// What is behind it from `at` on, which lies inside.
    pub(crate) const fn source_at(&self, at: u64) -> Source {
        self.source.advanced(at - self.range.base())
    }

    /// The part in `range`, which lies inside.
    pub(crate) fn piece(&self, range: VaRange) -> Self
    where
        M: Clone,
    {
        let data = self.data.clone();
        Self { range, source: self.source_at(range.base()), flags: self.flags, data }
    }

    /// What sticks out below `range`.
    pub(crate) fn below(&self, range: VaRange) -> Option<Self>
    where
        M: Clone,
    {
        let base = self.range.base();
        (base < range.base()).then(|| self.piece(VaRange::between(base, range.base() - 1)))
    }

    /// What sticks out above `range`.
    pub(crate) fn above(&self, range: VaRange) -> Option<Self>
    where
        M: Clone,
    {
        let last = self.range.last();
        (range.last() < last).then(|| self.piece(VaRange::between(range.last() + 1, last)))
    }

    /// What [`Request::Protect`](super::Request::Protect) of `range`, which it overlaps, makes of it; none if it stays as it is.
    pub(crate) fn protected(&self, range: VaRange, clear: Flags, set: Flags) -> Option<Self>
    where
        M: Clone,
    {
        let flags = self.flags.without(clear).with(set);
        let part = self.range.intersection(range).filter(|_| flags != self.flags)?;
        Some(Self { flags, ..self.piece(part) })
    }

    /// The same mapping without its data.
    pub(crate) const fn shape(&self) -> Mapping {
        Mapping { range: self.range, source: self.source, flags: self.flags, data: () }
    }

    /// The same mapping with other data.
    pub(crate) fn with_data<N>(self, data: N) -> Mapping<N> {
        Mapping { range: self.range, source: self.source, flags: self.flags, data }
    }
}

impl<M: Clone> Mapping<&M> {
    /// The same mapping with a copy of the data.
    pub(crate) fn cloned(self) -> Mapping<M> {
        let data = self.data.clone();
        self.with_data(data)
    }
}
