//! The cases of the kernel's KUnit suites for its scheduler, under their names (behaviour only), each under every policy, with
//! numeric thresholds, which those lack.

use crate::world::{Client, MS, Mock, POLICIES, US, Work, World, error, ok, pending};
use outlive::sched::Priority::{High, Low, Normal};
use outlive::{Device, Executor, FenceError, JobFences, QueueConfig};
use std::time::Duration;

#[test]
fn basic_submit() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queue = world.queue(world.config());
        let job = queue.reserve(Work(0)).unwrap().commit();
        world.pass_ms(500);
        assert!(ok(&job.scheduled()) && pending(&job.finished()), "{policy}");
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(0);
        assert!(ok(&job.finished()) && ok(&job.retired()));
    }
}

#[test]
fn basic_test() {
    for policy in POLICIES {
        for (queues, chain) in [(1, false), (1, true), (4, false), (4, true)] {
            let world = World::new(policy, u32::MAX);
            let queues: Vec<_> = (0..queues).map(|_| world.queue(world.config().client(1))).collect();
            let mut last: Option<JobFences> = None;
            for index in 0..100 {
                let after = last.iter().filter(|_| chain).map(JobFences::finished);
                let job = queues[index % queues.len()].reserve_after(Work(MS), after).unwrap().commit();
                last = Some(job);
            }
            world.pass_ms(100);
            assert!(ok(&last.unwrap().finished()), "{policy}: 100 jobs of 1 ms take 100 ms");
        }
    }
}

#[test]
fn basic_entity_cleanup() {
    for policy in POLICIES {
        let world = World::new(policy, 4);
        let mut queues: Vec<_> = (0..4).map(|_| world.queue(world.config().client(1))).collect();
        let mut jobs: Vec<JobFences> = Vec::new();
        for index in 0..100 {
            let after = jobs.last().map(JobFences::finished);
            jobs.push(queues[index % 4].reserve_after(Work(MS), after).unwrap().commit());
        }
        world.pass_ms(51);
        assert!(ok(&jobs[50].finished()));
        let drained: Vec<_> = queues.iter().map(|queue| queue.close()).collect();
        queues.clear();
        world.pass_ms(4_000);
        assert!(jobs.iter().all(|job| !pending(&job.finished()) && !pending(&job.retired())), "{policy}: no hang");
        assert!(drained.iter().all(outlive::Drained::is_drained), "no leak");
        assert_eq!(world.arbiter.as_ref().unwrap().status().credits_free, 4, "all credits are back");
    }
}

#[test]
fn basic_timeout() {
    for policy in POLICIES {
        let world = World::with(policy, 1, Mock { resets: true, ..Mock::default() });
        let queue = world.queue(world.config().timeout(Duration::from_millis(200)));
        let job = queue.reserve(Work(0)).unwrap().commit();
        world.pass_ms(100);
        assert!(ok(&job.scheduled()) && pending(&job.finished()) && *world.mock().timed_out.lock().unwrap() == 0);
        world.pass_ms(101);
        assert_eq!(error(&job.finished()), Some(FenceError::TimedOut), "{policy}");
        assert_eq!(world.arbiter.as_ref().unwrap().status().credits_free, 1);
    }
}

#[test]
fn skip_reset() {
    for policy in POLICIES {
        let world = World::with(policy, 1, Mock { patient: true, ..Mock::default() });
        let queue = world.queue(world.config().timeout(Duration::from_millis(200)));
        let job = queue.reserve(Work(0)).unwrap().commit();
        world.pass_ms(400);
        assert!(pending(&job.finished()) && *world.mock().timed_out.lock().unwrap() >= 1);
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(0);
        assert!(ok(&job.finished()), "{policy}");
    }
}

#[test]
fn basic_cancel() {
    for policy in POLICIES {
        let mut world = World::new(policy, 1);
        let queue = world.queue(world.config());
        let job = queue.reserve(Work(0)).unwrap().commit();
        drop(queue);
        drop(world.arbiter.take());
        world.pass_ms(0);
        assert_eq!(error(&job.finished()), Some(FenceError::Canceled), "{policy}");
        world.pass_ms(5_000);
        assert!(ok(&job.retired()));
    }
}

