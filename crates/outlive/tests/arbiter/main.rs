//! The arbiter over real queues, in virtual time: whose turn it is, what bad policies may not do, what happens when anybody
//! goes away.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    unreachable_pub,
    reason = "a test: it has std and may panic"
)]

mod kunit;
mod world;

use outlive::sched::{Arbiter, ArbiterConfig, BadWeight, Head, Policy, Priority, STARVED_AFTER, Share};
use outlive::{AllocError, Executor, FenceError, Job, JobFences, OpenError, QueueConfig, Refusal, Time, check};
use std::time::Duration;
use world::{Client, MS, Mock, POLICIES, Work, World, error, ok, pending};

#[global_allocator]
static ALLOC: check::Alloc<std::alloc::System> = check::Alloc::new(std::alloc::System);

#[test]
fn a_dropped_arbiter_closes_its_queues_and_lets_no_other_in() {
    let mut world = World::new("fair", 1);
    let queues = [world.queue(world.config()), world.queue(world.config())];
    let jobs: Vec<JobFences> = queues.iter().map(|queue| queue.reserve(Work(MS)).unwrap().commit()).collect();
    let late = world.config();
    drop(world.arbiter.take());
    assert_eq!(world.device.queue(late, ()).unwrap_err(), OpenError::ArbiterGone);
    world.pass_ms(10);
    assert!(jobs.iter().all(|job| error(&job.finished()) == Some(FenceError::Canceled) && ok(&job.retired())));
    assert_eq!(queues[0].reserve(Work(1)).unwrap_err().kind, Refusal::Closed);
}

#[test]
fn bad_input_is_refused_with_the_reason() {
    let world = World::new("fair", 2);
    for weight in [0, 1_000_001] {
        let bad = OpenError::BadWeight(BadWeight { weight });
        assert_eq!(world.device.queue(world.config().weight(weight), ()).unwrap_err(), bad);
        assert_eq!(world.device.queue(world.config().group(1).group_weight(weight), ()).unwrap_err(), bad);
        assert_eq!(world.queue(world.config()).set_weight(weight), Err(BadWeight { weight }));
    }
    assert_eq!(OpenError::from(BadWeight { weight: 0 }).to_string(), "a weight of 0: it must be from 1 to 1000000");
    let queue = world.queue(world.config());
    let refused = queue.reserve(Job::new(Work(1)).credits(3)).unwrap_err();
    assert_eq!(refused.kind, Refusal::TooManyCredits { asked: 3, queue: 2 }, "no more than the pool has");
    let elsewhere = Executor::manual().unwrap();
    let foreign = Arbiter::new(&elsewhere, ArbiterConfig::new(1)).unwrap();
    let config = QueueConfig::new("q").arbiter(&foreign);
    assert_eq!(world.device.queue(config, ()).unwrap_err(), OpenError::OtherExecutor);
    let nothing = Arbiter::new(&world.executor, ArbiterConfig::new(0)).unwrap();
    let config = QueueConfig::new("q").arbiter(&nothing);
    assert_eq!(world.device.queue(config, ()).unwrap_err(), OpenError::NoCredits);
    let two = Arbiter::new(&world.executor, ArbiterConfig::new(1).queues(2)).unwrap();
    let open = || world.device.queue(QueueConfig::new("q").arbiter(&two), ());
    let kept = [open().unwrap(), open().unwrap()];
    assert_eq!(open().unwrap_err(), OpenError::ArbiterFull { most: 2 });
    drop(kept);
    world.pass_ms(0);
    assert!(open().is_ok(), "their places are free again");
}

/// Answers as it is told.
struct Bad<F>(F);

impl<F: FnMut() -> Option<u32> + Send + 'static> Policy for Bad<F> {
    fn name(&self) -> &'static str {
        "bad"
    }
    fn reserve(&mut self, _queues: u32) -> Result<(), AllocError> {
        Ok(())
    }
    fn opened(&mut self, _queue: u32, _client: u64, _share: Share) {}
    fn closed(&mut self, _queue: u32) {}
    fn changed(&mut self, _queue: u32, _share: Share) {}
    fn ready(&mut self, _queue: u32, _head: Head, _now: Time) {}
    fn unready(&mut self, _queue: u32) {}
    fn pick(&mut self, _now: Time) -> Option<u32> {
        (self.0)()
    }
    fn started(&mut self, _queue: u32, _now: Time) {}
    fn returned(&mut self, _queue: u32) {}
    fn ended(&mut self, _queue: u32, _active: Duration, _now: Time) {}
}

fn with_bad(policy: impl FnMut() -> Option<u32> + Send + 'static) -> World {
    let mut world = World::new("fifo", 1);
    let arbiter = Arbiter::with_policy(&world.executor, ArbiterConfig::new(2), Bad(policy)).unwrap();
    world.arbiter = Some(arbiter);
    world
}

