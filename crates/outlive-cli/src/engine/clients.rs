//! Clients of a run: how they come, submit, wait and leave.

use outlive::trace::FenceId;
use outlive::{Fence, OpenError, Principal};
use outlive_sim::driver::{ClientError, SimClient};
use outlive_sim::gpu::GpuError;

use super::agenda::What;
use super::cycles::{Cycle, Cycles};
use super::life::Life;
use super::script::{Script, Seen, Step};
use super::submit::Submission;
use super::{Engine, NS_PER_MS, words};
use crate::scenario::memory;
use crate::scenario::model::Client;
use crate::timeline::Life as LifeSpan;

/// How long a client that found no memory, and has no job whose retirement would give it some, waits before it tries
/// again: it is others that hold it.
const TRY_AGAIN_NS: u64 = NS_PER_MS;

/// One instance of a client over the whole run.
pub(super) struct Instance<'a> {
    pub(super) script: Script<'a>,
    pub(super) life: Option<Life>,
    pub(super) followers: Vec<usize>,
    pub(super) cycles: Cycles,
    /// Its account over all its lives: what it has had, and whether it is banned.
    pub(super) principal: Principal,
    /// Whether it shall be there: it was to come, and did not leave.
    wanted: bool,
    /// Whether it ever was.
    came: bool,
    pub(super) came_ns: u64,
    start_ns: u64,
    stop_ns: u64,
    /// The fence after which it was last promised to be woken.
    waits_for: Option<FenceId>,
    /// When it looks next by itself.
    looks_at_ns: Option<u64>,
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Its handles are dropped.
    Killed,
    /// It says so first.
    Closed,
}

impl<'a> Instance<'a> {
    pub(super) fn new(client: &Client, script: Script<'a>, principal: Principal) -> Self {
        Self {
            script,
            principal,
            life: None,
            followers: Vec::new(),
            cycles: Cycles::default(),
            wanted: false,
            came: false,
            came_ns: 0,
            start_ns: client.start_ms.saturating_mul(NS_PER_MS),
            stop_ns: client.stop_ms.map_or(u64::MAX, |stop_ms| stop_ms.saturating_mul(NS_PER_MS)),
            waits_for: None,
            looks_at_ns: None,
        }
    }

    pub(super) fn client(&self) -> Option<&SimClient> {
        self.life.as_ref()?.client.as_ref()
    }

    /// Whether it submits nothing more, as far as it knows.
    pub(super) fn submits_nothing(&self) -> bool {
        self.script.is_over() || self.script.is_away()
    }
}

