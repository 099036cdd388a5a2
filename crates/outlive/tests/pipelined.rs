//! Jobs handed over behind those they depend on, of another queue of an arbiter whose hardware executes in order: what that
//! takes, that nothing goes behind an error, and that an error that comes later is reported.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Queue, Rig, error, ok, pending};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::{Cause, Dependency, Fence, FenceError, JobFences, OnError, QueueConfig, Verdict};
use std::time::Duration;

const FAULT: FenceError = FenceError::Faulted { code: 3 };
const BEHIND: Option<FenceError> = Some(FenceError::Dependency(Cause::Faulted { code: 3 }));

/// Two queues of one client under one arbiter.
struct Two {
    rig: Rig,
    arbiter: Arbiter,
    one: Queue,
    other: Queue,
    credits: u32,
}

impl Two {
    fn new(credits: u32, in_order: bool) -> Self {
        let rig = Rig::new();
        let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(credits).in_order(in_order)).unwrap();
        let [one, other] = ["one", "other"].map(|name| rig.queue(config(name).arbiter(&arbiter)));
        Self { rig, arbiter, one, other, credits }
    }

    fn job(&self) -> JobFences {
        self.one.reserve(self.rig.buffers(1)).unwrap().commit()
    }

    fn after(&self, on: Dependency) -> JobFences {
        self.other.reserve_after(self.rig.buffers(2), [on]).unwrap().commit()
    }

    fn end(self) {
        let Self { rig, arbiter, one, other, credits } = self;
        drop((one, other));
        rig.pass_ms(20_000);
        let status = arbiter.status();
        assert_eq!((rig.live.alive(), status.ready, status.credits_free), (0, 0, credits));
    }
}

fn config(name: &'static str) -> QueueConfig {
    QueueConfig::new(name).client(1)
}

fn behind(fence: Fence) -> Dependency {
    Dependency::on(fence).pipelined()
}

#[test]
fn a_job_is_handed_over_behind_another_queues_only_in_order_under_one_arbiter_and_if_asked() {
    for (what, in_order, same, asked) in [
        ("all of it", true, true, true),
        ("no order", false, true, true),
        ("another arbiter", true, false, true),
        ("not asked", true, true, false),
    ] {
        let two = Two::new(4, in_order);
        let elsewhere = Arbiter::new(&two.rig.executor, ArbiterConfig::new(4).in_order(true)).unwrap();
        let foreign = two.rig.queue(config("foreign").arbiter(&elsewhere));
        let first = two.job();
        let on = if asked { behind(first.finished()) } else { Dependency::on(first.finished()) };
        let queue = if same { &two.other } else { &foreign };
        let second = queue.reserve_after(two.rig.buffers(2), [on]).unwrap().commit();
        two.rig.idle();
        assert_eq!(ok(&second.scheduled()), what == "all of it", "{what}");
        two.rig.complete(&two.one, 1, Ok(()));
        two.rig.idle();
        assert!(ok(&second.scheduled()), "{what}");
        two.rig.complete(queue, 1, Ok(()));
        assert!(ok(&second.finished()));
        drop(foreign);
        two.end();
    }
}

#[test]
fn it_waits_until_the_one_ahead_is_on_the_hardware() {
    let two = Two::new(2, true);
    let (gate, hold) = {
        let names = outlive::Names { driver: "d", timeline: "t" };
        outlive::FenceContext::new(&two.rig.executor, names).unwrap().allocate().unwrap().publish()
    };
    let first = two.one.reserve_after(two.rig.buffers(1), [hold]).unwrap().commit();
    let second = two.after(behind(first.finished()));
    two.rig.idle();
    assert!(pending(&first.scheduled()) && pending(&second.scheduled()));
    gate.signal(Ok(()));
    two.rig.idle();
    assert!(ok(&first.scheduled()) && ok(&second.scheduled()) && pending(&first.finished()), "one after the other");
    let runs = || two.rig.gpu().calls().iter().filter(|call| matches!(call, common::Call::Run(_))).count();
    assert_eq!(runs(), 2);
    two.rig.complete(&two.one, 1, Ok(()));
    two.rig.complete(&two.other, 1, Ok(()));
    assert!(ok(&first.finished()) && ok(&second.finished()));
    two.end();
}

#[test]
fn a_job_pipelined_behind_one_that_fails_later_reports_it_in_whatever_order_their_ends_are_told() {
    for (order, on_error) in
        [[1, 2], [2, 1]].into_iter().flat_map(|order| [OnError::Fail, OnError::Run].map(|on_error| (order, on_error)))
    {
        let two = Two::new(4, true);
        let first = two.job();
        let second = two.after(behind(first.finished()).on_error(on_error));
        let third = two.one.reserve_after(two.rig.buffers(3), [behind(second.finished())]).unwrap().commit();
        two.rig.idle();
        assert!(ok(&second.scheduled()) && ok(&third.scheduled()));
        for job in order {
            let (queue, result) = if job == 1 { (&two.one, Err(FAULT)) } else { (&two.other, Ok(())) };
            two.rig.complete(queue, 1, result);
            if order[0] == 2 && job == 2 {
                two.rig.idle();
                assert!(pending(&second.finished()), "the one ahead may still fail");
            }
        }
        two.rig.complete(&two.one, 2, Ok(()));
        two.rig.idle();
        assert_eq!(error(&first.finished()), Some(FAULT));
        let reported = if on_error == OnError::Fail { BEHIND } else { None };
        assert_eq!((error(&second.finished()), error(&third.finished())), (reported, reported), "along the whole line");
        assert!(ok(&second.retired()) && ok(&third.retired()));
        two.end();
    }
}

