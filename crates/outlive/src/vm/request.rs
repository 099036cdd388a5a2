//! What can be asked of a space, and what is refused.

use super::bo::BoId;
use super::mapping::{Flags, Source};
use super::range::{RangeError, VaRange};
use crate::mem::AllocError;
use core::fmt;

/// One thing that is wanted. All numbers are bytes; none has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<M = ()> {
    /// `len` bytes from `va` on lead to `source`, whatever was there. Exactly what is there already is no change: the old
    /// mapping stays, its data included.
    Map {
        /// Where.
        va: u64,
        /// How much.
        len: u64,
        /// What is to be behind it.
        source: Source,
        /// How it may be used.
        flags: Flags,
        /// The driver's.
        data: M,
    },
    /// Nothing is mapped in `len` bytes from `va` on.
    Unmap {
        /// Where.
        va: u64,
        /// How much.
        len: u64,
    },
    /// What is mapped in `len` bytes from `va` on loses the flags `clear`, then gets `set`. Holes are passed over. It is
    /// planned as one map request for each mapping that it changes, ascending.
    Protect {
        /// Where.
        va: u64,
        /// How much.
        len: u64,
        /// Flags that go.
        clear: Flags,
        /// Flags that come.
        set: Flags,
    },
}

impl<M> Request<M> {
    pub(super) const fn span(&self) -> (u64, u64) {
        match *self {
            Self::Map { va, len, .. } | Self::Unmap { va, len } | Self::Protect { va, len, .. } => (va, len),
        }
    }
}

/// Why a batch was not planned. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanError {
    /// The request at fault, counted from zero.
    pub request: usize,
    /// The rule that it breaks.
    pub rule: Rule,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {}", self.request, self.rule)
    }
}

impl core::error::Error for PlanError {}

/// What a request must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// A range is not empty, is aligned, and does not wrap.
    Range(RangeError),
    /// A range lies inside the space.
    Outside {
        /// The range.
        range: VaRange,
        /// The space.
        space: VaRange,
    },
    /// A range lies off the reserved ones.
    ReservedRange {
        /// The range.
        range: VaRange,
        /// The reserved one that it touches.
        reserved: VaRange,
    },
    /// A buffer is open in this very space.
    NotOpen {
        /// The buffer.
        bo: BoId,
    },
    /// An offset is a multiple of the page size.
    MisalignedOffset {
        /// The offset.
        offset: u64,
        /// The page size.
        page: u64,
    },
    /// The range behind a mapping ends inside its buffer.
    BeyondBo {
        /// Where it starts in the buffer.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The buffer's size.
        size: u64,
    },
    /// A window is a nonzero multiple of the page size, divides the mapping's length, and is entered inside.
    Window {
        /// The window's length.
        window: u64,
        /// Where in it the mapping starts.
        phase: u64,
        /// The mapping's length.
        len: u64,
    },
    /// A space is filled while nothing is mapped or being cleared.
    NotEmpty,
    /// The requests of [`Space::fill`](super::Space::fill) are map requests in ascending order that do not overlap.
    OutOfOrder {
        /// The range that does not lie above the one before.
        range: VaRange,
    },
    /// A space has no more mappings than its limit.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A space whose page tables may not be as planned takes no new mappings.
    Poisoned,
    /// A closed space takes no requests.
    Closed,
    /// There is memory for the plan.
    NoMemory(AllocError),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::Outside { range, space } => {
                write!(f, "{range:?} is not inside the address space {space:?}")
            }
            Self::ReservedRange { range, reserved } => {
                write!(f, "{range:?} touches {reserved:?}, which is reserved")
            }
            Self::NotOpen { bo } => write!(f, "{bo} is not open in this address space: open it first"),
            Self::MisalignedOffset { offset, page } => {
                write!(f, "offset {offset:#x} is not a multiple of the page size {page:#x}")
            }
            Self::BeyondBo { offset, len, size } => {
                write!(f, "offset {offset:#x} plus {len:#x} exceeds the buffer's size {size:#x}")
            }
            Self::Window { window, phase, len } => write!(
                f,
                "a window of {window:#x} bytes entered at {phase:#x} cannot be repeated over {len:#x} bytes: it must be a \
                 nonzero multiple of the page size that divides the length, entered inside at a multiple of the page size"
            ),
            Self::NotEmpty => f.write_str("the address space is not empty: plan the requests instead"),
            Self::OutOfOrder { range } => write!(
                f,
                "{range:?} is not above the one before: fill a space with map requests in ascending order, or plan them"
            ),
            Self::TooMany { limit } => write!(f, "more than {limit} mappings: unmap some, or map larger ranges"),
            Self::Poisoned => f.write_str(
                "an earlier change of this address space failed half way: unmap and close still work, mapping does not",
            ),
            Self::Closed => f.write_str("the address space is closed: make another one"),
            Self::NoMemory(error) => error.fmt(f),
        }
    }
}

impl From<AllocError> for Rule {
    fn from(error: AllocError) -> Self {
        Self::NoMemory(error)
    }
}
