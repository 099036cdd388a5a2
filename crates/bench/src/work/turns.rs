//! Whose turn it is: the fair policy with 1,000 ready queues, and others that wait for something else.

use core::time::Duration;
use outlive::Time;
use outlive::sched::{Fair, Head, Policy, Share};

/// Ready queues.
pub const READY: u32 = 1_000;
const JOB_NS: u64 = 100_000;

/// A policy and the time.
#[derive(Debug)]
pub struct Turns {
    policy: Fair,
    now_ns: u64,
}

/// [`READY`] ready queues of different weights, and `blocked` others, each of which has had a job and waits now.
///
/// # Panics
/// Without memory.
pub fn ready(blocked: u32) -> Turns {
    let mut policy = Fair::new(1);
    policy.reserve(READY + blocked).expect("memory");
    let mut turns = Turns { policy, now_ns: 0 };
    for queue in 0..READY + blocked {
        turns.policy.opened(queue, u64::from(queue) + 1, Share { weight: 50 + queue % 100, ..Share::default() });
    }
    for queue in READY..READY + blocked {
        turns.queue_is_ready(queue);
        turns.one();
    }
    for queue in 0..READY {
        turns.queue_is_ready(queue);
    }
    life(&mut turns, 2 * u64::from(READY));
    turns
}

impl Turns {
    fn queue_is_ready(&mut self, queue: u32) {
        let now = Time::from_ns(self.now_ns);
        self.policy.ready(queue, Head { committed: now, credits: 1, more: false }, now);
    }

    /// Picks, starts and ends one job; whose it was.
    fn one(&mut self) -> u32 {
        let queue = self.policy.pick(Time::from_ns(self.now_ns)).expect("somebody is ready");
        self.policy.started(queue, Time::from_ns(self.now_ns));
        self.now_ns += JOB_NS;
        self.policy.ended(queue, Duration::from_nanos(JOB_NS), Time::from_ns(self.now_ns));
        queue
    }
}

/// `count` jobs: whose turn it is, start, end, and the queue is ready again.
pub fn life(turns: &mut Turns, count: u64) {
    for _ in 0..count {
        let queue = turns.one();
        turns.queue_is_ready(queue);
    }
}

/// `count` questions whose turn it is, and nothing else.
pub fn pick(turns: &mut Turns, count: u64) {
    for _ in 0..count {
        let queue = core::hint::black_box(&mut turns.policy).pick(Time::from_ns(turns.now_ns));
        core::hint::black_box(queue);
    }
}
