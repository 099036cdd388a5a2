//! What IGT `syncobj_wait` and `syncobj_timeline` have in common, for point 0 and point 1.
//!
//! Upstream starts a thread that waits, and sleeps so that it surely does. Here a wait begins, and has its snapshot, when it is
//! made; the thread that then blocks in it is the same, but nothing is slept through.

use crate::broken::patience;
use crate::drm::{ANY, Client, ETime, FOR_SUBMIT, Flags, Inval, POLL};
use crate::software::SwTimeline;
use outlive::{Executor, SyncobjWait, Time, Until, WaitError};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

fn real() -> Client {
    Client::on(Executor::builder().threads().unwrap())
}

fn modes(all: bool, for_submit: bool) -> Flags {
    Flags { all, until: if for_submit { Until::SubmittedAndSignaled } else { Until::Signaled } }
}

/// What is there before a wait begins.
fn start(client: &Client, flags: Flags, point: u64, count: usize) -> (Vec<(u32, u64)>, Vec<Option<SwTimeline>>) {
    let asked: Vec<_> = (0..count).map(|_| (client.create(), point)).collect();
    let early = |asked: &(u32, u64)| (flags.until == Until::Signaled).then(|| client.attach_sw_sync(asked.0, point));
    let timelines = asked.iter().map(early).collect();
    (asked, timelines)
}

/// A thread blocks in `wait` while `act` runs; it must end without error, in time.
fn blocks_until(client: &Client, wait: &SyncobjWait, act: impl FnOnce()) {
    let deadline = client.executor.now().after(patience());
    thread::scope(|scope| {
        let thread = scope.spawn(|| wait.wait_until(deadline));
        act();
        assert_eq!(thread.join().unwrap(), Ok(()));
    });
}

pub fn delayed(all: bool, for_submit: bool, point: u64) {
    let client = real();
    let flags = modes(all, for_submit);
    let (asked, timelines) = start(&client, flags, point, 1);
    let wait = client.begin_wait(&asked, flags).unwrap();
    blocks_until(&client, &wait, || match &timelines[0] {
        Some(timeline) => timeline.inc(1),
        None => client.trigger(asked[0].0, point),
    });
}

pub fn reset_unsignaled(point: u64) {
    let client = Client::new();
    let asked = [(client.create(), point)];
    assert_eq!(client.wait(&asked, ANY, POLL), Err(Inval));
    client.reset(&[asked[0].0]).unwrap();
    assert_eq!(client.wait(&asked, ANY, POLL), Err(Inval));
}

pub fn reset_signaled(point: u64, count: usize) {
    let client = Client::new();
    let asked: Vec<_> = (0..count).map(|_| (client.create(), point)).collect();
    asked.iter().for_each(|(handle, point)| client.trigger(*handle, *point));
    assert_eq!(client.wait(&asked, ANY, POLL), Ok(Some(0)));
    client.reset(&asked.iter().map(|(handle, _)| *handle).collect::<Vec<_>>()).unwrap();
    for one in asked {
        assert_eq!(client.wait(&[one], ANY, POLL), Err(Inval));
    }
}

pub fn reset_during_wait_for_submit(point: u64) {
    let client = real();
    let asked = [(client.create(), point)];
    let wait = client.begin_wait(&asked, FOR_SUBMIT).unwrap();
    blocks_until(&client, &wait, || {
        client.reset(&[asked[0].0]).unwrap();
        client.trigger(asked[0].0, point);
    });
}

pub fn signal(point: u64) {
    let client = Client::new();
    let asked = [(client.create(), point)];
    assert_eq!(client.wait(&asked, ANY, POLL), Err(Inval));
    assert_eq!(client.wait(&asked, FOR_SUBMIT, POLL), Err(ETime));
    client.signal(&asked).unwrap();
    assert_eq!(client.wait(&asked, ANY, POLL), Ok(Some(0)));
    assert_eq!(client.wait(&asked, FOR_SUBMIT, POLL), Ok(Some(0)));
}

