//! Pools under loom: whoever waits is told, whatever else happens at that moment.

use super::{Pool, PoolConfig, Ticket};
use crate::sabotage::{self, Sabotage};
use crate::sched::Priority;
use crate::sync::model::{Model, race, race3};
use crate::{Acquired, Executor, Status, Time};
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

fn give_back_against_acquire() {
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
}

/// One gives back while another asks.
#[test]
fn loom_give_back_against_acquire() {
    Model::new("give back against acquire").check(give_back_against_acquire);
}

/// The same, where who is in line is not told.
#[test]
#[should_panic(expected = "forgotten")]
fn loom_teeth_a_lease_that_nobody_is_told_of() {
    sabotage::commit(Some(Sabotage::LoseLeaseWakeUp));
    Model::new("teeth: a lease that nobody is told of").check(give_back_against_acquire);
}

/// Who is in line is told that its time is up while it is given the slot: it has it, or somebody else can.
#[test]
fn loom_give_back_against_the_end_of_patience() {
    Model::new("give back against the end of patience").check(|| {
        let world = World::new();
        let mut tickets = world.tickets(2);
        let (mut second, mut first) = (tickets.pop().unwrap(), tickets.pop().unwrap());
        assert!(matches!(first.acquire(), Acquired::Yes));
        let Acquired::Wait(fence) = second.acquire() else { panic!("it was taken") };
        let executor = world.executor.clone();
        race(
            move || {
                executor.advance_to(Time::from_ns(10_001_000_000));
                executor.step();
            },
            || first.give_back(),
        );
        world.executor.run_until_idle();
        assert!(fence.is_signaled());
        match second.acquire() {
            Acquired::Yes => assert_eq!(second.slot(0), Some(0)),
            Acquired::Never(_) => assert!(matches!(fence.status(), Status::Signaled(Err(_)))),
            Acquired::Wait(_) => panic!("it was told"),
        }
        drop((first, second, fence, tickets));
        world.end();
    });
}

/// The handles on the pool and its holders go while a slot is given back: whoever waits has it all the same.
#[test]
fn loom_give_back_against_the_drop_of_handles() {
    Model::new("give back against the drop of handles").check(|| {
        let World { executor, pool } = World::new();
        let holder = || pool.holder(&executor, &[0], 0, Priority::Normal).unwrap();
        let (one, other) = (holder(), holder());
        let (mut first, mut second) = (one.ticket().unwrap(), other.ticket().unwrap());
        assert!(matches!(first.acquire(), Acquired::Yes));
        let given = second.acquire();
        race(move || drop(first), move || drop((one, other, pool)));
        has_it(&mut second, &given);
        drop((second, given));
        executor.run_until_idle();
        assert_eq!(executor.live_objects(), 0);
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
