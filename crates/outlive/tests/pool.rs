//! Leases of scarce hardware: all or nothing, oldest first, nobody forgotten, and holders that would go on for ever made to
//! give back.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    reason = "a test: it has std and may panic"
)]

use outlive::pool::{Holder, Pool, PoolConfig, PoolError, Ticket};
use outlive::sched::Priority::{self, High, Normal};
use outlive::{
    Acquired, Completion, Device, Driver, Executor, Fence, FenceError, JobCx, JobFences, JobQueue, QueueConfig, Status,
    Time, check,
};
use std::sync::Mutex;
use std::time::Duration;

#[global_allocator]
static ALLOC: check::Alloc<std::alloc::System> = check::Alloc::new(std::alloc::System);

const MS: u64 = 1_000_000;

struct World {
    executor: Executor,
    pool: Pool,
}

impl World {
    fn new(config: PoolConfig) -> Self {
        Self { executor: Executor::manual().unwrap(), pool: Pool::new(config).unwrap() }
    }

    fn holder(&self, kinds: &[usize], group: u64, priority: Priority) -> Holder {
        self.pool.holder(&self.executor, kinds, group, priority).unwrap()
    }

    fn ticket(&self, kinds: &[usize], group: u64, priority: Priority) -> Ticket {
        self.holder(kinds, group, priority).ticket().unwrap()
    }

    fn free(&self) -> [u32; 2] {
        let free = self.pool.status().free;
        [free[0], free[1]]
    }
}

fn waits(ticket: &mut Ticket) -> Fence {
    match ticket.acquire() {
        Acquired::Wait(fence) => fence,
        other => panic!("{other:?}"),
    }
}

fn has(ticket: &mut Ticket) -> bool {
    matches!(ticket.acquire(), Acquired::Yes)
}

#[test]
fn bad_input_is_refused_with_the_reason() {
    let executor = Executor::manual().unwrap();
    for (count, reserved) in [(0, 0), (65, 0), (4, 4)] {
        let error = Pool::new(PoolConfig::new().kind(8, 0).kind(count, reserved)).unwrap_err();
        assert_eq!(error, PoolError::BadCount { kind: 1, count, reserved });
    }
    let five = (0..5).fold(PoolConfig::new(), |config, _| config.kind(1, 0));
    assert_eq!(Pool::new(five).unwrap_err(), PoolError::TooManyKinds { kinds: 5 });
    let pool = Pool::new(PoolConfig::new().kind(1, 0).kind(1, 0).holders(1)).unwrap();
    let holder = |kinds: &[usize]| pool.holder(&executor, kinds, 0, Normal);
    assert_eq!(holder(&[1, 0]).unwrap_err(), PoolError::WrongOrder { kind: 0, after: 1 });
    assert_eq!(holder(&[0, 0]).unwrap_err(), PoolError::WrongOrder { kind: 0, after: 0 });
    assert_eq!(holder(&[0, 2]).unwrap_err(), PoolError::NoSuchKind { kind: Some(2) });
    assert_eq!(holder(&[]).unwrap_err(), PoolError::NoSuchKind { kind: None });
    let only = holder(&[0]).unwrap();
    assert_eq!(holder(&[1]).unwrap_err(), PoolError::Full { most: 1 });
    drop(only);
    assert!(holder(&[1]).is_ok(), "its place is free again");
    assert_eq!(
        PoolError::WrongOrder { kind: 0, after: 1 }.to_string(),
        "kind 0 named after kind 1: name each once, in the pool's order"
    );
}

#[test]
fn all_kinds_are_taken_together_or_none_is() {
    let world = World::new(PoolConfig::new().kind(2, 0).kind(1, 0));
    let mut both = world.ticket(&[0, 1], 0, Normal);
    assert!(has(&mut both) && both.slot(0) == Some(0) && both.slot(1) == Some(0) && both.slot(2).is_none());
    let mut other = world.ticket(&[0, 1], 0, Normal);
    let told = waits(&mut other);
    assert_eq!((world.free(), other.slot(0)), ([1, 0], None), "it holds nothing while it waits");
    both.give_back();
    assert!(told.is_signaled() && has(&mut other));
    assert_eq!((world.free(), other.slot(0), both.slot(0)), ([1, 0], Some(0), None));
    drop(other);
    assert_eq!(world.free(), [2, 1]);
}

