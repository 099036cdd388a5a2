//! A world in virtual time around a policy alone: clients, a pool of credits, and hardware that runs each job on an engine of its
//! own, or all of them one after another.

use outlive::Time;
use outlive::sched::{Fair, Fifo, Head, Policy, Priority, RoundRobin, Share};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// What a client does, over and over.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub share: Share,
    /// Jobs of a cycle, and how long each is, in ns.
    pub jobs: u32,
    pub job_ns: u64,
    /// Between cycles.
    pub think_ns: u64,
    /// Whether a cycle's jobs end before the time between cycles begins.
    pub sync: bool,
    pub start_ns: u64,
    pub stop_ns: u64,
    /// Wakes up for that long, then sleeps for that long; zero: never sleeps.
    pub awake_ns: u64,
    pub asleep_ns: u64,
}

impl Client {
    /// Always has two jobs waiting.
    pub fn greedy(job_ns: u64) -> Self {
        Self {
            share: Share::default(),
            jobs: 2,
            job_ns,
            think_ns: 0,
            sync: false,
            start_ns: 0,
            stop_ns: u64::MAX,
            awake_ns: 0,
            asleep_ns: 0,
        }
    }

    /// How many jobs it has waiting, if it is greedy.
    pub fn depth(mut self, depth: u32) -> Self {
        self.jobs = depth;
        self
    }

    /// Waits for `jobs`, then for `think_ns`.
    pub fn sync(jobs: u32, job_ns: u64, think_ns: u64) -> Self {
        Self { jobs, think_ns, sync: true, ..Self::greedy(job_ns) }
    }

    /// `jobs` every `think_ns`, done or not.
    pub fn periodic(jobs: u32, job_ns: u64, think_ns: u64) -> Self {
        Self { jobs, think_ns, ..Self::greedy(job_ns) }
    }

    pub fn priority(mut self, priority: Priority) -> Self {
        self.share.priority = priority;
        self
    }

    pub fn weight(mut self, weight: u32) -> Self {
        self.share.weight = weight;
        self
    }

    pub fn group(mut self, group: u64, weight: u32) -> Self {
        (self.share.group, self.share.group_weight) = (group, weight);
        self
    }

    pub fn from(mut self, start_ns: u64) -> Self {
        self.start_ns = start_ns;
        self
    }

    pub fn is_greedy(&self) -> bool {
        !self.sync && self.think_ns == 0
    }
}

/// What became of a client.
#[derive(Debug, Clone, Default)]
pub struct Had {
    pub hardware_ns: u64,
    pub jobs: u64,
    /// Longest and total time from commit to start.
    pub wait_max_ns: u64,
    pub wait_sum_ns: u64,
    /// When each job ended, and how long it was.
    pub ends: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// As many engines as credits.
    Parallel,
    /// One engine; credits are the depth of its ring.
    Serial,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ended { client: usize, ns: u64 },
    Cycle { client: usize },
}

pub struct World {
    pub policy: Box<dyn Policy>,
    pub clients: Vec<Client>,
    pub had: Vec<Had>,
    hardware: Hardware,
    credits_free: u32,
    now: u64,
    engine_free_at: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    waiting: Vec<VecDeque<u64>>,
    is_ready: Vec<bool>,
    /// Of the present cycle, not ended.
    open: Vec<u32>,
}

