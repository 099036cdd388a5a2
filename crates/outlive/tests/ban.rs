//! Bans: who hangs the hardware too often gets nothing more in, wherever they come back; nobody else notices.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Call, Queue, Rig, error, ok, pending};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::trace::{Event, Record};
use outlive::{
    Charges, DeviceConfig, Executor, FenceContext, FenceError, Job, Names, Outcome, Principal, QueueConfig, Refusal,
    ResetScope, Time, UserFence, Verdict,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[derive(Default, Clone)]
struct Bans(Arc<Mutex<Vec<Event>>>);

impl Record for Bans {
    fn record(&self, _at: Time, event: Event) {
        if matches!(event, Event::Banned { .. }) {
            self.0.lock().unwrap().push(event);
        }
    }
}

fn principal() -> Principal {
    Principal::new(Charges::UNLIMITED).unwrap()
}

fn rig_with(executor: Executor, config: DeviceConfig) -> Rig {
    Rig::with(executor, config, false)
}

fn rig(config: DeviceConfig) -> Rig {
    rig_with(Executor::manual().unwrap(), config)
}

fn three_in_a_second() -> DeviceConfig {
    DeviceConfig::new("fake").ban_after(3, 1000 * MS).cancel_grace(10 * MS)
}

fn config(principal: &Principal) -> QueueConfig {
    QueueConfig::new("q").client(7).timeout(20 * MS).drain_timeout(20 * MS).principal(principal.clone())
}

/// A job that hangs, until it has left the hardware: 31 ms.
fn hang(rig: &Rig, queue: &Queue) -> outlive::JobFences {
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(31);
    assert!(job.retired().is_signaled(), "taken off by a reset");
    job
}

#[test]
fn the_last_of_n_hangs_within_the_window_bans_a_client_and_nobody_else() {
    for with_arbiter in [false, true] {
        let bans = Bans::default();
        let rig = rig_with(Executor::builder().recorder(bans.clone()).unwrap().manual().unwrap(), three_in_a_second());
        let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(8)).unwrap();
        let placed = |config: QueueConfig| if with_arbiter { config.arbiter(&arbiter) } else { config };
        let (bad, good) = (principal(), principal());
        let queue = rig.queue(placed(config(&bad).credits(2)));
        let elsewhere = rig.queue(placed(config(&bad).credits(1).timeout(1000 * MS)));
        let peaceful = rig.queue(placed(config(&good).timeout(1000 * MS)));
        let reserved = elsewhere.reserve(rig.buffers(9)).unwrap();
        let running = elsewhere.reserve(rig.buffers(2)).unwrap().commit();
        let waiting = elsewhere.reserve(rig.buffers(3)).unwrap().commit();
        let context = FenceContext::new(&rig.executor, Names { driver: "t", timeline: "t" }).unwrap();
        let (_signaler, held) = context.allocate().unwrap().publish();
        let behind = rig.queue(placed(config(&bad)));
        let held_up = behind.reserve_after(rig.buffers(8), [held]).unwrap().commit();
        let innocent = peaceful.reserve(rig.buffers(4)).unwrap().commit();
        hang(&rig, &queue);
        hang(&rig, &queue);
        assert!(!bad.is_banned() && pending(&waiting.finished()));
        hang(&rig, &queue);
        assert!(bad.is_banned() && !good.is_banned());
        assert_eq!((bad.usage().offences(), queue.usage().offences(), good.usage().offences()), (3, 3, 0));
        assert_eq!(*bans.0.lock().unwrap(), [Event::Banned { principal: bad.id(), client: 7 }]);
        // What waits fails, what runs goes on, what comes is refused.
        assert_eq!(error(&held_up.finished()), Some(FenceError::Banned));
        assert!(ok(&held_up.retired()) && pending(&running.finished()));
        assert_eq!(queue.reserve(rig.buffers(5)).unwrap_err().kind, Refusal::Banned);
        let late = reserved.commit();
        assert!(pending(&waiting.finished()) && pending(&late.finished()), "in turn: their predecessor runs");
        rig.complete(&elsewhere, 1, Ok(()));
        rig.idle();
        assert!(ok(&running.finished()));
        assert_eq!(
            (error(&late.scheduled()), error(&late.finished())),
            (Some(FenceError::Banned), Some(FenceError::Banned))
        );
        assert_eq!(elsewhere.usage().jobs(Outcome::Banned), 2);
        // Coming back gains nothing.
        drop((queue, elsewhere, behind));
        rig.idle();
        let again = rig.queue(placed(config(&bad)));
        assert_eq!(again.reserve(rig.buffers(6)).unwrap_err().kind, Refusal::Banned);
        // The others were not touched.
        rig.complete(&peaceful, 1, Ok(()));
        rig.idle();
        assert!(ok(&innocent.finished()));
        assert_eq!(bad.charged(), Charges { jobs: 0, bytes: 0 });
        // Lifted: the record is clean, and the same queue works.
        bad.lift_ban();
        let job = again.reserve(rig.buffers(7)).unwrap().commit();
        assert!(!bad.is_banned() && ok(&job.scheduled()));
        rig.complete(&again, 1, Ok(()));
        hang(&rig, &again);
        hang(&rig, &again);
        assert!(!bad.is_banned());
        hang(&rig, &again);
        assert!(bad.is_banned());
        assert_eq!(rig.live.alive(), 0);
    }
}

