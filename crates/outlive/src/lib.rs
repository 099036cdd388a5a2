//! GPU job scheduling, fences and GPU address spaces for Rust, with lifetimes that are right by construction.
#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", test, loom, shuttle))]
extern crate std;

pub mod check;
mod device;
mod exec;
mod fence;
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
    Acquired, Charges, Device, DeviceConfig, Driver, JobCx, JobInfo, Principal, Quarantine, RESET_WATCHDOG_DEFAULT,
    ResetScope, ResetToken, Verdict,
};
pub use exec::{Executor, ExecutorBuilder, Lane};
pub use fence::{
    Cause, Fence, FenceContext, FenceError, FenceFuture, Hook, Names, Producer, Refused, Registration, Retired,
    SignalSafe, Signaler, Status, Unpublished, UserFence, UserSource, WATCHDOG_DEFAULT, WaitError,
};
pub use mem::AllocError;
pub use queue::{
    Completion, Dependency, Drained, Full, InFlight, JOB_BYTES, Job, JobFences, JobQueue, LIMIT_MAX, OnError,
    OpenError, Pending, QueueConfig, QueueStatus, Refusal, ReserveError, Reserved, Times,
};
pub use time::Time;
