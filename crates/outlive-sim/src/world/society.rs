//! Who shares a world's device: an arbiter, if the seed says so, and users, who may be banned.
//!
//! Beside the library's own answers stands what was heard of its events: who is banned, what was started, how jobs ended.
//! The two are compared: a banned user's job never starts (in virtual time; with threads one may be starting just then), and what
//! the library counts is what was heard.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use outlive::sched::{Arbiter, ArbiterConfig, Fair, Fifo, RoundRobin};
use outlive::trace::{Event, Record};
use outlive::{Charges, DeviceConfig, Executor, Outcome, Principal, Time};
use std::sync::Mutex;

use super::commons::small;
use super::deeds::lock;
use crate::gpu::rng::Rng;

/// Users of a world. Their numbers as clients begin at 1.
const USERS: u32 = 5;
/// The most credits of a pool; a queue has at most as many.
const POOL_MAX: u32 = 24;

const OUTCOMES: usize = Outcome::ALL.len();

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    banned: BTreeSet<u64>,
    bans: u64,
    started_in_spite: Vec<String>,
    outcomes: [u64; OUTCOMES],
}

/// Listens to the library's events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ear(Arc<Mutex<Heard>>);

impl Record for Ear {
    fn record(&self, at: Time, event: Event) {
        match event {
            Event::Banned { client, .. } => {
                let mut heard = lock(&self.0);
                heard.banned.insert(client);
                heard.bans += 1;
            }
            Event::JobStarted { job, client } => {
                let mut heard = lock(&self.0);
                if heard.banned.contains(&client) && heard.started_in_spite.len() < 5 {
                    heard
                        .started_in_spite
                        .push(format!("{at}: job {job} of user {client}, who is banned, was started"));
                }
            }
            Event::JobDone { result, .. } => lock(&self.0).outcomes[Outcome::of(result) as usize] += 1,
            _ => {}
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Society {
    pub(crate) arbiter: Mutex<Option<Arbiter>>,
    /// Credits that all jobs on the hardware share, if there is an arbiter.
    pub(crate) pool: Option<u32>,
    users: Vec<Principal>,
    ear: Ear,
}

impl Society {
    /// Of a world on `executor` with at most `queues` queues, as chance will.
    pub(crate) fn new(chance: &mut Rng, executor: &Executor, ear: Ear, queues: u32) -> Self {
        let (users, pool) = (0..USERS, 2 + small(chance, POOL_MAX - 1));
        let users = users.filter_map(|_| Principal::new(Charges::UNLIMITED).ok()).collect();
        let config = ArbiterConfig::new(pool).engines(1 + small(chance, 3)).queues(queues);
        let arbiter = match small(chance, 5) {
            0 => Arbiter::with_policy(executor, config, Fifo::default()).ok(),
            1 => Arbiter::with_policy(executor, config, RoundRobin::default()).ok(),
            2 | 3 => Arbiter::with_policy(executor, config, Fair::new(1 + small(chance, 3))).ok(),
            _ => None,
        };
        let pool = arbiter.as_ref().map(|_| pool);
        Self { arbiter: Mutex::new(arbiter), pool, users, ear }
    }

    /// How soon a device bans: in half of the worlds sooner than by default.
    pub(crate) fn bans(chance: &mut Rng, config: DeviceConfig) -> DeviceConfig {
        match small(chance, 4) {
            0 => config.ban_after(1 + small(chance, 3), Duration::from_millis(1 + chance.below(500))),
            1 => config.ban_after(2 + small(chance, 4), Duration::from_secs(10)),
            2 => config.ban_after(0, Duration::ZERO),
            _ => config,
        }
    }

    /// The number of some user.
    pub(crate) fn some_user(&self, chance: &mut Rng) -> u64 {
        1 + chance.below(self.users.len() as u64)
    }

    pub(crate) fn user(&self, number: u64) -> Option<&Principal> {
        self.users.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// Forgives a user. Whoever listens hears of it first.
    pub(crate) fn lift_ban(&self, number: u64) {
        lock(&self.ear.0).banned.remove(&number);
        if let Some(user) = self.user(number) {
            user.lift_ban();
        }
    }

    pub(crate) fn bans_heard(&self) -> u64 {
        lock(&self.ear.0).bans
    }

    /// What went wrong, now that no job is left. `one_thread`: what was heard was heard in order.
    pub(crate) fn judge(&self, one_thread: bool, wrong: &mut Vec<String>) {
        let heard = lock(&self.ear.0);
        if one_thread {
            wrong.extend(heard.started_in_spite.iter().cloned());
        }
        for outcome in Outcome::ALL {
            let counted: u64 = self.users.iter().map(|user| user.usage().jobs(outcome)).sum();
            let told = heard.outcomes[outcome as usize];
            // What was cancelled before its commit is counted, and no event.
            let exactly = matches!(outcome, Outcome::Ok | Outcome::Innocent | Outcome::DriverBug);
            if counted < told || (exactly && counted > told) {
                wrong.push(format!("{counted} jobs were counted as {}, of {told} it was told", outcome.name()));
            }
        }
        for (number, user) in (1_u64..).zip(&self.users) {
            let charged = user.charged();
            if charged != (Charges { jobs: 0, bytes: 0 }) {
                wrong.push(format!("user {number} is still charged {charged:?}"));
            }
        }
        if let (Some(arbiter), Some(pool)) = (&*lock(&self.arbiter), self.pool) {
            let status = arbiter.status();
            if (status.credits_free, status.ready, status.bad_answers) != (pool, 0, 0) {
                wrong.push(format!("with nothing left, the arbiter of {pool} credits is {status:?}"));
            }
        }
    }
}