#[test]
fn priorities() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queues = [Low, Normal, High, outlive::sched::Priority::Realtime]
            .map(|priority| world.queue(world.config().priority(priority)));
        let jobs: Vec<_> = (0..100).map(|index| queues[index % 4].reserve(Work(MS)).unwrap().commit()).collect();
        world.pass_ms(100);
        assert!(jobs.iter().all(|job| ok(&job.finished())), "{policy}: nobody starves, nothing is idle");
    }
}

#[test]
fn change_priority() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queues = [Low, Normal, High, Normal].map(|priority| world.queue(world.config().priority(priority)));
        let jobs: Vec<_> = (0..1_000).map(|index| queues[index % 4].reserve(Work(MS)).unwrap().commit()).collect();
        let mut turn = 0;
        while pending(&jobs[999].finished()) && turn < 10_000 {
            queues[turn % 4].set_priority([Low, Normal, High][turn % 3]);
            world.pass(200 * US + (turn as u64 % 4) * 100 * US, |_| None);
            turn += 1;
        }
        world.pass_ms(1_000);
        assert!(jobs.iter().all(|job| ok(&job.finished())), "{policy}");
        assert!(world.now() <= 2_001 * MS, "{policy}: {} ms", world.now() / MS);
    }
}

/// A queue stays with its arbiter. A client moves by opening one with another, whose first job waits for the last one of the
/// old; that one it drops when it is empty. Nothing is cancelled, and its jobs stay in order.
struct Mover {
    /// The newest last.
    queues: Vec<outlive::JobQueue<Mock>>,
    jobs: Vec<JobFences>,
}

impl Mover {
    fn to(&mut self, world: &World, arbiter: &outlive::sched::Arbiter, client: u64) {
        self.queues.retain(|queue| queue.status().unfinished > 0);
        let config = QueueConfig::new("q").timeout(Duration::ZERO).client(client).arbiter(arbiter);
        self.queues.push(world.queue(config));
    }

    fn commit(&mut self) {
        let queue = self.queues.last().unwrap();
        let after = self.jobs.last().map(JobFences::finished);
        self.jobs.push(queue.reserve_after(Work(MS), after).unwrap().commit());
    }
}

#[test]
fn test_modify_sched() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let arbiters = [1, 1, 1].map(|credits| crate::world::arbiter(&world.executor, policy, credits));
        let mut movers: Vec<Mover> = (0..13).map(|_| Mover { queues: Vec::new(), jobs: Vec::new() }).collect();
        for (mover, client) in movers.iter_mut().zip(1..) {
            mover.to(&world, &arbiters[client as usize % 3], client);
        }
        // Every 200 to 500 µs somebody moves; 1000 jobs in all, some on their way at any time.
        let mut moves = 0_usize;
        while movers.iter().map(|mover| mover.jobs.len()).sum::<usize>() < 1_000 {
            let at = moves % 13;
            movers[at].commit();
            movers[at].commit();
            movers[at].to(&world, &arbiters[moves % 3], at as u64 + 1);
            world.pass(200 * US + (moves as u64 % 4) * 100 * US, |_| None);
            moves += 1;
        }
        world.pass_ms(1_000);
        for mover in &movers {
            assert!(mover.jobs.iter().all(|job| ok(&job.finished())), "{policy}: nothing is lost in a move");
            let starts: Vec<_> = mover.jobs.iter().map(|job| job.scheduled().timestamp()).collect();
            assert!(starts.is_sorted(), "{policy}: a client's jobs stay in order");
        }
        println!("{policy}: 1,000 jobs of 13 clients that moved {moves} times: done after {} ms", world.now() / MS);
        let last = movers.iter().flat_map(|mover| &mover.jobs).filter_map(|job| job.finished().timestamp()).max();
        assert!(last.unwrap().as_ns() <= 1_001 * MS, "{policy}: the hardware is never idle: {last:?}");
        drop(movers);
        world.pass_ms(0);
        for arbiter in &arbiters {
            assert_eq!((arbiter.status().credits_free, arbiter.status().ready), (1, 0), "{policy}");
        }
    }
}

