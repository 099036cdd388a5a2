//! Accounting: what queues, clients and groups have had, how their jobs ended, and what a queue waits for.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Queue, Rig, ok};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::trace::{Event, Record};
use outlive::{
    Acquired, Charges, Executor, FenceContext, FenceError, Job, Names, OnError, OpenError, Outcome, Principal,
    QueueConfig, Refusal, Time, Times, Usage, UserFence, WaitsFor,
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn commit(rig: &Rig, queue: &Queue, tag: u64) -> outlive::JobFences {
    queue.reserve(rig.buffers(tag)).unwrap().commit()
}

fn jobs(usage: &Usage) -> [u64; Outcome::ALL.len()] {
    Outcome::ALL.map(|outcome| usage.jobs(outcome))
}

#[test]
fn hardware_time_is_the_drivers_or_from_start_to_end_by_engine_queue_client_and_group() {
    let rig = Rig::new();
    let group = Principal::new(Charges::UNLIMITED).unwrap();
    let client = Principal::member_of(&group, Charges::UNLIMITED).unwrap();
    let other = Principal::member_of(&group, Charges::UNLIMITED).unwrap();
    let queue = rig.queue(QueueConfig::new("render").principal(client.clone()));
    let copy = rig.queue(QueueConfig::new("copy").principal(client.clone()).engine(1));
    let others = rig.queue(QueueConfig::new("other").principal(other.clone()));
    for queue in [&queue, &copy, &others] {
        commit(&rig, queue, 1);
    }
    rig.pass_ms(7);
    rig.complete(&queue, 1, Ok(()));
    rig.complete(&others, 1, Err(FenceError::Faulted { code: 3 }));
    // The hardware says that the copy took less than it was there.
    let times = Times { end: None, active: Some(2 * MS) };
    assert!(rig.gpu().held.complete_timed(copy.id() * 1_000_000 + 1, Ok(()), times));
    rig.idle();
    assert_eq!((queue.usage().active(), copy.usage().active()), (7 * MS, 2 * MS));
    assert_eq!((copy.usage().active_on(0), copy.usage().active_on(1)), (Duration::ZERO, 2 * MS));
    assert_eq!((client.usage().active_on(0), client.usage().active_on(1)), (7 * MS, 2 * MS));
    assert_eq!((client.usage().active(), group.usage().active()), (9 * MS, 16 * MS));
    assert_eq!((client.usage().jobs(Outcome::Ok), group.usage().jobs(Outcome::Faulted)), (2, 1));
    drop((queue, others));
    drop(other);
    rig.idle();
    assert_eq!((group.usage().active(), group.usage().ended()), (16 * MS, 3), "who is gone has had it all the same");
}

#[test]
fn a_groups_limits_hold_for_its_members_together() {
    let rig = Rig::new();
    let group = Principal::new(Charges { jobs: 2, bytes: u64::MAX }).unwrap();
    let [a, b] = [1000, 10].map(|bytes| Principal::member_of(&group, Charges { jobs: u64::MAX, bytes }).unwrap());
    let [one, two] = [&a, &b].map(|member| rig.queue(QueueConfig::new("q").principal(member.clone())));
    let job = |bytes| Job::new(rig.buffers(1)).bytes(bytes);
    assert_eq!(two.reserve(job(11)).unwrap_err().kind, Refusal::OverLimit { charged: 0, limit: 10 });
    assert_eq!((b.charged().jobs, group.charged().jobs), (0, 0), "a refusal leaves no trace");
    let first = one.reserve(job(5)).unwrap();
    let second = two.reserve(job(5)).unwrap();
    assert_eq!(group.charged(), Charges { jobs: 2, bytes: 10 });
    assert_eq!(one.reserve(job(1)).unwrap_err().kind, Refusal::OverLimit { charged: 2, limit: 2 });
    assert_eq!(a.charged(), Charges { jobs: 1, bytes: 5 }, "what the member was charged for it is taken back");
    drop((first, second));
    assert_eq!((a.charged().bytes, b.charged().bytes, group.charged()), (0, 0, Charges { jobs: 0, bytes: 0 }));
}

#[test]
fn every_job_is_counted_once_by_its_verdict() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(8).timeout(10 * MS).client(1));
    commit(&rig, &queue, 1);
    commit(&rig, &queue, 2);
    let failed = commit(&rig, &queue, 3);
    let dependant = rig.queue(QueueConfig::new("behind").client(1));
    dependant.reserve_after(rig.buffers(4), [failed.finished()]).unwrap().commit();
    let runs = [outlive::Dependency::on(failed.finished()).on_error(OnError::Run)];
    dependant.reserve_after(rig.buffers(5), runs).unwrap().commit();
    rig.complete(&queue, 1, Ok(()));
    rig.complete(&queue, 2, Ok(()));
    rig.complete(&queue, 3, Err(FenceError::Faulted { code: 1 }));
    rig.idle();
    rig.complete(&dependant, 2, Ok(()));
    commit(&rig, &queue, 6);
    rig.pass_ms(200);
    let (_source, never) = UserFence::new(&rig.executor, "never").unwrap();
    let reserved = queue.reserve(Job::new(rig.buffers(7)).user_waits(1)).unwrap();
    let pending = reserved.commit_when(&[never], Time::NEVER).unwrap();
    assert!(pending.cancel());
    // On the hardware when the device is reset for another's sake; and one that waits when it is lost.
    commit(&rig, &queue, 8);
    rig.device.reset();
    rig.idle();
    commit(&rig, &queue, 9);
    rig.device.unplug();
    rig.idle();
    drop(commit_after_close(&rig, &dependant));
    // Ok, canceled, timed out, device lost, faulted, innocent, driver bug, banned, dependency.
    assert_eq!(jobs(&queue.usage()), [2, 1, 1, 1, 1, 1, 0, 0, 0]);
    assert_eq!(jobs(&dependant.usage()), [1, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(queue.usage().ended(), 7);
}

fn commit_after_close(rig: &Rig, queue: &Queue) -> Option<outlive::JobFences> {
    Some(queue.reserve(rig.buffers(0)).ok()?.commit())
}

#[test]
fn waiting_begins_when_a_job_could_start_and_ends_when_it_does() {
    let rig = Rig::new();
    let client = Principal::new(Charges::UNLIMITED).unwrap();
    let queue = rig.queue(QueueConfig::new("q").credits(1).principal(client.clone()));
    commit(&rig, &queue, 1);
    rig.pass_ms(5);
    // Two more: the second of them can start only when the first has.
    commit(&rig, &queue, 2);
    commit(&rig, &queue, 3);
    rig.pass_ms(10);
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert_eq!(queue.usage().waited(), 10 * MS);
    rig.pass_ms(4);
    rig.complete(&queue, 2, Ok(()));
    rig.idle();
    assert_eq!((queue.usage().waited(), queue.usage().waited_most()), (14 * MS, 10 * MS));
    assert_eq!((client.usage().waited(), client.usage().waited_most()), (14 * MS, 10 * MS));
    rig.complete(&queue, 3, Ok(()));
    rig.idle();
    // What waits for a dependency could not start, and is not counted.
    let context = FenceContext::new(&rig.executor, Names { driver: "t", timeline: "held" }).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    queue.reserve_after(rig.buffers(4), [fence]).unwrap().commit();
    rig.pass_ms(30);
    signaler.signal(Ok(()));
    rig.idle();
    assert_eq!(queue.usage().waited(), 14 * MS);
    rig.complete(&queue, 4, Ok(()));
    queue.suspend();
    commit(&rig, &queue, 5);
    rig.pass_ms(20);
    queue.resume();
    rig.idle();
    assert_eq!((queue.usage().waited(), queue.usage().waited_most()), (34 * MS, 20 * MS));
}

#[test]
fn a_queue_under_an_arbiter_waits_for_its_turn() {
    let rig = Rig::new();
    let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(1)).unwrap();
    let [one, two] = ["one", "two"].map(|name| rig.queue(QueueConfig::new(name).arbiter(&arbiter)));
    commit(&rig, &one, 1);
    commit(&rig, &two, 2);
    commit(&rig, &one, 3);
    rig.pass_ms(8);
    assert_eq!(two.waits_for(), WaitsFor::Turn);
    assert_eq!(one.waits_for(), WaitsFor::Credits { needs: 1, free: 0 }, "its own job holds them");
    rig.complete(&one, 1, Ok(()));
    rig.idle();
    assert_eq!((one.usage().waited(), two.usage().waited()), (Duration::ZERO, 8 * MS));
    rig.pass_ms(2);
    rig.complete(&two, 1, Ok(()));
    rig.idle();
    assert_eq!((one.usage().waited(), two.usage().waited()), (10 * MS, 8 * MS));
    assert_eq!((one.waits_for(), two.waits_for()), (WaitsFor::Nothing, WaitsFor::Nothing));
}