#[test]
fn nothing_is_handed_over_behind_a_job_that_has_failed() {
    for on_error in [OnError::Fail, OnError::Run] {
        // The second waits for a credit, and may go ahead; meanwhile the first is given up, on the hardware as before.
        let two = Two::new(1, true);
        let first = two.job();
        let second = two.after(behind(first.finished()).on_error(on_error));
        two.rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| Verdict::Fail)));
        two.rig.pass_ms(2_001);
        assert_eq!(error(&first.finished()), Some(FenceError::TimedOut));
        assert!(pending(&first.retired()));
        // Only after a look does it know.
        two.rig.complete(&two.one, 1, Ok(()));
        two.rig.idle();
        match on_error {
            OnError::Fail => {
                assert_eq!(error(&second.finished()), Some(FenceError::Dependency(Cause::TimedOut)));
                assert_eq!(error(&second.scheduled()), error(&second.finished()), "it never started");
            }
            OnError::Run => {
                assert!(ok(&second.scheduled()), "after the other has retired");
                two.rig.complete(&two.other, 1, Ok(()));
                assert!(ok(&second.finished()));
            }
        }
        two.end();
    }
}

#[test]
fn who_runs_in_spite_of_an_error_waits_until_the_failed_job_has_retired() {
    let two = Two::new(4, true);
    let first = two.job();
    // Its own queue is suspended, so that it cannot start in time.
    two.other.suspend();
    let second = two.after(behind(first.finished()).on_error(OnError::Run));
    two.rig.gpu().script(|script| script.cancel = Some(Box::new(|_| {})));
    let drained = two.one.close();
    two.rig.idle();
    assert_eq!(error(&first.finished()), Some(FenceError::Canceled));
    two.other.resume();
    two.rig.idle();
    assert!(pending(&second.scheduled()) && pending(&first.retired()));
    two.rig.complete(&two.one, 1, Ok(()));
    two.rig.idle();
    assert!(ok(&first.retired()) && ok(&second.scheduled()) && drained.is_drained());
    two.rig.complete(&two.other, 1, Ok(()));
    assert!(ok(&second.finished()));
    two.end();
}

#[test]
fn behind_a_job_that_never_starts_it_does_what_its_submitter_chose() {
    for on_error in [OnError::Fail, OnError::Run] {
        let two = Two::new(4, true);
        two.one.suspend();
        let first = two.job();
        let second = two.after(behind(first.finished()).on_error(on_error));
        two.rig.idle();
        assert!(pending(&second.scheduled()));
        drop(two.one.close());
        two.rig.idle();
        assert_eq!(error(&first.finished()), Some(FenceError::Canceled));
        match on_error {
            OnError::Fail => assert_eq!(error(&second.finished()), Some(FenceError::Dependency(Cause::Canceled))),
            OnError::Run => {
                assert!(ok(&second.scheduled()));
                two.rig.complete(&two.other, 1, Ok(()));
            }
        }
        two.end();
    }
}

#[test]
fn lost_to_the_reset_of_the_one_ahead_it_says_that_it_depended_on_that() {
    let two = Two::new(4, true);
    let first =
        two.one.reserve(outlive::Job::new(two.rig.buffers(1)).timeout(Duration::from_millis(5))).unwrap().commit();
    let second = two.after(behind(first.finished()));
    let third = two.other.reserve(two.rig.buffers(3)).unwrap().commit();
    two.rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(outlive::ResetScope::Device)));
    });
    two.rig.pass_ms(100);
    assert_eq!(error(&first.finished()), Some(FenceError::TimedOut));
    assert_eq!(error(&second.finished()), Some(FenceError::Dependency(Cause::TimedOut)));
    assert_eq!(error(&third.finished()), Some(FenceError::Innocent));
    two.end();
}

#[test]
fn its_queue_may_be_closed_at_any_stage() {
    for stage in 0..3 {
        let two = Two::new(4, true);
        two.one.suspend();
        let first = two.job();
        let second = two.after(behind(first.finished()));
        if stage > 0 {
            two.one.resume();
            two.rig.idle();
            assert!(ok(&second.scheduled()));
        }
        if stage > 1 {
            two.rig.complete(&two.other, 1, Ok(()));
            assert!(pending(&second.finished()));
        }
        let drained = two.other.close();
        two.rig.idle();
        assert_eq!(pending(&second.finished()), stage > 1, "what has ended waits for the one ahead");
        if stage == 1 {
            two.rig.complete(&two.other, 1, Ok(()));
        }
        two.one.resume();
        two.rig.idle();
        two.rig.complete(&two.one, 1, Ok(()));
        two.rig.idle();
        assert!(drained.is_drained(), "stage {stage}");
        assert_eq!(ok(&second.finished()), stage > 1);
        two.end();
    }
}
