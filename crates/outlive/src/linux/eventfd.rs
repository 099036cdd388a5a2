//! Telling an event loop: an eventfd that counts one up when a user fence has signaled.

use super::DescriptorError;
use crate::fence::{Refused, UserFence};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl};

/// Adds one to `eventfd`, once, when `user` has signaled, whatever its result; at once if it has. For a sync object's point give a
/// [`SyncobjWait`](crate::SyncobjWait)'s: that also hears of it if nobody is left who could submit the point. Allocates.
///
/// # Errors
/// [`DescriptorError::NotAnEventfd`]; [`DescriptorError::Blocks`]: it is written to on the notify lane, which waits for nobody;
/// [`DescriptorError::System`], no memory.
pub fn signal_eventfd(user: &UserFence, eventfd: OwnedFd) -> Result<(), DescriptorError> {
    if !is_eventfd(&eventfd) {
        return Err(DescriptorError::NotAnEventfd);
    }
    if !fcntl_getfl(&eventfd)?.contains(OFlags::NONBLOCK) {
        return Err(DescriptorError::Blocks);
    }
    let add = move |_| {
        // A counter that is full has told already.
        let _ = rustix::io::write(&eventfd, &1_u64.to_ne_bytes());
    };
    match user.on_signaled(add) {
        Ok(registration) => registration.keep(),
        Err(Refused::AlreadySignaled(add)) => add(Ok(())),
        Err(Refused::OutOfMemory(error, _)) => return Err(error.into()),
    }
    Ok(())
}

/// As the kernel calls the file behind it.
fn is_eventfd(fd: &OwnedFd) -> bool {
    let path = std::format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(path).is_ok_and(|name| name.as_os_str() == "anon_inode:[eventfd]")
}
