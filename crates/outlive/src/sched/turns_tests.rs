//! The turns alone, in many random orders: whoever could start has been called, credits are neither lost nor made, and a
//! policy may answer what it likes.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

use super::{Answer, Head, Policy, Share, Turns};
use crate::mem::{AllocError, HeapBox};
use crate::sched::{Fair, Fifo, Priority, RoundRobin};
use crate::time::Time;
use core::time::Duration;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::format;
use std::vec::Vec;

const CREDITS: u32 = 3;
const QUEUES: u32 = 5;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 20) % u64::from(below)).unwrap_or(0)
    }
}

/// Answers anything.
struct Whim(Random);

impl Policy for Whim {
    fn name(&self) -> &'static str {
        "whim"
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
        Some(self.0.below(QUEUES + 2)).filter(|pick| *pick > 0)
    }
    fn started(&mut self, _queue: u32, _now: Time) {}
    fn returned(&mut self, _queue: u32) {}
    fn ended(&mut self, _queue: u32, _active: Duration, _now: Time) {}
}

/// What a queue's side of it knows.
#[derive(Default)]
struct Queue {
    open: bool,
    /// What its head needs, while it asks or could.
    head: Option<Head>,
    /// Of each of its jobs on the hardware.
    running: Vec<u32>,
}

struct World {
    turns: Turns,
    queues: Vec<Queue>,
    /// Called, and did not ask since.
    called: BTreeSet<u32>,
    now: u64,
    started: u64,
}

impl World {
    fn new(policy: HeapBox<dyn Policy>) -> Self {
        let turns = Turns::new(policy, CREDITS, QUEUES).unwrap();
        let queues = (0..QUEUES).map(|_| Queue::default()).collect();
        Self { turns, queues, called: BTreeSet::new(), now: 0, started: 0 }
    }

    fn time(&mut self) -> Time {
        self.now += 1_000;
        Time::from_ns(self.now)
    }

    fn call(&mut self, queue: Option<u32>) {
        if let Some(queue) = queue {
            assert!(self.queues[queue as usize].head.is_some(), "called, and not ready");
            assert!(self.called.insert(queue), "called twice");
        }
    }

    fn ask(&mut self, queue: u32) {
        self.called.remove(&queue);
        let now = self.time();
        let Some(head) = self.queues[queue as usize].head else { return };
        let free = self.turns.credits_free();
        let (answer, call) = self.turns.ask(queue, head, now);
        if answer == Answer::Start {
            assert!(head.credits <= free, "more than there were");
            self.queues[queue as usize].head = None;
            self.queues[queue as usize].running.push(head.credits);
            self.started += 1;
        }
        self.call(call);
    }

    fn withdraw(&mut self, queue: u32) {
        self.called.remove(&queue);
        let now = self.time();
        self.queues[queue as usize].head = None;
        let call = self.turns.unready(queue, now);
        self.call(call);
    }

    /// One thing happens to `queue`.
    fn step(&mut self, queue: u32, random: &mut Random) {
        let at = queue as usize;
        if !self.queues[at].open {
            assert!(self.turns.open(u64::from(queue) + 1, Share::default()).is_some());
            // Numbers are given in an order of their own: this one is as good.
            self.queues[at].open = true;
            return;
        }
        match random.below(10) {
            0..=2 => {
                let committed = self.time();
                let head = Head { committed, credits: 1 + random.below(CREDITS), more: random.below(2) == 0 };
                self.queues[at].head.get_or_insert(head);
                self.ask(queue);
            }
            3 => {
                let now = self.time();
                let head = Head { committed: now, credits: 1 + random.below(CREDITS), more: false };
                if self.queues[at].head.is_none() && !self.queues[at].running.is_empty() {
                    // Behind a job that ends now: see `report_end`.
                    self.queues[at].head = Some(head);
                    self.turns.ready(queue, head, now);
                    self.end(queue, now);
                }
            }
            4..=6 => {
                let now = self.time();
                self.end(queue, now);
            }
            7 => self.withdraw(queue),
            8 => {
                let now = self.time();
                let share = Share {
                    group: u64::from(random.below(3)),
                    weight: 1 + random.below(1_000),
                    priority: Priority::from_bits(u8::try_from(random.below(4)).unwrap()),
                    ..Share::default()
                };
                let call = self.turns.change(queue, share, now);
                self.call(call);
            }
            _ => {
                // A start that did not happen.
                if let Some(credits) = self.queues[at].running.pop() {
                    let now = self.time();
                    let call = self.turns.give_back(queue, credits, now);
                    self.call(call);
                }
            }
        }
    }

    fn end(&mut self, queue: u32, now: Time) {
        if let Some(credits) = self.queues[queue as usize].running.pop() {
            let call = self.turns.ended(queue, credits, Duration::from_millis(1), now);
            self.call(call);
        }
    }

    fn check(&self, name: &str) {
        let held: u32 = self.queues.iter().flat_map(|queue| &queue.running).sum();
        assert_eq!(held + self.turns.credits_free(), CREDITS, "{name}");
        let ready = self.queues.iter().filter(|queue| queue.head.is_some()).count();
        assert_eq!(ready, self.turns.ready_count(), "{name}");
        let flagged: BTreeSet<u32> = (0..QUEUES).filter(|queue| self.turns.queues[*queue as usize].called).collect();
        assert_eq!(flagged, self.called, "{name}: who is thought to be about to ask is not");
        if self.called.is_empty() && ready > 0 {
            // Nobody will ask by himself.
            let waits = |queue: &u32| self.turns.head(*queue).is_some() && !self.turns.fits(*queue);
            assert!(held == CREDITS || self.turns.turn.as_ref().is_some_and(waits), "{name}: forgotten");
            assert!(held > 0, "{name}: nothing runs, and nobody is called");
        }
    }
}

#[test]
fn whatever_happens_somebody_is_called_or_waits_for_credits_that_are_held() {
    let policies: [fn(u64) -> HeapBox<dyn Policy>; 4] = [
        |_| Box::new(Fair::new(1)),
        |_| Box::new(Fifo::default()),
        |_| Box::new(RoundRobin::default()),
        |seed| Box::new(Whim(Random(seed))),
    ];
    for (index, make) in policies.into_iter().enumerate() {
        let mut started = 0;
        for seed in 1..=200 {
            let name = format!("policy {index}, seed {seed}");
            let mut world = World::new(make(seed));
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for queue in 0..QUEUES {
                world.step(queue, &mut random);
            }
            for _ in 0..200 {
                let queue = random.below(QUEUES);
                // Who is called asks, sooner or later.
                let next = world.called.first().copied().filter(|_| random.below(2) == 0);
                match next {
                    Some(called) => world.ask(called),
                    None => world.step(queue, &mut random),
                }
                world.check(&name);
            }
            // Everybody starts at last.
            for _ in 0..100 {
                while let Some(called) = world.called.first().copied() {
                    world.ask(called);
                }
                let now = world.time();
                (0..QUEUES).for_each(|queue| world.end(queue, now));
                world.check(&name);
            }
            assert_eq!((world.turns.ready_count(), world.turns.credits_free()), (0, CREDITS), "{name}");
            started += world.started;
        }
        std::println!("policy {index}: {started} starts in 200 random orders");
    }
}
