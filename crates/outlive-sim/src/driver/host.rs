//! `SimHost`: the machine with the library on it, and its time.
//!
//! # Virtual time
//! One clock. [`SimHost::run_until`] goes from event to event, of the device ([`Gpu::next_event`]) or of the executor
//! ([`Executor::next_timer`]), whichever is earlier; at each, the device has its turn first, then the library's three
//! lanes, until neither has anything to do. Whoever has events of its own asks [`SimHost::next_event`] and runs up to the
//! earlier of both.
//!
//! # Real time
//! Hardware and library go on by themselves, on threads; clients use their handles from theirs. The same methods wait.
//!
//! [`Gpu::next_event`]: crate::gpu::Gpu::next_event

use alloc::sync::Arc;
use core::time::Duration;
use outlive::pool::Pool;
use outlive::{Device, DeviceConfig, Executor, Fence, FenceContext, Time};
use std::thread;

use super::audit::Listener;
use super::config::{HostClock, HostConfig, HostError};
use super::deliver::outlive_time;
use super::hardware::SimDriver;
use super::ids::{self, Ids};
use super::machine::{EngineStretch, JobEnd, Machine, Shared};
use super::real::{Bells, Threads, wall_ns};
use crate::gpu::{self, Audit, Config, DeviceFaults, Gpu, Memory, Stamped};

/// How long [`SimHost::finish`] waits in real time for what is left to go.
pub const FINISH_MAX: Duration = Duration::from_secs(20);
/// In real time, how often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A machine with one device, and more if they are [added](SimHost::add_device). In real time every method may be called from several threads at once; in virtual time those
/// that let time pass only from one. Neither from callbacks of the library.
///
/// Dropped without [`SimHost::finish`], it lets the hardware stand still; what is on it then is in time given up by the
/// library.
#[derive(Debug)]
pub struct SimHost {
    pub(super) shared: Arc<Shared>,
    executor: Executor,
    device: Option<Device<SimDriver>>,
    /// Of address space numbers, if they are leased.
    leases: Option<Pool>,
    /// In real time.
    threads: Option<Threads>,
}

