//! Who runs when: order in a ring, rotation, engines, time on and off the hardware, semaphores.

mod common;

use common::{Host, MS, small};
use outlive_sim::gpu::{Command, Config, Standing, Time};

/// Ends of the jobs in nanoseconds, in the order of their interrupts.
fn ends(host: &Host) -> Vec<u64> {
    host.interrupts.iter().map(|interrupt| interrupt.end.as_ns()).collect()
}

#[test]
fn jobs_of_one_ring_run_one_after_the_other() {
    let mut host = Host::new(small());
    let ring = host.ring();
    for _ in 0..3 {
        host.spin(ring, 100_000);
    }
    host.run_to(MS);
    assert_eq!(host.order(), [1, 2, 3]);
    assert_eq!(ends(&host), [100_000, 200_000, 300_000]);
    let second = host.interrupts[1];
    assert_eq!((second.start, second.active_ns), (Some(Time::from_ns(100_000)), 100_000));
    assert_eq!(host.gpu.busy_ns(), 300_000);
    assert!(host.audit().is_clean());
}

#[test]
fn rings_share_the_engine_by_slices() {
    let mut host = Host::new(small());
    let (long, short) = (host.ring(), host.ring());
    host.spin(long, 5 * MS);
    host.spin(short, 2 * MS);
    host.run_to(20 * MS);
    // long 0-1, short 1-2, long 2-3, short 3-4, long 4-7.
    assert_eq!(host.order(), [2, 1]);
    assert_eq!(ends(&host), [4 * MS, 7 * MS]);
    let first = host.interrupts[1];
    assert_eq!(first.active_ns, 5 * MS, "time rotated off does not count");
    assert!(host.audit().is_clean());
}

#[test]
fn a_ring_keeps_its_turn_from_job_to_job_and_not_longer() {
    let mut host = Host::new(small());
    let (busy, other) = (host.ring(), host.ring());
    for _ in 0..16 {
        host.spin(busy, 300_000);
    }
    host.spin(other, 100_000);
    host.run_to(20 * MS);
    let place = host.order().iter().position(|job| *job == 17).unwrap();
    // Three jobs fit into the first turn, and the fourth is rotated off in its middle.
    assert_eq!(place, 3);
    assert_eq!(ends(&host)[3], MS + 100_000);
    assert_eq!(host.gpu.busy_ns(), 16 * 300_000 + 100_000);
}

#[test]
fn three_rings_get_equal_shares() {
    let mut host = Host::new(small());
    for length in [MS / 10, MS, 3 * MS] {
        let ring = host.ring();
        for _ in 0..16 {
            host.spin(ring, length);
        }
    }
    host.run_to(6 * MS);
    // Two turns each: the first ring is through with its 1.6 ms.
    let of_first = host.interrupts.iter().filter(|interrupt| interrupt.hw_seqno.0 <= 16).count();
    let of_second = host.interrupts.iter().filter(|interrupt| interrupt.hw_seqno.0 <= 32).count();
    assert_eq!((of_first, of_second - of_first), (16, 2));
    assert_eq!(host.gpu.busy_ns(), 6 * MS);
}

#[test]
fn engines_overlap_jobs_of_one_ring_that_start_in_order() {
    let mut host = Host::new(Config { engines: 2, ..small() });
    let ring = host.ring();
    host.spin(ring, 300_000);
    host.spin(ring, 100_000);
    host.spin(ring, 100_000);
    host.run_to(MS);
    assert_eq!(host.order(), [2, 3, 1]);
    let starts: Vec<u64> = (1..=3)
        .filter_map(|job| host.interrupts.iter().find(|interrupt| interrupt.hw_seqno.0 == job))
        .filter_map(|interrupt| interrupt.start)
        .map(Time::as_ns)
        .collect();
    assert_eq!(starts, [0, 0, 100_000]);
    assert_eq!(host.gpu.free_slots(&host.memory, ring), 16);
    assert_eq!(host.gpu.busy_ns(), 500_000);
}

#[test]
fn without_a_slice_jobs_run_to_their_end_in_the_order_of_their_doorbells() {
    let mut host = Host::new(Config { slice_ns: 0, ..small() });
    let (a, b) = (host.ring(), host.ring());
    host.spin(a, 5 * MS);
    host.spin(b, MS);
    host.spin(b, MS);
    host.spin(a, MS);
    host.run_to(20 * MS);
    assert_eq!(host.order(), [1, 2, 3, 4]);
    assert_eq!(ends(&host), [5 * MS, 6 * MS, 7 * MS, 8 * MS]);
    assert!(host.audit().is_clean());
}

