//! Why something was not done with sync objects.

use crate::fence::container::ContainerError;
use crate::mem::AllocError;
use core::fmt;

/// Why something was not done with sync objects. Nothing was changed, in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncobjError {
    /// Nobody submitted that point yet (`-EINVAL`).
    NotSubmitted {
        /// Which of those that were asked for.
        index: usize,
        /// The point.
        point: u64,
        /// The last one that was submitted, 0 if none.
        last: u64,
    },
    /// No sync objects were given (`-EINVAL`).
    None,
    /// It cannot be submitted as it is, or there is no memory.
    Container(ContainerError),
}

impl fmt::Display for SyncobjError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubmitted { index, point, last } => write!(
                f,
                "entry {index}: nobody submitted point {point} yet, the last one is {last}; wait for it with \
                 `Until::SubmittedAndSignaled`"
            ),
            Self::None => f.write_str("no sync objects were given; give at least one"),
            Self::Container(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SyncobjError {}

impl From<AllocError> for SyncobjError {
    fn from(error: AllocError) -> Self {
        Self::Container(error.into())
    }
}
