//! Somebody who acts: opens queues, submits, and does deeds, at random.
//!
//! One of them is a virtual world; in a storm of threads each thread is one. What an actor has for itself nobody else
//! touches; what it shares is in [`Commons`].

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use outlive::vm::VmBo;
use outlive::{Fence, FenceContext, Names, Pending, QueueConfig, Reserved, Signaler, UserSource};

use super::commons::{Commons, Slot, WorkingSet, pick, small, some, take};
use super::deeds::{Deed, Jobs, QueueRef, Remembered, lock};
use super::hits::{Known, Place};
use crate::driver::{ClientConfig, ClientError, HostClock, SimBo, SimClient, SimDriver, SimHost, SimVm};
use crate::gpu::rng::Rng;
use crate::gpu::{FaultKind, GpuError};

/// So many steps a device that is to go waits for the worst moment.
const PATIENCE: u32 = 40;

/// Looks for a queue with something special about it.
const SLOT_TRIES: u32 = 12;
/// Of each persistent buffer.
const PIECE_BYTES: u64 = 64 << 10;
/// Looks for a fence that has not signaled, before a new one is made.
const FENCE_TRIES: u32 = 3;

/// A reservation, of which queue, and what its job will suffer.
pub(crate) type Held = (Reserved<SimDriver>, Jobs, Option<FaultKind>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) commons: Arc<Commons>,
    pub(crate) chance: Rng,
    pub(crate) reserved: Vec<Held>,
    pub(crate) pending: Vec<(Pending, Jobs)>,
    pub(crate) sources: Vec<UserSource>,
    pub(crate) signalers: Vec<Signaler>,
    /// Buffers that it has bound in some client's address space.
    pub(crate) bound: Vec<(SimBo, VmBo<SimDriver>)>,
    context: Option<FenceContext>,
    steps: u32,
    /// At which step the device goes for good, if this one ends it.
    dies_at: Option<u32>,
    /// Nobody else acts.
    pub(crate) one_thread: bool,
}

impl Actor {
    /// One whose chance is `chance`; at step `dies_at` it ends the device.
    pub(crate) fn new(host: &SimHost, commons: Arc<Commons>, chance: Rng, dies_at: Option<u32>) -> Self {
        let names = Names { driver: "world", timeline: "bare" };
        let context = FenceContext::with_watchdog(&commons.executor, names, commons.pace.watchdog).ok();
        if let Some(context) = &context {
            host.watch_context(context);
        }
        let (reserved, pending, sources, signalers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let one_thread = host.clock() == HostClock::Virtual;
        let bound = Vec::new();
        Self { commons, chance, reserved, pending, sources, signalers, bound, context, steps: 0, dies_at, one_thread }
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.chance.below(n) == 0
    }

    pub(crate) fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(1 + self.chance.below(below))
    }

    /// A queue that lives; now and then, if one is easily found, one with a job that is over and still on the hardware.
    pub(crate) fn some_slot(&mut self) -> Option<Slot> {
        if self.one_in(4) {
            for _ in 0..SLOT_TRIES {
                let slot = some(&mut self.chance, &self.commons.slots)?;
                if slot.jobs.any(Known::is_draining) {
                    return Some(slot);
                }
            }
        }
        some(&mut self.chance, &self.commons.slots)
    }

    /// As [`Actor::some_slot`], taken from the others.
    pub(crate) fn take_slot(&mut self) -> Option<Slot> {
        let slot = self.some_slot()?;
        let mut slots = lock(&self.commons.slots);
        let at = slots.iter().position(|other| other.jobs.are(&slot.jobs))?;
        Some(slots.swap_remove(at))
    }

    fn config(&mut self, user: u64) -> ClientConfig {
        let society = Arc::clone(&self.commons.society);
        let credits = (1 + small(&mut self.chance, 12)).min(society.pool.unwrap_or(u32::MAX));
        let timeout = Duration::from_millis(2 + self.chance.below(80));
        let queue = QueueConfig::new("world")
            .drain_timeout(self.micros(60_000))
            .suspend_limit(Duration::from_millis(1 + self.chance.below(400)))
            .bypass(!self.one_in(4));
        let queue = society.user(user).into_iter().fold(queue, |queue, user| queue.principal(user.clone()));
        let queue = lock(&society.arbiter).iter().fold(queue, QueueConfig::arbiter);
        ClientConfig { credits, timeout, client: Some(user), queue, ..ClientConfig::default() }
    }

