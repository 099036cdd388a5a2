//! Fences across processes, and eventfds. With the feature `linux`, on Linux.
//!
//! # An exported fence
//! is the read end of a pipe, made when it is exported: one record with the result is written when the fence has signaled, then the
//! write end is closed. It is readable from then on, so it can be polled, and it stays so: looking at it takes nothing out, and
//! any number of processes may. **End-of-file without a record** means that whoever had to signal it is gone, however it
//! went: [`FenceError::DeviceLost`], and for an exported `retired` [`FenceError::Quarantined`], never free. So an exported fence outlives
//! its issuer's `SIGKILL`.
//!
//! # An imported one
//! is a [`UserFence`], whoever issued it: nothing keeps another process from holding it open. A [`Watcher`] waits for any number of
//! them on one descriptor.
//!
//! # What a peer may do
//! Keep it open, close it, take the record out or write nonsense into it: whoever else has that descriptor then sees
//! `DeviceLost`, and nothing else happens. The issuer never blocks on it: it writes sixteen bytes, once, on the notify lane, to a
//! pipe that does not block.
//!
//! Not covered: the kernel's own sync files. Their result needs an `ioctl` that this module does not make; they are refused.

mod eventfd;
mod export;
mod record;
mod watcher;

pub use eventfd::signal_eventfd;
pub use export::{export, export_retired, export_user};
pub use watcher::Watcher;

#[cfg(doc)]
use crate::{FenceError, UserFence};

use crate::fence::ContainerError;
use crate::mem::AllocError;
use core::fmt;
use rustix::io::Errno;

/// Why something was not done with a descriptor. Nothing was changed, and the descriptor is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescriptorError {
    /// It is no exported fence: not the read end of a pipe.
    NotAFence,
    /// It is no eventfd.
    NotAnEventfd,
    /// It blocks, and who signals it must not: make it with `EFD_NONBLOCK`.
    Blocks,
    /// None were given.
    None,
    /// They make no one fence, or there is no memory for it.
    Container(ContainerError),
    /// A system call failed with this error number.
    System(
        /// As the operating system counts.
        i32,
    ),
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFence => f.write_str("that descriptor is no exported fence: not the read end of a pipe"),
            Self::NotAnEventfd => f.write_str("that descriptor is no eventfd"),
            Self::Blocks => f.write_str("writing to that eventfd may block; make it with EFD_NONBLOCK"),
            Self::None => f.write_str("no descriptors were given; give at least one"),
            Self::Container(error) => error.fmt(f),
            Self::System(number) => write!(f, "system call: {}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}

impl core::error::Error for DescriptorError {}

impl From<Errno> for DescriptorError {
    fn from(error: Errno) -> Self {
        Self::System(error.raw_os_error())
    }
}

impl From<ContainerError> for DescriptorError {
    fn from(error: ContainerError) -> Self {
        Self::Container(error)
    }
}

impl From<AllocError> for DescriptorError {
    fn from(error: AllocError) -> Self {
        Self::Container(error.into())
    }
}
