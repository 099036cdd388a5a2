//! Reservations: what hangs on a buffer, what replaces what, who waits for what; and transactions over many of them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

mod contention;
mod fences;
mod phases;
mod poison;
mod refusals;
mod text;

use outlive::check::Alloc;
use outlive::resv::{Reservation, Slot, Slots, Transaction, Usage};
use outlive::{Completion, Device, DeviceConfig, Driver, Executor, InFlight, JobCx, JobQueue, QueueConfig, Retired};
use std::alloc::System;
use std::sync::Arc;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

pub(crate) fn resv() -> Reservation {
    Reservation::new().unwrap()
}

/// Hangs `fence` on `on`.
pub(crate) fn add(on: &Reservation, usage: Usage, fence: &Retired) {
    Transaction::new()
        .run::<Slot<'_>, _>(|attempt| attempt.prepare(on), |sealed, slot| sealed.add(slot, usage, fence))
        .unwrap();
}

/// Hangs all of `fences` on `on`, in one transaction.
pub(crate) fn add_all(on: &Reservation, fences: &[(Usage, Retired)]) {
    Transaction::new()
        .run::<Slots<'_>, _>(
            |attempt| attempt.prepare_many(on, fences.len()),
            |sealed, slots| {
                for (slot, (usage, fence)) in slots.zip(fences) {
                    sealed.add(slot, *usage, fence);
                }
            },
        )
        .unwrap();
}

/// What `usage` asks for, as numbers of the jobs.
pub(crate) fn seen(on: &Reservation, usage: Usage) -> Vec<(Usage, u64)> {
    on.snapshot(usage).unwrap().iter().map(|(usage, fence)| (usage, fence.seqno())).collect()
}

/// Holds each job until it is told that the hardware is done, or completes it at once. Allocates nothing while it does.
pub(crate) struct Hardware {
    inline: bool,
}

impl Driver for Hardware {
    type Job = ();
    type Queue = Arc<InFlight>;

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        if self.inline {
            return done.complete(Ok(()));
        }
        let seqno = cx.info().id.seqno;
        cx.queue.insert(seqno, done).unwrap();
    }
}

/// A queue whose jobs stay on the hardware until they are told otherwise.
pub(crate) struct Jobs {
    pub(crate) queue: JobQueue<Hardware>,
    held: Arc<InFlight>,
}

impl Jobs {
    pub(crate) fn on(executor: &Executor) -> Self {
        Self::of(executor, false)
    }

    /// One whose jobs complete inside `run`.
    pub(crate) fn inline(executor: &Executor) -> Self {
        Self::of(executor, true)
    }

    fn of(executor: &Executor, inline: bool) -> Self {
        let held = Arc::new(InFlight::with_capacity(256).unwrap());
        let device = Device::with_config(executor, DeviceConfig::new("fake"), Hardware { inline }).unwrap();
        Self { queue: device.queue(QueueConfig::new("jobs"), held.clone()).unwrap(), held }
    }

    pub(crate) fn job(&self) -> Retired {
        self.queue.reserve(()).unwrap().commit().retired()
    }

    pub(crate) fn end(&self, seqno: u64) {
        assert!(self.held.complete(seqno, Ok(())), "job {seqno} is not on the hardware");
    }
}

/// In virtual time.
pub(crate) fn executor() -> Executor {
    Executor::manual().unwrap()
}
