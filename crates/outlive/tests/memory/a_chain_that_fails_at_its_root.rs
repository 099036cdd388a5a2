//! A chain of a hundred thousand jobs fails at its root, on a small stack, with nothing left.

use super::*;

fn fails(queues: usize, root: FenceError) {
    let before = alive();
    let executor = Executor::manual().unwrap();
    let device = Device::new(&executor, Hardware::new(false)).unwrap();
    let made = queues_of(&device, queues);
    let mut kept: Vec<JobFences> = Vec::with_capacity(CHAIN);
    chain(&made, CHAIN, OnError::Fail, &mut kept, |job| job);
    device.driver().complete_one(Err(root));
    executor.run_until_idle();
    assert_eq!(device.driver().ran.load(SeqCst), 1, "nothing after the root ran");
    let caused = Status::Signaled(Err(FenceError::Dependency(root.cause())));
    for (at, job) in kept.iter().enumerate() {
        let own = if at == 0 { Status::Signaled(Err(root)) } else { caused };
        assert_eq!(job.finished().status(), own, "job {at}");
        assert_eq!(job.scheduled().status(), if at == 0 { Status::Signaled(Ok(())) } else { caused });
        assert_eq!(job.retired().status(), Status::Signaled(Ok(())), "its memory is free");
    }
    for queue in &made {
        let status = queue.status();
        assert_eq!((status.unfinished, status.unreaped), (0, 0));
    }
    drop(made);
    drop(device);
    executor.run_until_idle();
    drop(executor);
    drop(kept);
    assert_eq!(alive(), before);
}

#[test]
fn over_several_queues_fails_with_the_roots_cause_on_a_small_stack() {
    assert_eq!(FAULT.cause(), Cause::Faulted { code: 7 });
    on_a_small_stack(|| fails(4, FAULT));
}

#[test]
fn on_one_queue_fails_with_the_roots_cause_on_a_small_stack() {
    on_a_small_stack(|| fails(1, FenceError::Dependency(Cause::DeviceLost)));
}
