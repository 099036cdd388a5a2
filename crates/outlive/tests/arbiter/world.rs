//! A mock GPU in virtual time, in the manner of the one of the kernel's KUnit suite: it runs what it is given one after
//! another, each for as long as it says, or until the test lets it advance.

use outlive::sched::{Arbiter, ArbiterConfig, Fair, Fifo, Priority, RoundRobin};
use outlive::{Completion, Device, Driver, Executor, Fence, FenceError, JobCx, JobQueue, QueueConfig, ResetScope};
use outlive::{ResetToken, Status, Time, Times, Verdict};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

/// A job that takes `ns`; 0: until the test says so.
#[derive(Debug, Clone, Copy)]
pub struct Work(pub u64);

pub struct Flying {
    done: Option<Completion>,
    queue: u64,
    ns: u64,
    begins: u64,
}

pub struct Mock {
    pub flying: Mutex<VecDeque<Flying>>,
    pub clock: Mutex<Option<Executor>>,
    /// Whose job was started, and when.
    pub started: Mutex<Vec<(u64, u64)>>,
    /// Answers a timeout with a reset.
    pub resets: bool,
    /// Has the job go on when its time is up.
    pub patient: bool,
    /// Started and not ended at once, at most.
    pub most: Mutex<usize>,
    pub timed_out: Mutex<u32>,
}

impl Default for Mock {
    fn default() -> Self {
        Self {
            // Nothing is allocated in the signalling path, this driver's part of it included.
            flying: Mutex::new(VecDeque::with_capacity(1 << 12)),
            clock: Mutex::default(),
            started: Mutex::new(Vec::with_capacity(1 << 14)),
            resets: false,
            patient: false,
            most: Mutex::default(),
            timed_out: Mutex::default(),
        }
    }
}

impl Driver for Mock {
    type Job = Work;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let now = self.clock.lock().unwrap().as_ref().map_or(0, |executor| executor.now().as_ns());
        self.started.lock().unwrap().push((cx.info().client, now));
        let mut flying = self.flying.lock().unwrap();
        let free = flying.back().map_or(now, |last| last.begins + last.ns).max(now);
        flying.push_back(Flying { done: Some(done), queue: cx.info().queue, ns: cx.job.0, begins: free });
        let mut most = self.most.lock().unwrap();
        *most = (*most).max(flying.len());
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        *self.timed_out.lock().unwrap() += 1;
        if self.patient {
            Verdict::KeepWaiting(Duration::from_millis(200))
        } else if self.resets {
            Verdict::Reset(ResetScope::Queue(cx.info().queue))
        } else {
            Verdict::Fail
        }
    }

    fn reset(&self, scope: ResetScope, token: ResetToken) {
        let count = self.flying.lock().unwrap().len();
        token.quiesced();
        for _ in 0..count {
            let Some(job) = self.flying.lock().unwrap().pop_front() else { return };
            if scope == ResetScope::Device || scope == ResetScope::Queue(job.queue) {
                drop(job);
            } else {
                self.flying.lock().unwrap().push_back(job);
            }
        }
    }

    fn unplug(&self, token: ResetToken) {
        self.reset(ResetScope::Device, token);
    }
}

impl Mock {
    fn end(job: &mut Flying, at: u64) {
        let active = if job.ns == 0 { None } else { Some(Duration::from_nanos(job.ns)) };
        if let Some(done) = job.done.take() {
            done.complete_timed(Ok(()), Times { end: Some(Time::from_ns(at)), active });
        }
    }

    /// Completes the next `count` jobs; how many there were.
    pub fn advance(&self, count: usize) -> usize {
        let mut advanced = 0;
        while advanced < count {
            let Some(mut next) = self.flying.lock().unwrap().pop_front() else { break };
            let now = self.clock.lock().unwrap().as_ref().map_or(0, |executor| executor.now().as_ns());
            Self::end(&mut next, now);
            advanced += 1;
        }
        advanced
    }

    fn next_end(&self) -> Option<u64> {
        self.flying.lock().unwrap().front().filter(|job| job.ns > 0).map(|job| job.begins + job.ns)
    }

    fn end_due(&self, now: u64) {
        while self.next_end().is_some_and(|at| at <= now) {
            let Some(mut job) = self.flying.lock().unwrap().pop_front() else { return };
            let at = job.begins + job.ns;
            Self::end(&mut job, at);
        }
    }
}

/// An executor, a device, an arbiter.
pub struct World {
    pub executor: Executor,
    pub device: Device<Mock>,
    pub arbiter: Option<Arbiter>,
}

pub const POLICIES: [&str; 3] = ["fair", "fifo", "round-robin"];

pub fn arbiter(executor: &Executor, policy: &str, credits: u32) -> Arbiter {
    let config = ArbiterConfig::new(credits);
    match policy {
        "fair" => Arbiter::with_policy(executor, config, Fair::new(1)),
        "fifo" => Arbiter::with_policy(executor, config, Fifo::default()),
        _ => Arbiter::with_policy(executor, config, RoundRobin::default()),
    }
    .unwrap()
}