    /// A new queue, of a new client or of one that lives, if the world may still have one and its device takes it. One that
    /// finds no memory is still to be opened.
    pub(crate) fn open_queue(&mut self) -> bool {
        if lock(&self.commons.slots).len() >= self.commons.alive_max || !self.commons.spend(|budget| &mut budget.queues)
        {
            return false;
        }
        // Queues without the arbiter would take what is left of its pool.
        if self.commons.society.pool.is_some() && lock(&self.commons.society.arbiter).is_none() {
            return true;
        }
        let user = self.commons.society.some_user(&mut self.chance);
        let config = self.config(user);
        let queue = match self.some_slot().map(|slot| (slot.queue, slot.set)) {
            Some((QueueRef::First(client), set)) if !self.one_in(3) => {
                client.another_queue(config).map(|queue| (QueueRef::Another(Arc::new(queue)), set))
            }
            _ => {
                let Some(device) = self.commons.device() else { return true };
                SimClient::on(&device, "client", config).map(|client| {
                    let set = self.working_set(&client, user);
                    (QueueRef::First(Arc::new(client)), set)
                })
            }
        };
        match queue {
            Ok((queue, set)) => {
                let jobs = Jobs::default();
                self.commons.jobs.add_queue(jobs.clone());
                lock(&self.commons.slots).push(Slot { queue, jobs, user, set });
                true
            }
            Err(ClientError::Device(GpuError::Memory(_) | GpuError::Map(_))) => {
                lock(&self.commons.budget).queues += 1;
                false
            }
            Err(_) => true,
        }
    }

    /// What a new client has where memory is short; as much of it as it gets.
    fn working_set(&mut self, client: &SimClient, user: u64) -> WorkingSet {
        if !self.commons.short {
            return WorkingSet::default();
        }
        client.vm().data().skip_flushes(lock(&self.commons.budget).skips_flushes);
        let pieces = (0..4 + self.chance.below(12)).map_while(|_| client.piece(PIECE_BYTES).ok()).collect();
        let binds = QueueConfig::new("bind");
        let binds =
            self.commons.society.user(user).into_iter().fold(binds, |binds, user| binds.principal(user.clone()));
        WorkingSet { pieces, vm: SimVm::with_queue(client, binds).ok().map(Arc::new) }
    }

    /// Opens up to `queues` queues and fills them.
    pub(crate) fn fill(&mut self, host: &SimHost, queues: u32) {
        for _ in 0..queues {
            if !self.open_queue() {
                return;
            }
            self.submit();
            if self.one_in(8) {
                self.bare_fence(host);
            }
        }
    }

    /// Opens all queues that the budget still has, at the cost of those that live.
    pub(crate) fn open_the_rest(&mut self, host: &SimHost) {
        while lock(&self.commons.budget).queues > 0 {
            if self.open_queue() {
                self.submit();
            } else {
                self.carnage(host);
                host.run_for(Duration::from_millis(10));
            }
        }
    }

    /// One thing that somebody does, and then some time.
    pub(crate) fn step(&mut self, host: &SimHost) {
        self.steps += 1;
        if self.dies_now()
            && let Some(deed) = self.fatal_deed()
        {
            self.dies_at = None;
            self.arrange(host, deed);
        }
        match self.chance.below(32) {
            0..=11 => self.submit(),
            12 | 13 => self.reserve(),
            14 | 15 => self.wait_for_user(host),
            16 => self.bare_fence(host),
            17..=20 => drop(self.open_queue()),
            21 => self.carnage(host),
            22 => {
                if let Some(deed) = self.device_fault() {
                    self.arrange(host, deed);
                }
            }
            _ => {
                if let Some(deed) = self.deed() {
                    self.arrange(host, deed);
                }
            }
        }
        let [often, sometimes, seldom] = self.commons.pace.pause_ns;
        let pause = match self.chance.below(10) {
            0..=3 => 0,
            4..=7 => self.chance.below(often),
            8 => self.chance.below(sometimes),
            _ => self.chance.below(seldom),
        };
        if pause > 0 || host.clock() == HostClock::Virtual {
            host.run_for(Duration::from_nanos(pause));
        }
    }

