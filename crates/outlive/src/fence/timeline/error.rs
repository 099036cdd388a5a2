//! Why a timeline has no such point, or does not take one.

use crate::fence::container::ContainerError;
use crate::mem::AllocError;
use core::fmt;

/// Why a timeline has no such point, or does not take one. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimelineError {
    /// No such point was submitted yet.
    NotSubmitted {
        /// The last one that was.
        last: u64,
    },
    /// Points are numbered from 1.
    Zero,
    /// It cannot be made of this fence, or not now.
    Container(ContainerError),
}

impl fmt::Display for TimelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubmitted { last } => write!(f, "nobody submitted that point yet; the last one is {last}"),
            Self::Zero => f.write_str("points are numbered from 1"),
            Self::Container(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TimelineError {}

impl From<AllocError> for TimelineError {
    fn from(error: AllocError) -> Self {
        Self::Container(error.into())
    }
}
