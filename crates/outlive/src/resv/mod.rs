//! Reservation objects: which fences hang on a buffer, and who must wait for which; and the transaction, which locks many of
//! them without a deadlock. The kernel's `dma_resv`, `ww_mutex` and `drm_exec`, for drivers, address spaces and whoever evicts.
//!
//! # Types
//! | type | right |
//! |---|---|
//! | [`Reservation`] | a counted handle: look, wait, hint, describe; lock in a transaction |
//! | [`Transaction`] | lock many, in any order |
//! | [`Attempt`] | the lock phase: lock, reserve slots, look; it may run again |
//! | [`Sealed`] | the sealed phase: add fences; it runs once and cannot contend |
//! | [`Locked`], [`Slot`], [`Slots`] | "locked by this attempt", "and has room for a fence", "for several" |
//!
//! # Example
//! ```
//! use outlive::resv::{Reservation, Slot, Transaction, Usage};
//! # use outlive::{Completion, Driver, JobCx, JobQueue};
//! # struct Gpu;
//! # impl Driver for Gpu {
//! #     type Job = &'static str;
//! #     type Queue = ();
//! #     fn run(&self, _: &mut JobCx<'_, Self>, done: Completion) { done.complete(Ok(())) }
//! # }
//! # let queue = JobQueue::new(Gpu)?;
//! let (texture, target) = (Reservation::new()?, Reservation::new()?);
//! let draw = Transaction::new().run::<(Slot<'_>, Slot<'_>), _>(
//!     // May run several times.
//!     |attempt| Ok((attempt.prepare(&texture)?, attempt.prepare(&target)?)),
//!     // Runs once, with both locked.
//!     |sealed, (texture, target)| {
//!         let after = sealed.fences(texture.locked(), Usage::for_access(false));
//!         let after = after.chain(sealed.fences(target.locked(), Usage::for_access(true)));
//!         let after: Vec<_> = after.map(|(_, fence)| fence.into_fence()).collect();
//!         let job = queue.reserve_after("draw", after)?.commit();
//!         sealed.add(texture, Usage::Read, &job.retired());
//!         sealed.add(target, Usage::Write, &job.retired());
//!         Ok::<_, Box<dyn std::error::Error>>(job)
//!     },
//! )??;
//! assert!(draw.finished().is_signaled() && target.is_idle(Usage::Read)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is on it
//! Only [`Retired`](crate::Retired) fences (rule 4): a buffer is in use until the hardware cannot touch it any more, whatever a
//! job's verdict. An error on one means that this will never be; the reservation that sees it is *poisoned*: no transaction
//! locks it, waiting for it fails. So who locks before it reuses or evicts does neither. Looks happen when it is locked, waited
//! for, asked whether it is idle, or copied.
//!
//! # Why it cannot deadlock
//! Locks are taken by age, see `resv::ticket`: nobody waits for somebody older while owning anything. One thread has one
//! transaction at a time; they rank outside all locks of the library and inside embedders' outer ones
//! ([`class::Reservation`](crate::sync::class::Reservation)), which is checked in debug builds. Signalling paths never take
//! one, so fences may be waited for with reservations locked. What lies behind a reservation, its owner, its waiters and its
//! fences, is under a plain lock that is held for a moment, by lookers too: they never wait for an owner.
//!
//! # Slots
//! A fence is added where memory must not be asked for, for a job has been committed then. So room is reserved before, as
//! [`Slot`]s: counted, cumulative, each good for one fence, void at the end of the attempt. Adding needs one, so forgetting to
//! reserve does not compile, and adding cannot fail.
//!
//! # Contexts
//! Looking: any. [`Reservation::new`], [`snapshot`](Reservation::snapshot), [`singleton`](Reservation::singleton),
//! [`describe`](Reservation::describe) and the lock phase allocate. Transactions and [`Reservation::wait`] block.

mod attempt;
mod carry;
mod describe;
mod fences;
mod inject;
mod interrupt;
mod locks;
mod reservation;
mod ticket;
mod transaction;
mod usage;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, shuttle))]
mod shuttle_tests;

pub use attempt::{Attempt, Locked, Sealed, Slot, Slots};
pub use carry::{Carry, Plain};
pub use describe::Description;
pub use inject::Injection;
pub use interrupt::{Interrupt, Interrupter};
pub use reservation::{Reservation, Snapshot};
pub use transaction::{LockError, Transaction};
pub use usage::Usage;
