//! What a job waits for, and what the errors of that mean to it.

use super::*;

#[test]
fn dependencies_are_met_before_a_job_starts_and_errors_of_older_points_are_not_lost() {
    let rig = Rig::new();
    let source = rig.queue(QueueConfig::new("source").client(1).credits(8));
    let target = rig.queue(QueueConfig::new("target").client(1));
    let jobs: Vec<JobFences> = (0..3).map(|tag| source.reserve(rig.buffers(tag)).unwrap().commit()).collect();
    // Three points of one context, all with the policy "fail": the middle one's error must be seen.
    let all: Vec<_> = jobs.iter().map(JobFences::finished).collect();
    let strict = target.reserve_after(rig.buffers(9), &all).unwrap().commit();
    // With "run" they are waited for, and no error counts.
    let run = all.iter().map(|fence| Dependency::on(fence.clone()).on_error(OnError::Run));
    let last = rig.queue(QueueConfig::new("lenient"));
    let lenient = last.reserve_after(rig.buffers(8), run).unwrap().commit();
    rig.complete(&source, 1, Ok(()));
    rig.complete(&source, 2, Err(FenceError::Faulted { code: 5 }));
    rig.idle();
    assert!(pending(&strict.scheduled()) && pending(&lenient.scheduled()));
    rig.complete(&source, 3, Ok(()));
    rig.idle();
    assert_eq!(error(&strict.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 5 })));
    assert!(ok(&lenient.scheduled()));
}

#[test]
fn who_runs_in_spite_of_errors_waits_until_every_failed_job_is_off_the_hardware() {
    let rig = Rig::new();
    let run = |job: &JobFences| Dependency::on(job.finished()).on_error(OnError::Run);
    let source = rig.queue(QueueConfig::new("source").credits(8).timeout(10 * MS));
    let hung = source.reserve(rig.buffers(1)).unwrap().commit();
    let fine = source.reserve(rig.buffers(2)).unwrap().commit();
    let target = rig.queue(QueueConfig::new("target"));
    let other = target.reserve_after(rig.buffers(3), [run(&hung), run(&fine)]).unwrap().commit();
    let own = source.reserve_after(rig.buffers(4), [run(&hung), run(&fine)]).unwrap().commit();
    rig.complete(&source, 2, Ok(()));
    rig.pass_ms(15);
    assert!(ok(&fine.finished()) && error(&hung.finished()).is_some() && pending(&hung.retired()));
    assert!(pending(&other.scheduled()), "the older of two points of one context is still on the hardware");
    assert!(pending(&own.scheduled()), "of the own queue too");
    rig.pass_ms(200);
    assert!(ok(&hung.retired()) && ok(&other.scheduled()) && ok(&own.scheduled()));
}

#[test]
fn of_two_points_the_older_counts_whichever_is_named_first() {
    for newer_first in [false, true] {
        let rig = Rig::new();
        let source = rig.queue(QueueConfig::new("source").credits(8));
        let target = rig.queue(QueueConfig::new("target"));
        let old = source.reserve(rig.buffers(1)).unwrap().commit();
        let new = source.reserve(rig.buffers(2)).unwrap().commit();
        let mut on = [&old, &new].map(|job| Dependency::on(job.finished()).on_error(OnError::Fail));
        if newer_first {
            on.reverse();
        }
        let job = target.reserve_after(rig.buffers(3), on).unwrap().commit();
        rig.complete(&source, 1, Err(FenceError::Faulted { code: 5 }));
        rig.complete(&source, 2, Ok(()));
        rig.idle();
        assert_eq!(error(&job.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 5 })), "{newer_first}");
    }
}