/// The first object is reset and given a fence that never signals: the wait must not see that.
pub fn snapshot(all: bool, for_submit: bool, point: u64) {
    let client = real();
    let flags = modes(all, for_submit);
    let (asked, mut timelines) = start(&client, flags, point, 2);
    let wait = client.begin_wait(&asked, flags).unwrap();
    let first = asked[0].0;
    blocks_until(&client, &wait, || {
        match (all, &timelines[0]) {
            (true, Some(timeline)) => timeline.inc(1),
            (true, None) => client.trigger(first, point),
            (false, None) => timelines[0] = Some(client.attach_sw_sync(first, point)),
            (false, Some(_)) => {}
        }
        client.reset(&[first]).unwrap();
        let never = client.attach_sw_sync(first, point);
        assert!(!wait.as_user_fence().is_signaled());
        match &timelines[1] {
            Some(timeline) => timeline.inc(1),
            None => client.trigger(asked[1].0, point),
        }
        // Not because the other one's producer goes.
        assert!(wait.as_user_fence().is_signaled());
        drop(never);
    });
    assert_eq!(wait.first(), (!all).then_some(1));
}

/// The order in which the eight objects take their four steps.
const ORDER: [usize; 32] =
    [2, 0, 6, 1, 1, 4, 5, 2, 0, 7, 1, 7, 6, 3, 4, 5, 0, 2, 7, 3, 5, 4, 0, 6, 7, 3, 2, 5, 6, 1, 4, 3];

/// Eight objects are submitted, signaled, reset and submitted again, in turn. Upstream waits for two of them; so does this, and
/// for all eight beside it.
pub fn complex(all: bool, for_submit: bool, point: u64) {
    let client = real();
    let flags = modes(all, for_submit);
    let (asked, mut timelines) = start(&client, flags, point, 8);
    let wait = client.begin_wait(&asked[..2], flags).unwrap();
    let eight = client.begin_wait(&asked, flags).unwrap();
    let (mut steps, mut signaled) = ([0; 8], Vec::new());
    let mut never = Vec::new();
    blocks_until(&client, &wait, || {
        for index in ORDER {
            let handle = asked[index].0;
            match steps[index] {
                0 if timelines[index].is_some() => {}
                0 => timelines[index] = Some(client.attach_sw_sync(handle, point)),
                1 => {
                    timelines[index].as_ref().unwrap().inc(1);
                    signaled.push(index);
                }
                2 => client.reset(&[handle]).unwrap(),
                _ => never.push(client.attach_sw_sync(handle, point)),
            }
            steps[index] += 1;
            let both = [0, 1].iter().filter(|index| signaled.contains(*index)).count();
            let done = if all { both == 2 } else { both > 0 };
            assert_eq!(wait.as_user_fence().is_signaled(), done);
            assert_eq!(eight.as_user_fence().is_signaled(), signaled.len() == 8 || (!all && !signaled.is_empty()));
            if signaled.len() == 8 {
                break;
            }
        }
    });
    assert_eq!((signaled.len(), eight.first()), (8, (!all).then_some(signaled[0])));
    let first = signaled.iter().copied().find(|index| *index < 2);
    assert_eq!(wait.first(), first.filter(|_| !all));
}

/// Upstream sends signals meanwhile; here the sleeping thread is woken for nothing, again and again.
pub fn interrupted(all: bool, point: u64) {
    let client = real();
    let flags = modes(all, false);
    let (asked, _timelines) = start(&client, flags, point, 1);
    let wait = client.begin_wait(&asked, flags).unwrap();
    let deadline = client.executor.now().after(Duration::from_millis(20));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let waited = wait.wait_until(deadline);
            over.store(true, SeqCst);
            waited
        });
        while !over.load(SeqCst) {
            thread.thread().unpark();
            thread::yield_now();
        }
        assert_eq!(thread.join().unwrap(), Err(WaitError::TimedOut));
    });
    assert!(client.executor.now() >= deadline, "before its time");
    assert_eq!(wait.wait_until(Time::ZERO), Err(WaitError::TimedOut));
}