#[test]
fn the_oldest_is_next_and_keeps_its_age_and_who_leaves_holds_up_nobody() {
    let world = World::new(PoolConfig::new().kind(1, 0));
    let mut tickets: Vec<Ticket> = (0..4).map(|_| world.ticket(&[0], 0, Normal)).collect();
    assert!(has(&mut tickets[0]));
    let told: Vec<Fence> = tickets[1..].iter_mut().map(waits).collect();
    let mut again = waits(&mut tickets[2]);
    assert_eq!(again, told[1], "asking again changes nothing");
    tickets[0].give_back();
    assert!(told[0].is_signaled() && !told[1].is_signaled());
    drop(tickets.remove(1));
    assert!(again.is_signaled() && !told[2].is_signaled(), "it was granted the slot, and never came for it");
    let mut late = world.ticket(&[0], 0, Normal);
    again = waits(&mut late);
    drop(tickets.remove(1));
    assert!(told[2].is_signaled() && !again.is_signaled());
    assert!(has(&mut tickets[1]), "who was told has it, whoever else asks");
    drop(tickets);
    assert!(has(&mut late));
}

#[test]
fn reserved_slots_are_for_high_priorities_and_a_groups_cap_holds_up_that_group_only() {
    let world = World::new(PoolConfig::new().kind(4, 1).group_cap(2));
    let mut group: Vec<Ticket> = (0..3).map(|_| world.ticket(&[0], 7, Normal)).collect();
    assert!(has(&mut group[0]) && has(&mut group[1]));
    let capped = waits(&mut group[2]);
    let mut other = world.ticket(&[0], 8, Normal);
    assert!(has(&mut other), "it is behind one that waits for its own group's cap");
    let mut normal = world.ticket(&[0], 0, Normal);
    let told = waits(&mut normal);
    let mut high = world.ticket(&[0], 0, High);
    assert!(has(&mut high), "the last one is reserved");
    other.give_back();
    assert!(told.is_signaled() && !capped.is_signaled());
    group[0].give_back();
    assert!(capped.is_signaled());
}

#[test]
fn a_holder_goes_on_with_what_it_has_until_somebody_waits() {
    let world = World::new(PoolConfig::new().kind(1, 0));
    let greedy = world.holder(&[0], 0, Normal);
    let mut jobs: Vec<Ticket> = (0..4).map(|_| greedy.ticket().unwrap()).collect();
    assert!(has(&mut jobs[0]) && has(&mut jobs[1]), "one slot, two jobs on the hardware");
    jobs[0].give_back();
    assert_eq!(world.free()[0], 0);
    let mut other = world.ticket(&[0], 0, Normal);
    let told = waits(&mut other);
    let rejoin = waits(&mut jobs[2]);
    jobs[1].give_back();
    assert!(told.is_signaled() && !rejoin.is_signaled(), "it had to give back");
    assert!(has(&mut other));
    other.give_back();
    assert!(rejoin.is_signaled() && has(&mut jobs[2]) && has(&mut jobs[3]));
}

#[test]
fn two_jobs_of_one_holder_in_line_at_once_are_refused_not_forgotten() {
    let world = World::new(PoolConfig::new().kind(1, 0));
    let mut taken = world.ticket(&[0], 0, Normal);
    assert!(has(&mut taken));
    let holder = world.holder(&[0], 0, Normal);
    let (mut one, mut two) = (holder.ticket().unwrap(), holder.ticket().unwrap());
    let told = waits(&mut one);
    assert!(matches!(two.acquire(), Acquired::Never(_)));
    taken.give_back();
    assert!(told.is_signaled() && has(&mut one));
}

#[test]
fn who_waits_for_longer_than_a_fence_may_take_is_told_so() {
    let world = World::new(PoolConfig::new().kind(1, 0));
    let mut taken = world.ticket(&[0], 0, Normal);
    assert!(has(&mut taken));
    let mut waiting = world.ticket(&[0], 0, Normal);
    let fence = waits(&mut waiting);
    world.executor.advance_to(Time::from_ns(10_001 * MS));
    world.executor.run_until_idle();
    assert_eq!(fence.status(), Status::Signaled(Err(FenceError::TimedOut)));
    assert!(matches!(waiting.acquire(), Acquired::Never(_)));
    assert_eq!(world.pool.status().waiting, 0);
    drop(taken);
    assert_eq!(world.free()[0], 1);
}

/// Hardware with an engine for each queue: jobs of one run one after another.
struct Engines {
    flying: Mutex<Vec<(u64, u64, Completion)>>,
    executor: Executor,
    job_ns: u64,
}

impl Driver for Engines {
    type Job = Ticket;
    type Queue = u64;
    const RESOURCES: bool = true;

    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        cx.job.acquire()
    }

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        assert!(cx.job.slot(0).is_some());
        *cx.queue = (*cx.queue).max(self.executor.now().as_ns()) + self.job_ns;
        self.flying.lock().unwrap().push((*cx.queue, cx.info().queue, done));
    }

    fn release(&self, job: &mut Ticket) {
        job.give_back();
    }
}

struct Seats {
    device: Device<Engines>,
    pool: Pool,
}

impl Seats {
    fn new(reserved: u32) -> Self {
        let executor = Executor::manual().unwrap();
        let pool = Pool::new(PoolConfig::new().kind(63, reserved)).unwrap();
        let flying = Mutex::new(Vec::with_capacity(1 << 10));
        let engines = Engines { flying, executor: executor.clone(), job_ns: 10 * MS };
        Self { device: Device::new(&executor, engines).unwrap(), pool }
    }

