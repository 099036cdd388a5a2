//! IGT `syncobj_timeline`. Flags and padding are no numbers here, so `invalid-wait-bad-flags`, `invalid-query-bad-pad`,
//! `invalid-signal-bad-pad` and `invalid-transfer-bad-pad` do not compile: see `tests/ui`.

use crate::drm::{ALL, ANY, Client, ETime, FOR_SUBMIT, Inval, NoEnt, POLL};
use crate::named_cases;
use crate::software::SwTimeline;
use crate::waits;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

#[test]
fn wait_zero_handles() {
    assert_eq!(Client::new().wait(&[], ANY, POLL), Ok(None));
}

#[test]
fn invalid_wait_illegal_handle() {
    assert_eq!(Client::new().wait(&[(0, 0)], ANY, POLL), Err(NoEnt));
}

#[test]
fn invalid_query_zero_handles() {
    assert_eq!(Client::new().query(&[]), Err(Inval));
}

#[test]
fn invalid_query_illegal_handle() {
    assert_eq!(Client::new().query(&[0]), Err(NoEnt));
}

/// Two objects at point 1, and a handle of none between them.
fn one_illegal_handle(client: &Client) -> [u32; 3] {
    let handles = [client.create(), 0, client.create()];
    for handle in [handles[0], handles[2]] {
        client.signal(&[(handle, 1)]).unwrap();
        assert_eq!(client.wait(&[(handle, 1)], ANY, POLL), Ok(Some(0)));
    }
    handles
}

#[test]
fn invalid_query_one_illegal_handle() {
    let client = Client::new();
    assert_eq!(client.query(&one_illegal_handle(&client)), Err(NoEnt));
}

#[test]
fn invalid_signal_zero_handles() {
    assert_eq!(Client::new().signal(&[]), Err(Inval));
}

#[test]
fn invalid_signal_illegal_handle() {
    assert_eq!(Client::new().signal(&[(0, 1)]), Err(NoEnt));
}

/// Upstream's handle 1 does not exist either, which is what it is refused for.
#[test]
fn invalid_signal_illegal_point() {
    assert_eq!(Client::new().signal(&[(1, 0)]), Err(NoEnt));
}

#[test]
fn invalid_signal_one_illegal_handle() {
    let client = Client::new();
    let handles = one_illegal_handle(&client);
    assert_eq!(client.signal(&handles.map(|handle| (handle, 2))), Err(NoEnt));
    assert_eq!(client.query(&[handles[0], handles[2]]), Ok(vec![1, 1]), "nothing was signaled");
}

#[test]
fn signal_array() {
    let client = Client::new();
    let points = [1, 1, 1, 0].map(|point| (client.create(), point));
    client.signal(&points).unwrap();
    assert_eq!(client.wait(&points[..3], ALL, POLL), Ok(None));
    assert_eq!(client.wait(&points[3..], ANY, POLL), Ok(Some(0)));
}

#[test]
fn invalid_transfer_illegal_handle() {
    assert_eq!(Client::new().transfer(0, 0, 0, 1), Err(NoEnt));
}

/// In spite of its name: the point is there, and the transfer succeeds.
#[test]
fn invalid_transfer_non_existent_point() {
    let client = Client::new();
    let handle = client.create();
    client.signal(&[(handle, 63)]).unwrap();
    assert_eq!(client.transfer(handle, 74, handle, 63), Ok(()));
    assert_eq!(client.value(handle), 74);
    assert_eq!(client.transfer(handle, 80, handle, 75), Err(Inval), "this one is not");
}

#[test]
fn transfer_timeline_point() {
    let client = Client::new();
    let handle = client.create();
    let timeline = client.attach_sw_sync(handle, 1);
    assert_eq!(client.value(handle), 0);
    assert_eq!(client.wait(&[(handle, 1)], ALL, POLL), Err(ETime));
    timeline.inc(1);
    assert_eq!(client.value(handle), 1);
    assert_eq!(client.wait(&[(handle, 1)], ALL, POLL), Ok(None));
    client.signal(&[(handle, 2)]).unwrap();
    client.transfer(handle, 3, handle, 2).unwrap();
    assert_eq!(client.value(handle), 3);
}