#[test]
fn a_queue_that_a_ban_met_goes_on_when_it_is_lifted() {
    let rig = rig(three_in_a_second());
    let user = principal();
    let queue = rig.queue(config(&user));
    let job = queue.reserve(rig.buffers(1)).unwrap();
    for _ in 0..3 {
        hang(&rig, &queue);
    }
    let refused = queue.reserve(rig.buffers(1)).unwrap_err();
    assert_eq!(refused.to_string(), "banned: too many jobs of this client hung; whoever runs the device may lift it");
    user.lift_ban();
    assert!(ok(&job.commit().scheduled()), "reserved before the ban, committed after it");
    rig.complete(&queue, 4, Ok(()));
    // And one that has been banned, and suspended for too long at the same time.
    for _ in 0..3 {
        hang(&rig, &queue);
    }
    queue.suspend();
    rig.pass_ms(11_000);
    queue.resume();
    rig.idle();
    assert_eq!(queue.reserve(rig.buffers(1)).unwrap_err().kind, Refusal::Banned);
    user.lift_ban();
    assert!(ok(&queue.reserve(rig.buffers(1)).unwrap().commit().scheduled()));
}

#[test]
fn hangs_apart_by_more_than_the_window_ban_nobody_and_zero_is_never() {
    let rig_apart = rig(three_in_a_second());
    let user = principal();
    let queue = rig_apart.queue(config(&user));
    for _ in 0..20 {
        hang(&rig_apart, &queue);
        rig_apart.pass_ms(500);
    }
    assert_eq!((user.usage().offences(), user.is_banned()), (20, false));
    let rig = rig(DeviceConfig::new("fake").ban_after(0, Duration::MAX).cancel_grace(10 * MS));
    let queue = rig.queue(config(&user));
    for _ in 0..50 {
        hang(&rig, &queue);
    }
    assert!(!user.is_banned());
}

#[test]
fn ten_in_ten_seconds_is_the_default() {
    let rig = rig(DeviceConfig::new("fake").cancel_grace(10 * MS));
    let user = principal();
    let queue = rig.queue(config(&user));
    for _ in 0..9 {
        hang(&rig, &queue);
    }
    assert!(!user.is_banned());
    hang(&rig, &queue);
    assert!(user.is_banned());
}

