//! `SimHost`: the machine with the library on it, and its time.
//!
//! # Time
//! One clock. [`SimHost::run_until`] goes from event to event, of the device ([`Gpu::next_event`]) or of the executor
//! ([`Executor::next_timer`]), whichever is earlier; at each, the device has its turn first, then the library's three
//! lanes, until neither has anything to do. Whoever has events of its own asks [`SimHost::next_event`] and runs up to the
//! earlier of both.
//!
//! [`Gpu::next_event`]: crate::gpu::Gpu::next_event

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use outlive::trace::Record;
use outlive::{AllocError, Device, DeviceConfig, Executor, Fence, OpenError, Time};

use super::audit::Listener;
use super::deliver::outlive_time;
use super::hardware::SimDriver;
use super::machine::{EngineStretch, JobEnd, Machine, Shared};
use crate::gpu::{self, Audit, Config, DeviceFaults, Gpu, GpuError, Memory, Stamped};

/// How a machine is built.
pub struct HostConfig {
    /// The device.
    pub gpu: Config,
    /// How the library drives it.
    pub device: DeviceConfig,
    /// Hears the library's events after the audit has.
    pub recorder: Option<Box<dyn Record>>,
    /// Keeps what [`SimHost::take_ends`] and [`SimHost::take_stretches`] give.
    pub keep_history: bool,
    /// Keeps every observation for [`SimHost::take_log`].
    pub keep_log: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        let (gpu, device) = (Config::default(), DeviceConfig::new("sim"));
        Self { gpu, device, recorder: None, keep_history: false, keep_log: false }
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostConfig({:?}, {:?})", self.gpu, self.device)
    }
}

/// Why a machine was not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// The device could not be made.
    Device(GpuError),
    /// The library could not.
    Library(OpenError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Library(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HostError {}

impl From<GpuError> for HostError {
    fn from(error: GpuError) -> Self {
        Self::Device(error)
    }
}

impl From<gpu::MemoryError> for HostError {
    fn from(error: gpu::MemoryError) -> Self {
        Self::Device(GpuError::Memory(error))
    }
}

impl From<OpenError> for HostError {
    fn from(error: OpenError) -> Self {
        Self::Library(error)
    }
}

impl From<AllocError> for HostError {
    fn from(error: AllocError) -> Self {
        Self::Library(OpenError::OutOfMemory(error))
    }
}

/// A machine with one device, in virtual time. Every method: not from callbacks of the library, except as said.
#[derive(Debug)]
pub struct SimHost {
    shared: Arc<Shared>,
    executor: Executor,
    device: Option<Device<SimDriver>>,
}

impl SimHost {
    /// Builds one.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let HostConfig { gpu: gpu_config, device, recorder, keep_history, keep_log } = config;
        let mut memory = Memory::new(0)?;
        memory.tap_mut().switch_on();
        let gpu = Gpu::new(&mut memory, gpu_config)?;
        let mut machine = Machine::new(memory, gpu);
        machine.keep_history = keep_history;
        machine.log = keep_log.then(Vec::new);
        let shared = Shared::new(machine);
        let listener = Listener::new(Arc::clone(&shared), recorder);
        let executor = Executor::builder().recorder(listener)?.manual()?;
        let device = Device::with_config(&executor, device, SimDriver::new(Arc::clone(&shared)))?;
        Ok(Self { shared, executor, device: Some(device) })
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn next_client(&self) -> u64 {
        let mut machine = self.shared.lock();
        machine.next_client += 1;
        machine.next_client - 1
    }

    /// The executor, to look at. Its clock and lanes are the host's to drive.
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

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.executor.now()
    }

    /// Lets device and library do all they have to do at the present.
    pub fn settle(&self) {
        // Each lane has its turn after the one before has come to rest, so that the order is always the same.
        while self.shared.service() || self.executor.step() || self.executor.notify() || self.executor.reap() {}
    }

    /// When something will happen by itself; later than now. Call [`SimHost::settle`] first.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        let device = self.shared.lock().gpu.as_ref().and_then(Gpu::next_event).map(outlive_time);
        let timer = self.executor.next_timer();
        let next = match (device, timer) {
            (Some(device), Some(timer)) => device.min(timer),
            (one, other) => one.or(other)?,
        };
        Some(next.max(self.now().after(Duration::from_nanos(1))))
    }

    /// Goes to `to`, past which nothing may happen by itself, and settles there.
    pub fn advance_to(&self, to: Time) {
        self.shared.lock().now = gpu::Time::from_ns(to.as_ns().max(self.now().as_ns()));
        self.executor.advance_to(to);
        self.settle();
    }

    /// Goes from event to event up to `until`.
    pub fn run_until(&self, until: Time) {
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            self.advance_to(next);
        }
        if self.now() < until {
            self.advance_to(until);
        }
    }

    /// Goes from event to event for so long.
    pub fn run_for(&self, time: Duration) {
        self.run_until(self.now().after(time));
    }

    /// Goes from event to event until `done`, or nothing is left to happen, or `limit` has come; true if `done`. `done` is
    /// asked after each.
    pub fn run_while_waiting(&self, limit: Time, mut done: impl FnMut() -> bool) -> bool {
        self.settle();
        loop {
            if done() {
                return true;
            }
            match self.next_event().filter(|next| *next <= limit) {
                Some(next) => self.advance_to(next),
                None => return false,
            }
        }
    }

    /// Pulls the device out: the hardware is gone at once, and the library is told.
    pub fn unplug(&self) {
        {
            let mut machine = self.shared.lock();
            let now = machine.now;
            if let Some((gpu, memory)) = machine.device() {
                gpu.unplug(memory, now);
            }
        }
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
        if let Some(gpu) = &mut self.shared.lock().gpu {
            gpu.set_faults(faults);
        }
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

    /// Time for which engines were occupied, summed over them.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        self.shared.lock().gpu.as_ref().map_or(0, Gpu::busy_ns)
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
    /// back, and counts. Clients, fences' closures and outputs that are to be gone must be gone before.
    #[must_use]
    pub fn finish(mut self) -> Audit {
        drop(self.device.take());
        self.settle();
        let mut machine = self.shared.lock();
        let now = machine.now;
        if let Some(gpu) = machine.gpu.take() {
            // What was freed behind its back shows in the audit.
            let _ = gpu.destroy(&mut machine.memory, now);
        }
        machine.drain();
        let checkers = core::mem::take(&mut machine.checkers);
        let mut audit = checkers.finish();
        machine.books.finish(&mut audit);
        audit
    }
}
