//! IGT `syncobj_eventfd`. Flags and padding are no numbers here, so `invalid-bad-flags` and `invalid-bad-pad` do not compile: see
//! `tests/ui_linux`.

use crate::descriptors::readable;
use crate::drm::{Client, FOR_SUBMIT, Flags, NoEnt};
use outlive::Until;
use outlive::linux::{DescriptorError, signal_eventfd};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::fs::File;

const AVAILABLE: Flags = Flags { all: true, until: Until::Submitted };

fn nonblocking() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// An eventfd for a point.
fn arm(client: &Client, handle: u32, point: u64, flags: Flags) -> OwnedFd {
    let counter = nonblocking();
    let wait = client.begin_wait(&[(handle, point)], flags).unwrap();
    signal_eventfd(wait.as_user_fence(), counter.try_clone().unwrap()).unwrap();
    counter
}

/// What was signaled is told on the notify lane.
#[track_caller]
fn assert_counted(client: &Client, counter: &OwnedFd, counted: bool) {
    client.executor.notify();
    assert_eq!(readable(counter), counted);
    let mut count = [0; 8];
    let read = rustix::io::read(counter, &mut count);
    assert_eq!(read, if counted { Ok(8) } else { Err(Errno::AGAIN) });
    assert_eq!(u64::from_ne_bytes(count), u64::from(counted), "once");
}

#[test]
fn invalid_illegal_handle() {
    let client = Client::new();
    assert_eq!(client.begin_wait(&[(0, 0)], FOR_SUBMIT).unwrap_err(), NoEnt);
}

#[test]
fn invalid_illegal_eventfd() {
    let client = Client::new();
    let handle = client.create_signaled();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let wait = client.begin_wait(&[(handle, 0)], FOR_SUBMIT).unwrap();
    assert_eq!(signal_eventfd(wait.as_user_fence(), null.into()), Err(DescriptorError::NotAnEventfd));
}

fn wait(point: u64) {
    let client = Client::new();
    let handle = client.create();
    let timeline = client.attach_sw_sync(handle, point);
    let (signaled, available) = (arm(&client, handle, point, FOR_SUBMIT), arm(&client, handle, point, AVAILABLE));
    assert_counted(&client, &signaled, false);
    assert_counted(&client, &available, true);
    timeline.inc(1);
    assert_counted(&client, &signaled, true);
    assert_counted(&client, &available, false);
}

fn wait_before_signal(point: u64) {
    let client = Client::new();
    let handle = client.create();
    let (signaled, available) = (arm(&client, handle, point, FOR_SUBMIT), arm(&client, handle, point, AVAILABLE));
    assert_counted(&client, &signaled, false);
    assert_counted(&client, &available, false);
    let timeline = client.attach_sw_sync(handle, point);
    assert_counted(&client, &signaled, false);
    assert_counted(&client, &available, true);
    timeline.inc(1);
    assert_counted(&client, &signaled, true);
}

fn wait_signaled(point: u64) {
    let client = Client::new();
    let handle = client.create();
    client.attach_sw_sync(handle, point).inc(1);
    let (signaled, available) = (arm(&client, handle, point, FOR_SUBMIT), arm(&client, handle, point, AVAILABLE));
    assert_counted(&client, &signaled, true);
    assert_counted(&client, &available, true);
}

#[test]
fn binary_wait() {
    wait(0);
}

#[test]
fn binary_wait_before_signal() {
    wait_before_signal(0);
}

#[test]
fn binary_wait_signaled() {
    wait_signaled(0);
}

#[test]
fn timeline_wait() {
    wait(1);
}

#[test]
fn timeline_wait_before_signal() {
    wait_before_signal(1);
}

#[test]
fn timeline_wait_signaled() {
    wait_signaled(1);
}

/// Upstream drops what is pending when the object is freed, untold. Here it is told: nobody else would ever do so.
#[test]
fn beside_upstream_an_object_that_is_gone_counts() {
    let client = Client::new();
    let handle = client.create();
    let counter = arm(&client, handle, 1, FOR_SUBMIT);
    client.destroy(handle).unwrap();
    assert_counted(&client, &counter, true);
}