    /// Whether the device is to go: from a step on, preferably when a job that has its verdict is still on the hardware.
    fn dies_now(&self) -> bool {
        let Some(at) = self.dies_at.filter(|at| *at <= self.steps) else { return false };
        self.steps - at >= PATIENCE || self.commons.jobs.any(Known::is_draining)
    }

    /// Several queues go at once, as with a process that had them.
    fn carnage(&mut self, host: &SimHost) {
        for _ in 0..1 + self.chance.below(8) {
            let Some(slot) = self.take_slot() else { return };
            self.arrange(host, Deed::Kill(slot.queue, slot.jobs));
        }
    }

    /// Does a deed here, or leaves it for a callback or a payload's drop.
    fn arrange(&mut self, host: &SimHost, deed: Deed) {
        let hits = self.commons.hits.clone();
        match self.chance.below(3) {
            0 => deed.perform(Place::Client, &hits),
            1 => {
                let Some(fence) = self.fence_to_come(host) else { return deed.perform(Place::Client, &hits) };
                match fence.on_signaled(move |_| deed.perform(Place::Callback, &hits)) {
                    Ok(registration) if self.one_in(4) => drop(registration.detach()),
                    Ok(registration) => registration.keep(),
                    // Signaled meanwhile, or no memory: the closure was dropped with the refusal.
                    Err(_) => {}
                }
            }
            _ => {
                let Some(slot) = self.some_slot() else { return };
                let mut spec = self.spec(&slot);
                spec.on_drop = Some(Box::new(move || deed.perform(Place::PayloadDrop, &hits)));
                self.submit_to(&slot, spec);
            }
        }
    }

    /// A fence that will signal: a job's that has not yet, or a new one.
    fn fence_to_come(&mut self, host: &SimHost) -> Option<Fence> {
        for _ in 0..FENCE_TRIES {
            let Some(Remembered { job, .. }) = some(&mut self.chance, &self.commons.remembered) else { break };
            let fence = match self.chance.below(4) {
                0 => job.fences.scheduled(),
                1 => job.fences.retired().into_fence(),
                _ => job.fences.finished(),
            };
            if !fence.is_signaled() {
                return Some(fence);
            }
        }
        self.bare_fence(host);
        lock(&self.commons.bare).last().cloned()
    }

    fn bare_fence(&mut self, host: &SimHost) {
        let Some(context) = &self.context else { return };
        let Ok(unpublished) = context.allocate() else { return };
        let (signaler, fence) = unpublished.publish();
        host.watch(&fence);
        lock(&self.commons.bare).push(fence);
        // One that nobody signals is found by the watchdog.
        self.signalers.push(signaler);
    }

    /// Every handle that it can get hold of goes, in random order.
    pub(crate) fn drop_everything(mut self, host: &SimHost) {
        let mut own: Vec<Box<dyn Any>> = Vec::new();
        own.extend(self.reserved.drain(..).map(|one| Box::new(one) as Box<dyn Any>));
        own.extend(self.pending.drain(..).map(|one| Box::new(one) as Box<dyn Any>));
        own.extend(self.sources.drain(..).map(|one| Box::new(one) as Box<dyn Any>));
        own.extend(self.signalers.drain(..).map(|one| Box::new(one) as Box<dyn Any>));
        own.extend(self.bound.drain(..).map(|one| Box::new(one) as Box<dyn Any>));
        own.extend(self.context.take().map(|one| Box::new(one) as Box<dyn Any>));
        loop {
            let shared: Option<Box<dyn Any>> = match self.chance.below(3) {
                0 => take(&mut self.chance, &self.commons.slots).map(|one| Box::new(one) as Box<dyn Any>),
                1 => take(&mut self.chance, &self.commons.remembered).map(|one| Box::new(one) as Box<dyn Any>),
                _ => pick(&mut self.chance, own.len()).map(|at| own.swap_remove(at)),
            };
            drop(shared);
            if self.one_in(3) && host.clock() == HostClock::Virtual {
                host.run_for(Duration::from_micros(1));
            }
            let device = if self.one_in(20) { lock(&self.commons.device).take() } else { None };
            drop(device);
            let nothing = own.is_empty()
                && lock(&self.commons.slots).is_empty()
                && lock(&self.commons.remembered).is_empty()
                && lock(&self.commons.device).is_none();
            if nothing {
                return;
            }
        }
    }
}
