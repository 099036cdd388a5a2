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

impl<M: Clone> Step<&M> {
    /// The same step with a copy of the data.
    #[must_use]
    pub fn cloned(&self) -> Step<M> {
        match *self {
            Self::Unmap { mapping, keep } => Step::Unmap { mapping: mapping.cloned(), keep },
            Self::Remap { unmap, hole, keep } => Step::Remap { unmap: unmap.cloned(), hole, keep },
            Self::Map { mapping } => Step::Map { mapping: mapping.cloned() },
        }
    }
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
    /// What becomes of `old`, which overlaps `range`, when that is to lead to `new`, or nowhere; none if it is `new` already.
    pub(super) fn out_of<N>(old: Mapping<M>, range: VaRange, new: Option<&Mapping<N>>) -> Option<Self> {
        let keep = new.is_some_and(|new| old.agrees_with(new));
        if keep && old.range == range {
            return None;
        }
        // The two overlap.
        let hole = old.range.intersection(range).unwrap_or(old.range);
        Some(if hole == old.range {
            Self::Unmap { mapping: old, keep }
        } else {
            Self::Remap { unmap: old, hole, keep }
        })
    }

    /// The mapping of a remap, without its data, and what goes of it.
    pub(super) fn cut(&self) -> Option<(Mapping, VaRange)> {
        match self {
            Self::Remap { unmap, hole, .. } => Some((unmap.shape(), *hole)),
            Self::Unmap { .. } | Self::Map { .. } => None,
        }
    }

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