#[test]
fn a_policy_that_answers_nonsense_stops_nobody() {
    let mut count = 0_u32;
    let alternating = move || {
        count += 1;
        Some(count % 3)
    };
    let mut random = 1_u32;
    let anything = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(random >> 20)
    };
    for (name, world) in [
        ("nobody", with_bad(|| None)),
        ("who is not there", with_bad(|| Some(u32::MAX))),
        ("always the last", with_bad(|| Some(2))),
        ("each in turn, ready or not", with_bad(alternating)),
        ("anything", with_bad(anything)),
    ] {
        let queues: Vec<_> = (0..3).map(|_| world.queue(world.config())).collect();
        let jobs: Vec<_> = (0..300).map(|index| queues[index % 3].reserve(Work(MS)).unwrap().commit()).collect();
        world.pass_ms(300);
        assert!(jobs.iter().all(|job| ok(&job.finished())), "{name}: nobody waits, and nothing is idle");
        let status = world.arbiter.as_ref().unwrap().status();
        assert_eq!((status.credits_free, status.ready), (2, 0));
        assert!(name == "always the last" || status.bad_answers > 0, "{name}");
    }
}

#[test]
fn who_is_passed_over_for_too_long_is_next_whatever_the_policy_says() {
    let world = with_bad(|| Some(0));
    let favourite = world.queue(world.config());
    let other = world.queue(world.config());
    let jobs: Vec<_> = (0..300).map(|_| favourite.reserve(Work(100 * MS)).unwrap().commit()).collect();
    let passed_over = other.reserve(Work(MS)).unwrap().commit();
    // Two are ready: after 20 s of the favourite's hardware time, and what is on the hardware.
    let bound = 2 * u64::try_from(STARVED_AFTER.as_millis()).unwrap();
    world.pass_ms(bound - 200);
    assert!(pending(&passed_over.scheduled()));
    world.pass_ms(200 + 2 * 100);
    assert!(ok(&passed_over.scheduled()) && pending(&jobs[299].finished()));
}

#[test]
fn a_job_that_needs_more_than_is_free_neither_starves_nor_stops_others_for_ever() {
    for policy in POLICIES {
        let world = World::new(policy, 4);
        let small: Vec<_> = (0..3).map(|_| world.queue(world.config())).collect();
        let large = world.queue(world.config());
        let small_jobs: Vec<_> = (0..1_200).map(|index| small[index % 3].reserve(Work(MS)).unwrap().commit()).collect();
        let job = |_| large.reserve(Job::new(Work(MS)).credits(4)).unwrap().commit();
        let large_jobs: Vec<JobFences> = (0..400).map(job).collect();
        world.pass_ms(400);
        let done = |jobs: &[JobFences]| jobs.iter().filter(|job| ok(&job.finished())).count();
        let (few, many) = (done(&large_jobs), done(&small_jobs));
        // Between two starts of one queue, at the longest: those before it in turn, and who waits for all credits.
        let longest = |jobs: &[JobFences]| {
            let mut starts: Vec<u64> =
                jobs.iter().filter_map(|job| Some(job.scheduled().timestamp()?.as_ns())).collect();
            starts.sort_unstable();
            starts.windows(2).map(|pair| (pair[1] - pair[0]) / MS).max()
        };
        let (large_gap, small_gap) = (longest(&large_jobs), longest(&small_jobs));
        println!(
            "{policy}: of 400 ms, {few} jobs of 4 credits and {many} of 1 credit; next starts after at most {large_gap:?} and {small_gap:?} ms"
        );
        // It waits for at most a pool full of jobs once it is its turn, and the others for that and for its own.
        assert!(policy == "fifo" || (large_gap <= Some(4 + 4) && small_gap <= Some(4 + 1)));
        assert_eq!(few + many, 400, "nothing is idle: the hardware runs one at a time");
        if policy == "fair" {
            assert!(few.abs_diff(100) <= 4, "a quarter, within what is on the hardware");
        }
        world.pass_ms(1_200);
        assert!(large_jobs.iter().chain(&small_jobs).all(|job| ok(&job.finished())));
        assert!(*world.mock().most.lock().unwrap() <= 4, "never more than the pool");
    }
}

#[test]
fn a_single_job_goes_before_the_crowds_of_queues_of_which_nothing_is_known() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let hogs: Vec<_> = (0..4).map(|_| world.queue(world.config())).collect();
        for hog in &hogs {
            // The first asks at once, alone: the arbiter hears of those behind it.
            for _ in 0..4 {
                drop(hog.reserve(Work(50 * MS)).unwrap().commit());
            }
        }
        let interactive = world.queue(world.config());
        let job = interactive.reserve(Work(MS)).unwrap().commit();
        world.pass_ms(900);
        let waited = job.scheduled().timestamp().unwrap().as_ns() / MS;
        println!("{policy}: one job of 1 ms behind four queues of 4 x 50 ms: waits {waited} ms");
        assert!(waited <= 50 || policy != "fair");
    }
}

