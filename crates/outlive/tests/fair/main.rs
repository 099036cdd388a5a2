//! The policies alone, in virtual time, against numbers: shares, waits, sleepers, clients that wait for each job. FIFO and round
//! robin are printed beside the fair one (`--nocapture`).

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    unreachable_pub,
    reason = "a test: it has std and may panic"
)]

mod world;

use outlive::sched::{Fair, Policy, Priority, Share};
use world::{Client, Hardware, MS, SECOND, US, World, policies};

const RUN: u64 = 10 * SECOND;

/// What clients that always have a job get is `due`, within 1 % of the hardware, or as many of the longest jobs as there are
/// credits.
fn gets_its_due(name: &str, clients: &[Client], credits: u32, hardware: Hardware, due: &[f64]) {
    let longest = clients.iter().map(|client| client.job_ns).max().unwrap();
    let bound = f64::max(0.01, f64::from(credits) * longest as f64 / RUN as f64);
    let mut line = format!("{name}, {credits} credits, {hardware:?}: due {due:.3?}");
    for (policy, make) in policies() {
        // The others are for comparison: a tenth of the time says the same.
        let run = if policy == "fair" { RUN } else { RUN / 10 };
        let shares = World::new(make(), clients, credits, hardware).run(run).shares();
        line += &format!(" | {policy} {shares:.3?}");
        if policy == "fair" {
            for (had, due) in shares.iter().zip(due) {
                assert!((had - due).abs() <= bound, "{line}: further than {bound:.4}");
            }
        }
    }
    println!("{line}");
}

#[test]
fn clients_that_always_have_a_job_get_their_share_whatever_its_length_and_their_weight() {
    let lengths = [50 * US, MS, 8 * MS, 50 * MS];
    let hardware = [(1, Hardware::Serial), (2, Hardware::Parallel), (4, Hardware::Serial), (16, Hardware::Serial)];
    for (row, &one) in lengths.iter().enumerate() {
        for (column, &other) in lengths.iter().enumerate() {
            for (turn, weight) in [100, 200, 500, 1_000].into_iter().enumerate() {
                let (credits, hardware) = hardware[(row + column + turn) % 4];
                // With two engines nobody can use more than half: enough of them want to.
                let weight = if hardware == Hardware::Parallel { weight.min(200) } else { weight };
                let mut clients = vec![Client::greedy(one).weight(weight)];
                clients.extend(vec![Client::greedy(other); 3]);
                let all = f64::from(weight + 300);
                let due: Vec<f64> = clients.iter().map(|client| f64::from(client.share.weight) / all).collect();
                let name = format!("{} us at {weight} beside 3 of {} us", one / US, other / US);
                gets_its_due(&name, &clients, credits, hardware, &due);
            }
        }
    }
}

#[test]
fn how_deep_a_queue_is_does_not_matter() {
    for depth in [1, 8, 64] {
        for (one, other, credits) in [(50 * US, 50 * MS, 4), (50 * MS, 500 * US, 1)] {
            let clients = [Client::greedy(one).depth(depth), Client::greedy(other).depth(1), Client::greedy(MS)];
            let name = format!("{depth} jobs of {} us waiting, one of {} us, two of 1 ms", one / US, other / US);
            gets_its_due(&name, &clients, credits, Hardware::Serial, &[1.0 / 3.0; 3]);
        }
    }
}

/// Clients that sometimes have no work, of every priority and some groups, at random.
fn any_clients(seed: u64) -> Vec<Client> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) % below
    };
    let mut clients: Vec<Client> = (0..3 + below(6))
        .map(|_| {
            let job_ns = [50 * US, 500 * US, 5 * MS, 50 * MS][below(4) as usize];
            let client = match below(3) {
                0 => Client::greedy(job_ns).depth(1 + below(8) as u32),
                1 => Client::sync(1 + below(4) as u32, job_ns, below(20) * MS),
                _ => Client::periodic(1, job_ns, job_ns + (1 + below(40)) * MS),
            };
            let priority = [Priority::Low, Priority::Normal, Priority::High][below(3) as usize];
            client.priority(priority).weight(100 + 100 * below(10) as u32)
        })
        .collect();
    // At least one of them always has a job.
    clients.push(Client::greedy(MS));
    clients
}

