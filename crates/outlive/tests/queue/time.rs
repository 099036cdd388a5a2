//! Timeouts, progress, suspension, and a job clock that stands still.

use super::*;

#[test]
fn a_suspended_queue_starts_nothing_and_drains_what_runs() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(50 * MS));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    queue.suspend();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.pass_ms(49);
    assert!(pending(&running.finished()) && pending(&waiting.scheduled()));
    rig.complete(&queue, 1, Ok(()));
    rig.pass_ms(1_000);
    assert!(ok(&running.finished()), "suspending fails nobody who ends in time");
    queue.resume();
    rig.idle();
    assert!(ok(&waiting.scheduled()));
    queue.suspend();
    rig.pass_ms(400);
    assert_eq!(error(&waiting.finished()), Some(FenceError::TimedOut), "this one did not end in its drain time");
    assert!(ok(&waiting.retired()));
    // The suspension lasts too long.
    let behind = queue.reserve(rig.buffers(3)).unwrap().commit();
    rig.pass_ms(10_000);
    assert_eq!(error(&behind.finished()), Some(FenceError::TimedOut));
    queue.resume();
    rig.idle();
    assert!(ok(&queue.reserve(rig.buffers(4)).unwrap().commit().scheduled()));
}

#[test]
fn timeouts_are_each_jobs_own_and_progress_extends_them_up_to_a_cap() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS).progress_cap(100 * MS).drain_timeout(MS));
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |info| {
            count.fetch_add(1, SeqCst);
            if info.id.seqno == 1 { Verdict::KeepWaiting(30 * MS) } else { Verdict::Fail }
        }));
    });
    let slow = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(10);
    let short = queue.reserve(Job::new(rig.buffers(2)).timeout(5 * MS)).unwrap().commit();
    rig.pass_ms(6);
    assert!(pending(&short.finished()), "its verdict is in, but its predecessor's is not: fences come in order");
    assert!(rig.gpu().calls().contains(&Call::TimedOut(2)) && !rig.gpu().calls().contains(&Call::TimedOut(1)));
    rig.pass_ms(83);
    assert!(pending(&slow.finished()), "it makes progress");
    rig.pass_ms(2);
    assert_eq!(error(&slow.finished()), Some(FenceError::TimedOut), "but not for ever");
    assert_eq!(error(&short.finished()), Some(FenceError::TimedOut));
    assert_eq!(asked.load(SeqCst), 1 + 4, "once for the short one; at 20, 50, 80 and 100 ms for the slow one");
}

#[test]
fn nothing_starts_behind_a_job_whose_time_was_up_until_it_has_left_the_hardware() {
    for leaves_by_itself in [true, false] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS));
        let hung = queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.pass_ms(11);
        assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
        let next = queue.reserve(Job::new(rig.buffers(2)).timeout(1_000 * MS)).unwrap().commit();
        assert!(pending(&next.scheduled()), "the reset to come would cost it");
        rig.pass_ms(50);
        assert!(rig.gpu().calls().contains(&Call::Cancel(1)) && pending(&next.scheduled()));
        if leaves_by_itself {
            rig.complete(&queue, 1, Ok(()));
        }
        rig.pass_ms(51);
        assert_eq!(rig.gpu().calls().contains(&Call::Reset(ResetScope::Queue(queue.id()))), !leaves_by_itself);
        assert!(ok(&hung.retired()) && ok(&next.scheduled()), "jobs not started survive");
        rig.complete(&queue, 2, Ok(()));
        rig.idle();
        assert!(ok(&next.finished()));
    }
}

/// How often [`impatient_clock`] may be read at one instant.
const READS_MAX: u32 = 1_000;
static CLOCK_MS: AtomicU32 = AtomicU32::new(0);
static CLOCK_READS: AtomicU32 = AtomicU32::new(0);

/// Goes back to zero, where nothing is due, when somebody reads it for ever: who looks at the time in a loop comes out.
fn impatient_clock() -> u64 {
    let patience = CLOCK_READS.fetch_add(1, SeqCst) < READS_MAX;
    if patience { u64::from(CLOCK_MS.load(SeqCst)) * 1_000_000 } else { 0 }
}

#[test]
fn what_is_overdue_while_the_driver_is_called_waits_for_that_without_a_timer_that_fires_for_ever() {
    let rig = Rig::on(Executor::builder().clock(impatient_clock).manual().unwrap(), false);
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS));
    let slow = queue.reserve(rig.buffers(1)).unwrap().commit();
    let (_source, never) = UserFence::new(&rig.executor, "never").unwrap();
    let at = |ms: u64| Time::from_ns(ms * 1_000_000);
    let reserved = queue.reserve(Job::new(rig.buffers(2)).user_waits(1)).unwrap();
    let late = reserved.commit_when(&[never], at(15)).unwrap();
    let (executor, done) = (rig.executor.clone(), late.done());
    rig.gpu().script(|script| {
        script.run = Some(Box::new(move |_, _, completion| {
            // The lane runs on another thread while this one is in the driver, long after the first job's time.
            for ms in [12, 20] {
                CLOCK_MS.store(ms, SeqCst);
                std::thread::scope(|scope| scope.spawn(|| executor.step()).join().unwrap());
            }
            assert!(done.is_signaled(), "another job's deadline needs no driver");
            assert_eq!(executor.next_timer(), None, "nothing is left that the driver's return does not see to");
            Some(completion)
        }));
    });
    let long = queue.reserve(Job::new(rig.buffers(3)).timeout(100 * MS)).unwrap().commit();
    assert!(CLOCK_READS.load(SeqCst) < READS_MAX, "the timer fired at one instant, again and again");
    assert!(!rig.gpu().calls().contains(&Call::TimedOut(1)), "two calls for one queue would overlap");
    rig.idle();
    assert!(rig.gpu().calls().contains(&Call::TimedOut(1)));
    assert_eq!(error(&slow.finished()), Some(FenceError::TimedOut));
    assert!(pending(&long.finished()) && rig.executor.next_timer() == Some(at(100)));
}

#[test]
fn time_off_the_hardware_does_not_count() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(15);
    queue.pause_job_clock();
    rig.pass_ms(5_000);
    assert!(pending(&job.finished()));
    queue.resume_job_clock();
    rig.pass_ms(4);
    assert!(pending(&job.finished()));
    rig.pass_ms(2);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
}

#[test]
fn a_job_that_starts_while_the_clock_stands_still_gains_only_the_rest_of_that_time() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS));
    queue.pause_job_clock();
    rig.pass_ms(10);
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(5);
    queue.resume_job_clock();
    rig.pass_ms(19);
    assert!(pending(&job.finished()));
    rig.pass_ms(2);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
}

#[test]
fn a_queue_that_is_closed_while_its_job_clock_stands_still_ends_all_the_same() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    queue.pause_job_clock();
    rig.pass_ms(5_000);
    assert!(pending(&job.finished()));
    let drained = queue.close();
    queue.pause_job_clock();
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    rig.pass_ms(1_000);
    assert!(
        rig.gpu().calls().contains(&Call::Cancel(1)) && ok(&job.retired()),
        "it hangs, and nobody is left to resume"
    );
    assert!(drained.is_drained());
}
