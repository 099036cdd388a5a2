//! Clients of a run: how they come, submit, wait and leave.

use core::time::Duration;

use outlive::sched;
use outlive::trace::FenceId;
use outlive::{
    Dependency, DeviceConfig, Fence, FenceContext, FenceError, Names, OnError, OpenError, QueueConfig, Refusal,
};
use outlive_sim::driver::{ClientConfig, ClientError, HostClock, HostConfig, JobSpec, SimClient, SubmitError, Work};
use outlive_sim::gpu::{Config, FaultKind, GpuError};

use super::agenda::What;
use super::cycles::{Cycle, Cycles, Made};
use super::film;
use super::life::{Life, OpenJob, Wait};
use super::script::{JobPlan, Script, Seen, Step};
use super::{Engine, NS_PER_MS, NS_PER_US};
use crate::args::Clock;
use crate::scenario::Scenario;
use crate::scenario::model;
use crate::timeline::Life as LifeSpan;

/// How long a job that was asked to stop may go on before its ring is reset. The device stops a job that can be stopped
/// within 20 µs.
const CANCEL_GRACE: Duration = Duration::from_millis(5);
/// How long a client that found no memory, and has no job whose retirement would give it some, waits before it tries
/// again: it is others that hold it.
const TRY_AGAIN_NS: u64 = NS_PER_MS;

/// One instance of a client over the whole run.
pub(super) struct Instance<'a> {
    pub(super) script: Script<'a>,
    pub(super) life: Option<Life>,
    pub(super) followers: Vec<usize>,
    pub(super) cycles: Cycles,
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

/// What came of a submission.
enum Submission {
    Done,
    NoMemory,
    /// Its device is gone, or it was shut out.
    Gone,
}