#[test]
fn test_credits() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queue = world.queue(world.config());
        let jobs: Vec<_> = (0..2).map(|_| queue.reserve(Work(0)).unwrap().commit()).collect();
        world.pass_ms(1_000);
        assert!(ok(&jobs[0].scheduled()) && pending(&jobs[1].scheduled()), "{policy}");
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(0);
        assert!(ok(&jobs[1].scheduled()));
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(0);
        assert!(ok(&jobs[1].finished()));
    }
}

/// Over threads: `work` on each of 16, with a device of its own for all of them.
fn concurrent(policy: &str, credits: u32, work: impl Fn(usize, &outlive::JobQueue<Mock>) + Sync) {
    let executor = Executor::builder().threads().unwrap();
    let device = Device::new(&executor, Mock::default()).unwrap();
    let arbiter = crate::world::arbiter(&executor, policy, credits);
    std::thread::scope(|scope| {
        let worker = |index| {
            let config = QueueConfig::new("q").timeout(Duration::ZERO).credits(128).arbiter(&arbiter);
            let queue = device.queue(config, ()).unwrap();
            work(index, &queue);
        };
        let workers: Vec<_> = (0..16).map(|index| scope.spawn(move || worker(index))).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            device.driver().advance(usize::MAX);
            std::thread::yield_now();
        }
    });
    assert_eq!(arbiter.status().credits_free, credits, "{policy}");
}

#[test]
fn parallel_submit() {
    for policy in POLICIES {
        concurrent(policy, 128, |_, queue| {
            let jobs: Vec<_> = (0..8).map(|_| queue.reserve(Work(0)).unwrap().commit()).collect();
            for job in jobs {
                job.scheduled().wait(Duration::from_secs(20)).unwrap();
                job.retired().wait(Duration::from_secs(20)).unwrap();
            }
        });
    }
}

#[test]
fn interleaved_submit() {
    for policy in POLICIES {
        // Fewer credits than clients, so that each start is somebody's turn.
        concurrent(policy, 2, |index, queue| {
            let count = (62_500 / (100 * (index + 1))).max(1);
            let mut window = std::collections::VecDeque::new();
            for _ in 0..count {
                window.push_back(queue.reserve(Work(0)).unwrap().commit());
                if window.len() == 8 {
                    let oldest: JobFences = window.pop_front().unwrap();
                    oldest.retired().wait(Duration::from_secs(20)).unwrap();
                }
            }
            for job in window {
                job.retired().wait(Duration::from_secs(20)).unwrap();
            }
        });
    }
}

#[test]
fn queue_overhead() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queue = world.queue(world.config());
        let _blocker = queue.reserve(Work(0)).unwrap().commit();
        let jobs: Vec<_> = (0..1_000).map(|_| queue.reserve(Work(MS)).unwrap().commit()).collect();
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(1_000);
        assert!(ok(&jobs[999].finished()), "{policy}: 1000 jobs of 1 ms take exactly 1 s");
    }
}

#[test]
fn ping_pong() {
    for policy in POLICIES {
        let world = World::new(policy, 1);
        let queues = [world.queue(world.config().client(1)), world.queue(world.config().client(1))];
        let blocker = queues[0].reserve(Work(0)).unwrap().commit();
        let mut last = blocker.finished();
        for index in 0..1_000 {
            last = queues[index % 2].reserve_after(Work(MS), [last]).unwrap().commit().finished();
        }
        assert_eq!(world.mock().advance(1), 1);
        world.pass_ms(1_000);
        assert!(ok(&last), "{policy}: exactly 1 s");
    }
}

