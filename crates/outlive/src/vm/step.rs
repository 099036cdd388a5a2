//! What a driver is given to do.

use super::mapping::{Mapping, Source};
use super::range::VaRange;

/// One thing to do to the page tables. A value: it stays good whatever becomes of the space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<M = ()> {
    /// The whole mapping goes.
    Unmap {
        /// Which.
        mapping: Mapping<M>,
        /// Its entries lead where the new mapping leads, and may stay.
        keep: bool,
    },
    /// The part of a mapping in `hole` goes; what sticks out below and above stays mapped, as mappings of their own.
    Remap {
        /// The mapping as it was.
        unmap: Mapping<M>,
        /// The part that goes.
        hole: VaRange,
        /// The entries in `hole` lead where the new mapping leads, and may stay.
        keep: bool,
    },
    /// A new mapping where nothing is left.
    Map {
        /// Which.
        mapping: Mapping<M>,
    },
}

impl<M: Clone> Step<M> {
    /// What stays below the hole of a remap, with a copy of the old mapping's data.
    #[must_use]
    pub fn prev(&self) -> Option<Mapping<M>> {
        match self {
            Self::Remap { unmap, hole, .. } => unmap.below(*hole),
            Self::Unmap { .. } | Self::Map { .. } => None,
        }
    }

    /// What stays above the hole of a remap, with a copy of the old mapping's data.
    #[must_use]
    pub fn next(&self) -> Option<Mapping<M>> {
        match self {
            Self::Remap { unmap, hole, .. } => unmap.above(*hole),
            Self::Unmap { .. } | Self::Map { .. } => None,
        }
    }
}

impl<M> Step<M> {
    /// The mapping that goes, or comes.
    #[must_use]
    pub const fn mapping(&self) -> &Mapping<M> {
        match self {
            Self::Unmap { mapping, .. } | Self::Map { mapping } => mapping,
            Self::Remap { unmap, .. } => unmap,
        }
    }

    /// The addresses whose translation changes, or would without `keep`.
    #[must_use]
    pub const fn changes(&self) -> VaRange {
        match self {
            Self::Unmap { mapping, .. } | Self::Map { mapping } => mapping.range,
            Self::Remap { hole, .. } => *hole,
        }
    }

    /// Whether the old entries may stay; false for a map.
    #[must_use]
    pub const fn keep(&self) -> bool {
        match self {
            Self::Unmap { keep, .. } | Self::Remap { keep, .. } => *keep,
            Self::Map { .. } => false,
        }
    }

    /// What is behind the mapping.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.mapping().source
    }
}
