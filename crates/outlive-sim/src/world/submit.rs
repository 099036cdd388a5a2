//! What an actor submits: jobs of all kinds, with faults, dependencies and waits.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use outlive::vm::{Bo, Flags, Request, Source};
use outlive::{Dependency, Fence, OnError, Principal, UserFence};

use super::actor::Actor;
use super::commons::{Slot, pick, small, some, take};
use super::deeds::{Remembered, injected, lock};
use super::hits::{Known, Place};
use crate::driver::{JobSpec, SimHost, SimVm, VM_START, Work};
use crate::gpu::FaultKind;

/// Buffers that one actor keeps bound.
const BOUND_MAX: usize = 12;

impl Actor {
    fn fault(&mut self) -> Option<FaultKind> {
        if !self.one_in(6) {
            return None;
        }
        let (affordable, kind) = match self.chance.below(4) {
            0 => (self.commons.spend(|budget| &mut budget.hangs), FaultKind::Hang),
            1 => (self.commons.spend(|budget| &mut budget.page_faults), FaultKind::PageFault),
            2 => (self.commons.spend(|budget| &mut budget.errors), FaultKind::Error),
            _ => (self.commons.spend(|budget| &mut budget.lost_completions), FaultKind::LostCompletion),
        };
        affordable.then(|| injected(&self.commons.hits, kind))?;
        Some(kind)
    }

    /// A job for a queue.
    pub(crate) fn spec(&mut self, slot: &Slot) -> JobSpec {
        let work = match self.chance.below(8) {
            0 => Work::Fill,
            1 => Work::Copy,
            2 => Work::Gears { frame: small(&mut self.chance, 360), width: 16, height: 16 },
            _ => Work::Spin,
        };
        let [mostly, sometimes] = self.commons.pace.job_us;
        let longest = if self.one_in(10) { sometimes } else { mostly };
        let duration = self.micros(longest);
        let fault = self.fault();
        let mut spec = JobSpec { fault, shared: true, ..JobSpec::new(duration, work) };
        let size = slot.queue.queue().status().credits_free.max(1);
        spec.credits = 1 + small(&mut self.chance, size.min(3));
        if self.one_in(5) {
            spec.timeout = Some(Duration::from_millis(1 + self.chance.below(30)));
        }
        for _ in 0..self.chance.below(3) {
            self.depend(&mut spec);
        }
        spec
    }

    fn depend(&mut self, spec: &mut JobSpec) {
        let on_error = match self.chance.below(3) {
            0 => None,
            1 => Some(OnError::Fail),
            _ => Some(OnError::Run),
        };
        let with = |fence: Fence| {
            let dependency = Dependency::on(fence);
            on_error.map_or(dependency.clone(), |on_error| dependency.on_error(on_error))
        };
        if self.one_in(6)
            && let Some(fence) = some(&mut self.chance, &self.commons.bare)
        {
            spec.after.push(with(fence));
            return;
        }
        let Some(Remembered { job, .. }) = some(&mut self.chance, &self.commons.remembered) else { return };
        let fence = if self.one_in(4) { job.fences.retired().into_fence() } else { job.fences.finished() };
        spec.after.push(with(fence));
        spec.reads.push(job.output);
    }

    /// A few jobs for one queue.
    pub(crate) fn submit(&mut self) {
        let Some(slot) = self.some_slot() else { return };
        for _ in 0..1 + self.chance.below(4) {
            let mut spec = self.spec(&slot);
            if !slot.set.pieces.is_empty() && !self.one_in(4) {
                let count = slot.set.pieces.len();
                let places: BTreeSet<usize> =
                    (0..1 + self.chance.below(3)).filter_map(|_| pick(&mut self.chance, count)).collect();
                spec.pieces = places.into_iter().map(|place| Arc::clone(&slot.set.pieces[place])).collect();
            }
            self.submit_to(&slot, spec);
        }
        if let Some(vm) = slot.set.vm.filter(|_| self.one_in(4)) {
            self.bind(&vm);
        }
    }

    /// A new buffer is bound somewhere in an address space, once something is over that may take a while. No job goes there, so
    /// whoever dies before it is bound faults none.
    fn bind(&mut self, vm: &SimVm) {
        let Ok(bo) = vm.local((1 + self.chance.below(16)) << 12) else { return };
        let Ok(pair) = vm.open(&bo) else { return };
        let after = some(&mut self.chance, &self.commons.remembered)
            .map(|earlier| Dependency::on(earlier.job.fences.finished()).on_error(OnError::Run));
        let source = Source::Bo { bo: pair.id(), offset: 0 };
        let (va, len) = (VM_START + (self.chance.below(64) << 12), bo.core().size());
        let map = Request::Map { va, len, source, flags: Flags::NONE, data: () };
        let unmap = Request::Unmap { va: VM_START + (self.chance.below(64) << 12), len: 1 << 12 };
        drop(vm.bind(&[map, unmap], after.into_iter().collect()));
        self.bound.push((bo, pair));
        if self.bound.len() > BOUND_MAX {
            drop(self.take_own(|actor| &mut actor.bound));
        }
    }

    pub(crate) fn submit_to(&mut self, slot: &Slot, spec: JobSpec) {
        let fault = spec.fault;
        self.commons.hits.lock().deed("submit", Place::Client, &slot.jobs.all());
        let banned = self.commons.society.user(slot.user).is_some_and(Principal::is_banned);
        let Ok(job) = slot.queue.submit(spec) else { return };
        if banned && self.one_thread {
            lock(&self.commons.wrong).push(format!("a job of user {}, who is banned, was taken", slot.user));
        }
        slot.jobs.push(Known { fences: job.fences.clone(), fault });
        let too_many = {
            let mut remembered = lock(&self.commons.remembered);
            remembered.push(Remembered { job, fault });
            remembered.len() > self.commons.remembered_max
        };
        if too_many {
            drop(take(&mut self.chance, &self.commons.remembered));
        }
    }

    pub(crate) fn reserve(&mut self) {
        let Some(slot) = self.some_slot() else { return };
        let spec = self.spec(&slot);
        let fault = spec.fault;
        if let Ok(reserved) = slot.queue.reserve(spec) {
            self.reserved.push((reserved, slot.jobs, fault));
        }
    }

    pub(crate) fn wait_for_user(&mut self, host: &SimHost) {
        let Some(slot) = self.some_slot() else { return };
        let spec = self.spec(&slot);
        let Ok(reserved) = slot.queue.reserve_waiting(spec, 1) else { return };
        let Ok((source, user)) = UserFence::new(&self.commons.executor, "user") else { return };
        let deadline = host.now().after(Duration::from_millis(self.chance.below(100)));
        self.commons.hits.lock().deed("commit when", Place::Client, &slot.jobs.all());
        if let Ok(pending) = reserved.commit_when(&[user], deadline) {
            self.pending.push((pending, slot.jobs));
            self.sources.push(source);
        }
    }

    /// One of its own things, taken out.
    pub(crate) fn take_own<T>(&mut self, from: fn(&mut Self) -> &mut Vec<T>) -> Option<T> {
        let len = from(self).len();
        let at = pick(&mut self.chance, len)?;
        Some(from(self).swap_remove(at))
    }
}
