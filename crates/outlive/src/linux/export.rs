//! Exporting: a fence's result for other processes.

use super::{DescriptorError, record};
use crate::fence::{Fence, FenceError, Refused, Retired, Status, UserFence};
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};

/// A descriptor that becomes readable when `fence` has signaled; see the module. Allocates; may not be called while signalling.
///
/// # Errors
/// [`DescriptorError::System`], [`DescriptorError::Container`] for no memory.
pub fn export(fence: &Fence) -> Result<OwnedFd, DescriptorError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Until the record is written this process is a reader too: no reader's end can make writing it fail or raise a signal.
    let ends = Ends { write, _read: read.try_clone().map_err(system)? };
    match fence.on_signaled(move |result| ends.end(result)) {
        Ok(registration) => registration.keep(),
        Err(Refused::AlreadySignaled(end)) => match fence.status() {
            Status::Signaled(result) => end(result),
            Status::Pending => {}
        },
        Err(Refused::OutOfMemory(error, _)) => return Err(error.into()),
    }
    Ok(read)
}

/// As [`export`], for a `retired`: who imports it as one takes an end without a record for "never free".
///
/// # Errors
/// As for [`export`].
pub fn export_retired(retired: &Retired) -> Result<OwnedFd, DescriptorError> {
    export(retired)
}

/// As [`export`], for a user fence.
///
/// # Errors
/// As for [`export`].
pub fn export_user(user: &UserFence) -> Result<OwnedFd, DescriptorError> {
    export(user.inner())
}

fn system(error: std::io::Error) -> DescriptorError {
    DescriptorError::System(error.raw_os_error().unwrap_or(0))
}

/// Both ends of a pipe.
struct Ends {
    write: OwnedFd,
    _read: OwnedFd,
}

impl Ends {
    /// Writes the record and closes both. If a reader has filled the pipe meanwhile, readers see nonsense, which is no
    /// record either.
    fn end(self, result: Result<(), FenceError>) {
        let _ = rustix::io::write(&self.write, &record::encode(result));
    }
}
