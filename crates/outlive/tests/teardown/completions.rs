//! Completions that are dropped, forgotten, given twice, or late.

use super::*;

#[test]
fn a_completion_dropped_fails_at_once_and_the_job_stays_on_the_retire_list() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            drop(done);
            None
        }));
    });
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(100 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    assert!(pending(&job.retired()) && ok(&job.scheduled()));
    rig.pass_ms(99);
    assert_eq!(rig.gpu().calls().last(), Some(&Call::Run(1)));
    rig.pass_ms(200);
    assert!(ok(&job.retired()), "cancel, then a reset took it off");
    assert_eq!(rig.gpu().calls()[2..], [Call::Cancel(1), Call::Reset(ResetScope::Queue(queue.id())), Call::Release(1)]);
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_completion_forgotten_is_found_by_its_timeout() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            std::mem::forget(done);
            None
        }));
    });
    let queue = rig.queue(QueueConfig::new("q").timeout(50 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(49);
    assert!(pending(&job.finished()));
    rig.pass_ms(300);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_completion_given_twice_by_a_buggy_driver_is_found_nowhere() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let number = queue.id() * 1_000_000 + 1;
    let held = &rig.gpu().held;
    assert!(held.complete_timed(number, Ok(()), Times { end: Some(Time::from_ns(77)), active: None }));
    assert!(!held.complete(number, Err(FenceError::Canceled)), "hardware that reports twice");
    assert!(!held.complete(number + 5, Ok(())), "or invents");
    assert!(ok(&job.finished()));
    assert_eq!(job.finished().timestamp(), Some(Time::from_ns(77)));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_hang_after_close_with_no_owner_left_ends_by_itself() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    drop(queue);
    let Rig { executor, device, live } = rig;
    drop(device);
    executor.run_until_idle();
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (1, 0), "the hardware still has it");
    executor.wait(&job.retired(), Duration::from_secs(5)).unwrap();
    executor.run_until_idle();
    assert_eq!(
        (live.alive(), live.drivers_dropped.load(SeqCst)),
        (0, 1),
        "drained, cancelled, reset, freed: nobody held it"
    );
}

#[test]
fn a_hang_after_close_ends_even_when_the_executor_goes_first() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let gone = rig.device.drained();
    let live = rig.live.clone();
    drop(queue);
    drop(rig);
    // Nobody drives that executor any more; the fallback does, in real time.
    job.retired().wait(SOON).unwrap();
    gone.wait(SOON).unwrap();
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1));
}
