//! Fences across processes: with real children, real descriptors, and real kills.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;
#[expect(dead_code, reason = "each test binary uses a part of it")]
mod descriptors;

use common::Rig;
use descriptors::{Child, child_role, readable, receive, send};
use outlive::linux::{DescriptorError, Watcher, export, export_retired, export_user, signal_eventfd};
use outlive::{Executor, Fence, FenceContext, FenceError, Names, QueueConfig, Signaler, Status, UserFence, WaitError};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::Read;
use std::time::Duration;

const FAULT: FenceError = FenceError::Faulted { code: 7 };
const LOOK: Option<Duration> = Some(Duration::ZERO);
/// Only a defect waits that long.
const LONG: Duration = Duration::from_secs(30);

fn bare(executor: &Executor) -> (Signaler, Fence) {
    let names = Names { driver: "linux", timeline: "test" };
    FenceContext::new(executor, names).unwrap().allocate().unwrap().publish()
}

fn world() -> (Executor, Watcher) {
    let executor = Executor::manual().unwrap();
    let watcher = Watcher::new(&executor).unwrap();
    (executor, watcher)
}

/// Looks until nothing is watched any more. An end that nobody holds open may take a moment: a child that another test is
/// starting has everything open until it begins.
fn look_until_all_have_ended(watcher: &Watcher) {
    while watcher.watched() > 0 {
        watcher.look(Some(LONG)).unwrap();
    }
}

/// Everything that is left to read, to the end, which may take a moment as above.
fn read_all(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = File::from(fd.try_clone().unwrap());
    while file.read_to_end(&mut bytes).is_err() {
        std::thread::yield_now();
    }
    bytes
}

#[test]
fn an_exported_fence_is_one_record_and_then_the_end() {
    let (executor, _) = world();
    for result in [Ok(()), Err(FAULT)] {
        let (signaler, fence) = bare(&executor);
        let early = export(&fence).unwrap();
        assert!(!readable(&early));
        signaler.signal(result);
        assert!(!readable(&early), "the record is written on the notify lane");
        executor.notify();
        let late = export(&fence).unwrap();
        assert!(readable(&early) && readable(&late));
        let (early, late) = (read_all(&early), read_all(&late));
        assert_eq!((early.len(), &early), (16, &late));
    }
}

#[test]
fn an_imported_fence_has_the_result_however_many_import_it() {
    let (executor, watcher) = world();
    for result in [Ok(()), Err(FAULT), Err(FenceError::Canceled)] {
        let (signaler, fence) = bare(&executor);
        let fd = export(&fence).unwrap();
        let early = [watcher.import(&fd).unwrap(), watcher.import(&fd).unwrap()];
        assert_eq!(watcher.look(LOOK), Ok(0));
        signaler.signal(result);
        executor.notify();
        let late = watcher.import(&fd).unwrap();
        assert_eq!((readable(&watcher), watcher.look(LOOK)), (true, Ok(3)));
        for user in early.iter().chain([&late]) {
            assert_eq!(user.status(), Status::Signaled(result));
        }
        assert!(readable(&fd), "it stays readable");
        assert_eq!(watcher.watched(), 0);
    }
}

#[test]
fn an_end_without_a_record_says_that_the_issuer_is_gone() {
    let (_executor, watcher) = world();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (fence, retired) = (watcher.import(&read).unwrap(), watcher.import_retired(&read).unwrap());
    assert_eq!((watcher.look(LOOK), fence.status()), (Ok(0), Status::Pending));
    drop(write);
    look_until_all_have_ended(&watcher);
    assert_eq!(fence.status(), Status::Signaled(Err(FenceError::DeviceLost)));
    assert_eq!(retired.status(), Status::Signaled(Err(FenceError::Quarantined)), "never free");
}

#[test]
fn nonsense_is_no_record() {
    let (executor, watcher) = world();
    let (signaler, fence) = bare(&executor);
    signaler.signal(Ok(()));
    let record = read_all(&export(&fence).unwrap());
    for bytes in [&record[..5], &[0; 16], &[&record[..], &record[..]].concat()] {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&write, bytes).unwrap();
        let user = watcher.import(&read).unwrap();
        assert_eq!(watcher.look(LOOK), Ok(1));
        assert_eq!(user.status(), Status::Signaled(Err(FenceError::DeviceLost)), "{} bytes", bytes.len());
    }
}

