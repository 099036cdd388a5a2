//! How a device is built, and the values in which it speaks to its host: interrupts, standings, refusals.

use core::fmt;

use super::address_space::MapError;
use super::faults::HwError;
use super::memory::MemoryError;
use super::ring::RING_SLOTS_MAX;
use super::types::{HwSeqno, JobId, PageId, QueueId, Time, VmId};

/// How a device is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Where its chance comes from.
    pub seed: u64,
    /// Jobs that it executes at once; at least 1.
    pub engines: u32,
    /// How long a ring's turn lasts; 0: no rotation, jobs run to their end in the order of their doorbells.
    pub slice_ns: u64,
    /// Its own memory.
    pub memory_bytes: u64,
    /// How often the pages of a job on an engine are touched; 0: only at its start, rotation and end.
    pub tick_ns: u64,
    /// Address space numbers, without the firmware's own; 0: as many as are bound.
    pub vm_ids: u32,
    /// How long a job on an engine takes to stop when it is cancelled.
    pub cancel_ns: u64,
    /// How long the reset of one ring takes.
    pub ring_reset_ns: u64,
    /// How long the reset of the device takes.
    pub device_reset_ns: u64,
    /// How long an interrupt takes to reach the host.
    pub interrupt_latency_ns: u64,
    /// Up to so much more, by chance; interrupts may then overtake each other.
    pub interrupt_jitter_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            engines: 1,
            slice_ns: 1_000_000,
            memory_bytes: 256 << 20,
            tick_ns: 1_000_000,
            vm_ids: 0,
            cancel_ns: 20_000,
            ring_reset_ns: 200_000,
            device_reset_ns: 5_000_000,
            interrupt_latency_ns: 0,
            interrupt_jitter_ns: 0,
        }
    }
}

/// What the device tells its host about one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupt {
    /// The job's ring.
    pub queue: QueueId,
    /// Its number there.
    pub hw_seqno: HwSeqno,
    /// Its name for the checkers.
    pub job: JobId,
    /// How it ended.
    pub result: Result<(), HwError>,
    /// When it first was on an engine; none if it never was.
    pub start: Option<Time>,
    /// When it ended.
    pub end: Time,
    /// How long it was on an engine.
    pub active_ns: u64,
}

/// How far a started job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobTime {
    /// Its number on its ring.
    pub hw_seqno: HwSeqno,
    /// When it first was on an engine.
    pub start: Time,
    /// How long it has been on one.
    pub active_ns: u64,
    /// Where it is now.
    pub standing: Standing,
}

/// Where a started job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// On an engine.
    Running,
    /// Rotated off.
    Waiting,
    /// At a semaphore.
    Blocked,
}

/// Why the device could not be made or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuError {
    /// It was unplugged.
    Unplugged,
    /// No such ring.
    NoSuchQueue(QueueId),
    /// The ring is full.
    RingFull,
    /// The ring has jobs.
    RingBusy,
    /// A ring has 1 to [`RING_SLOTS_MAX`] slots.
    BadSlots(u32),
    /// The device needs an engine.
    NoEngines,
    /// The device has no such address space number, or it is the firmware's.
    NoSuchVmId(VmId),
    /// The page tables must lie in the device's own memory.
    ForeignTables(PageId),
    /// That reset is under way already.
    ResetPending,
    /// There is no memory.
    Memory(MemoryError),
    /// The ring could not be mapped.
    Map(MapError),
}

impl GpuError {
    /// Whether freeing some of the device's pages would help.
    #[must_use]
    pub const fn is_shortage(&self) -> bool {
        matches!(
            self,
            Self::Memory(MemoryError::OutOfPages { .. }) | Self::Map(MapError::Memory(MemoryError::OutOfPages { .. }))
        )
    }
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplugged => f.write_str("the device was unplugged"),
            Self::NoSuchQueue(queue) => write!(f, "no ring {}", queue.0),
            Self::RingFull => f.write_str("the ring is full"),
            Self::RingBusy => f.write_str("the ring has jobs"),
            Self::BadSlots(slots) => {
                write!(f, "a ring cannot have {slots} slots, only 1 to {RING_SLOTS_MAX}")
            }
            Self::NoEngines => f.write_str("a device needs at least one engine"),
            Self::NoSuchVmId(vm) => write!(f, "no address space number {} for a host to use", vm.0),
            Self::ForeignTables(page) => write!(f, "page tables at {page}, outside of the device"),
            Self::ResetPending => f.write_str("that reset is under way already"),
            Self::Memory(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GpuError {}

impl From<MemoryError> for GpuError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