impl Engine<'_> {
    /// Lets `instance` do what it can.
    pub(super) fn look(&mut self, instance: usize) {
        let now_ns = self.now_ns();
        if self.instances[instance].looks_at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            self.instances[instance].looks_at_ns = None;
        }
        if !self.instances[instance].came && now_ns >= self.instances[instance].start_ns && !self.ending {
            self.come(instance);
        }
        self.harvest(instance);
        if !self.leaving.is_empty() {
            self.bury();
        }
        loop {
            let seen = self.seen(instance);
            match self.instances[instance].script.next(&seen) {
                Step::Away if self.instances[instance].wanted && !self.ending => return self.try_to_come(instance),
                Step::Away | Step::UntilOther => return,
                Step::Over => {
                    self.wake_followers(instance);
                    return self.wake_when_all_retired(instance);
                }
                Step::UntilUnfinished(most) => return self.wake_when_unfinished(instance, most),
                Step::Until(at_ns) => return self.look_at(instance, at_ns),
                Step::Submit(plan) => match self.submit(instance, &plan) {
                    Submission::Done => {}
                    Submission::NoMemory => return self.wake_when_retired(instance),
                    Submission::Gone => return self.leave(instance, Manner::Closed),
                },
            }
        }
    }

    fn seen(&mut self, instance: usize) -> Seen {
        let now_ns = self.now_ns();
        let unfinished = self.instances[instance].life.as_mut().map_or(0, Life::unfinished);
        let may_begin = self.may_begin(instance);
        let cycle = self.instances[instance].script.cycle();
        let other_ready = !matches!(self.other(instance, cycle), Some(Cycle::ToCome));
        Seen { now_ns, unfinished, may_begin, other_ready }
    }

    fn may_begin(&self, instance: usize) -> bool {
        !self.ending && self.now_ns() < self.instances[instance].stop_ns
    }

    /// What became of the cycle that `cycle` of `instance` is after, if it is after any.
    pub(super) fn other(&self, instance: usize, cycle: u64) -> Option<Cycle<'_>> {
        let leader = self.scenario.instances[instance].after?;
        let other = &self.instances[leader];
        let dead = other.came && other.script.is_away();
        let stopped = !self.may_begin(leader) && !other.script.is_submitting();
        Some(other.cycles.look(cycle, dead || stopped))
    }

    pub(super) fn wake_followers(&mut self, instance: usize) {
        let now_ns = self.now_ns();
        for follower in &self.instances[instance].followers {
            self.agenda.add(now_ns, What::Look(*follower));
        }
    }

    fn look_at(&mut self, instance: usize, at_ns: u64) {
        if self.instances[instance].looks_at_ns != Some(at_ns) {
            self.instances[instance].looks_at_ns = Some(at_ns);
            self.agenda.add(at_ns, What::Look(instance));
        }
    }

    fn wake_after(&mut self, instance: usize, fence: Option<Fence>) {
        let Some(fence) = fence else {
            let at_ns = self.now_ns() + TRY_AGAIN_NS;
            return self.look_at(instance, at_ns);
        };
        // Once for each fence, however often it looks meanwhile.
        if self.instances[instance].waits_for != Some(fence.id()) {
            self.instances[instance].waits_for = Some(fence.id());
            self.inbox.wake_after(&fence, instance);
        }
    }

    fn wake_when_unfinished(&mut self, instance: usize, most: usize) {
        let fence = self.instances[instance].life.as_ref().and_then(|life| life.fence_until(most)).cloned();
        self.wake_after(instance, fence);
    }

    fn wake_when_retired(&mut self, instance: usize) {
        let fence = self.instances[instance].life.as_ref().and_then(Life::next_retirement).cloned();
        self.wake_after(instance, fence);
    }

    /// It has nothing more to do, and the run may be over with its last job.
    fn wake_when_all_retired(&mut self, instance: usize) {
        let fence = self.instances[instance].life.as_ref().and_then(Life::last_retirement).cloned();
        if fence.is_some() {
            self.wake_after(instance, fence);
        }
    }

    /// Takes what has retired off `instance`'s books.
    pub(super) fn harvest(&mut self, instance: usize) {
        if let Some(life) = &mut self.instances[instance].life {
            self.ledger.harvest(&self.host, instance, life);
        }
    }

    /// Takes what has retired off the books of those that left, and forgets who has nothing left.
    pub(super) fn bury(&mut self) {
        let (ledger, host) = (&mut self.ledger, &self.host);
        self.leaving.retain_mut(|(instance, life)| {
            ledger.harvest(host, *instance, life);
            life.has_jobs()
        });
    }

    /// `instance` comes, unless it is there.
    pub(super) fn come(&mut self, instance: usize) {
        // Who is banned would get nothing in.
        if self.instances[instance].script.is_away() && !self.instances[instance].principal.is_banned() {
            self.instances[instance].wanted = true;
            self.instances[instance].came = true;
            self.try_to_come(instance);
        }
    }

    fn try_to_come(&mut self, instance: usize) {
        let now_ns = self.now_ns();
        let scenario = self.scenario;
        let principal = &self.instances[instance].principal;
        let config = words::client_config(scenario, scenario.client_of(instance), principal, self.arbiter.as_ref());
        self.bury();
        let (count, bytes) = memory::pieces(scenario.client_of(instance));
        let made = SimClient::new(&self.host, &scenario.instances[instance].name, config).and_then(|made| {
            let pieces = (0..count).map(|_| made.piece(bytes)).collect::<Result<Vec<_>, _>>()?;
            Ok(Life::new(made, pieces))
        });
        match made {
            Ok(life) => {
                let this = &mut self.instances[instance];
                this.life = Some(life);
                this.waits_for = None;
                this.came_ns = now_ns;
                this.script.came();
                self.ledger.collector.client_came(instance, now_ns);
                self.agenda.add(now_ns, What::Look(instance));
            }
            Err(
                ClientError::Device(GpuError::Memory(_))
                | ClientError::Lease(_)
                | ClientError::Refused(OpenError::OutOfMemory(_) | OpenError::ArbiterFull { .. }),
            ) => {
                self.look_at(instance, now_ns + TRY_AGAIN_NS);
            }
            // Its device is gone.
            Err(_) => self.instances[instance].wanted = false,
        }
    }

    /// `instance` leaves, if it is there.
    pub(super) fn leave(&mut self, instance: usize, manner: Manner) {
        let now_ns = self.now_ns();
        let this = &mut self.instances[instance];
        this.wanted = false;
        let Some(mut life) = this.life.take() else { return };
        let (evictions, restores) = life.moves();
        // Jobs keep those that they work on.
        life.pieces.clear();
        this.script.left();
        this.cycles.left(this.script.cycle());
        match manner {
            Manner::Killed => drop(life.client.take()),
            // The handle goes when the last job has retired.
            Manner::Closed => drop(life.client.as_ref().map(|client| client.close())),
        }
        self.ledger.collector.client_left(instance, now_ns);
        self.ledger.collector.client_moved(instance, evictions, restores);
        self.spans.push(LifeSpan { instance, from_ns: this.came_ns, to_ns: now_ns });
        if let Some(retired) = life.last_retirement() {
            // Its jobs' memory serves others then.
            self.inbox.wake_after(retired, instance);
        }
        self.leaving.push((instance, life));
        self.wake_followers(instance);
    }

    pub(super) fn suspend(&mut self, instance: usize, suspended: bool) {
        let Some(life) = &mut self.instances[instance].life else { return };
        life.suspended = suspended;
        if let Some(client) = &life.client {
            if suspended {
                client.queue().suspend();
            } else {
                client.queue().resume();
            }
        }
    }
}