#[test]
fn a_queue_says_what_it_waits_for() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(4).timeout(50 * MS));
    assert_eq!(queue.waits_for(), WaitsFor::Nothing);
    let (source, user) = UserFence::new(&rig.executor, "host").unwrap();
    let reserved = queue.reserve(Job::new(rig.buffers(1)).credits(3).user_waits(1)).unwrap();
    let pending = reserved.commit_when(core::slice::from_ref(&user), Time::NEVER).unwrap();
    assert_eq!(queue.waits_for(), WaitsFor::UserFences { first: Some(user) });
    source.signal(Ok(()));
    rig.idle();
    assert!(ok(&pending.fences().unwrap().scheduled()));
    assert_eq!(queue.waits_for(), WaitsFor::Nothing, "what runs waits for nothing");

    let context = FenceContext::new(&rig.executor, Names { driver: "camera", timeline: "frames" }).unwrap();
    let (signalers, fences): (Vec<_>, Vec<_>) = (0..4).map(|_| context.allocate().unwrap().publish()).unzip();
    let contexts: Vec<_> =
        (0..3).map(|_| FenceContext::new(&rig.executor, Names { driver: "c", timeline: "x" }).unwrap()).collect();
    let (more_signalers, more): (Vec<_>, Vec<_>) =
        contexts.iter().map(|context| context.allocate().unwrap().publish()).unzip();
    let named = [fences[3].clone()].into_iter().chain(more.iter().cloned());
    let waiting = queue.reserve_after(Job::new(rig.buffers(2)).credits(2), named).unwrap().commit();
    let expected = WaitsFor::Dependencies { count: 4, first: Some(fences[3].clone()) };
    assert_eq!(queue.waits_for(), expected);
    assert_eq!(expected.to_string(), format!("dependency camera/frames {} and 3 more", fences[3].id()));
    signalers.into_iter().for_each(|signaler| signaler.signal(Ok(())));
    assert_eq!(queue.waits_for(), WaitsFor::Dependencies { count: 3, first: Some(more[0].clone()) });
    more_signalers.into_iter().for_each(|signaler| signaler.signal(Ok(())));
    rig.idle();
    assert_eq!(queue.waits_for(), WaitsFor::Credits { needs: 2, free: 1 });
    assert_eq!(queue.waits_for().to_string(), "2 credits, 1 are free");
    queue.suspend();
    assert_eq!(queue.waits_for(), WaitsFor::Suspension);
    queue.resume();

    let scarce = FenceContext::new(&rig.executor, Names { driver: "gpu", timeline: "vm ids" }).unwrap();
    let (freed, lease) = scarce.allocate().unwrap().publish();
    let asked = lease.clone();
    rig.gpu().script(|script| script.acquire = Some(Box::new(move |_| wait_for(&asked))));
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert_eq!(queue.waits_for(), WaitsFor::Resource(lease));
    freed.signal(Ok(()));
    rig.idle();
    assert!(ok(&waiting.scheduled()));
    // It hangs, and the next one is held back until it has left the hardware.
    rig.pass_ms(51);
    commit(&rig, &queue, 3);
    assert_eq!(queue.waits_for(), WaitsFor::Overdue);
    assert_eq!(queue.waits_for().to_string(), "a job whose time was up to leave the hardware");
}

