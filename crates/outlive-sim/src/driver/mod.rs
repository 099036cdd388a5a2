//! The library on the simulated hardware: a driver for [`outlive`], its clients, and an audit of both.
//!
//! ```text
//!  SimClient ──reserve, commit──▶ outlive ──run, cancel, reset, unplug──▶ SimDriver ─┐
//!     │                             ▲ ▲                                              ▼
//!     │ buffers                     │ └── completions, tokens ── SimHost ◀── Machine: Memory + Gpu + Checkers
//!     └─────────────────────────────┼──────────────────────────────────────────────▶ ▲
//!                                   └── events ──▶ Listener ─────────────────────────┘
//! ```
//!
//! # Use
//! ```
//! use outlive_sim::driver::{ClientConfig, HostConfig, JobSpec, SimClient, SimHost};
//! use std::time::Duration;
//!
//! let host = SimHost::new(HostConfig::default())?;
//! let client = SimClient::new(&host, "first", ClientConfig::default())?;
//! let job = client.submit(JobSpec::spin(Duration::from_millis(3)))?;
//! host.run_for(Duration::from_millis(5));
//! assert!(job.fences.retired().is_signaled());
//! drop((job, client));
//! assert!(host.finish().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Who touches what
//! The `Machine` (memory, device, checkers, and the driver's own records) is behind one lock, which
//! everybody takes: driver calls, buffers' drops, the host's loop, and the listener. It is a leaf: **nobody calls the
//! library while holding it.** What the hardware has to say is collected under it and delivered after it was given back.
//! The library may hold any of its own locks when it calls the listener or the driver. So no cycle of locks exists.
//!
//! The model allocates inside driver calls, as no driver of real hardware would: what it allocates is the hardware's.
//!
//! # Address spaces
//! Each client has one of the library's, and all that its jobs reach is mapped by it: what this driver maps for itself (commands,
//! what jobs write: `buffer`) in a range of its own (`space`), and what users do ([`SimVm`]). Its steps change the client's page
//! tables (`tables`); binds of users are jobs of a queue of their own (`binder`); buffers (`bo`) are evicted from all address
//! spaces (`evict`) and brought back (`vm_client`); persistent ones of clients ([`Piece`]) by themselves when memory is short
//! (`room`), for the next job that works on them. Only rings are elsewhere: the firmware's page tables lead there.
//!
//! # Time
//! [`HostClock::Virtual`]: [`SimHost`] goes from event to event, of the device and of the executor, in one order; the same
//! calls give the same run. [`HostClock::Real`]: the wall's, with threads for hardware, interrupts and the library's lanes;
//! clients may have theirs.
//!
//! # The audit
//! [`Audit`](crate::gpu::Audit) is counted by the hardware (pages, accesses, faults) and by what can be seen of the
//! library from outside: events, and the birth and death of payloads. The library's own counters are not asked. Credits
//! are the driver's own book of what is on its ring; if a job is held back for want of credits that nobody holds, as many
//! as would have let it pass count as leaked.

mod audit;
mod binder;
mod bo;
mod buffer;
mod client;
mod config;
mod deliver;
mod evict;
mod fdinfo;
mod hardware;
mod host;
mod ids;
mod job;
pub(crate) mod machine;
mod piece;
mod real;
mod recover;
mod room;
mod space;
mod tables;
mod under_way;
mod unit;
mod vm_client;
mod vm_immediate;

pub use binder::{BindJob, Binder};
pub use bo::SimBo;
pub use buffer::{Buffer, BufferError};
pub use client::{ClientConfig, ClientError, SimClient, SimQueue, SubmitError, Submitted};
pub use config::{HostClock, HostConfig, HostError};
pub use fdinfo::VmMemory;
pub use hardware::{CODE_BAD_DESCRIPTOR, CODE_EXECUTION, CODE_PAGE_FAULT, CODE_REFUSED, SimDriver, SimRing};
pub use host::{FINISH_MAX, SimHost};
pub use job::{JobSpec, SLOT_BYTES, SimJob, VmWork, Work};
pub use machine::{EngineStretch, JobEnd};
pub use piece::Piece;
pub use space::VM_START;
pub use tables::{Opened, SimTables, SpareTables};
pub use vm_client::{SimVm, SimVmError};

#[cfg(test)]
mod bounded_tests;
