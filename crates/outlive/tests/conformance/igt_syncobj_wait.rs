//! IGT `syncobj_wait`. Flags and padding are no numbers here, so `invalid-wait-bad-flags`, `invalid-reset-bad-pad` and
//! `invalid-signal-bad-pad` do not compile: see `tests/ui`.

use crate::drm::{ANY, Client, Inval, NoEnt, POLL};
use crate::named_cases;
use crate::waits;

#[test]
fn wait_zero_handles() {
    assert_eq!(Client::new().wait(&[], ANY, POLL), Ok(None));
}

#[test]
fn invalid_wait_illegal_handle() {
    let client = Client::new();
    assert_eq!(client.wait(&[(0, 0)], ANY, POLL), Err(NoEnt));
    let other = Client::new();
    let theirs = (other.create(), other.create()).1;
    assert_eq!(client.wait(&[(theirs, 0)], ANY, POLL), Err(NoEnt), "another client's");
}

#[test]
fn invalid_reset_zero_handles() {
    assert_eq!(Client::new().reset(&[]), Err(Inval));
}

#[test]
fn invalid_reset_illegal_handle() {
    assert_eq!(Client::new().reset(&[0]), Err(NoEnt));
}

#[test]
fn invalid_reset_one_illegal_handle() {
    let client = Client::new();
    let (first, last) = (client.create_signaled(), client.create_signaled());
    assert_eq!(client.reset(&[first, 0, last]), Err(NoEnt));
    for handle in [first, last] {
        assert_eq!(client.wait(&[(handle, 0)], ANY, POLL), Ok(Some(0)), "nothing was reset");
    }
}

#[test]
fn invalid_signal_zero_handles() {
    assert_eq!(Client::new().signal(&[]), Err(Inval));
}

#[test]
fn invalid_signal_illegal_handle() {
    assert_eq!(Client::new().signal(&[(0, 0)]), Err(NoEnt));
}

#[test]
fn invalid_signal_one_illegal_handle() {
    let client = Client::new();
    let (first, last) = (client.create(), client.create());
    assert_eq!(client.signal(&[(first, 0), (0, 0), (last, 0)]), Err(NoEnt));
    for handle in [first, last] {
        assert_eq!(client.wait(&[(handle, 0)], ANY, POLL), Err(Inval), "nothing was signaled");
    }
}

named_cases! { [0], false:
    invalid_single_wait_unsubmitted
    single_wait_for_submit_unsubmitted
    invalid_single_wait_all_unsubmitted
    single_wait_all_for_submit_unsubmitted
    single_wait_submitted
    single_wait_for_submit_submitted
    single_wait_all_submitted
    single_wait_all_for_submit_submitted
    single_wait_signaled
    single_wait_for_submit_signaled
    single_wait_all_signaled
    single_wait_all_for_submit_signaled
}

named_cases! { [0, 0, 0], false:
    invalid_multi_wait_unsubmitted
    multi_wait_for_submit_unsubmitted
    invalid_multi_wait_all_unsubmitted
    multi_wait_all_for_submit_unsubmitted
    multi_wait_submitted
    multi_wait_for_submit_submitted
    multi_wait_all_submitted
    multi_wait_all_for_submit_submitted
    invalid_multi_wait_unsubmitted_submitted
    multi_wait_for_submit_unsubmitted_submitted
    invalid_multi_wait_all_unsubmitted_submitted
    multi_wait_all_for_submit_unsubmitted_submitted
    multi_wait_signaled
    multi_wait_for_submit_signaled
    multi_wait_all_signaled
    multi_wait_all_for_submit_signaled
    invalid_multi_wait_unsubmitted_signaled
    multi_wait_for_submit_unsubmitted_signaled
    invalid_multi_wait_all_unsubmitted_signaled
    multi_wait_all_for_submit_unsubmitted_signaled
    multi_wait_submitted_signaled
    multi_wait_for_submit_submitted_signaled
    multi_wait_all_submitted_signaled
    multi_wait_all_for_submit_submitted_signaled
    invalid_multi_wait_unsubmitted_submitted_signaled
    multi_wait_for_submit_unsubmitted_submitted_signaled
    invalid_multi_wait_all_unsubmitted_submitted_signaled
}

#[test]
fn wait_delayed_signal() {
    waits::delayed(false, false, 0);
}

#[test]
fn wait_for_submit_delayed_submit() {
    waits::delayed(false, true, 0);
}

#[test]
fn wait_all_delayed_signal() {
    waits::delayed(true, false, 0);
}

#[test]
fn wait_all_for_submit_delayed_submit() {
    waits::delayed(true, true, 0);
}

#[test]
fn reset_unsignaled() {
    waits::reset_unsignaled(0);
}

#[test]
fn reset_signaled() {
    waits::reset_signaled(0, 1);
}

#[test]
fn reset_multiple_signaled() {
    waits::reset_signaled(0, 3);
}

#[test]
fn reset_during_wait_for_submit() {
    waits::reset_during_wait_for_submit(0);
}

#[test]
fn signal() {
    waits::signal(0);
}

#[test]
fn wait_any_snapshot() {
    waits::snapshot(false, false, 0);
}

#[test]
fn wait_all_snapshot() {
    waits::snapshot(true, false, 0);
}

#[test]
fn wait_for_submit_snapshot() {
    waits::snapshot(false, true, 0);
}

#[test]
fn wait_all_for_submit_snapshot() {
    waits::snapshot(true, true, 0);
}

#[test]
fn wait_any_complex() {
    waits::complex(false, false, 0);
}

#[test]
fn wait_all_complex() {
    waits::complex(true, false, 0);
}

#[test]
fn wait_for_submit_complex() {
    waits::complex(false, true, 0);
}

#[test]
fn wait_all_for_submit_complex() {
    waits::complex(true, true, 0);
}

#[test]
fn wait_any_interrupted() {
    waits::interrupted(false, 0);
}

#[test]
fn wait_all_interrupted() {
    waits::interrupted(true, 0);
}