impl World {
    pub fn new(policy: &str, credits: u32) -> Self {
        Self::with(policy, credits, Mock::default())
    }

    pub fn with(policy: &str, credits: u32, mock: Mock) -> Self {
        let executor = Executor::manual().unwrap();
        *mock.clock.lock().unwrap() = Some(executor.clone());
        let device = Device::new(&executor, mock).unwrap();
        let arbiter = Some(arbiter(&executor, policy, credits));
        Self { executor, device, arbiter }
    }

    pub fn config(&self) -> QueueConfig {
        QueueConfig::new("q").timeout(Duration::ZERO).arbiter(self.arbiter.as_ref().unwrap())
    }

    pub fn queue(&self, config: QueueConfig) -> JobQueue<Mock> {
        self.device.queue(config, ()).unwrap()
    }

    pub fn mock(&self) -> &Mock {
        self.device.driver()
    }

    pub fn now(&self) -> u64 {
        self.executor.now().as_ns()
    }

    /// Lets `ns` pass, with all that happens in it; `visit` is called whenever something may have.
    pub fn pass(&self, ns: u64, mut visit: impl FnMut(&Self) -> Option<u64>) {
        let until = self.now() + ns;
        loop {
            self.executor.run_until_idle();
            let wanted = visit(self);
            self.executor.run_until_idle();
            let timer = self.executor.next_timer().map(Time::as_ns);
            let next = [wanted, timer, self.mock().next_end()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.executor.advance_to(Time::from_ns(next.max(self.now())));
            self.mock().end_due(self.now());
        }
        self.executor.advance_to(Time::from_ns(until));
        self.executor.run_until_idle();
    }

    pub fn pass_ms(&self, ms: u64) {
        self.pass(ms * MS, |_| None);
    }
}

/// A client of the KUnit suite: `count` jobs of `ns` each cycle, and `wait` between cycles.
pub struct Client {
    pub queue: JobQueue<Mock>,
    pub count: u32,
    pub ns: u64,
    pub wait: u64,
    pub sync: bool,
    pub cycles_left: u32,
    next_at: u64,
    began: u64,
    open: Vec<(Fence, Fence)>,
    pub done_jobs: u64,
    pub cycle_max: u64,
    all: Vec<Fence>,
}

impl Client {
    #[expect(clippy::too_many_arguments, reason = "a row of the table")]
    pub fn new(
        world: &World,
        client: u64,
        priority: Priority,
        count: u32,
        ns: u64,
        wait: u64,
        sync: bool,
        run: u64,
    ) -> Self {
        let queue = world.queue(world.config().client(client).priority(priority));
        let cycle = u64::from(count) * ns + wait;
        let cycles_left = u32::try_from(run.div_ceil(cycle)).unwrap();
        Self {
            queue,
            count,
            ns,
            wait,
            sync,
            cycles_left,
            next_at: 0,
            began: 0,
            open: Vec::new(),
            done_jobs: 0,
            cycle_max: 0,
            all: Vec::new(),
        }
    }

    /// Does what is due; when it wants to be asked again.
    pub fn visit(&mut self, now: u64) -> Option<u64> {
        self.done_jobs += u64::try_from(self.all.iter().filter(|fence| fence.is_signaled()).count()).unwrap();
        self.all.retain(|fence| !fence.is_signaled());
        loop {
            if self.sync && !self.open.is_empty() {
                if self.open.iter().any(|(_, finished)| !finished.is_signaled()) {
                    return None;
                }
                self.open.clear();
                self.cycle_max = self.cycle_max.max(now - self.began);
                self.next_at = now + self.wait;
            }
            if self.cycles_left == 0 {
                return None;
            }
            if now < self.next_at {
                return Some(self.next_at);
            }
            self.cycles_left -= 1;
            self.began = now;
            for _ in 0..self.count {
                let job = self.queue.reserve(Work(self.ns)).unwrap().commit();
                self.all.push(job.finished());
                if self.sync {
                    self.open.push((job.scheduled(), job.finished()));
                }
            }
            if !self.sync {
                self.next_at = now + self.wait;
            }
        }
    }

    pub fn is_done(&self) -> bool {
        self.cycles_left == 0 && self.all.is_empty()
    }

    pub fn had(&self) -> u64 {
        self.done_jobs * self.ns
    }
}

pub fn ok(fence: &Fence) -> bool {
    fence.status() == Status::Signaled(Ok(()))
}

pub fn pending(fence: &Fence) -> bool {
    fence.status() == Status::Pending
}

pub fn error(fence: &Fence) -> Option<FenceError> {
    match fence.status() {
        Status::Signaled(Err(error)) => Some(error),
        _ => None,
    }
}