type Row = (&'static str, [(outlive::sched::Priority, u32, u64, u64, bool); 2], Option<f64>);

/// The ten rows: two clients of jobs × µs, wait in µs, synchronous; and what the fair policy must give the first, where both
/// always have a job.
const ROWS: [Row; 10] = [
    ("normal/normal", [(Normal, 1, 8_000, 0, false), (Normal, 1, 8_000, 0, false)], Some(0.5)),
    ("normal/low", [(Normal, 1, 8_000, 0, false), (Low, 1, 8_000, 0, false)], Some(0.8)),
    ("high/normal", [(High, 1, 8_000, 0, false), (Normal, 1, 8_000, 0, false)], Some(0.8)),
    ("high/low", [(High, 1, 8_000, 0, false), (Low, 1, 8_000, 0, false)], Some(16.0 / 17.0)),
    ("50%/50%", [(Normal, 1, 1_500, 1_500, true), (Normal, 1, 2_500, 2_500, true)], None),
    ("50%/50% low", [(Normal, 1, 1_500, 1_500, true), (Low, 1, 2_500, 2_500, true)], None),
    ("50% high/50%", [(High, 1, 1_500, 1_500, true), (Normal, 1, 2_500, 2_500, true)], None),
    ("low hog/interactive", [(Low, 3, 2_500, 500, false), (Normal, 1, 500, 10_000, true)], None),
    ("heavy/interactive", [(Normal, 3, 2_500, 2_500, true), (Normal, 1, 1_000, 9_000, true)], None),
    ("very heavy/interactive", [(Normal, 4, 50_000, 1, true), (Normal, 1, 1_000, 9_000, true)], None),
];

fn two_clients(credits: u32) {
    let run = 1_000 * MS;
    for (name, rows, due) in ROWS {
        for policy in POLICIES {
            let world = World::new(policy, credits);
            let mut clients: Vec<Client> = rows
                .iter()
                .zip(1..)
                .map(|((priority, count, us, wait, sync), id)| {
                    Client::new(&world, id, *priority, *count, us * US, wait * US, *sync, run)
                })
                .collect();
            let mut both = |world: &World| clients.iter_mut().filter_map(|client| client.visit(world.now())).min();
            world.pass(run - 1, &mut both);
            let had: Vec<f64> = clients.iter().map(|client| client.had() as f64 / run as f64).collect();
            let mut both = |world: &World| clients.iter_mut().filter_map(|client| client.visit(world.now())).min();
            world.pass(4 * run, &mut both);
            assert!(clients.iter().all(Client::is_done), "{name}, {policy}: done within 5 s");
            let late: Vec<u64> =
                clients.iter().map(|one| one.cycle_max.saturating_sub(u64::from(one.count) * one.ns)).collect();
            println!(
                "{name}, {credits} credits, {policy}: had {:.3} and {:.3} of the first second; cycles at most {} and {} us late",
                had[0],
                had[1],
                late[0] / US,
                late[1] / US
            );
            if policy != "fair" {
                continue;
            }
            if let Some(due) = due {
                let bound = f64::from(credits) * clients[0].ns as f64 / run as f64;
                let share = had[0] / (had[0] + had[1]);
                assert!((share - due).abs() <= bound.max(0.01), "{name}: {share}, due {due}");
            }
            // Who takes less than its share waits, for each of its jobs, for what is on the hardware at most.
            for (one, other) in [(0, 1), (1, 0)] {
                let bound = u64::from(clients[one].count) * u64::from(credits) * clients[other].ns;
                let modest = had[one] < 0.35 && clients[one].sync;
                assert!(!modest || late[one] <= bound, "{name}: {} us late, at most {}", late[one] / US, bound / US);
            }
        }
    }
}

#[test]
fn two_clients_one_credit() {
    two_clients(1);
}

#[test]
fn two_clients_two_credits() {
    two_clients(2);
}

#[test]
fn many_clients() {
    for (count, jobs) in [(2_u64, 4), (3, 4), (7, 4), (13, 4), (31, 2)] {
        for policy in POLICIES {
            let world = World::new(policy, 2);
            let run = 1_000 * MS;
            let mut clients: Vec<Client> =
                (0..count).map(|id| Client::new(&world, id + 1, Normal, jobs, MS, 0, true, run)).collect();
            world.pass(run, |world| clients.iter_mut().filter_map(|client| client.visit(world.now())).min());
            let had: Vec<f64> = clients.iter().map(|client| client.had() as f64 / run as f64).collect();
            let (least, most) = (had.iter().copied().fold(1.0, f64::min), had.iter().copied().fold(0.0, f64::max));
            println!("many clients, {count} of {jobs} x 1 ms, {policy}: each had {least:.3} to {most:.3}");
            if policy == "fair" {
                assert!(most - least <= 0.01, "{had:?}");
                assert!(had.iter().sum::<f64>() > 0.98, "{had:?}");
            }
        }
    }
}
