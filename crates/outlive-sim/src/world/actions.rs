//! What clients do, at random.

use alloc::sync::Arc;
use core::time::Duration;
use outlive::sched::Priority;
use outlive::{
    Dependency, DeviceConfig, Fence, FenceContext, FenceError, Names, OnError, Pending, QueueConfig, Reserved,
    Signaler, Time, UserFence, UserSource,
};

use super::deeds::{Deed, Jobs, QueueRef};
use super::hits::{Place, SharedHits};
use super::storm::Budget;
use crate::driver::{ClientConfig, HostConfig, JobSpec, SimClient, SimDriver, SimHost, Submitted, Work};
use crate::gpu::rng::Rng;
use crate::gpu::{Config, DeviceFaults, FaultKind};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Jobs whose fences a client still looks at, at most.
const REMEMBERED: usize = 24;

#[derive(Debug)]
struct Slot {
    queue: QueueRef,
    jobs: Jobs,
}

/// A world under way.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) host: SimHost,
    pub(crate) hits: SharedHits,
    /// Of all queues that ever were.
    pub(crate) jobs: Vec<Jobs>,
    chance: Rng,
    budget: Budget,
    slots: Vec<Slot>,
    remembered: Vec<Submitted>,
    reserved: Vec<(Reserved<SimDriver>, Jobs)>,
    pending: Vec<Pending>,
    sources: Vec<UserSource>,
    context: Option<FenceContext>,
    signalers: Vec<Signaler>,
    /// Bare fences that are published.
    bare: Vec<Fence>,
}

impl World {
    pub(crate) fn new(seed: u64, budget: Budget) -> Self {
        let mut chance = Rng::new(seed);
        let slice_ns = if chance.below(3) == 0 { 0 } else { 100 * US + chance.below(2 * MS) };
        let gpu = Config {
            seed: chance.next_u64(),
            engines: 1 + small(&mut chance, 3),
            slice_ns,
            memory_bytes: (2 << 20) + (chance.below(8) << 20),
            tick_ns: 100 * US + chance.below(2 * MS),
            cancel_ns: chance.below(200 * US),
            ring_reset_ns: 10 * US + chance.below(MS),
            device_reset_ns: 100 * US + chance.below(8 * MS),
            interrupt_latency_ns: chance.below(20 * US),
            interrupt_jitter_ns: chance.below(50 * US),
            ..Config::default()
        };
        let device = DeviceConfig::new("sim").cancel_grace(Duration::from_micros(100 + chance.below(100_000)));
        let config = HostConfig { gpu, device, keep_log: true, ..HostConfig::default() };
        #[expect(clippy::expect_used, reason = "documented at `run`")]
        let host = SimHost::new(config).expect("no memory for a simulated device");
        let context = FenceContext::new(host.executor(), Names { driver: "world", timeline: "bare" }).ok();
        let mut world = Self {
            seed,
            host,
            hits: SharedHits::default(),
            jobs: Vec::new(),
            chance,
            budget,
            slots: Vec::new(),
            remembered: Vec::new(),
            reserved: Vec::new(),
            pending: Vec::new(),
            sources: Vec::new(),
            context,
            signalers: Vec::new(),
            bare: Vec::new(),
        };
        for _ in 0..2 + world.chance.below(3) {
            world.new_client();
        }
        world
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.chance.below(n) == 0
    }

    fn pick(&mut self, len: usize) -> Option<usize> {
        usize::try_from(self.chance.below(len as u64)).ok().filter(|_| len > 0)
    }

    fn take<T>(&mut self, from: fn(&mut Self) -> &mut Vec<T>) -> Option<T> {
        let len = from(self).len();
        let at = self.pick(len)?;
        Some(from(self).swap_remove(at))
    }

    fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(1 + self.chance.below(below))
    }

    fn config(&mut self) -> ClientConfig {
        let credits = 1 + small(&mut self.chance, 12);
        let timeout = Duration::from_millis(2 + self.chance.below(80));
        let queue = QueueConfig::new("world")
            .drain_timeout(self.micros(60_000))
            .suspend_limit(Duration::from_millis(1 + self.chance.below(400)))
            .bypass(!self.one_in(4));
        ClientConfig { credits, timeout, client: None, queue }
    }

    fn add_slot(&mut self, queue: QueueRef) {
        let jobs = Jobs::default();
        self.jobs.push(jobs.clone());
        self.slots.push(Slot { queue, jobs });
    }

    fn new_client(&mut self) {
        let config = self.config();
        if let Ok(client) = SimClient::new(&self.host, "client", config) {
            self.add_slot(QueueRef::First(Arc::new(client)));
        }
    }

    fn new_queue(&mut self) {
        let Some(at) = self.pick(self.slots.len()) else { return };
        let config = self.config();
        let QueueRef::First(client) = &self.slots[at].queue else { return };
        if let Ok(queue) = client.another_queue(config) {
            self.add_slot(QueueRef::Another(Arc::new(queue)));
        }
    }

    /// One thing that somebody does, and then some time.
    pub(crate) fn step(&mut self) {
        match self.chance.below(32) {
            0..=13 => self.submit(),
            14 => self.reserve(),
            15 => self.wait_for_user(),
            16 | 17 => self.bare_fence(),
            18 if self.slots.len() < 8 => self.new_client(),
            19 if self.slots.len() < 8 => self.new_queue(),
            20 => self.misbehave(),
            _ => {
                if let Some(deed) = self.deed() {
                    self.arrange(deed);
                }
            }
        }
        if self.slots.is_empty() {
            self.new_client();
        }
        let pause = match self.chance.below(10) {
            0..=3 => 0,
            4..=7 => self.chance.below(300 * US),
            8 => self.chance.below(5 * MS),
            _ => self.chance.below(120 * MS),
        };
        self.host.run_for(Duration::from_nanos(pause));
    }

    /// Does a deed here, or leaves it for a callback or a payload's drop.
    fn arrange(&mut self, deed: Deed) {
        let hits = self.hits.clone();
        match self.chance.below(3) {
            0 => deed.perform(Place::Client, &hits),
            1 => {
                let Some(fence) = self.some_fence() else { return deed.perform(Place::Client, &hits) };
                match fence.on_signaled(move |_| deed.perform(Place::Callback, &hits)) {
                    Ok(registration) if self.one_in(4) => drop(registration.detach()),
                    Ok(registration) => registration.keep(),
                    // Signaled already, or no memory: the closure was dropped with the refusal, or is run right here.
                    Err(_) => {}
                }
            }
            _ => {
                let Some(at) = self.pick(self.slots.len()) else { return };
                let mut spec = self.spec(at);
                spec.on_drop = Some(Box::new(move || deed.perform(Place::PayloadDrop, &hits)));
                self.submit_to(at, spec);
            }
        }
    }

    /// A fence that will signal, if any is known.
    fn some_fence(&mut self) -> Option<Fence> {
        if self.one_in(4) && !self.bare.is_empty() {
            let at = self.pick(self.bare.len())?;
            return Some(self.bare[at].clone());
        }
        let at = self.pick(self.remembered.len())?;
        let fences = &self.remembered[at].fences;
        Some(match self.chance.below(4) {
            0 => fences.scheduled(),
            1 => fences.retired().into_fence(),
            _ => fences.finished(),
        })
    }

    fn fault(&mut self) -> Option<FaultKind> {
        if !self.one_in(6) {
            return None;
        }
        let (left, name, kind) = match self.chance.below(4) {
            0 => (&mut self.budget.hangs, "hang", FaultKind::Hang),
            1 => (&mut self.budget.page_faults, "page fault", FaultKind::PageFault),
            2 => (&mut self.budget.errors, "error", FaultKind::Error),
            _ => (&mut self.budget.lost_completions, "lost completion", FaultKind::LostCompletion),
        };
        *left = left.checked_sub(1)?;
        self.hits.lock().fault(name);
        Some(kind)
    }

    fn spec(&mut self, slot: usize) -> JobSpec {
        let work = match self.chance.below(8) {
            0 => Work::Fill,
            1 => Work::Copy,
            2 => Work::Gears { frame: small(&mut self.chance, 360), width: 16, height: 16 },
            _ => Work::Spin,
        };
        let longest = if self.one_in(10) { 20_000 } else { 1_500 };
        let duration = self.micros(longest);
        let fault = self.fault();
        let mut spec = JobSpec { fault, ..JobSpec::new(duration, work) };
        let size = self.slots[slot].queue.queue().status().credits_free.max(1);
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
        if self.one_in(6) && !self.bare.is_empty() {
            let Some(at) = self.pick(self.bare.len()) else { return };
            spec.after.push(with(self.bare[at].clone()));
            return;
        }
        let Some(at) = self.pick(self.remembered.len()) else { return };
        let of_retired = self.one_in(4);
        let job = &self.remembered[at];
        let fence = if of_retired { job.fences.retired().into_fence() } else { job.fences.finished() };
        spec.after.push(with(fence));
        spec.reads.push(job.output.clone());
    }

    fn submit(&mut self) {
        let Some(at) = self.pick(self.slots.len()) else { return };
        for _ in 0..1 + self.chance.below(4) {
            let spec = self.spec(at);
            self.submit_to(at, spec);
        }
    }

    fn submit_to(&mut self, at: usize, spec: JobSpec) {
        let slot = &self.slots[at];
        self.hits.lock().deed("submit", Place::Client, &slot.jobs.all());
        let Ok(job) = slot.queue.submit(spec) else { return };
        slot.jobs.push(job.fences.clone());
        self.remembered.push(job);
        if self.remembered.len() > REMEMBERED {
            drop(self.take(|world| &mut world.remembered));
        }
    }

    fn reserve(&mut self) {
        let Some(at) = self.pick(self.slots.len()) else { return };
        let spec = self.spec(at);
        let jobs = self.slots[at].jobs.clone();
        if let Ok(reserved) = self.slots[at].queue.reserve(spec) {
            self.reserved.push((reserved, jobs));
        }
    }

    fn wait_for_user(&mut self) {
        let Some(at) = self.pick(self.slots.len()) else { return };
        let spec = self.spec(at);
        let Ok(reserved) = self.slots[at].queue.reserve_waiting(spec, 1) else { return };
        let Ok((source, user)) = UserFence::new(self.host.executor(), "user") else { return };
        let deadline = self.host.now().after(Duration::from_millis(self.chance.below(100)));
        self.hits.lock().deed("commit when", Place::Client, &self.slots[at].jobs.all());
        if let Ok(pending) = reserved.commit_when(&[user], deadline) {
            self.pending.push(pending);
            self.sources.push(source);
        }
    }

    fn bare_fence(&mut self) {
        let Some(context) = &self.context else { return };
        let Ok(unpublished) = context.allocate() else { return };
        let (signaler, fence) = unpublished.publish();
        self.host.watch(&fence);
        self.bare.push(fence);
        // One that nobody signals is found by the watchdog.
        self.signalers.push(signaler);
    }

    /// The device misbehaves, or goes.
    fn misbehave(&mut self) {
        let mut faults = DeviceFaults::default();
        match self.chance.below(6) {
            0 | 1 => {
                faults.late_writes_ns = self.chance.below(60 * MS);
                self.hits.lock().fault("late writes");
            }
            2 if self.budget.ring_resets_failing > 0 => {
                self.budget.ring_resets_failing -= 1;
                faults.ring_resets_failing = 1;
                self.hits.lock().fault("ring reset fails");
            }
            3 if self.budget.device_may_die && self.one_in(4) => {
                self.budget.device_may_die = false;
                faults.ring_resets_failing = u32::MAX;
                faults.device_resets_failing = u32::MAX;
                self.hits.lock().fault("all resets fail");
            }
            4 if self.budget.device_may_die && self.one_in(4) => {
                self.budget.device_may_die = false;
                self.hits.lock().fault("unplugged");
                self.host.unplug();
            }
            _ => {}
        }
        self.host.set_faults(faults);
    }

    fn deed(&mut self) -> Option<Deed> {
        let result = match self.chance.below(3) {
            0 => Err(FenceError::Faulted { code: 9 }),
            _ => Ok(()),
        };
        match self.chance.below(20) {
            0 | 1 => self.take(|world| &mut world.slots).map(|slot| Deed::Kill(slot.queue, slot.jobs)),
            2 => self.take(|world| &mut world.slots).map(|slot| Deed::Close(slot.queue, slot.jobs)),
            3 | 4 => self.on_slot(Deed::Suspend),
            5 | 6 => self.on_slot(Deed::Resume),
            7 => self.on_slot(|queue, jobs| Deed::SetPriority(queue, jobs, Priority::High)),
            8 => {
                let at = self.pick(self.slots.len())?;
                let spec = self.spec(at);
                let Slot { queue, jobs } = &self.slots[at];
                Some(Deed::Submit(queue.clone(), jobs.clone(), spec))
            }
            9 | 10 => self.take(|world| &mut world.reserved).map(|(reserved, jobs)| Deed::Commit(reserved, jobs)),
            11 => self.take(|world| &mut world.reserved).map(|(reserved, jobs)| Deed::DropReserved(reserved, jobs)),
            12 => self.take(|world| &mut world.pending).map(Deed::CancelPending),
            13 => self.take(|world| &mut world.sources).map(|source| Deed::SignalUser(source, result)),
            14 | 15 => self.take(|world| &mut world.signalers).map(|signaler| Deed::SignalBare(signaler, result)),
            16 => self.take(|world| &mut world.signalers).map(Deed::DropSignaler),
            17 => Some(Deed::DropFences(core::mem::take(&mut self.remembered))),
            _ => self.deed_on_device(),
        }
    }

    fn on_slot(&mut self, make: fn(QueueRef, Jobs) -> Deed) -> Option<Deed> {
        let at = self.pick(self.slots.len())?;
        let Slot { queue, jobs } = &self.slots[at];
        Some(make(queue.clone(), jobs.clone()))
    }

    fn deed_on_device(&mut self) -> Option<Deed> {
        let at = self.pick(self.slots.len())?;
        let jobs = self.slots[at].jobs.clone();
        let device = self.host.device()?.clone();
        match self.chance.below(24) {
            0..=9 => Some(Deed::Reset(device, jobs)),
            10 if self.budget.device_may_die => {
                self.budget.device_may_die = false;
                Some(Deed::Lose(device, jobs))
            }
            11 if self.budget.device_may_die => {
                self.budget.device_may_die = false;
                Some(Deed::CloseDevice(device, jobs))
            }
            12 => self.host.take_device().map(|device| Deed::DropDevice(device, jobs)),
            _ => None,
        }
    }

    /// Faults stop, and nobody holds anything up any more.
    pub(crate) fn calm_down(&mut self) {
        self.host.set_faults(DeviceFaults::default());
        for slot in &self.slots {
            slot.queue.queue().resume();
        }
    }

    /// Fences that were promised and have not signaled.
    pub(crate) fn open(&self) -> usize {
        self.open_fences().len()
    }

    fn open_fences(&self) -> Vec<Fence> {
        let jobs = self.jobs.iter().flat_map(Jobs::all);
        let of_jobs = jobs.flat_map(|job| [job.scheduled(), job.finished(), job.retired().into_fence()]);
        of_jobs.chain(self.bare_promised()).filter(|fence| !fence.is_signaled()).collect()
    }

    /// Bare fences whose producer is not kept by the world.
    fn bare_promised(&self) -> impl Iterator<Item = Fence> + '_ {
        self.bare.iter().cloned()
    }

    /// The first of them, in words.
    pub(crate) fn open_words(&self) -> String {
        let words = self.open_fences().iter().take(6).map(|fence| alloc::format!("{fence:?}")).collect::<Vec<_>>();
        words.join(", ")
    }

    pub(crate) fn wait_for_fences(&self, limit: Time) -> bool {
        // Looked at every second, not after every event.
        let mut at = self.host.now();
        while at < limit {
            at = at.after(Duration::from_secs(1)).min(limit);
            self.host.run_until(at);
            if self.open() == 0 {
                return true;
            }
        }
        self.open() == 0
    }

    /// Every handle goes, in random order.
    pub(crate) fn drop_everything(&mut self) {
        let mut left: Vec<Box<dyn core::any::Any>> = Vec::new();
        left.extend(self.slots.drain(..).map(|slot| Box::new(slot) as Box<dyn core::any::Any>));
        left.extend(self.remembered.drain(..).map(|job| Box::new(job) as Box<dyn core::any::Any>));
        left.extend(self.reserved.drain(..).map(|job| Box::new(job) as Box<dyn core::any::Any>));
        left.extend(self.pending.drain(..).map(|job| Box::new(job) as Box<dyn core::any::Any>));
        left.extend(self.sources.drain(..).map(|source| Box::new(source) as Box<dyn core::any::Any>));
        left.extend(self.signalers.drain(..).map(|signaler| Box::new(signaler) as Box<dyn core::any::Any>));
        left.extend(self.context.take().map(|context| Box::new(context) as Box<dyn core::any::Any>));
        while let Some(at) = self.pick(left.len()) {
            drop(left.swap_remove(at));
            if self.one_in(3) {
                self.host.run_for(Duration::from_micros(1));
            }
        }
        self.bare.clear();
    }
}

/// A number below `bound`.
fn small(chance: &mut Rng, bound: u32) -> u32 {
    u32::try_from(chance.below(u64::from(bound))).unwrap_or(0)
}