impl SimHost {
    /// Builds one.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let HostConfig { gpu: gpu_config, device, clock, recorder, .. } = config;
        let HostConfig { system_bytes, lease_vm_ids, keep_history, keep_log, .. } = config;
        let leases = lease_vm_ids > 0;
        let leases = leases.then(|| ids::pool(gpu_config.vm_ids, lease_vm_ids)).transpose()?;
        let mut memory = Memory::new(system_bytes)?;
        memory.tap_mut().switch_on();
        let gpu = Gpu::new(&mut memory, gpu_config)?;
        let mut machine = Machine::new(memory, gpu);
        if leases.is_some() {
            machine.unit.ids = Ids::of(gpu_config.vm_ids);
        }
        machine.keep_history = keep_history;
        machine.log = keep_log.then(Vec::new);
        let is_real = clock == HostClock::Real;
        let shared = Shared::new(machine, is_real.then(Bells::default));
        let builder = Executor::builder().recorder(Listener::new(Arc::clone(&shared), recorder))?;
        let executor = if is_real { builder.clock(wall_ns).threads()? } else { builder.manual()? };
        let device = Device::with_config(&executor, device, SimDriver::new(Arc::clone(&shared), leases.clone()))?;
        let threads = is_real.then(|| Threads::start(&shared).ok_or(HostError::NoThreads)).transpose()?;
        Ok(Self { shared, executor, device: Some(device), leases, threads })
    }

    /// Another device on the same memory and the same executor. It is the caller's: the host's methods that concern a device
    /// concern the first one only.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn add_device(&self, gpu: Config, device: DeviceConfig) -> Result<Device<SimDriver>, HostError> {
        let shared = self.shared.add_device(gpu)?;
        Ok(Device::with_config(&self.executor, device, SimDriver::new(shared, None))?)
    }

    /// Whose time it has.
    #[must_use]
    pub const fn clock(&self) -> HostClock {
        if self.is_real() { HostClock::Real } else { HostClock::Virtual }
    }

    const fn is_real(&self) -> bool {
        self.threads.is_some()
    }

    /// The executor, to look at. Its clock and lanes are driven by the host, or by its own threads.
    #[must_use]
    pub const fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The library's device, until it was let go.
    #[must_use]
    pub const fn device(&self) -> Option<&Device<SimDriver>> {
        self.device.as_ref()
    }

    /// Lets the host's handle on the device go, to be dropped anywhere.
    pub const fn take_device(&mut self) -> Option<Device<SimDriver>> {
        self.device.take()
    }

    /// The present. In real time from an origin of the process, which is older than the host if there was one before.
    #[must_use]
    pub fn now(&self) -> Time {
        self.executor.now()
    }

    /// Lets device and library do all they have to do at the present. In real time they do that by themselves: waits until
    /// the library has been told all that the hardware has said; what the lanes make of it may be still to come.
    pub fn settle(&self) {
        if self.is_real() {
            self.wait_until_told();
            return;
        }
        // Each lane has its turn after the one before has come to rest, so that the order is always the same.
        while self.shared.service() || self.executor.step() || self.executor.notify() || self.executor.reap() {}
    }

    /// When something will happen by itself; later than now. Call [`SimHost::settle`] first.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        let device = self.shared.lock().next_event().map(outlive_time);
        let timer = self.executor.next_timer();
        let next = match (device, timer) {
            (Some(device), Some(timer)) => device.min(timer),
            (one, other) => one.or(other)?,
        };
        Some(next.max(self.now().after(Duration::from_nanos(1))))
    }

    fn wait_until_told(&self) {
        loop {
            {
                let mut machine = self.shared.lock();
                machine.collect();
                let told = machine.outbox.is_empty() && !machine.watch.telling;
                self.shared.release(machine);
                if told {
                    return;
                }
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    /// Goes to `to`, past which nothing may happen by itself, and settles there. In real time: sleeps until `to`, then
    /// settles.
    pub fn advance_to(&self, to: Time) {
        if self.is_real() {
            thread::sleep(to.since(self.now()));
            self.settle();
            return;
        }
        self.shared.lock().now = gpu::Time::from_ns(to.as_ns().max(self.now().as_ns()));
        self.executor.advance_to(to);
        self.settle();
    }

    /// As [`SimHost::next_event`], but passes over what the device does silently up to `limit`.
    fn next_stop(&self, limit: Time) -> Option<Time> {
        let until = self.executor.next_timer().map_or(limit, |timer| timer.min(limit));
        let silent_to = self.shared.lock().go_silently(gpu::Time::from_ns(until.as_ns()));
        // The clock never stays behind the device.
        let next = self.next_event().into_iter().chain(silent_to.map(outlive_time)).min()?;
        (next <= limit).then_some(next)
    }

    /// Goes from event to event up to `until`. In real time: sleeps until then.
    pub fn run_until(&self, until: Time) {
        if self.is_real() {
            thread::sleep(until.since(self.now()));
            return;
        }
        self.settle();
        while let Some(next) = self.next_stop(until) {
            self.advance_to(next);
        }
        if self.now() < until {
            self.advance_to(until);
        }
    }

    /// Goes from event to event for so long. In real time: sleeps.
    pub fn run_for(&self, time: Duration) {
        self.run_until(self.now().after(time));
    }

    /// Goes from event to event until `done`, or nothing is left to happen, or `limit` has come; true if `done`. `done` is
    /// asked after each. In real time: asks every millisecond, until `done` or `limit`; that nothing is left to happen is
    /// not known there.
    pub fn run_while_waiting(&self, limit: Time, mut done: impl FnMut() -> bool) -> bool {
        while self.is_real() {
            if done() {
                return true;
            }
            let left = limit.since(self.now());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
        self.settle();
        loop {
            if done() {
                return true;
            }
            match self.next_stop(limit) {
                Some(next) => self.advance_to(next),
                None => return false,
            }
        }
    }

    /// Pulls the device out: the hardware is gone at once, and the library is told.
    pub fn unplug(&self) {
        self.shared.pull_out();
        if let Some(device) = &self.device {
            device.unplug();
        }
    }

    /// Asks the library to reset the device. Jobs on it fail as innocent.
    pub fn reset(&self) {
        if let Some(device) = &self.device {
            device.reset();
        }
    }

    /// Tells the whole device to misbehave, or to behave.
    pub fn set_faults(&self, faults: DeviceFaults) {
        self.shared.set_faults(faults);
    }

    /// Tells the audit that all jobs of the device share `credits`, as those of one arbiter do: more on its rings at a time is
    /// found. Looks at all rings whenever a job is started.
    pub fn watch_pool(&self, credits: u32) {
        self.shared.lock().books.pool = Some(credits);
    }

    /// Tells the audit of a context whose bare fences will be watched. Only needed where one may signal before
    /// [`SimHost::watch`] is called for it: by its watchdog, when the caller is not run for a while.
    pub fn watch_context(&self, context: &FenceContext) {
        self.shared.lock().context_made(context.id());
    }

    /// Tells the audit that a bare fence was published, of a context of `FenceContext`. Without that it is not counted.
    pub fn watch(&self, fence: &Fence) {
        let id = fence.id();
        self.shared.lock().fence_published(id);
    }

    /// Resets that the device has ended, whether they worked or not.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.shared.lock().resets
    }

    /// How often a persistent buffer was moved out to make room for something else on this device.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shared.lock().unit.lru.evictions()
    }

    /// Time for which engines were occupied, summed over them.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        let mut machine = self.shared.lock();
        machine.catch_up();
        machine.unit.gpu.as_ref().map_or(0, Gpu::busy_ns)
    }

    /// Bytes of device memory taken by clients: rings, page tables, buffers. Zero when all are gone.
    #[must_use]
    pub fn bytes_in_use(&self) -> u64 {
        self.shared.lock().bytes_in_use()
    }

    /// Jobs that the hardware has ended since the last call, in that order; needs `keep_history`.
    #[must_use]
    pub fn take_ends(&self) -> Vec<JobEnd> {
        core::mem::take(&mut self.shared.lock().ends)
    }

    /// Who had which engine when, since the last call, in the order of their ends; needs `keep_history`.
    #[must_use]
    pub fn take_stretches(&self) -> Vec<EngineStretch> {
        let mut machine = self.shared.lock();
        machine.drain();
        core::mem::take(&mut machine.stretches)
    }

    /// Everything that was observed since the last call; needs `keep_log`.
    #[must_use]
    pub fn take_log(&self) -> Vec<Stamped> {
        let mut machine = self.shared.lock();
        machine.drain();
        machine.log.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// The end of the world: lets the device go, runs what is left to run at the present, gives the device's own memory
    /// back, and counts. Clients, fences' closures and outputs that are to be gone must be gone before. In real time: waits,
    /// at most [`FINISH_MAX`], until nothing is left alive and no memory taken, and joins the machine's threads; the lanes'
    /// end by themselves with the last handle on the executor.
    #[must_use]
    pub fn finish(mut self) -> Audit {
        drop(self.device.take());
        if let Some(threads) = self.threads.take() {
            let limit = self.now().after(FINISH_MAX);
            let gone = || self.executor.live_objects() == 0 && self.bytes_in_use() == 0;
            while !gone() && self.now() < limit {
                thread::sleep(LOOK_EVERY);
            }
            self.shared.end_threads();
            threads.join();
        } else {
            self.settle();
        }
        let mut machine = self.shared.lock();
        let now = machine.now;
        let mut leaked = Audit::default();
        if let Some(pool) = &self.leases {
            machine.count_ids(pool.status().free[0], &mut leaked);
        }
        for number in 0..machine.units() {
            machine.look_at(number);
            if let Some(gpu) = machine.unit.gpu.take() {
                // What was freed behind its back shows in the audit.
                let _ = gpu.destroy(&mut machine.memory, now);
            }
        }
        machine.drain();
        let checkers = core::mem::take(&mut machine.checkers);
        let mut audit = checkers.finish();
        machine.books.finish(&mut audit);
        audit.stale_translations = machine.memory.translation_hits().1;
        audit.leases_leaked += leaked.leases_leaked;
        audit.violations.append(&mut leaked.violations);
        audit
    }
}

impl Drop for SimHost {
    fn drop(&mut self) {
        // Not joined: dropping never blocks.
        self.shared.end_threads();
    }
}