#[test]
fn a_dependency_on_the_own_queue_waits_unless_the_hardware_is_in_order() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").client(1).credits(8));
    let first = queue.reserve(rig.buffers(1)).unwrap().commit();
    let chained = queue.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
    let free = queue.reserve(rig.buffers(3)).unwrap().commit();
    rig.idle();
    assert!(pending(&chained.scheduled()) && pending(&free.scheduled()), "in order");
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert!(ok(&chained.scheduled()) && ok(&free.scheduled()));
    rig.complete(&queue, 2, Err(FenceError::Faulted { code: 1 }));
    let after = queue.reserve_after(rig.buffers(4), [chained.finished()]).unwrap().commit();
    rig.complete(&queue, 3, Ok(()));
    rig.idle();
    assert_eq!(error(&after.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 1 })));
}

#[test]
fn who_depends_on_the_start_of_an_earlier_job_of_its_queue_fails_if_that_never_starts() {
    for on_error in [OnError::Fail, OnError::Run] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").client(1).pipelined(true));
        rig.gpu().script(|script| {
            let mut first = true;
            script.acquire =
                Some(Box::new(move |_| if std::mem::take(&mut first) { Acquired::Never(3) } else { Acquired::Yes }));
        });
        queue.suspend();
        let never = queue.reserve(rig.buffers(1)).unwrap().commit();
        let on = Dependency::on(never.scheduled()).on_error(on_error);
        let after = queue.reserve_after(rig.buffers(2), [on]).unwrap().commit();
        queue.resume();
        rig.idle();
        assert_eq!(error(&never.scheduled()), Some(FenceError::Faulted { code: 3 }));
        assert_eq!(ok(&after.scheduled()), on_error == OnError::Run);
        if on_error == OnError::Fail {
            assert_eq!(error(&after.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 3 })));
        }
    }
}

#[test]
fn commit_when_publishes_after_the_user_fences_and_holds_nobody_up() {
    let rig = Rig::inline();
    let queue = rig.queue(QueueConfig::new("q"));
    let (source, user) = UserFence::new(&rig.executor, "host").unwrap();
    let deadline = rig.executor.now().after(100 * MS);
    let reserved = queue.reserve(Job::new(rig.buffers(1)).user_waits(1)).unwrap();
    let later = reserved.commit_when(std::slice::from_ref(&user), deadline).unwrap();
    let job = queue.reserve(rig.buffers(2)).unwrap().commit();
    assert_eq!((job.finished().seqno(), ok(&job.finished())), (1, true), "no number was taken");
    assert!(later.fences().is_none());
    source.signal(Ok(()));
    rig.idle();
    let fences = later.fences().unwrap();
    assert_eq!((fences.finished().seqno(), ok(&fences.finished())), (2, true));
    assert!(later.done().is_signaled() && !later.cancel());

    // One whose fence fails, one that is cancelled, one that has no room, one of a queue that closes.
    let (source, user) = UserFence::new(&rig.executor, "fails").unwrap();
    let reserve = || queue.reserve(Job::new(rig.buffers(3)).user_waits(1)).unwrap();
    let failed = reserve().commit_when(std::slice::from_ref(&user), Time::NEVER).unwrap();
    source.signal(Err(FenceError::Faulted { code: 2 }));
    let (_open, never) = UserFence::new(&rig.executor, "never").unwrap();
    let cancelled = reserve().commit_when(std::slice::from_ref(&never), Time::NEVER).unwrap();
    assert!(cancelled.cancel());
    let tight = queue.reserve(rig.buffers(4)).unwrap();
    let many = [never.clone(), never.clone(), never.clone()];
    let back = tight.commit_when(&many, Time::NEVER).expect_err("two nodes are all it has");
    assert_eq!(back.tag, 4);
    drop(back);
    let closing = reserve().commit_when(&[never], Time::NEVER).unwrap();
    rig.idle();
    assert!(failed.fences().is_none() && failed.done().is_signaled() && cancelled.done().is_signaled());
    assert!(!closing.done().is_signaled());
    let drained = queue.close();
    rig.idle();
    assert!(closing.done().is_signaled() && drained.is_drained());
    assert_eq!(rig.live.alive(), 0);
}
