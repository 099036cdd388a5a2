//! How a client's next job is submitted, and what it depends on.

use core::time::Duration;

use outlive::{Dependency, Executor, Fence, FenceContext, FenceError, Names, OnError, Refusal};
use outlive_sim::driver::{BufferError, JobSpec, SLOT_BYTES, SubmitError};
use outlive_sim::gpu::PAGE_BYTES;

use super::Engine;
use super::cycles::{Cycle, Made};
use super::life::{Life, OpenJob, Wait, Waits};
use super::script::JobPlan;
use super::words::{fault, policy, work};
use crate::scenario::model;

/// What all jobs of a client that replays requests work on.
const SHARED_BYTES: u64 = 64 * 1024;

/// Device memory for the commands of a request of so many jobs: whole pages.
#[must_use]
pub fn command_bytes(jobs: u32) -> u64 {
    (u64::from(jobs) * SLOT_BYTES).next_multiple_of(PAGE_BYTES as u64)
}

/// What came of a submission.
pub(super) enum Submission {
    Done,
    NoMemory,
    /// Its device is gone, or it was shut out.
    Gone,
}

impl Engine<'_> {
    /// Submits the job of `plan`, or nothing of it.
    pub(super) fn submit(&mut self, instance: usize, plan: &JobPlan) -> Submission {
        let scenario = self.scenario;
        let client = scenario.client_of(instance);
        let mut spec = JobSpec::new(Duration::from_nanos(plan.duration_ns), work(client.work, plan.number));
        spec.credits = plan.credits;
        spec.fault = plan.fault.map(fault);
        spec.shared = !self.instances[instance].followers.is_empty();
        let waits = self.add_dependencies(instance, plan, &mut spec);
        if self.requests.is_some() && self.share(instance, plan, &mut spec).is_err() {
            return Submission::NoMemory;
        }
        let Some(life) = &mut self.instances[instance].life else { return Submission::Gone };
        spec.pieces = life.pieces_of(plan.number);
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
            cycle_jobs: plan.of,
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

    /// Lets a job of a request work where all of its client do, and stand among the commands of its request.
    fn share(&mut self, instance: usize, plan: &JobPlan, spec: &mut JobSpec) -> Result<(), BufferError> {
        let Some(Life { client: Some(handle), shared, .. }) = &mut self.instances[instance].life else { return Ok(()) };
        if shared.data.is_none() {
            shared.data = Some(handle.buffer(SHARED_BYTES)?);
        }
        if plan.place == 0 {
            shared.commands = Some(handle.buffer(command_bytes(plan.of))?);
        }
        spec.into = shared.data.clone();
        // The last has it all to itself: it is free when that job is done.
        let commands = if plan.place + 1 == plan.of { shared.commands.take() } else { shared.commands.clone() };
        spec.commands = commands.map(|commands| (commands, plan.place));
        Ok(())
    }

    /// Adds what the job of `plan` depends on and reads; gives what it waits for.
    fn add_dependencies(&self, instance: usize, plan: &JobPlan, spec: &mut JobSpec) -> Waits {
        let client = self.scenario.client_of(instance);
        let mut waits = Waits::default();
        let last = self.instances[instance].life.as_ref().and_then(|life| life.last.as_ref());
        if let Some(last) = last.filter(|_| client.chain) {
            // What came of one request is nothing to the next.
            let other_request = self.requests.is_some() && plan.place == 0;
            let on_error = if other_request { OnError::Run } else { policy(client.on_chain_error()) };
            waits.push(Wait { job: last.clone(), on_error });
        }
        let on_error = policy(client.on_after_error());
        match self.other(instance, plan.cycle) {
            Some(Cycle::Committed(jobs)) => {
                jobs.iter().for_each(|made| waits.push(Wait { job: made.job.clone(), on_error }));
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
fn canceled(executor: &Executor) -> Option<Fence> {
    let names = Names { driver: "outlive", timeline: "canceled cycles" };
    let (signaler, fence) = FenceContext::new(executor, names).ok()?.allocate().ok()?.publish();
    signaler.signal(Err(FenceError::Canceled));
    Some(fence)
}