named_cases! { [1], true:
    invalid_single_wait_unsubmitted
    etime_single_wait_for_submit_unsubmitted
    invalid_single_wait_all_unsubmitted
    etime_single_wait_all_for_submit_unsubmitted
    etime_single_wait_available_unsubmitted
    etime_single_wait_for_submit_available_unsubmitted
    etime_single_wait_all_available_unsubmitted
    etime_single_wait_all_for_submit_available_unsubmitted
    etime_single_wait_submitted
    etime_single_wait_for_submit_submitted
    etime_single_wait_all_submitted
    etime_single_wait_all_for_submit_submitted
    single_wait_available_submitted
    single_wait_for_submit_available_submitted
    single_wait_all_available_submitted
    single_wait_all_for_submit_available_submitted
    single_wait_signaled
    single_wait_for_submit_signaled
    single_wait_all_signaled
    single_wait_all_for_submit_signaled
    single_wait_available_signaled
    single_wait_for_submit_available_signaled
    single_wait_all_available_signaled
    single_wait_all_for_submit_available_signaled
}

// Point 0 is a binary object's.
named_cases! { [411, 0, 87, 936, 0], true:
    invalid_multi_wait_unsubmitted
    etime_multi_wait_for_submit_unsubmitted
    invalid_multi_wait_all_unsubmitted
    etime_multi_wait_all_for_submit_unsubmitted
    etime_multi_wait_available_unsubmitted
    etime_multi_wait_for_submit_available_unsubmitted
    etime_multi_wait_all_available_unsubmitted
    etime_multi_wait_all_for_submit_available_unsubmitted
    etime_multi_wait_submitted
    etime_multi_wait_for_submit_submitted
    etime_multi_wait_all_submitted
    etime_multi_wait_all_for_submit_submitted
    multi_wait_available_submitted
    multi_wait_for_submit_available_submitted
    multi_wait_all_available_submitted
    multi_wait_all_for_submit_available_submitted
    invalid_multi_wait_unsubmitted_submitted
    etime_multi_wait_for_submit_unsubmitted_submitted
    invalid_multi_wait_all_unsubmitted_submitted
    etime_multi_wait_all_for_submit_unsubmitted_submitted
    multi_wait_available_unsubmitted_submitted
    multi_wait_for_submit_available_unsubmitted_submitted
    etime_multi_wait_all_available_unsubmitted_submitted
    etime_multi_wait_all_for_submit_available_unsubmitted_submitted
    multi_wait_signaled
    multi_wait_for_submit_signaled
    multi_wait_all_signaled
    multi_wait_all_for_submit_signaled
    multi_wait_available_signaled
    multi_wait_for_submit_available_signaled
    multi_wait_all_available_signaled
    multi_wait_all_for_submit_available_signaled
    invalid_multi_wait_unsubmitted_signaled
    multi_wait_for_submit_unsubmitted_signaled
    invalid_multi_wait_all_unsubmitted_signaled
    etime_multi_wait_all_for_submit_unsubmitted_signaled
    multi_wait_available_unsubmitted_signaled
    multi_wait_for_submit_available_unsubmitted_signaled
    etime_multi_wait_all_available_unsubmitted_signaled
    etime_multi_wait_all_for_submit_available_unsubmitted_signaled
    multi_wait_submitted_signaled
    multi_wait_for_submit_submitted_signaled
    etime_multi_wait_all_submitted_signaled
    etime_multi_wait_all_for_submit_submitted_signaled
    multi_wait_available_submitted_signaled
    multi_wait_for_submit_available_submitted_signaled
    multi_wait_all_available_submitted_signaled
    multi_wait_all_for_submit_available_submitted_signaled
    invalid_multi_wait_unsubmitted_submitted_signaled
    multi_wait_for_submit_unsubmitted_submitted_signaled
    invalid_multi_wait_all_unsubmitted_submitted_signaled
    etime_multi_wait_all_for_submit_unsubmitted_submitted_signaled
    multi_wait_available_unsubmitted_submitted_signaled
    multi_wait_for_submit_available_unsubmitted_submitted_signaled
    etime_multi_wait_all_available_unsubmitted_submitted_signaled
}

#[test]
fn wait_delayed_signal() {
    waits::delayed(false, false, 1);
}

#[test]
fn wait_for_submit_delayed_submit() {
    waits::delayed(false, true, 1);
}

#[test]
fn wait_all_delayed_signal() {
    waits::delayed(true, false, 1);
}

#[test]
fn wait_all_for_submit_delayed_submit() {
    waits::delayed(true, true, 1);
}

#[test]
fn reset_unsignaled() {
    waits::reset_unsignaled(1);
}

#[test]
fn reset_signaled() {
    waits::reset_signaled(1, 1);
}

#[test]
fn reset_multiple_signaled() {
    waits::reset_signaled(1, 3);
}

#[test]
fn reset_during_wait_for_submit() {
    waits::reset_during_wait_for_submit(1);
}

#[test]
fn signal() {
    waits::signal(1);
}

#[test]
fn wait_any_snapshot() {
    waits::snapshot(false, false, 1);
}

#[test]
fn wait_all_snapshot() {
    waits::snapshot(true, false, 1);
}