#[test]
fn going_away_with_a_long_job_is_no_offence_hanging_and_coming_back_is() {
    let rig = rig(three_in_a_second());
    let user = principal();
    for _ in 0..10 {
        let queue = Arc::new(rig.queue(config(&user).timeout(1000 * MS)));
        queue.reserve(rig.buffers(1)).unwrap().commit();
        // A cancel ends it, as a healthy job's should.
        rig.gpu().script(|script| script.cancel = Some(Box::new(|_| {})));
        drop(queue.close());
        rig.pass_ms(21);
        assert!(rig.gpu().calls().contains(&Call::Cancel(1)));
        rig.complete(&queue, 1, Err(FenceError::Canceled));
        rig.idle();
    }
    assert_eq!((user.usage().offences(), user.is_banned()), (0, false));
    for _ in 0..3 {
        let queue = rig.queue(config(&user).timeout(1000 * MS));
        queue.reserve(rig.buffers(1)).unwrap().commit();
        drop(queue);
        rig.pass_ms(40);
    }
    assert!(user.is_banned(), "each took a reset");
}

#[test]
fn what_the_driver_forgets_is_not_its_clients_fault() {
    let rig = rig(three_in_a_second());
    let user = principal();
    let queue = rig.queue(config(&user));
    rig.gpu().script(|script| script.run = Some(Box::new(|_, _, done| drop_it(done))));
    for _ in 0..5 {
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.pass_ms(40);
        assert!(job.retired().is_signaled());
    }
    assert_eq!((user.usage().offences(), user.is_banned()), (0, false));
}

fn drop_it(done: outlive::Completion) -> Option<outlive::Completion> {
    drop(done);
    None
}

#[test]
fn pending_jobs_are_cancelled_and_queues_of_other_devices_refuse() {
    let rig = rig(three_in_a_second());
    let other = rig_with(rig.executor.clone(), DeviceConfig::new("other"));
    let user = principal();
    let (queue, there) = (rig.queue(config(&user)), other.queue(config(&user)));
    let (_source, never) = UserFence::new(&rig.executor, "never").unwrap();
    let waits = queue.reserve(Job::new(rig.buffers(1)).user_waits(1)).unwrap();
    let pending_job = waits.commit_when(core::slice::from_ref(&never), Time::NEVER).unwrap();
    let later = there.reserve(Job::new(other.buffers(1)).user_waits(1)).unwrap();
    let context = FenceContext::new(&rig.executor, Names { driver: "t", timeline: "t" }).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    let waiting = there.reserve_after(other.buffers(2), [fence]).unwrap().commit();
    for _ in 0..3 {
        hang(&rig, &queue);
    }
    assert!(user.is_banned() && pending_job.done().is_signaled() && pending_job.fences().is_none());
    assert_eq!(there.reserve(other.buffers(3)).unwrap_err().kind, Refusal::Banned);
    // Another device hears of it when one of its queues is looked at.
    signaler.signal(Ok(()));
    rig.idle();
    assert_eq!(error(&waiting.finished()), Some(FenceError::Banned));
    let late = later.commit_when(&[never], Time::NEVER).unwrap();
    rig.idle();
    assert!(late.done().is_signaled() && late.fences().is_none());
}

#[test]
fn a_member_is_banned_alone_and_the_drivers_own_verdict_counts_too() {
    let rig = rig(three_in_a_second());
    let group = principal();
    let [bad, good] = [0; 2].map(|_| Principal::member_of(&group, Charges::UNLIMITED).unwrap());
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|info| Verdict::Reset(ResetScope::Queue(info.queue))));
    });
    let queue = rig.queue(config(&bad));
    for _ in 0..3 {
        queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.pass_ms(21);
    }
    assert!(!rig.gpu().calls().contains(&Call::Cancel(1)), "the driver wanted a reset at once");
    assert!(bad.is_banned() && !good.is_banned() && !group.is_banned());
    assert_eq!((bad.usage().offences(), group.usage().offences(), good.usage().offences()), (3, 3, 0));
    let fine = rig.queue(config(&good));
    assert!(ok(&fine.reserve(rig.buffers(1)).unwrap().commit().scheduled()));
}
