//! One job, from reservation to the end of its device.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    reason = "a test: it has std and may panic"
)]
use outlive::{Completion, Device, Driver, Executor, FenceError, JobCx, QueueConfig, Status};
use std::sync::Mutex;
use std::time::Duration;

#[derive(Default)]
struct Fake {
    held: Mutex<Vec<Completion>>,
    inline: bool,
}
impl Driver for Fake {
    type Job = u32;
    type Queue = ();
    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        if self.inline {
            done.complete(Ok(()));
        } else {
            self.held.lock().unwrap().push(done);
        }
    }
}

#[test]
fn one_job() {
    let executor = Executor::manual().unwrap();
    let device = Device::new(&executor, Fake::default()).unwrap();
    let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
    let job = queue.reserve(7).unwrap().commit();
    assert!(job.scheduled().is_signaled());
    assert!(!job.finished().is_signaled());
    let done = device.driver().held.lock().unwrap().pop().unwrap();
    done.complete(Ok(()));
    assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
    assert!(job.retired().is_signaled());
    executor.run_until_idle();
    let second = queue.reserve(8).unwrap().commit();
    let drained = queue.close();
    executor.run_until_idle();
    assert_eq!(second.finished().status(), Status::Signaled(Err(FenceError::Canceled)));
    assert!(!second.retired().is_signaled());
    assert!(!drained.is_drained());
    device.driver().held.lock().unwrap().drain(..).for_each(|done| done.complete(Ok(())));
    executor.run_until_idle();
    assert!(second.retired().is_signaled());
    assert!(drained.is_drained());
    let gone = device.drained();
    drop(queue);
    drop(device);
    executor.run_until_idle();
    assert!(gone.is_drained());
}

#[test]
fn threads() {
    let executor = Executor::builder().threads().unwrap();
    let device = Device::new(&executor, Fake { inline: true, ..Fake::default() }).unwrap();
    let a = device.queue(QueueConfig::new("a"), ()).unwrap();
    let b = device.queue(QueueConfig::new("b"), ()).unwrap();
    let mut last = a.reserve(0).unwrap().commit();
    for i in 0..1000 {
        let q = if i % 2 == 0 { &b } else { &a };
        last = q.reserve_after(i, [last.finished()]).unwrap().commit();
    }
    last.finished().wait(Duration::from_secs(5)).unwrap();
    println!("{}", outlive::JOB_BYTES);
    let gone = device.drained();
    drop((a, b, device));
    gone.wait(Duration::from_secs(5)).unwrap();
}
