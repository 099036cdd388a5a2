//! Fences that outlive everything are small, keep nothing, and may be dropped in any order.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
    Shuffled,
}

fn drop_in(order: Order, mut fences: Vec<Option<Fence>>) {
    let length = fences.len();
    match order {
        Order::Forward => drop(fences),
        Order::Backward => while fences.pop().is_some() {},
        Order::Shuffled => {
            // A step without a common divisor with the length visits all.
            let step = 7_919;
            assert!(length % step != 0);
            for turn in 0..length {
                let taken = fences[turn * step % length].take();
                assert!(taken.is_some());
            }
        }
    }
}

/// Keeps the `finished` of a chain over `queues`, and nothing else, and drops them in `order`.
fn of_a_chain(queues: usize, order: Order) {
    let before = alive();
    let executor = Executor::manual().unwrap();
    let device = Device::new(&executor, Hardware::new(false)).unwrap();
    let made = queues_of(&device, queues);
    let mut kept: Vec<Option<Fence>> = Vec::with_capacity(CHAIN);
    let (start, dropped, counted) = (alive(), PAYLOADS_DROPPED.get(), check::allocations());
    chain(&made, CHAIN, OnError::Run, &mut kept, |job| Some(job.finished()));
    let per_job = check::allocations().allocated - counted.allocated;
    assert_eq!(alive().since(start).blocks, CHAIN as i64, "one block each");
    if queues == 1 {
        assert_eq!(per_job, CHAIN as u64, "and not even a passing allocation");
    }
    // The first has been held back so that all of them really waited.
    assert_eq!(device.driver().ran.load(SeqCst), 1);
    let hardware = device.driver();
    while hardware.ran.load(SeqCst) < CHAIN {
        hardware.complete_one(Ok(()));
        executor.run_until_idle();
    }
    hardware.complete_one(Ok(()));
    executor.run_until_idle();
    assert!(kept.iter().flatten().all(|fence| fence.status() == Status::Signaled(Ok(()))));
    assert_eq!(PAYLOADS_DROPPED.get(), dropped + CHAIN, "every payload is gone");
    let dead = alive().since(start);
    assert_eq!(dead, Alive { blocks: CHAIN as i64, bytes: (CHAIN * JOB_BYTES) as i64 }, "nothing else is alive");
    let bytes_each = dead.bytes / CHAIN as i64;
    assert!(bytes_each <= 320);

    let gone = device.drained();
    drop(made);
    drop(device);
    executor.run_until_idle();
    assert!(gone.is_drained(), "a million of its fences keep no device");
    drop((gone, executor));
    let (blocks, names) = (alive().since(before).blocks, 3 * queues as i64 + 1);
    assert_eq!(blocks, CHAIN as i64 + 1 + names, "the fences, their list, the queues' names and numbers");
    drop_in(order, kept);
    assert_eq!(alive(), before);
    println!("{queues} queues, {order:?}: {bytes_each} bytes per dead fence, {per_job} allocations for {CHAIN} jobs");
}

#[test]
fn of_one_queue_are_small_and_keep_nothing() {
    on_a_small_stack(|| of_a_chain(1, Order::Forward));
}

#[test]
fn of_several_queues_are_small_and_keep_nothing() {
    on_a_small_stack(|| of_a_chain(4, Order::Backward));
}

#[test]
fn go_in_any_order() {
    on_a_small_stack(|| of_a_chain(3, Order::Shuffled));
}