/// A reader may open the pipe again to write, and fill it.
#[test]
fn a_reader_that_fills_the_pipe_harms_only_itself() {
    let (executor, watcher) = world();
    let (signaler, fence) = bare(&executor);
    let fd = export(&fence).unwrap();
    let path = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&fd));
    let write = File::options().write(true).open(path).unwrap();
    rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&write, &[0; 4096]).is_ok() {}
    signaler.signal(Ok(()));
    executor.notify();
    let user = watcher.import(&fd).unwrap();
    assert_eq!((watcher.look(LOOK), user.status()), (Ok(1), Status::Signaled(Err(FenceError::DeviceLost))));
}

#[test]
fn an_issuer_whose_readers_are_all_gone_writes_without_being_killed() {
    let (executor, _) = world();
    let (signaler, fence) = bare(&executor);
    drop(export(&fence).unwrap());
    signaler.signal(Ok(()));
    executor.notify();
}

#[test]
fn what_is_no_exported_fence_is_refused() {
    let (executor, watcher) = world();
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let file: OwnedFd = File::open("Cargo.toml").unwrap().into();
    let counter = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for fd in [&write, &null, &file, &counter] {
        assert_eq!(watcher.import(fd), Err(DescriptorError::NotAFence));
    }
    assert_eq!(watcher.merge(&[]).unwrap_err(), DescriptorError::None);
    let (_signaler, fence) = bare(&executor);
    let fd = export(&fence).unwrap();
    assert_eq!(watcher.merge(&[fd.as_fd(), null.as_fd()]).unwrap_err(), DescriptorError::NotAFence);
}

#[test]
fn a_merge_is_readable_after_the_last() {
    let (executor, watcher) = world();
    for results in [[Ok(()); 3], [Ok(()), Err(FAULT), Err(FenceError::TimedOut)]] {
        let (signalers, fences): (Vec<_>, Vec<_>) = (0..3).map(|_| bare(&executor)).unzip();
        let fds: Vec<_> = fences.iter().map(|fence| export(fence).unwrap()).collect();
        let merged = watcher.merge(&fds.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        for (signaler, result) in signalers.into_iter().zip(results) {
            assert!(!readable(&merged));
            signaler.signal(result);
            executor.notify();
            watcher.look(LOOK).unwrap();
            executor.notify();
        }
        let user = watcher.import(&merged).unwrap();
        watcher.look(LOOK).unwrap();
        assert_eq!(user.status(), Status::Signaled(results[1]), "the first error in order");
        assert!(fds.iter().all(readable), "the inputs are as they were");
    }
    let (_signaler, fence) = bare(&executor);
    let fd = export(&fence).unwrap();
    let merged = watcher.merge(&[fd.as_fd()]).unwrap();
    drop(watcher);
    executor.run_until_idle();
    let other = Watcher::new(&executor).unwrap();
    let user = other.import(&merged).unwrap();
    other.look(LOOK).unwrap();
    assert_eq!(user.status(), Status::Signaled(Err(FenceError::Canceled)), "who merged it has gone");
}

#[test]
fn what_nobody_hears_of_is_not_watched_for_ever() {
    let (_executor, watcher) = world();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let kept: Vec<_> = (0..8).map(|_| watcher.import(&read).unwrap()).collect();
    for _ in 0..500 {
        drop(watcher.import(&read).unwrap());
    }
    assert!(watcher.watched() <= 40, "{} are watched", watcher.watched());
    drop(write);
    look_until_all_have_ended(&watcher);
    assert!(kept.iter().all(UserFence::is_signaled));
}

#[test]
fn a_watcher_that_goes_ends_what_it_watched() {
    let (_executor, watcher) = world();
    let (read, _write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let user = watcher.import(&read).unwrap();
    drop(watcher);
    assert_eq!(user.status(), Status::Signaled(Err(FenceError::Canceled)));
}

#[test]
fn a_watchers_thread_wakes_who_waits() {
    let executor = Executor::builder().threads().unwrap();
    let watcher = Watcher::with_thread(&executor).unwrap();
    for _ in 0..20 {
        let (signaler, fence) = bare(&executor);
        let user = watcher.import(export(&fence).unwrap()).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| user.wait(LONG));
            signaler.signal(Err(FAULT));
            assert_eq!(waiter.join().unwrap(), Err(WaitError::Failed(FAULT)));
        });
    }
}

