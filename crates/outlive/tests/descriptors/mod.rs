//! Descriptors in tests: asking whether one is readable, sending one over a socket, and children that get a socket.
#![expect(unreachable_pub, reason = "for the test around this module")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::process::{self, Command, Stdio};
use std::time::Duration;

/// Whether `poll` says so now.
pub fn readable(fd: &impl AsFd) -> bool {
    readable_within(fd, Duration::ZERO)
}

pub fn readable_within(fd: &impl AsFd, timeout: Duration) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: timeout.as_secs().try_into().unwrap(), tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut polled, Some(&timeout)).unwrap() == 1
}

/// Sends a descriptor.
pub fn send(socket: &UnixStream, fd: &impl AsFd) {
    let fds: [BorrowedFd<'_>; 1] = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"f")], &mut control, SendFlags::empty()).unwrap();
}

/// Receives one; `None` at the end.
pub fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

const ROLE: &str = "OUTLIVE_TEST_CHILD";

/// This very program again, running one test with a role, a socket for its standard input.
pub struct Child {
    process: process::Child,
    socket: UnixStream,
}

impl Child {
    pub fn start(test: &str, role: &str) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--quiet"])
            .env(ROLE, role)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, socket }
    }

    pub fn receive(&self) -> OwnedFd {
        receive(&self.socket).unwrap()
    }

    pub fn send(&self, fd: &impl AsFd) {
        send(&self.socket, fd);
    }

    /// `SIGKILL`.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn wait(mut self) {
        self.process.wait().unwrap();
    }
}

/// In a child: what it is to do, and its socket.
pub fn child_role() -> Option<(String, UnixStream)> {
    let role = std::env::var(ROLE).ok()?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    Some((role, socket.into()))
}
