//! Handles dropped in every order, executors that end, and what no longer can be had.

use super::*;

#[test]
fn handles_dropped_in_every_order() {
    for order in 0..24 {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").credits(1));
        let running = queue.reserve(rig.buffers(1)).unwrap().commit();
        let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
        let Rig { executor, device, live } = rig;
        let driver = executor.clone();
        let gone = device.drained();
        let done = device.driver().held.remove(queue.id() * 1_000_000 + 1);
        let mut handles: Vec<Box<dyn FnOnce()>> = vec![
            Box::new(move || drop(queue)),
            Box::new(move || drop(device)),
            Box::new(move || drop((running, waiting))),
            Box::new(move || done.unwrap().complete(Ok(()))),
        ];
        let mut rest = order;
        while !handles.is_empty() {
            let choices = handles.len();
            let handle = handles.remove(rest % choices);
            rest /= choices;
            handle();
            if order % 2 == 0 {
                driver.run_until_idle();
            }
        }
        drop(executor);
        // Where the first job ended before the close, the second is on the hardware, and drained by force.
        run_out(&driver);
        assert!(gone.is_drained(), "order {order}");
        assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1), "order {order}");
    }
}

#[test]
fn a_queue_closed_while_a_reservation_drops_a_payload_is_drained_after_that() {
    let rig = Rig::inline();
    let queue = Arc::new(rig.queue(QueueConfig::new("q")));
    let mut payload = rig.buffers(1);
    let (closes, executor) = (queue.clone(), rig.executor.clone());
    payload.on_drop = Some(Box::new(move || {
        drop(closes.close());
        executor.run_until_idle();
        assert!(!closes.drained().is_drained(), "this payload is not gone");
    }));
    drop(queue.reserve(payload).unwrap().commit());
    // The reaper has not looked yet, so this drops the payload.
    drop(queue.reserve(rig.buffers(2)));
    rig.idle();
    assert!(queue.drained().is_drained());
    drop(queue);
    all_gone(rig);
}

#[test]
fn an_executor_of_threads_ends_with_its_last_object() {
    let executor = Executor::builder().threads().unwrap();
    let live = Arc::new(common::Live::default());
    let gone = {
        let rig = Rig::on(executor, true);
        let queue = rig.queue(QueueConfig::new("q"));
        for tag in 0..10 {
            drop(queue.reserve(buffers(&live, tag)).unwrap().commit());
        }
        rig.device.drained()
    };
    gone.wait(SOON).unwrap();
    assert_eq!(live.alive(), 0);
}

#[test]
fn a_queue_of_no_credits_and_a_queue_of_a_lost_device_are_refused() {
    let rig = Rig::new();
    let executor = rig.executor.clone();
    let plain = Device::new(&executor, Null).unwrap();
    assert_eq!(plain.queue(QueueConfig::new("q").credits(0), ()).unwrap_err(), outlive::OpenError::NoCredits);
    plain.unplug();
    executor.run_until_idle();
    assert_eq!(plain.queue(QueueConfig::new("q"), ()).unwrap_err(), outlive::OpenError::DeviceLost);
}

struct Null;

impl outlive::Driver for Null {
    type Job = ();
    type Queue = ();

    fn run(&self, _cx: &mut outlive::JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}