#[test]
fn nobody_who_always_has_work_gets_less_than_its_effective_weights_share() {
    let mut least: [f64; 3] = [1.0; 3];
    for seed in 1..=24 {
        let clients = any_clients(seed);
        let credits = [1, 2, 4][seed as usize % 3];
        let weight = |client: &Client| {
            let quarters = [1, 4, 16][client.share.priority as usize];
            f64::from(client.share.weight * quarters)
        };
        let all: f64 = clients.iter().map(weight).sum();
        let longest = clients.iter().map(|client| client.job_ns).max().unwrap();
        let bound = f64::max(0.01, f64::from(credits) * longest as f64 / RUN as f64);
        for (index, (policy, make)) in policies().into_iter().enumerate() {
            let run = if policy == "fair" { RUN } else { RUN / 10 };
            let mut world = World::new(make(), &clients, credits, Hardware::Serial);
            world.run(run);
            for (client, had) in clients.iter().zip(&world.had).filter(|(client, _)| client.is_greedy()) {
                let (had, due) = (had.hardware_ns as f64 / run as f64, weight(client) / all);
                least[index] = least[index].min(had / due);
                assert!(policy != "fair" || had >= due - bound, "seed {seed}: had {had:.4}, due {due:.4}, {clients:?}");
            }
        }
    }
    println!(
        "who always has work, among 24 sets of clients, at least: fair {:.3}, fifo {:.3}, round robin {:.3} of its share",
        least[0], least[1], least[2]
    );
}

#[test]
fn groups_come_first_however_many_queues_they_have() {
    for members in [1_u32, 2, 5, 10] {
        let mut clients = vec![Client::greedy(2 * MS).group(7, 100); members as usize];
        clients.push(Client::greedy(MS));
        let mut due = vec![0.5 / f64::from(members); members as usize];
        due.push(0.5);
        gets_its_due(&format!("a group of {members} and one alone"), &clients, 1, Hardware::Serial, &due);
    }
    let clients = [
        Client::greedy(MS).group(1, 300).weight(100),
        Client::greedy(MS).group(1, 300).weight(300),
        Client::greedy(MS).group(2, 100).priority(Priority::High),
        Client::greedy(MS).group(2, 100).priority(Priority::Low),
    ];
    let due = [0.75 * 0.25, 0.75 * 0.75, 0.25 * 16.0 / 17.0, 0.25 / 17.0];
    gets_its_due("weights of groups and members", &clients, 2, Hardware::Serial, &due);
}

#[test]
fn priorities_multiply_weights() {
    let clients =
        [Priority::High, Priority::Normal, Priority::Low].map(|priority| Client::greedy(MS).priority(priority));
    gets_its_due("high, normal, low", &clients, 1, Hardware::Serial, &[16.0 / 21.0, 4.0 / 21.0, 1.0 / 21.0]);
}

#[test]
fn realtime_is_first_up_to_half_of_any_100_ms_then_counts_as_high() {
    let urgent = Client::greedy(5 * MS).priority(Priority::Realtime).group(1, 100);
    let clients = [urgent, Client::greedy(5 * MS).group(2, 100)];
    let mut world = World::fair(&clients, 1, Hardware::Serial);
    world.run(RUN);
    println!("a greedy realtime client beside another group: {:.3?}", world.shares());
    assert!(
        (world.shares()[0] - 0.5).abs() < 0.01,
        "its group's share is charged, and is what it gets in the long run"
    );
    // An interactive one beside many: never waits for more than the job on the hardware.
    let mut clients = vec![Client::periodic(1, 4 * MS, 10 * MS).priority(Priority::Realtime)];
    clients.extend(vec![Client::greedy(8 * MS).weight(1_000); 9]);
    let mut world = World::fair(&clients, 1, Hardware::Serial);
    world.run(RUN);
    let had = &world.had[0];
    println!("realtime 4 ms each 10 ms beside 9 of ten times its weight: waits at most {} us", had.wait_max_ns / US);
    assert!(had.wait_max_ns <= 8 * MS, "{} us", had.wait_max_ns / US);
    assert!(world.shares()[0] > 0.39, "{:?}", world.shares());
    // One that wants everything gets half of every 100 ms, and beyond that its share as a high one.
    let mut clients = vec![Client::greedy(5 * MS).priority(Priority::Realtime)];
    clients.extend(vec![Client::greedy(MS); 36]);
    let mut world = World::fair(&clients, 1, Hardware::Serial);
    world.run(RUN);
    let most = most_in_100_ms(&world.had[0].ends);
    println!(
        "a greedy realtime client beside 36: {:.3}, at most {:.1} ms of any 100",
        world.shares()[0],
        most as f64 / 1e6
    );
    assert!(most <= 50 * MS + 5 * MS, "{most} ns");
}