#[test]
fn a_user_fence_is_exported_and_an_imported_one_passed_on() {
    let (executor, watcher) = world();
    let (source, user) = UserFence::new(&executor, "host").unwrap();
    let first = watcher.import(export_user(&user).unwrap()).unwrap();
    let second = watcher.import(export_user(&first).unwrap()).unwrap();
    source.signal(Err(FAULT));
    for _ in 0..2 {
        executor.notify();
        watcher.look(LOOK).unwrap();
    }
    assert_eq!(second.status(), Status::Signaled(Err(FAULT)));
}

#[test]
fn rule_4_an_exported_retired_is_free_only_when_the_hardware_is_done() {
    let rig = Rig::new();
    let watcher = Watcher::new(&rig.executor).unwrap();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    let (finished, retired) = (export(&job.finished()).unwrap(), export_retired(&job.retired()).unwrap());
    let (finished, retired) = (watcher.import(finished).unwrap(), watcher.import_retired(retired).unwrap());
    rig.complete(&queue, 1, Err(FAULT));
    rig.idle();
    watcher.look(LOOK).unwrap();
    assert_eq!(finished.status(), Status::Signaled(Err(FAULT)));
    assert_eq!(retired.status(), Status::Signaled(Ok(())), "whatever the verdict");
}

#[test]
fn an_eventfd_counts_one_once() {
    let (executor, _) = world();
    let (source, user) = UserFence::new(&executor, "host").unwrap();
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    signal_eventfd(&user, counter.try_clone().unwrap()).unwrap();
    executor.notify();
    assert!(!readable(&counter));
    source.signal(Err(FAULT));
    executor.notify();
    signal_eventfd(&user, counter.try_clone().unwrap()).unwrap();
    let mut count = [0; 8];
    rustix::io::read(&counter, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 2, "once each, the second at once");
    let blocks = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert_eq!(signal_eventfd(&user, blocks), Err(DescriptorError::Blocks));
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(signal_eventfd(&user, null.into()), Err(DescriptorError::NotAnEventfd));
}

/// What the children of the tests below do.
#[test]
fn child() {
    let Some((role, socket)) = child_role() else { return };
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = bare(&executor);
    send(&socket, &export(&fence).unwrap());
    match role.as_str() {
        "signals" => {
            signaler.signal(Err(FAULT));
            executor.notify();
        }
        "panics" => panic!("on purpose"),
        "holds" => {}
        other => unreachable!("{other}"),
    }
    // Says that it has done so, and waits to be killed.
    send(&socket, &File::open("/dev/null").unwrap());
    let _ = receive(&socket);
}

#[test]
fn rule_1_an_exported_fence_outlives_its_issuers_kill() {
    let (_executor, watcher) = world();
    let child = Child::start("child", "holds");
    let fd = child.receive();
    let users = [watcher.import(&fd).unwrap(), watcher.import_retired(&fd).unwrap()];
    drop(child.receive());
    assert_eq!((watcher.look(LOOK), users[0].status()), (Ok(0), Status::Pending));
    child.kill();
    look_until_all_have_ended(&watcher);
    assert_eq!(users[0].status(), Status::Signaled(Err(FenceError::DeviceLost)));
    assert_eq!(users[1].status(), Status::Signaled(Err(FenceError::Quarantined)));
    let late = watcher.import(&fd).unwrap();
    assert_eq!(watcher.look(LOOK), Ok(1));
    assert_eq!(late.status(), Status::Signaled(Err(FenceError::DeviceLost)), "whenever it is imported");
}

#[test]
fn a_result_outlives_its_issuers_kill_too() {
    let (_executor, watcher) = world();
    let child = Child::start("child", "signals");
    let fd = child.receive();
    drop(child.receive());
    child.kill();
    let user = watcher.import_retired(&fd).unwrap();
    assert_eq!(watcher.look(LOOK), Ok(1));
    assert_eq!(user.status(), Status::Signaled(Err(FAULT)));
}

#[test]
fn an_issuer_that_panics_cancels() {
    let (_executor, watcher) = world();
    let child = Child::start("child", "panics");
    let user = watcher.import(child.receive()).unwrap();
    child.wait();
    assert_eq!(watcher.look(Some(LONG)), Ok(1));
    // Its producer was dropped, which is written if there was time for it.
    let said = [FenceError::Canceled, FenceError::DeviceLost].map(|error| Status::Signaled(Err(error)));
    assert!(said.contains(&user.status()));
}
