//! IGT `sw_sync`, the cases with descriptors and processes. Only the process that has a timeline's producers advances it, so the
//! child is the one that does, and the parent waits for what it exported.

use crate::LONG;
use crate::descriptors::{Child, child_role, readable, readable_within, receive, send};
use crate::software::SwTimeline;
use outlive::linux::{DescriptorError, Watcher, export};
use outlive::{Executor, Status};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;

/// What the children do: export a fence, and advance its timeline when they are told, or by themselves.
#[test]
fn child() {
    let Some((role, socket)) = child_role() else { return };
    let executor = Executor::manual().unwrap();
    let timeline = SwTimeline::new(&executor);
    send(&socket, &export(&timeline.fence(1)).unwrap());
    if role == "told" {
        drop(receive(&socket));
    }
    timeline.inc(1);
    executor.notify();
}

fn wait_for(fd: &OwnedFd) -> Status {
    let executor = Executor::manual().unwrap();
    let watcher = Watcher::new(&executor).unwrap();
    let user = watcher.import(fd).unwrap();
    assert!(readable_within(&watcher, LONG));
    assert_eq!(watcher.look(None), Ok(1));
    user.status()
}

#[test]
fn sync_busy_fork() {
    let child = Child::start("igt_sw_sync_linux::child", "by itself");
    let fd = child.receive();
    assert_eq!(wait_for(&fd), Status::Signaled(Ok(())));
    child.wait();
}

#[test]
fn sync_busy_fork_unixsocket() {
    let child = Child::start("igt_sw_sync_linux::child", "told");
    let fd = child.receive();
    assert!(!readable(&fd), "signaled too early");
    child.send(&File::open("/dev/null").unwrap());
    assert_eq!(wait_for(&fd), Status::Signaled(Ok(())));
    child.wait();
}

/// Upstream's -1 is no descriptor here at all. Its plain file is the device again; this is one.
#[test]
fn sync_merge_invalid() {
    let executor = Executor::manual().unwrap();
    let watcher = Watcher::new(&executor).unwrap();
    let timeline = SwTimeline::new(&executor);
    let fd = export(&timeline.fence(1)).unwrap();
    let device: OwnedFd = File::open("/dev/null").unwrap().into();
    let file: OwnedFd = File::open("Cargo.toml").unwrap().into();
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    for invalid in [&device, &file, &write] {
        assert_eq!(watcher.merge(&[fd.as_fd(), invalid.as_fd()]).unwrap_err(), DescriptorError::NotAFence);
    }
}