#[test]
fn who_has_the_turn_and_cannot_use_it_passes_it_on() {
    for (name, hinder) in [
        ("suspended", (|queue: &outlive::JobQueue<Mock>| queue.suspend()) as fn(&outlive::JobQueue<Mock>)),
        ("closed", |queue| drop(queue.close())),
    ] {
        let world = World::new("fifo", 1);
        let queues: Vec<_> = (0..3).map(|_| world.queue(world.config())).collect();
        let first = queues[0].reserve(Work(MS)).unwrap().commit();
        let second = queues[1].reserve(Work(MS)).unwrap().commit();
        let third = queues[2].reserve(Work(MS)).unwrap().commit();
        hinder(&queues[1]);
        world.pass_ms(2);
        assert!(ok(&first.finished()) && ok(&third.finished()), "{name}");
        assert!(!ok(&second.finished()));
        queues[1].resume();
        world.pass_ms(2);
        assert_eq!(ok(&second.finished()), name == "suspended");
        assert_eq!(world.arbiter.as_ref().unwrap().status().credits_free, 1);
    }
}

#[test]
fn a_change_of_priority_weight_or_group_counts_from_the_next_decision() {
    for what in 0..3 {
        let world = World::new("fair", 1);
        let config = |client| world.config().client(client).group(if what == 2 { client } else { 0 });
        let queues: Vec<_> = (1..=2).map(|client| world.queue(config(client))).collect();
        for _ in 0..3_000 {
            for queue in &queues {
                drop(queue.reserve(Work(MS)).unwrap().commit());
            }
        }
        let had =
            |world: &World| world.mock().started.lock().unwrap().iter().filter(|(client, _)| *client == 1).count();
        world.pass_ms(1_000);
        let before = had(&world);
        assert!(before.abs_diff(500) <= 5, "{before}");
        match what {
            0 => queues[0].set_priority(Priority::High),
            1 => queues[0].set_weight(400).unwrap(),
            _ => {
                // Beside a third in its new group, of four there.
                queues[0].set_group(2);
                queues[0].set_weight(400).unwrap();
            }
        }
        world.pass_ms(1_000);
        let after = had(&world) - before;
        assert!(after.abs_diff(800) <= 8, "{what}: {after}");
    }
}

#[test]
fn a_hung_job_pays_for_the_time_it_took_and_the_balance_is_right_after_a_kill() {
    let world = World::with("fair", 1, Mock { resets: true, ..Mock::default() });
    let hanging = world.queue(world.config().client(1).timeout(Duration::from_millis(200)));
    let other = world.queue(world.config().client(2));
    let hung = hanging.reserve(Work(0)).unwrap().commit();
    for _ in 0..1_000 {
        drop(hanging.reserve(Work(MS)).unwrap().commit());
        drop(other.reserve(Work(MS)).unwrap().commit());
    }
    world.pass_ms(201);
    assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
    let first_of = |client| {
        let started = world.mock().started.lock().unwrap();
        started.iter().filter(move |(of, _)| *of == client).map(|(_, at)| *at).collect::<Vec<_>>()
    };
    world.pass_ms(198);
    assert_eq!(first_of(1).len(), 1, "it has had its 200 ms");
    world.pass_ms(100);
    assert!(first_of(1).len().abs_diff(50) < 5, "then both have the same: {}", first_of(1).len());
    let drained = other.close();
    drop(other);
    world.pass_ms(10);
    assert!(drained.is_drained());
    let before = first_of(1).len();
    world.pass_ms(100);
    assert_eq!(first_of(1).len() - before, 100, "what is left gets everything");
}

#[test]
fn a_commit_to_a_closed_queue_and_errors_of_what_is_depended_on_take_no_turn() {
    let world = World::new("fair", 1);
    let closed = world.queue(world.config().client(1));
    let late = closed.reserve(Work(MS)).unwrap();
    let failing = closed.reserve(Work(MS)).unwrap().commit();
    drop(closed.close());
    let late = late.commit();
    let own = world.queue(world.config().client(1));
    let other = world.queue(world.config().client(2));
    let fails = own.reserve_after(Work(MS), [failing.finished()]).unwrap().commit();
    let runs = other.reserve_after(Work(MS), [failing.finished()]).unwrap().commit();
    world.pass_ms(3);
    assert_eq!(error(&late.finished()), Some(FenceError::Canceled));
    assert!(matches!(error(&fails.finished()), Some(FenceError::Dependency(_))), "of the same client");
    assert!(ok(&runs.finished()), "of another");
    let status = world.arbiter.as_ref().unwrap().status();
    assert_eq!((status.credits_free, status.ready), (1, 0));
}

#[test]
fn nothing_is_allocated_in_the_signalling_path() {
    let world = World::new("fair", 2);
    let mut clients: Vec<Client> =
        (1..20).map(|id| Client::new(&world, id, Priority::Normal, 3, MS, MS, id % 2 == 0, 100 * MS)).collect();
    world.pass(3_000 * MS, |world| clients.iter_mut().filter_map(|client| client.visit(world.now())).min());
    assert!(clients.iter().all(Client::is_done));
    assert_eq!(check::take_report().map(|report| report.violation), None);
}