/// A policy's name, and how it is made.
pub type Kind = (&'static str, fn() -> Box<dyn Policy>);

pub fn policies() -> [Kind; 3] {
    [
        ("fair", || Box::new(Fair::new(1))),
        ("fifo", || Box::new(Fifo::default())),
        ("round-robin", || Box::new(RoundRobin::default())),
    ]
}

impl World {
    pub fn new(mut policy: Box<dyn Policy>, clients: &[Client], credits: u32, hardware: Hardware) -> Self {
        policy.reserve(u32::try_from(clients.len()).unwrap()).unwrap();
        let mut world = Self {
            policy,
            clients: clients.to_vec(),
            had: vec![Had::default(); clients.len()],
            hardware,
            credits_free: credits,
            now: 0,
            engine_free_at: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            waiting: vec![VecDeque::new(); clients.len()],
            is_ready: vec![false; clients.len()],
            open: vec![0; clients.len()],
        };
        for (client, what) in clients.iter().enumerate() {
            world.at(what.start_ns, Event::Cycle { client });
        }
        world
    }

    pub fn fair(clients: &[Client], credits: u32, hardware: Hardware) -> Self {
        Self::new(Box::new(Fair::new(1)), clients, credits, hardware)
    }

    fn at(&mut self, time: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((time, self.next_event, event)));
    }

    fn time(&self) -> Time {
        Time::from_ns(self.now)
    }

    fn is_asleep(&self, client: usize) -> bool {
        let Client { awake_ns, asleep_ns, start_ns, .. } = self.clients[client];
        asleep_ns > 0 && (self.now - start_ns) % (awake_ns + asleep_ns) >= awake_ns
    }

    fn cycle(&mut self, client: usize) {
        let what = self.clients[client];
        if self.now >= what.stop_ns {
            return;
        }
        if self.is_asleep(client) {
            let period = what.awake_ns + what.asleep_ns;
            let next = self.now + period - (self.now - what.start_ns) % period;
            return self.at(next, Event::Cycle { client });
        }
        if self.now == what.start_ns {
            self.policy.opened(u32::try_from(client).unwrap(), 0, what.share);
        }
        for _ in 0..what.jobs {
            self.waiting[client].push_back(self.now);
        }
        self.open[client] += what.jobs;
        if !what.sync && what.think_ns > 0 {
            self.at(self.now + what.think_ns, Event::Cycle { client });
        }
        self.refresh(client);
    }

    /// Says whether the client's head is ready.
    fn refresh(&mut self, client: usize) {
        let number = u32::try_from(client).unwrap();
        let more = self.waiting[client].len() > 1;
        match self.waiting[client].front() {
            Some(committed) if !self.is_ready[client] => {
                self.is_ready[client] = true;
                let head = Head { committed: Time::from_ns(*committed), credits: 1, more };
                self.policy.ready(number, head, self.time());
            }
            _ => {}
        }
    }

    fn start(&mut self, client: usize) {
        let what = self.clients[client];
        self.policy.started(u32::try_from(client).unwrap(), self.time());
        self.is_ready[client] = false;
        let waited = self.now - self.waiting[client].pop_front().unwrap();
        let had = &mut self.had[client];
        had.wait_max_ns = had.wait_max_ns.max(waited);
        had.wait_sum_ns += waited;
        had.jobs += 1;
        self.credits_free -= 1;
        let begins = match self.hardware {
            Hardware::Parallel => self.now,
            Hardware::Serial => self.engine_free_at.max(self.now),
        };
        self.engine_free_at = begins + what.job_ns;
        self.at(begins + what.job_ns, Event::Ended { client, ns: what.job_ns });
        if what.is_greedy() && !self.is_asleep(client) && self.now < what.stop_ns {
            self.waiting[client].push_back(self.now);
        } else if what.is_greedy() && self.waiting[client].is_empty() {
            self.at(self.now, Event::Cycle { client });
        }
        self.refresh(client);
    }

    fn ended(&mut self, client: usize, ns: u64) {
        let what = self.clients[client];
        self.credits_free += 1;
        let had = &mut self.had[client];
        had.hardware_ns += ns;
        had.ends.push((self.now, ns));
        self.policy.ended(u32::try_from(client).unwrap(), Duration::from_nanos(ns), self.time());
        self.open[client] = self.open[client].saturating_sub(1);
        if what.sync && self.open[client] == 0 {
            self.at(self.now + what.think_ns, Event::Cycle { client });
        }
    }

    /// Lets everything happen until `until`.
    pub fn run(&mut self, until: u64) -> &mut Self {
        loop {
            while self.credits_free > 0 {
                let Some(next) = self.policy.pick(self.time()) else { break };
                self.start(next as usize);
            }
            match self.events.peek() {
                Some(Reverse((time, ..))) if *time <= until => {}
                _ => break,
            }
            // All of one instant, then the next decision.
            self.now = self.events.peek().map_or(until, |Reverse((time, ..))| *time);
            while self.events.peek().is_some_and(|Reverse((time, ..))| *time == self.now) {
                match self.events.pop().unwrap().0.2 {
                    Event::Ended { client, ns } => self.ended(client, ns),
                    Event::Cycle { client } => self.cycle(client),
                }
            }
        }
        self.now = until;
        self
    }

    /// Parts of the hardware time that was had.
    pub fn shares(&self) -> Vec<f64> {
        let all: u64 = self.had.iter().map(|had| had.hardware_ns).sum();
        self.had.iter().map(|had| had.hardware_ns as f64 / all.max(1) as f64).collect()
    }
}