    fn client(&self, depth: u32, priority: Priority) -> (JobQueue<Engines>, Holder) {
        let queue = self.device.queue(QueueConfig::new("q").credits(depth).priority(priority), 0).unwrap();
        (queue, self.pool.holder(self.device.executor(), &[0], 0, priority).unwrap())
    }

    fn now(&self) -> u64 {
        self.device.executor().now().as_ns()
    }

    /// Lets `ms` pass.
    fn pass_ms(&self, ms: u64) {
        let until = self.now() + ms * MS;
        loop {
            self.device.executor().run_until_idle();
            let next = self.device.driver().flying.lock().unwrap().iter().map(|job| job.0).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.device.executor().advance_to(Time::from_ns(next));
            loop {
                let mut flying = self.device.driver().flying.lock().unwrap();
                let Some(at) = flying.iter().position(|job| job.0 <= next) else { break };
                let (_, _, done) = flying.remove(at);
                drop(flying);
                done.complete(Ok(()));
            }
        }
        self.device.executor().advance_to(Time::from_ns(until));
        self.device.executor().run_until_idle();
    }
}

fn commit((queue, holder): &(JobQueue<Engines>, Holder)) -> JobFences {
    queue.reserve(holder.ticket().unwrap()).unwrap().commit()
}

/// How long each of `fences` took to be signaled, at the longest.
fn longest_wait(since: u64, fences: &[Fence]) -> Duration {
    let at = |fence: &Fence| fence.timestamp().map_or(u64::MAX, Time::as_ns).saturating_sub(since);
    Duration::from_nanos(fences.iter().map(at).max().unwrap())
}

#[test]
fn of_63_greedy_queues_each_holds_an_id_and_a_new_one_runs_within_what_is_on_the_hardware() {
    for (depth, reserved, bound_ms) in [(1, 0, 10), (2, 0, 20), (2, 1, 0)] {
        let seats = Seats::new(reserved);
        let greedy: Vec<_> = (0..63 - reserved).map(|_| seats.client(depth, Normal)).collect();
        for client in &greedy {
            for _ in 0..100 {
                drop(commit(client));
            }
        }
        seats.pass_ms(105);
        assert_eq!(seats.pool.status().free[0], reserved, "each goes on with its id");
        let since = seats.now();
        let new = seats.client(1, High);
        let job = commit(&new);
        seats.pass_ms(100);
        let waited = longest_wait(since, &[job.scheduled()]);
        println!(
            "63 greedy queues of depth {depth}, {reserved} ids reserved: a new one of high priority waits {waited:?}"
        );
        assert!(waited <= Duration::from_millis(bound_ms), "{waited:?}");
        assert_eq!(check::take_report().map(|report| report.violation), None);
    }
}

#[test]
fn twice_as_many_queues_as_ids_all_go_on() {
    let seats = Seats::new(0);
    let clients: Vec<_> = (0..126).map(|_| seats.client(2, Normal)).collect();
    let jobs: Vec<Vec<JobFences>> = clients.iter().map(|client| (0..10).map(|_| commit(client)).collect()).collect();
    // Each id serves two queues in turn: 20 jobs of 10 ms, two of one queue at a time on its own engine.
    seats.pass_ms(250);
    let mut longest = Duration::ZERO;
    for fences in &jobs {
        assert!(fences.iter().all(|job| job.finished().status() == Status::Signaled(Ok(()))));
        let starts: Vec<u64> = fences.iter().map(|job| job.scheduled().timestamp().unwrap().as_ns()).collect();
        let gap = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap().max(starts[0]);
        longest = longest.max(Duration::from_nanos(gap));
    }
    println!("126 queues and 63 ids, jobs of 10 ms: nobody waits longer than {longest:?} for its next start");
    assert!(longest <= Duration::from_millis(40), "{longest:?}");
    assert_eq!((seats.pool.status().free[0], seats.pool.status().waiting), (63, 0));
}

#[test]
fn a_queue_that_is_closed_while_its_job_waits_leaves_the_line() {
    let seats = Seats::new(0);
    let holding: Vec<_> = (0..63).map(|_| seats.client(1, Normal)).collect();
    let held: Vec<JobFences> = holding.iter().map(commit).collect();
    let waiting = seats.client(1, Normal);
    let job = commit(&waiting);
    assert_eq!(seats.pool.status().waiting, 1);
    drop(waiting);
    seats.pass_ms(1);
    assert_eq!(job.finished().status(), Status::Signaled(Err(FenceError::Canceled)));
    assert_eq!(seats.pool.status().waiting, 0);
    seats.pass_ms(20);
    assert!(held.iter().all(|job| job.retired().is_signaled()) && seats.pool.status().free[0] == 63);
}