fn wait_for(fence: &outlive::Fence) -> Acquired {
    if fence.is_signaled() { Acquired::Yes } else { Acquired::Wait(fence.clone()) }
}

#[test]
fn a_dependant_that_runs_in_spite_of_an_error_is_seen_to_wait_for_retired() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(5 * MS));
    let other = rig.queue(QueueConfig::new("other"));
    let hung = commit(&rig, &queue, 1);
    let dependency = outlive::Dependency::on(hung.finished()).on_error(OnError::Run);
    other.reserve_after(rig.buffers(2), [dependency]).unwrap().commit();
    assert_eq!(other.waits_for(), WaitsFor::Dependencies { count: 1, first: Some(hung.finished()) });
    rig.pass_ms(6);
    let retired = hung.retired().into_fence();
    assert_eq!(other.waits_for(), WaitsFor::Dependencies { count: 1, first: Some(retired) });
}

type What = (Mutex<Option<Arc<Queue>>>, Principal);

/// Reads all numbers wherever an event is recorded, mostly under the queue's own lock.
#[derive(Default, Clone)]
struct Reader {
    what: Arc<OnceLock<What>>,
    reads: Arc<AtomicU64>,
}

impl Record for Reader {
    fn record(&self, _at: Time, _event: Event) {
        let Some((queue, principal)) = self.what.get() else { return };
        if let Some(queue) = &*queue.lock().unwrap() {
            assert!(queue.usage().ended() <= principal.usage().ended() + 1);
            self.reads.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn reading_takes_no_lock_that_scheduling_holds() {
    let reader = Reader::default();
    let executor = Executor::builder().recorder(reader.clone()).unwrap().manual().unwrap();
    let rig = Rig::on(executor, false);
    let principal = Principal::new(Charges::UNLIMITED).unwrap();
    let queue = Arc::new(rig.queue(QueueConfig::new("q").credits(1).principal(principal.clone())));
    reader.what.set((Mutex::new(Some(queue.clone())), principal)).unwrap();
    for tag in 1..=3 {
        commit(&rig, &queue, tag);
    }
    for seqno in 1..=3 {
        rig.complete(&queue, seqno, Ok(()));
        rig.idle();
    }
    assert!(reader.reads.load(SeqCst) >= 12, "queued, started, done, retired, three times");
    assert_eq!(queue.usage().jobs(Outcome::Ok), 3);
    let handle = reader.what.get().unwrap().0.lock().unwrap().take();
    drop(handle);
}

#[test]
fn a_kind_of_engine_that_does_not_exist_is_refused() {
    let rig = Rig::new();
    let refused = rig.device.queue(QueueConfig::new("q").engine(8), rig.ring());
    assert_eq!(refused.unwrap_err(), OpenError::NoSuchEngine { most: 8 });
    assert_eq!(OpenError::NoSuchEngine { most: 8 }.to_string(), "kinds of engines are numbered from 0 to 7");
}
