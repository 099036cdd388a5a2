//! GPU job scheduling, fences and GPU address spaces for Rust, with lifetimes that are right by construction.
//!
//! A driver implements [`Driver`] and gets a [`JobQueue`]: dependencies, flow control, timeouts, recovery and teardown. Whoever
//! submits gets three fences for each job, and everything may be dropped at any time, anywhere: queues with jobs on the
//! hardware, devices, executors, fences.
//!
//! # A job's three fences
//!
//! | fence | signals | an error on it means |
//! |---|---|---|
//! | [`scheduled`](JobFences::scheduled) | when the job is handed to the hardware | it never was |
//! | [`finished`](JobFences::finished) | with the job's verdict | it failed, or nobody waits for it any more; **not** that its memory may be touched |
//! | [`retired`](JobFences::retired) | when the hardware can no longer touch what the job touched | never free: DMA cannot be excluded |
//!
//! `finished` and `retired` usually signal together. They differ when a queue is closed, a job times out, a driver drops its
//! completion, or a device hangs: the verdict is known at once, the memory is free later. Payloads (buffers, mappings, ring
//! memory) are dropped after `retired`, where blocking is legal.
//!
//! ```text
//!                 commit                 run                    complete(result)
//!   Reserved ───────────────▶ waiting ─────────▶ on the hardware ───────────────▶ done
//!      │                         │       scheduled     │                          finished(result)
//!      │ drop:                   │ close, failed       │ close, timeout, loss     retired(Ok)
//!      ▼ no trace                ▼ dependency          ▼                              │
//!    nothing                 finished(error)       finished(error)                    ▼
//!                            retired(Ok)               │ drain ▶ cancel ▶ reset   payload dropped
//!                                                      ▼
//!                                        the hardware is done with it: retired(Ok), payload dropped
//!                                        that can never be known:      retired(Quarantined), never dropped
//! ```
//!
//! # A first driver
//!
//! `examples/first_driver.rs` is a whole driver in a hundred lines. Its heart:
//!
//! ```
//! use outlive::{Completion, Driver, FenceError, InFlight, JobCx};
//!
//! struct Gpu {
//!     in_flight: InFlight,
//! }
//!
//! #[derive(Default)]
//! struct Ring {
//!     last_seqno: u64,
//! }
//!
//! impl Driver for Gpu {
//!     type Job = Vec<u8>; // commands and buffers: dropped when the hardware is done with them
//!     type Queue = Ring;
//!
//!     fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
//!         cx.queue.last_seqno += 1;
//!         // ... write `cx.job` into the ring ...
//!         match self.in_flight.insert(cx.queue.last_seqno, done) {
//!             Ok(()) => { /* ring the doorbell */ }
//!             Err(full) => full.completion.not_started(FenceError::Faulted { code: 1 }),
//!         }
//!     }
//! }
//!
//! // The interrupt handler, in any context:
//! fn interrupt(gpu: &Gpu, last_seqno: u64) {
//!     gpu.in_flight.complete_through(last_seqno);
//! }
//!
//! let queue = outlive::JobQueue::new(Gpu { in_flight: InFlight::with_capacity(64)? })?;
//! let job = queue.reserve(vec![1, 2, 3])?.commit();
//! interrupt(queue.device().driver(), 1);
//! job.finished().wait(std::time::Duration::from_secs(1))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | to | see | runnable: `cargo run --release -p outlive --example` |
//! |---|---|---|
//! | write a driver | [`Driver`]: what each call may do; [`Completion`], [`InFlight`] | `first_driver` |
//! | submit jobs, close, cancel | [`JobQueue`], [`Reserved`], [`JobFences`], [`LongQueue`] | `first_driver` |
//! | wait, await, be called, combine | [`Fence`], [`FenceContext`], [`UserFence`], [`Timeline`], [`Syncobj`] | `fences_and_waiting` |
//! | pass fences to other processes | `outlive::linux`, with the feature `linux` | `fences_and_waiting` |
//! | say who waits for whom on buffers | [`resv`] | `reservations` |
//! | map, unmap, tear down an address space | [`vm`] | `address_space` |
//! | share a device fairly | [`sched`]; scarce slots: [`pool`]; who used what: [`Principal`], [`Usage`] | `two_clients_fair` |
//! | choose threads, clocks, virtual time | [`Executor`], [`ExecutorBuilder`] | `two_clients_fair` |
//! | find what must not happen while signalling | [`check`] | |
//! | record events | [`trace`] | |
//!
//! Which context may call what is one table in the repository's `docs/which-context.md`. Where documents say "rule 4", they mean
//! the list in its `docs/lifetime-rules.md`: what is promised about who may outlive whom.
//!
//! # Without `std`
//!
//! Turn default features off, bind the machine's lock, parking and clock with `outlive::platform!`, and drive an
//! [`Executor`] by hand or from the system's work queues ([`ExecutorBuilder::work_queue`]). 64-bit atomics are needed.
#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", test, loom, shuttle))]
extern crate std;

pub mod check;
mod device;
mod exec;
mod fence;
#[cfg(all(feature = "linux", target_os = "linux", not(loom), not(shuttle)))]
pub mod linux;
pub mod mem;
pub mod pool;
mod queue;
pub mod resv;
#[cfg(feature = "sabotage")]
#[doc(hidden)]
pub mod sabotage;
#[cfg(not(feature = "sabotage"))]
mod sabotage;
pub mod sched;
pub mod sync;
mod time;
pub mod trace;
pub mod vm;

pub use device::{
    Acquired, Charges, Device, DeviceConfig, Driver, ENGINES_MAX, EngineName, Fdinfo, JobCx, JobInfo, OFFENCES_MAX,
    Outcome, Principal, Quarantine, RESET_WATCHDOG_DEFAULT, ResetScope, ResetToken, Usage, Verdict,
};
pub use exec::{Executor, ExecutorBuilder, Lane};
pub use fence::{
    Cause, ContainerError, Fence, FenceContext, FenceError, FenceFuture, Hook, Names, PointReservation, Producer,
    Progress, Refused, Registration, Retired, SignalSafe, Signaler, Status, Syncobj, SyncobjError, SyncobjWait,
    Timeline, TimelineError, Unpublished, Until, UserFence, UserSource, WATCHDOG_DEFAULT, WaitError,
};
pub use mem::AllocError;
pub use queue::{
    Completion, Dependency, Drained, Full, InFlight, JOB_BYTES, Job, JobFences, JobQueue, LIMIT_MAX, LongQueue,
    LongReserved, Off, OnError, OpenError, Pending, PreemptToken, QueueConfig, QueueStatus, Ready, Refusal,
    ReserveError, Reserved, Restart, Times, WaitsFor,
};
pub use time::Time;
