//! The hardware model of a GPU that schedules its rings in firmware.
//!
//! ```text
//!  host                                        device
//!  ----                                        ------
//!  AddressSpace --writes--> page tables <--walks-- every access
//!  HostRing     --writes--> ring        <--reads-- firmware -> engines -> commands
//!  Gpu::submit, cancel, reset, unplug  ------>  Gpu
//!  Gpu::poll_interrupt, poll_reset     <------
//!                     Memory's Tap: what both did, to the checkers
//! ```
//!
//! All of it is deterministic: state changes only in calls, time is an argument, chance comes from one seed, work is
//! bytes in memory and never a closure. Several devices may share one [`Memory`].
//!
//! [`Memory`]: memory::Memory

pub mod checkers;
pub mod command;
pub mod config;
pub mod device;
pub mod faults;
pub mod gears;
pub mod large_pages;
pub mod memory;
pub mod observe;
pub mod page_table;
pub mod recover;
pub mod ring;
pub mod rng;
pub mod run;
pub mod types;

mod address_space;
mod engine;
mod execute;
mod job;
mod mmu;
mod schedule;
mod translation_cache;

pub use address_space::{AddressSpace, MapError};
pub use checkers::{Audit, Checkers};
pub use command::{Command, Notify};
pub use config::{Config, GpuError, Interrupt, JobTime, Standing};
pub use device::Gpu;
pub use faults::{DeviceFaults, ExecutionError, FaultKind, HwError};
pub use large_pages::{Held, PageSize, block_of};
pub use memory::{Memory, MemoryError, PAGE_BYTES};
pub use observe::{FenceName, LeaseKind, Observation, OrderedBy, Stamped, StopCause};
pub use page_table::{Fault, FaultReason, Protection, Reach, Root};
pub use recover::{CancelOutcome, KilledJob, ResetFailed, ResetReport, ResetScope};
pub use ring::JobDescriptor;
pub use run::FAULT_RANGE_START;
pub use types::{Access, DomainId, HwSeqno, JobId, OwnerId, PageId, QueueId, Time, Va, VmId};
