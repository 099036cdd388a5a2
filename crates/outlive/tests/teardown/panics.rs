//! Drivers that panic, in each of their calls: the job fails, the queue closes, and everything ends.

use super::*;

/// Runs `work`, which is to panic inside the driver.
fn panics(work: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "the driver was to panic");
}

#[test]
fn a_driver_that_panics_in_run() {
    let rig = Rig::new();
    rig.gpu().script(|script| script.run = Some(Box::new(|_, _, _done| panic!("run"))));
    let queue = rig.queue(QueueConfig::new("q"));
    let reserved = queue.reserve(rig.buffers(1)).unwrap();
    panics(|| drop(reserved.commit()));
    assert!(queue.status().closed, "what the ring looks like is unknown");
    rig.idle();
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_run_after_the_completion() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            done.complete(Ok(()));
            panic!("run");
        }));
    });
    let queue = rig.queue(QueueConfig::new("q").bypass(false));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.idle());
    rig.idle();
    assert!(queue.status().closed && ok(&job.scheduled()) && ok(&job.finished()));
    assert!(ok(&job.retired()), "the hardware is done with the job, and what it had acquired was released");
    assert_eq!(queue.status().unreaped, 0);
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_acquire() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").bypass(false));
    rig.gpu().script(|script| script.acquire = Some(Box::new(|_| panic!("acquire"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.idle());
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::DriverBug));
    assert!(ok(&job.retired()), "the hardware never knew of it");
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_turn_that_is_not_used_goes_to_the_next_whether_acquire_waits_or_panics() {
    for panicking in [false, true] {
        let rig = Rig::new();
        let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(1)).unwrap();
        let config = |name| QueueConfig::new(name).bypass(false).arbiter(&arbiter);
        let (hindered, next) = (rig.queue(config("hindered")), rig.queue(config("next")));
        let id = hindered.id();
        let context = FenceContext::new(&rig.executor, Names { driver: "d", timeline: "free" }).unwrap();
        let (resource, free) = context.allocate().unwrap().publish();
        rig.gpu().script(|script| {
            script.acquire = Some(Box::new(move |info| match info.queue == id && !free.is_signaled() {
                true if panicking => panic!("acquire"),
                true => Acquired::Wait(free.clone()),
                false => Acquired::Yes,
            }));
        });
        let first = hindered.reserve(rig.buffers(1)).unwrap().commit();
        let second = next.reserve(rig.buffers(2)).unwrap().commit();
        match panicking {
            true => panics(|| rig.idle()),
            false => rig.idle(),
        }
        rig.idle();
        assert!(ok(&second.scheduled()), "the one that waits, or has failed, holds nothing");
        rig.complete(&next, 1, Ok(()));
        resource.signal(Ok(()));
        rig.idle();
        assert_eq!((ok(&first.scheduled()), pending(&first.finished())), (!panicking, !panicking));
        assert_eq!(arbiter.status().credits_free, u32::from(panicking));
        if !panicking {
            rig.complete(&hindered, 1, Ok(()));
        }
        drop((hindered, next));
        all_gone(rig);
    }
}

#[test]
fn a_driver_that_panics_in_timed_out() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| panic!("timed_out"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(2_500);
    assert_eq!(error(&job.finished()), Some(FenceError::DriverBug));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_cancel() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| script.cancel = Some(Box::new(|_| panic!("cancel"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(2_500);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_reset_and_in_unplug() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device)));
        script.reset = Some(Box::new(|_, _token| panic!("reset")));
    });
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(3_000);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()), "the reset counted as failed, and unplugging worked");
    assert!(rig.device.is_lost());
    drop(queue);
    all_gone(rig);

    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    rig.gpu().script(|script| script.unplug = Some(Box::new(|_token| panic!("unplug"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.device.unplug();
    panics(|| rig.idle());
    rig.pass_ms(3_000);
    assert_eq!(error(&job.finished()), Some(FenceError::DeviceLost));
    assert_eq!(error(&job.retired()), Some(FenceError::Quarantined), "it did not say that DMA is impossible");
}

#[test]
fn a_driver_that_panics_in_release() {
    for early in [false, true] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q"));
        let first = queue.reserve(rig.buffers(1)).unwrap().commit();
        let second = queue.reserve(rig.buffers(2)).unwrap().commit();
        rig.gpu().script(|script| script.release = Some(Box::new(|| panic!("release"))));
        // In the hardware's context, where the panic comes out too.
        panics(|| rig.complete(&queue, if early { 2 } else { 1 }, Ok(())));
        rig.idle();
        assert!(queue.status().closed);
        rig.complete(&queue, if early { 1 } else { 2 }, Ok(()));
        rig.pass_ms(3_000);
        assert!(first.retired().is_signaled() && second.retired().is_signaled());
        drop(queue);
        all_gone(rig);
    }
}

#[test]
fn a_driver_that_panics_in_waits_natively() {
    let rig = Rig::new();
    let (one, two) = (rig.queue(QueueConfig::new("1")), rig.queue(QueueConfig::new("2")));
    let first = one.reserve(rig.buffers(1)).unwrap().commit();
    rig.gpu().script(|script| script.native_panics = true);
    let reserved = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap();
    panics(|| drop(reserved.commit()));
    rig.gpu().script(|script| script.native_panics = false);
    rig.idle();
    assert!(two.status().closed && two.drained().is_drained());
    rig.complete(&one, 1, Ok(()));
    drop((one, two));
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_on_a_lane_of_threads_costs_that_thread_only() {
    let rig = Rig::threads(false);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    rig.gpu().script(|script| script.run = Some(Box::new(|_, _, _done| panic!("run"))));
    let bad = rig.queue(QueueConfig::new("bad").bypass(false).drain_timeout(MS));
    let job = bad.reserve(rig.buffers(1)).unwrap().commit();
    assert!(job.finished().wait(SOON).is_err());
    std::panic::set_hook(hook);
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done: Completion| {
            done.complete(Ok(()));
            None
        }))
    });
    let fine = rig.queue(QueueConfig::new("fine").bypass(false));
    fine.reserve(rig.buffers(2)).unwrap().commit().retired().wait(SOON).unwrap();
    job.retired().wait(SOON).unwrap();
    let gone = rig.device.drained();
    drop((bad, fine));
    drop(rig);
    gone.wait(SOON).unwrap();
}