impl<'a> Instance<'a> {
    pub(super) fn new(scenario: &'a Scenario, instance: usize, latency_ns: u64, seed: u64) -> Self {
        let client = scenario.client_of(instance);
        Self {
            script: Script::new(client, latency_ns, seed),
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

/// The machine that a scenario asks for.
pub(super) fn host_config(scenario: &Scenario, clock: Clock) -> HostConfig {
    let model::Device { engines, slice_us, memory_mib, .. } = scenario.device;
    let gpu = Config {
        seed: scenario.seed,
        engines,
        slice_ns: slice_us.saturating_mul(NS_PER_US),
        memory_bytes: memory_mib << 20,
        ..Config::default()
    };
    let clock = match clock {
        Clock::Virtual => HostClock::Virtual,
        Clock::Real => HostClock::Real,
    };
    let device = DeviceConfig::new("sim").cancel_grace(CANCEL_GRACE);
    HostConfig { gpu, device, clock, keep_history: true, ..HostConfig::default() }
}

pub(super) const fn priority(priority: model::Priority) -> sched::Priority {
    match priority {
        model::Priority::Realtime => sched::Priority::Realtime,
        model::Priority::High => sched::Priority::High,
        model::Priority::Normal => sched::Priority::Normal,
        model::Priority::Low => sched::Priority::Low,
    }
}

const fn policy(on_error: model::OnError) -> OnError {
    match on_error {
        model::OnError::Fail => OnError::Fail,
        model::OnError::Run => OnError::Run,
    }
}

const fn fault(kind: model::FaultKind) -> FaultKind {
    match kind {
        model::FaultKind::Hang => FaultKind::Hang,
        model::FaultKind::PageFault => FaultKind::PageFault,
        model::FaultKind::Error => FaultKind::Error,
        model::FaultKind::LostCompletion => FaultKind::LostCompletion,
    }
}

const fn work(work: model::Work, number: u64) -> Work {
    match work {
        model::Work::Spin => Work::Spin,
        model::Work::Fill => Work::Fill,
        model::Work::Copy => Work::Copy,
        // CAST: the gears turn round and round.
        model::Work::Gears => Work::Gears { frame: number as u32, width: film::SIDE, height: film::SIDE },
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
                Step::Over => return self.wake_followers(instance),
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
    fn other(&self, instance: usize, cycle: u64) -> Option<Cycle<'_>> {
        let leader = self.scenario.instances[instance].after?;
        let other = &self.instances[leader];
        let dead = other.came && other.script.is_away();
        let stopped = !self.may_begin(leader) && !other.script.is_submitting();
        Some(other.cycles.look(cycle, dead || stopped))
    }

    fn wake_followers(&mut self, instance: usize) {
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

    /// Takes what has retired off `instance`'s books.
    pub(super) fn harvest(&mut self, instance: usize) {
        if let Some(life) = &mut self.instances[instance].life {
            while let Some(job) = life.take_retired() {
                self.ledger.retired(&self.host, instance, job);
            }
        }
    }

    /// Takes what has retired off the books of those that left, and forgets who has nothing left.
    pub(super) fn bury(&mut self) {
        let (ledger, host) = (&mut self.ledger, &self.host);
        self.leaving.retain_mut(|(instance, life)| {
            while let Some(job) = life.take_retired() {
                ledger.retired(host, *instance, job);
            }
            life.has_jobs()
        });
    }

    /// `instance` comes, unless it is there.
    pub(super) fn come(&mut self, instance: usize) {
        if self.instances[instance].script.is_away() {
            self.instances[instance].wanted = true;
            self.instances[instance].came = true;
            self.try_to_come(instance);
        }
    }

    fn try_to_come(&mut self, instance: usize) {
        let now_ns = self.now_ns();
        let scenario = self.scenario;
        let client = scenario.client_of(instance);
        let queue = QueueConfig::new("ring").priority(priority(client.priority)).weight(client.weight);
        let config = ClientConfig {
            credits: scenario.device.credits,
            timeout: Duration::from_millis(scenario.job_limit_ms()),
            client: None,
            queue,
        };
        self.bury();
        match SimClient::new(&self.host, &scenario.instances[instance].name, config) {
            Ok(made) => {
                let this = &mut self.instances[instance];
                this.life = Some(Life::new(made));
                this.waits_for = None;
                this.came_ns = now_ns;
                this.script.came();
                self.ledger.collector.client_came(instance, now_ns);
                self.agenda.add(now_ns, What::Look(instance));
            }
            Err(ClientError::Device(GpuError::Memory(_)) | ClientError::Refused(OpenError::OutOfMemory(_))) => {
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
        this.script.left();
        this.cycles.left(this.script.cycle());
        match manner {
            Manner::Killed => drop(life.client.take()),
            // The handle goes when the last job has retired.
            Manner::Closed => drop(life.client.as_ref().map(|client| client.close())),
        }
        self.ledger.collector.client_left(instance, now_ns);
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

    fn submit(&mut self, instance: usize, plan: &JobPlan) -> Submission {
        let scenario = self.scenario;
        let client = scenario.client_of(instance);
        let mut spec = JobSpec::new(Duration::from_nanos(plan.duration_ns), work(client.work, plan.number));
        spec.credits = client.credits;
        spec.fault = plan.fault.map(fault);
        let waits = self.add_dependencies(instance, plan, &mut spec);
        let Some(life) = &mut self.instances[instance].life else { return Submission::Gone };
        let Some(handle) = &life.client else { return Submission::Gone };
        let submitted = match handle.submit(spec) {
            Ok(submitted) => submitted,
            Err(SubmitError::Memory(_) | SubmitError::Refused(Refusal::OutOfMemory(_) | Refusal::OverLimit { .. })) => {
                return Submission::NoMemory;
            }
            Err(_) => return Submission::Gone,
        };
        let now_ns = self.host.now().as_ns();
        let draws = self.draws && client.work == model::Work::Gears;
        let job = OpenJob {
            id: submitted.id,
            cycle: plan.cycle,
            number: plan.number,
            committed_ns: now_ns,
            finished: submitted.fences.finished(),
            retired: submitted.fences.retired().into_fence(),
            waits,
            picture: draws.then(|| submitted.output.clone()),
        };
        life.add(job, submitted.fences.clone());
        let since_ns = self.now_ns();
        let this = &mut self.instances[instance];
        let last = this.script.submitted(since_ns);
        if !this.followers.is_empty() {
            this.cycles.add(plan.cycle, Made::new(submitted.fences, &submitted.output), last);
            if last {
                self.wake_followers(instance);
            }
        }
        Submission::Done
    }

    /// Adds what the job of `plan` depends on and reads; gives what it waits for.
    fn add_dependencies(&self, instance: usize, plan: &JobPlan, spec: &mut JobSpec) -> Vec<Wait> {
        let client = self.scenario.client_of(instance);
        let mut waits = Vec::new();
        let last = self.instances[instance].life.as_ref().and_then(|life| life.last.as_ref());
        if let Some(last) = last.filter(|_| client.chain) {
            waits.push(Wait { job: last.clone(), on_error: policy(client.on_chain_error()) });
        }
        let on_error = policy(client.on_after_error());
        match self.other(instance, plan.cycle) {
            Some(Cycle::Committed(jobs)) => {
                waits.extend(jobs.iter().map(|made| Wait { job: made.job.clone(), on_error }));
                let place = usize::try_from(plan.place).unwrap_or(usize::MAX).min(jobs.len().saturating_sub(1));
                spec.reads.extend(jobs.get(place).and_then(Made::output));
            }
            Some(Cycle::Canceled) if on_error == OnError::Fail => {
                let canceled = canceled(self.host.executor());
                spec.after.extend(canceled.map(|fence| Dependency::on(fence).on_error(on_error)));
            }
            _ => {}
        }
        spec.after.extend(waits.iter().map(|wait| Dependency::on(wait.job.finished()).on_error(wait.on_error)));
        waits
    }
}

/// A fence of work that nobody will do.
fn canceled(executor: &outlive::Executor) -> Option<Fence> {
    let names = Names { driver: "outlive", timeline: "canceled cycles" };
    let (signaler, fence) = FenceContext::new(executor, names).ok()?.allocate().ok()?.publish();
    signaler.signal(Err(FenceError::Canceled));
    Some(fence)
}