#[test]
fn a_job_at_a_semaphore_leaves_its_engine_and_goes_on_when_it_is_raised() {
    for slice_ns in [0, MS] {
        let mut host = Host::new(Config { slice_ns, ..small() });
        let (waiting, raising) = (host.ring(), host.ring());
        let word = host.buffer(1);
        let waiter = host.job(&[Command::Wait { va: word.va, value: 1 }], 100_000);
        let raiser = host.job(&[Command::Spin { duration_ns: 1 }, Command::Signal { va: word.va, value: 1 }], 400_000);
        host.submit(waiting, &waiter);
        host.run_to(10_000);
        let state = host.gpu.running(waiting).unwrap();
        assert_eq!((state.standing, state.active_ns), (Standing::Blocked, 0));
        host.submit(raising, &raiser);
        host.run_to(2 * MS);
        assert_eq!(host.order(), [2, 1]);
        assert_eq!(ends(&host), [410_000, 510_000]);
        assert_eq!(host.interrupts[1].active_ns, 100_000, "waiting costs no hardware time");
        assert!(host.audit().is_clean());
    }
}

#[test]
fn a_semaphore_raised_by_the_host_is_seen_by_the_next_call() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let word = host.buffer(1);
    let waiter = host.job(&[Command::Wait { va: word.va, value: 7 }], 100);
    host.submit(ring, &waiter);
    host.run_to(MS);
    assert!(host.interrupts.is_empty() && host.gpu.next_event().is_none());
    host.memory.store_u64(word.pages[0], 0, 8).unwrap();
    host.run_to(2 * MS);
    host.run_to(3 * MS);
    assert_eq!(ends(&host), [2 * MS + 100], "noticed at the call, done 100 ns later");
}

#[test]
fn time_of_a_running_job_can_be_asked_at_any_moment() {
    let mut host = Host::new(small());
    let (a, b) = (host.ring(), host.ring());
    let first = host.spin(a, 3 * MS);
    let second = host.spin(b, 3 * MS);
    host.run_to(400_000);
    let time = host.gpu.job_time(a, first).unwrap();
    assert_eq!((time.active_ns, time.standing), (400_000, Standing::Running));
    assert!(host.gpu.job_time(b, second).is_none(), "not started");
    host.run_to(1_500_000);
    let time = host.gpu.job_time(a, first).unwrap();
    assert_eq!((time.active_ns, time.standing), (MS, Standing::Waiting));
    assert_eq!(host.gpu.job_time(b, second).unwrap().active_ns, 500_000);
    host.run_to(10 * MS);
    assert!(host.gpu.running(a).is_none());
}

#[test]
fn interrupts_take_their_time_and_may_overtake() {
    let config = Config { interrupt_latency_ns: 5_000, interrupt_jitter_ns: 50_000, seed: 3, ..small() };
    let mut host = Host::new(config);
    let ring = host.ring();
    for _ in 0..16 {
        host.spin(ring, 1_000);
    }
    host.run_to(1_000);
    assert_eq!((host.fence_value(), host.interrupts.len()), (1, 0));
    host.run_to(MS);
    let order = host.order();
    assert_eq!(order.len(), 16);
    assert!(!order.is_sorted(), "{order:?}");
    assert_eq!(host.fence_value(), 16);
}

#[test]
fn a_canceled_job_gives_up_its_own_place_in_the_order_of_doorbells() {
    let mut host = Host::new(Config { slice_ns: 0, ..small() });
    let (a, b) = (host.ring(), host.ring());
    host.spin(a, MS);
    let second = host.spin(a, MS);
    let other = host.spin(b, MS);
    let last = host.spin(a, MS);
    let now = host.now;
    host.gpu.cancel(&mut host.memory, now, a, last).unwrap();
    host.run_to(10 * MS);
    assert_eq!(host.order(), [last.0, 1, second.0, other.0]);
}

#[test]
fn a_ring_whose_turn_is_over_goes_behind_those_that_came_meanwhile() {
    let mut host = Host::new(small());
    let (a, b, c) = (host.ring(), host.ring(), host.ring());
    host.spin(a, 300_000);
    host.spin(a, 5 * MS);
    host.spin(b, 100_000);
    host.run_to(500_000);
    host.spin(c, 100_000);
    host.run_to(20 * MS);
    assert_eq!(host.order(), [1, 3, 4, 2]);
    assert_eq!(ends(&host)[1..3], [MS + 100_000, MS + 200_000]);
}

#[test]
fn a_job_that_ends_with_its_rings_turn_is_not_followed_by_the_next_one() {
    let mut host = Host::new(small());
    let (a, b) = (host.ring(), host.ring());
    host.spin(a, MS);
    host.spin(a, MS);
    host.spin(b, MS);
    host.run_to(20 * MS);
    assert_eq!(host.order(), [1, 3, 2]);
    assert_eq!(host.interrupts[2].start, Some(Time::from_ns(2 * MS)));
}