/// The most hardware time of jobs that lie in any 100 ms.
fn most_in_100_ms(ends: &[(u64, u64)]) -> u64 {
    let mut most = 0;
    for (index, (end, _)) in ends.iter().enumerate() {
        let from = end.saturating_sub(100 * MS);
        let within = |(end, ns): &(u64, u64)| (end - from).min(*ns);
        most = most.max(ends[..=index].iter().rev().take_while(|(end, _)| *end > from).map(within).sum());
    }
    most
}

#[test]
fn a_client_that_waits_for_each_job_gets_what_the_best_schedule_would_give_it() {
    let mut worst: f64 = 0.0;
    for job_ns in [500 * US, 5 * MS, 50 * MS] {
        for think_ns in [5 * US, 1_500 * US, 9 * MS] {
            for other_ns in [100 * US, 2_500 * US, 50 * MS] {
                for weight in [50, 100, 400] {
                    let clients = [Client::sync(1, job_ns, think_ns).weight(weight), Client::greedy(other_ns)];
                    // The best for it: it is always next. But no more than its weight.
                    let first = [clients[0].priority(Priority::Realtime), clients[1]];
                    let most =
                        World::new(Box::new(Strict::default()), &first, 1, Hardware::Serial).run(RUN).shares()[0];
                    let due = f64::from(weight) / f64::from(weight + 100);
                    let oracle = due.min(most);
                    let had = World::fair(&clients, 1, Hardware::Serial).run(RUN).shares()[0];
                    let granularity = job_ns.max(other_ns) as f64 / RUN as f64;
                    let what = format!(
                        "waits for {} us, thinks {} us, weight {weight}, beside {} us: best {oracle:.4}, had {had:.4}",
                        job_ns / US,
                        think_ns / US,
                        other_ns / US
                    );
                    worst = worst.max(oracle - had);
                    assert!(had >= oracle - 0.02, "{what}");
                    assert!(had <= due + f64::max(0.01, granularity), "above its weight: {what}");
                }
            }
        }
    }
    println!(
        "a client that waits for each job: at most {:.2} % of the hardware below the best schedule",
        worst * 100.0
    );
}

/// The first client is next whenever it is ready.
#[derive(Default)]
struct Strict {
    ready: std::collections::BTreeSet<u32>,
}

impl Policy for Strict {
    fn name(&self) -> &'static str {
        "strict"
    }
    fn reserve(&mut self, _queues: u32) -> Result<(), outlive::AllocError> {
        Ok(())
    }
    fn opened(&mut self, _queue: u32, _client: u64, _share: Share) {}
    fn closed(&mut self, _queue: u32) {}
    fn changed(&mut self, _queue: u32, _share: Share) {}
    fn ready(&mut self, queue: u32, _head: outlive::sched::Head, _now: outlive::Time) {
        self.ready.insert(queue);
    }
    fn unready(&mut self, queue: u32) {
        self.ready.remove(&queue);
    }
    fn pick(&mut self, _now: outlive::Time) -> Option<u32> {
        self.ready.first().copied()
    }
    fn started(&mut self, queue: u32, _now: outlive::Time) {
        self.ready.remove(&queue);
    }
    fn returned(&mut self, _queue: u32) {}
    fn ended(&mut self, _queue: u32, _active: std::time::Duration, _now: outlive::Time) {}
}

/// 1 ms each 10 ms beside four `hogs`, as the client number `at`; its longest wait under each policy. Fair is held to
/// `bound_ms`.
fn interactive_beside(hog: Client, interactive: Client, at: usize, credits: u32, bound_ms: u64) {
    let mut clients = vec![hog; 4];
    clients.insert(at, interactive);
    let mut line = format!(
        "1 ms each 10 ms (waits: {}), number {at}, from {} ms on, beside 4 of {} x 50 ms (wait: {}), {credits} credits:",
        interactive.sync,
        interactive.start_ns / MS,
        hog.jobs,
        hog.sync
    );
    for (policy, make) in policies() {
        let mut world = World::new(make(), &clients, credits, Hardware::Serial);
        let had = &world.run(RUN).had[at];
        line += &format!(" {policy} p100 {} ms, {} jobs;", had.wait_max_ns / MS, had.jobs);
        assert!(policy != "fair" || had.wait_max_ns <= bound_ms * MS, "{line}");
    }
    println!("{line}");
}