#[test]
fn wait_for_submit_snapshot() {
    waits::snapshot(false, true, 1);
}

#[test]
fn wait_all_for_submit_snapshot() {
    waits::snapshot(true, true, 1);
}

#[test]
fn wait_any_complex() {
    waits::complex(false, false, 1);
}

#[test]
fn wait_all_complex() {
    waits::complex(true, false, 1);
}

#[test]
fn wait_for_submit_complex() {
    waits::complex(false, true, 1);
}

#[test]
fn wait_all_for_submit_complex() {
    waits::complex(true, true, 1);
}

#[test]
fn wait_any_interrupted() {
    waits::interrupted(false, 1);
}

#[test]
fn wait_all_interrupted() {
    waits::interrupted(true, 1);
}

#[test]
fn signal_point_0() {
    let client = Client::new();
    let asked = [(client.create(), 0)];
    client.signal(&asked).unwrap();
    assert_eq!(client.wait(&asked, ANY, POLL), Ok(Some(0)));
    assert_eq!(client.wait(&asked, FOR_SUBMIT, POLL), Ok(Some(0)));
}

#[test]
fn host_signal_points() {
    let client = Client::new();
    let handle = client.create();
    let (mut value, mut random) = (0, 1_u64);
    for _ in 0..100 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value += random >> 33;
        client.signal(&[(handle, value)]).unwrap();
        assert_eq!(client.value(handle), value);
        assert_eq!(client.wait(&[(handle, value)], FOR_SUBMIT, POLL), Ok(Some(0)));
        assert_eq!(client.wait(&[(handle, value - 1)], ALL, POLL), Ok(None));
    }
}

#[test]
fn device_signal_unordered() {
    let client = Client::new();
    let handle = client.create();
    let timeline = SwTimeline::new(&client.executor);
    // Point n + 1 has the fence that signals as the order[n]-th.
    let order = [0_u64, 2, 1, 4, 3];
    for (point, value) in (1..).zip(order) {
        client.attach(handle, point, &timeline.fence(value + 1));
    }
    let (mut last, mut signaled) = (0, [false; 5]);
    for turn in 0..5 {
        timeline.inc(1);
        signaled[order.iter().position(|value| *value == turn).unwrap()] = true;
        let value = client.value(handle);
        let done = signaled.iter().position(|done| !done).unwrap_or(5);
        assert_eq!(usize::try_from(value), Ok(done), "up to the first that is pending");
        assert!(value >= last);
        last = value;
        assert_eq!(client.wait(&[(handle, value)], FOR_SUBMIT, POLL), Ok(Some(0)));
        assert_eq!(client.wait(&[(handle, value)], ALL, POLL), Ok(None));
    }
}

#[test]
fn device_submit_unordered() {
    let client = Client::new();
    let handle = client.create();
    let timeline = SwTimeline::new(&client.executor);
    for (value, point) in (1..).zip([1, 5, 3, 6, 7]) {
        client.attach(handle, point, &timeline.fence(value));
    }
    timeline.inc(3);
    assert_eq!(client.value(handle), 5);
    assert_eq!(client.wait(&[(handle, 5)], FOR_SUBMIT, POLL), Ok(Some(0)));
    assert_eq!(client.wait(&[(handle, 5)], ALL, POLL), Ok(None));
}

#[test]
fn host_signal_ordered() {
    let client = Client::new();
    let handle = client.create();
    let timeline = SwTimeline::new(&client.executor);
    (1..=5).for_each(|point| client.attach(handle, point, &timeline.fence(point)));
    timeline.inc(3);
    assert_eq!(client.value(handle), 3);
    client.signal(&[(handle, 8)]).unwrap();
    assert_eq!(client.value(handle), 3);
    timeline.inc(5);
    assert_eq!(client.value(handle), 8);
}

/// Upstream's `32bits-limit`.
#[test]
fn _32bits_limit() {
    let client = Client::new();
    let handle = client.create();
    let object = client.object(handle).unwrap();
    let timeline = SwTimeline::new(&client.executor);
    let limit = (1_u64 << 31) - 1;
    let (running, started) = (AtomicBool::new(true), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while running.load(SeqCst) {
                let now = object.query().signaled;
                started.store(true, SeqCst);
                assert!(last <= now, "it went back");
                last = now;
            }
        });
        while !started.load(SeqCst) {
            thread::yield_now();
        }
        let points = [1, 5, limit + 5, limit + 6, limit * 2];
        for (value, point) in (1..).zip(points) {
            client.attach(handle, point, &timeline.fence(value));
        }
        for point in points {
            timeline.inc(1);
            assert_eq!(client.value(handle), point);
        }
        running.store(false, SeqCst);
    });
}
