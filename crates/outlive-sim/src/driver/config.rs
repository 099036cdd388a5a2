//! How a machine is built, and why it was not.

use core::fmt;
use outlive::pool::PoolError;
use outlive::trace::Record;
use outlive::{AllocError, DeviceConfig, OpenError};

use crate::gpu::{self, Config, GpuError};

/// Whose time a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostClock {
    /// Its own, which goes from event to event and costs no wall time. Everything happens on the thread that calls
    /// [`SimHost`](super::SimHost), in one order: the same calls give the same run.
    #[default]
    Virtual,
    /// The wall's, from an origin of the process. Hardware, interrupts and the executor's lanes have threads of their own.
    Real,
}

/// How a machine is built.
pub struct HostConfig {
    /// The device.
    pub gpu: Config,
    /// Memory that all devices reach; default none.
    pub system_bytes: u64,
    /// How the library drives it.
    pub device: DeviceConfig,
    /// Leases the device's address space numbers ([`Config::vm_ids`] of them, 1 to 64) to the jobs of at most so many queues;
    /// default 0: each address space has one of its own.
    pub lease_vm_ids: u32,
    /// Whose time it has.
    pub clock: HostClock,
    /// Hears the library's events after the audit has.
    pub recorder: Option<Box<dyn Record>>,
    /// Keeps what [`SimHost::take_ends`](super::SimHost::take_ends) and
    /// [`SimHost::take_stretches`](super::SimHost::take_stretches) give.
    pub keep_history: bool,
    /// Keeps every observation for [`SimHost::take_log`](super::SimHost::take_log).
    pub keep_log: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        let (gpu, device, clock) = (Config::default(), DeviceConfig::new("sim"), HostClock::Virtual);
        let (recorder, keep_history, keep_log) = (None, false, false);
        Self { gpu, system_bytes: 0, device, lease_vm_ids: 0, clock, recorder, keep_history, keep_log }
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostConfig({:?}, {:?}, {:?})", self.gpu, self.device, self.clock)
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
    /// The numbers could not be leased.
    Leases(PoolError),
    /// The system has no threads to give; virtual time needs none.
    NoThreads,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Library(error) => error.fmt(f),
            Self::Leases(error) => error.fmt(f),
            Self::NoThreads => f.write_str("no threads for a machine in real time"),
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

impl From<PoolError> for HostError {
    fn from(error: PoolError) -> Self {
        Self::Leases(error)
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