#[test]
fn an_interactive_client_waits_for_no_more_than_what_is_on_the_hardware() {
    for credits in [1, 2, 4] {
        for interactive in [Client::sync(1, MS, 9 * MS), Client::periodic(1, MS, 10 * MS)] {
            // Also together with them, when nothing is known of anybody, and last in every order that numbers give.
            for (from, at) in [(300 * MS, 0), (0, 0), (0, 2), (0, 4)] {
                for hog in [Client::greedy(50 * MS), Client::sync(4, 50 * MS, US)] {
                    interactive_beside(hog, interactive.from(from), at, credits, u64::from(credits) * 50);
                }
            }
        }
    }
}

#[test]
fn an_interactive_client_that_nobody_can_tell_from_hogs_waits_for_one_job_of_each_once() {
    // Five that come at once with one job each: whatever a policy chooses, one of them is last.
    interactive_beside(Client::sync(1, 50 * MS, US), Client::sync(1, MS, 9 * MS), 4, 1, 4 * 50);
    // Later it is known.
    interactive_beside(Client::sync(1, 50 * MS, US), Client::sync(1, MS, 9 * MS).from(300 * MS), 4, 1, 50);
}

/// The most that client 0 had beyond its due of what was had since `since`, at any moment.
fn most_beyond(world: &World, since: u64, due: f64) -> f64 {
    let mut all: Vec<(u64, u64, bool)> = Vec::new();
    for (client, had) in world.had.iter().enumerate() {
        all.extend(had.ends.iter().filter(|(end, _)| *end > since).map(|(end, ns)| (*end, *ns, client == 0)));
    }
    all.sort_unstable();
    let (mut own, mut sum, mut most) = (0.0, 0.0, 0.0_f64);
    for (_, ns, is_own) in all {
        sum += ns as f64;
        own += if is_own { ns as f64 } else { 0.0 };
        most = most.max(own - due * sum);
    }
    most / MS as f64
}

#[test]
fn who_slept_is_new_or_comes_back_often_takes_at_most_5_ms_more_than_its_due() {
    for others in [1_u32, 4, 9] {
        let due = 1.0 / f64::from(others + 1);
        let beside = |make: fn() -> Box<dyn Policy>, client: Client| {
            let mut clients = vec![client];
            clients.extend(vec![Client::greedy(MS); others as usize]);
            let mut world = World::new(make(), &clients, 1, Hardware::Serial);
            world.run(RUN);
            world
        };
        let slept = Client { awake_ns: 100 * MS, asleep_ns: 5 * SECOND, ..Client::greedy(MS) };
        let new = Client::greedy(MS).from(5 * SECOND);
        let often = Client { awake_ns: 10 * MS, asleep_ns: 20 * MS, ..Client::greedy(MS) };
        for (name, client, since) in
            [("slept 5 s", slept, 5_100 * MS), ("is new", new, 5 * SECOND), ("comes back every 30 ms", often, 0)]
        {
            let beyond = policies().map(|(_, make)| most_beyond(&beside(make, client), since, due));
            println!(
                "who {name}, beside {others}: at most {:.2} ms more than its due; fifo {:.2}, round robin {:.2}",
                beyond[0], beyond[1], beyond[2]
            );
            assert!(beyond[0] <= 5.0 + 1.0, "the job under way is one more");
        }
    }
}

#[test]
fn who_closes_and_comes_back_with_a_new_queue_gains_nothing() {
    // By hand: a client that opens, runs 20 ms, closes, and comes back at once, beside four that stay.
    let mut fair = Fair::new(1);
    fair.reserve(8).unwrap();
    for queue in 0..5 {
        fair.opened(queue, u64::from(queue) + 1, Share::default());
    }
    let head = outlive::sched::Head { committed: outlive::Time::ZERO, credits: 1, more: false };
    let mut had = [0_u64; 5];
    let mut now = 0;
    while now < RUN {
        let at = outlive::Time::from_ns(now);
        for queue in 0..5 {
            fair.ready(queue, head, at);
        }
        let next = fair.pick(at).unwrap();
        fair.started(next, at);
        now += 20 * MS;
        had[next as usize] += 20 * MS;
        let at = outlive::Time::from_ns(now);
        fair.ended(next, std::time::Duration::from_nanos(20 * MS), at);
        for queue in (0..5).filter(|queue| *queue != next) {
            fair.unready(queue);
        }
        fair.closed(0);
        fair.opened(0, 1, Share::default());
    }
    let share = had[0] as f64 / now as f64;
    println!("who comes back with a new queue after each job gets {share:.3} beside four");
    assert!((share - 0.2).abs() <= 0.01, "{had:?}");
}
