//! Pools under loom: whoever waits is told, whatever else happens at that moment.

use super::{Pool, PoolConfig, Ticket};
use crate::sched::Priority;
use crate::sync::model::{Model, race, race3};
use crate::{Acquired, Executor};
use std::vec::Vec;

struct World {
    executor: Executor,
    pool: Pool,
}

impl World {
    fn new() -> Self {
        let config = PoolConfig::new().kind(1, 0).holders(3);
        Self { executor: Executor::manual().unwrap(), pool: Pool::new(config).unwrap() }
    }

    fn tickets(&self, count: usize) -> Vec<Ticket> {
        let holder = |_| self.pool.holder(&self.executor, &[0], 0, Priority::Normal).unwrap().ticket().unwrap();
        (0..count).map(holder).collect()
    }

    /// Nothing is left to happen.
    fn end(&self) {
        self.executor.run_until_idle();
        assert_eq!((self.pool.status().free[0], self.pool.status().waiting), (1, 0));
    }
}

/// It has its slot, or is told that it has, once `answer` was given and everybody else has gone.
fn has_it(ticket: &mut Ticket, answer: &Acquired) {
    if let Acquired::Wait(fence) = answer {
        assert!(fence.is_signaled(), "forgotten");
        assert!(matches!(ticket.acquire(), Acquired::Yes));
    }
    assert_eq!(ticket.slot(0), Some(0));
}

/// One gives back while another asks.
#[test]
fn loom_give_back_against_acquire() {
    Model::new("give back against acquire").check(|| {
        let world = World::new();
        let mut tickets = world.tickets(2);
        let (mut second, mut first) = (tickets.pop().unwrap(), tickets.pop().unwrap());
        assert!(matches!(first.acquire(), Acquired::Yes));
        let answer = std::sync::Arc::new(std::sync::Mutex::new(None));
        let told = answer.clone();
        race(
            move || {
                let given = second.acquire();
                *told.lock().unwrap() = Some((second, given));
            },
            || first.give_back(),
        );
        let (mut second, given) = answer.lock().unwrap().take().unwrap();
        has_it(&mut second, &given);
        drop((first, second, given, tickets));
        world.end();
    });
}

/// The one whose turn comes gives up while it does: the next one gets it.
#[test]
fn loom_give_back_against_who_leaves_the_line() {
    Model::new("give back against who leaves the line").check(|| {
        let world = World::new();
        let mut tickets = world.tickets(3);
        let (mut third, mut second, mut first) =
            (tickets.pop().unwrap(), tickets.pop().unwrap(), tickets.pop().unwrap());
        assert!(matches!(first.acquire(), Acquired::Yes));
        assert!(matches!(second.acquire(), Acquired::Wait(_)));
        let given = third.acquire();
        race(move || first.give_back(), move || drop(second));
        has_it(&mut third, &given);
        drop((third, given, tickets));
        world.end();
    });
}

/// Two ask while one gives back: one has it, the other is in line and told when that one has gone.
#[test]
fn loom_give_back_against_two_who_ask() {
    Model::new("give back against two who ask").check(|| {
        let world = World::new();
        let mut tickets = world.tickets(3);
        let mut first = tickets.pop().unwrap();
        assert!(matches!(first.acquire(), Acquired::Yes));
        let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let ask = |mut ticket: Ticket| {
            let into = answers.clone();
            move || {
                let given = ticket.acquire();
                into.lock().unwrap().push((ticket, given));
            }
        };
        let (one, other) = (ask(tickets.pop().unwrap()), ask(tickets.pop().unwrap()));
        race3(one, other, move || first.give_back());
        let mut all: Vec<(Ticket, Acquired)> = core::mem::take(&mut *answers.lock().unwrap());
        let is_told = |(_, given): &(Ticket, Acquired)| match given {
            Acquired::Wait(fence) => fence.is_signaled(),
            _ => true,
        };
        let at = all.iter().position(is_told).expect("nobody was told");
        let (mut next, given) = all.swap_remove(at);
        has_it(&mut next, &given);
        drop(next);
        let (mut last, given) = all.pop().unwrap();
        has_it(&mut last, &given);
        drop((last, given, all, tickets, answers));
        world.end();
    });
}
