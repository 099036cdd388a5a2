//! Deeds: what can be done to the library with handles, wherever one may stand.
//!
//! A deed owns what it needs and is done once: by the client's thread, in a fence's closure, or in a payload's drop.
//! Dropping it undone drops its handles, which is a deed of its own kind.

use alloc::format;
use alloc::sync::Arc;
use core::ops::Deref;
use outlive::sched::{Arbiter, Priority};
use outlive::{Device, FenceError, Pending, Reserved, Signaler, UserSource};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hits::{Known, Place, SharedHits, fault_words};
use super::society::Society;
use crate::driver::{JobSpec, SimClient, SimDriver, SimQueue, Submitted};
use crate::gpu::{DeviceFaults, FaultKind};

/// A queue: a client's first, or another of it.
#[derive(Debug, Clone)]
pub(crate) enum QueueRef {
    First(Arc<SimClient>),
    Another(Arc<SimQueue>),
}

impl Deref for QueueRef {
    type Target = SimQueue;

    fn deref(&self) -> &SimQueue {
        match self {
            Self::First(client) => client,
            Self::Another(queue) => queue,
        }
    }
}

/// Locks what is shared in a world.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fences of a queue's jobs: for the table of hits, and to be looked at in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs(Arc<Mutex<Vec<Known>>>);

impl Jobs {
    pub(crate) fn push(&self, job: Known) {
        lock(&self.0).push(job);
    }

    pub(crate) fn all(&self) -> Vec<Known> {
        lock(&self.0).clone()
    }

    pub(crate) fn any(&self, is: fn(&Known) -> bool) -> bool {
        lock(&self.0).iter().any(is)
    }

    /// Whether they are those of the same queue.
    pub(crate) fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Of all queues that ever were in a world.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllJobs(Arc<Mutex<Vec<Jobs>>>);

impl AllJobs {
    pub(crate) fn add_queue(&self, jobs: Jobs) {
        lock(&self.0).push(jobs);
    }

    pub(crate) fn queues(&self) -> u64 {
        lock(&self.0).len() as u64
    }

    pub(crate) fn any(&self, is: fn(&Known) -> bool) -> bool {
        lock(&self.0).iter().any(|jobs| jobs.any(is))
    }

    pub(crate) fn all(&self) -> Vec<Known> {
        lock(&self.0).iter().flat_map(Jobs::all).collect()
    }
}

/// A job whose fences somebody keeps.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) job: Submitted,
    pub(crate) fault: Option<FaultKind>,
}

/// Something to be done.
#[derive(Debug)]
pub(crate) enum Deed {
    /// A queue's handle goes, without warning.
    Kill(QueueRef, Jobs),
    Close(QueueRef, Jobs),
    Suspend(QueueRef, Jobs),
    Resume(QueueRef, Jobs),
    SetPriority(QueueRef, Jobs, Priority),
    Submit(QueueRef, Jobs, JobSpec),
    Commit(Reserved<SimDriver>, Jobs, Option<FaultKind>),
    DropReserved(Reserved<SimDriver>, Jobs),
    CancelPending(Pending, Jobs),
    SignalUser(UserSource, Result<(), FenceError>),
    SignalBare(Signaler, Result<(), FenceError>),
    DropSignaler(Signaler),
    DropFences(Vec<Remembered>),
    Reset(Device<SimDriver>, AllJobs),
    /// The device misbehaves from now on, as the words say.
    Misbehave(Device<SimDriver>, AllJobs, DeviceFaults, &'static str),
    /// The hardware is gone at once. The library is told, or finds out.
    PullOut(Device<SimDriver>, AllJobs, bool),
    /// The library is told that the hardware is gone.
    Lose(Device<SimDriver>, AllJobs),
    CloseDevice(Device<SimDriver>, AllJobs),
    DropDevice(Device<SimDriver>, AllJobs),
    DropArbiter(Arbiter, AllJobs),
    /// The user of that number is forgiven.
    LiftBan(Arc<Society>, AllJobs, u64),
    /// Reads all there is to read of a queue.
    Look(QueueRef, Jobs),
}

pub(crate) const LATE_WRITES: &str = "late writes";
pub(crate) const RING_RESET_FAILS: &str = "ring reset fails";
pub(crate) const ALL_RESETS_FAIL: &str = "all resets fail";

/// All deeds, and whether they concern jobs. "commit when" is done by clients only, and not listed.
pub(crate) const NAMES: [(&str, bool); 24] = [
    ("kill queue", true),
    ("close queue", true),
    ("suspend", true),
    ("resume", true),
    ("set priority", true),
    ("submit", true),
    ("commit", true),
    ("drop reserved", true),
    ("cancel pending", true),
    ("signal user", false),
    ("signal bare", false),
    ("drop signaler", false),
    ("drop fences", true),
    ("reset device", true),
    (LATE_WRITES, true),
    (RING_RESET_FAILS, true),
    (ALL_RESETS_FAIL, true),
    ("pull out", true),
    ("lose device", true),
    ("close device", true),
    ("drop device", true),
    ("drop arbiter", true),
    ("lift ban", true),
    ("look", true),
];

impl Deed {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Kill(..) => "kill queue",
            Self::Close(..) => "close queue",
            Self::Suspend(..) => "suspend",
            Self::Resume(..) => "resume",
            Self::SetPriority(..) => "set priority",
            Self::Submit(..) => "submit",
            Self::Commit(..) => "commit",
            Self::DropReserved(..) => "drop reserved",
            Self::CancelPending(..) => "cancel pending",
            Self::SignalUser(..) => "signal user",
            Self::SignalBare(..) => "signal bare",
            Self::DropSignaler(..) => "drop signaler",
            Self::DropFences(..) => "drop fences",
            Self::Reset(..) => "reset device",
            Self::Misbehave(_, _, _, words) => words,
            Self::PullOut(..) => "pull out",
            Self::Lose(..) => "lose device",
            Self::CloseDevice(..) => "close device",
            Self::DropDevice(..) => "drop device",
            Self::DropArbiter(..) => "drop arbiter",
            Self::LiftBan(..) => "lift ban",
            Self::Look(..) => "look",
        }
    }

    fn jobs(&self) -> Vec<Known> {
        match self {
            Self::Kill(_, jobs)
            | Self::Close(_, jobs)
            | Self::Suspend(_, jobs)
            | Self::Resume(_, jobs)
            | Self::SetPriority(_, jobs, _)
            | Self::Submit(_, jobs, _)
            | Self::Commit(_, jobs, _)
            | Self::DropReserved(_, jobs)
            | Self::CancelPending(_, jobs)
            | Self::Look(_, jobs) => jobs.all(),
            Self::DropFences(jobs) => {
                jobs.iter().map(|one| Known { fences: one.job.fences.clone(), fault: one.fault }).collect()
            }
            Self::Reset(_, jobs)
            | Self::Misbehave(_, jobs, ..)
            | Self::PullOut(_, jobs, _)
            | Self::Lose(_, jobs)
            | Self::CloseDevice(_, jobs)
            | Self::DropDevice(_, jobs)
            | Self::DropArbiter(_, jobs)
            | Self::LiftBan(_, jobs, _) => jobs.all(),
            Self::SignalUser(..) | Self::SignalBare(..) | Self::DropSignaler(..) => Vec::new(),
        }
    }

    /// Does it. May block and allocate; not in a signalling section.
    pub(crate) fn perform(self, place: Place, hits: &SharedHits) {
        let jobs = self.jobs();
        {
            let mut hits = hits.lock();
            hits.deed(self.name(), place, &jobs);
            if let Self::Misbehave(..) | Self::PullOut(..) = self {
                hits.fault(self.name());
            }
        }
        drop(jobs);
        match self {
            Self::Kill(queue, _) => drop(queue),
            Self::Close(queue, _) => drop(queue.close()),
            Self::Suspend(queue, _) => queue.queue().suspend(),
            Self::Resume(queue, _) => queue.queue().resume(),
            Self::SetPriority(queue, _, priority) => queue.queue().set_priority(priority),
            Self::Submit(queue, jobs, spec) => {
                let fault = spec.fault;
                if let Ok(job) = queue.submit(spec) {
                    jobs.push(Known { fences: job.fences, fault });
                }
            }
            Self::Commit(reserved, jobs, fault) => jobs.push(Known { fences: reserved.commit(), fault }),
            Self::DropReserved(reserved, _) => drop(reserved),
            Self::CancelPending(pending, _) => drop(pending.cancel()),
            Self::SignalUser(source, result) => drop(source.signal(result)),
            Self::SignalBare(signaler, result) => signaler.signal(result),
            Self::DropSignaler(signaler) => drop(signaler),
            Self::DropFences(jobs) => drop(jobs),
            Self::Reset(device, _) => device.reset(),
            Self::Misbehave(device, _, faults, _) => device.driver().set_faults(faults),
            Self::PullOut(device, _, told) => {
                device.driver().pull_out();
                if told {
                    device.unplug();
                }
            }
            Self::Lose(device, _) => device.unplug(),
            Self::CloseDevice(device, _) => drop(device.close()),
            Self::DropDevice(device, _) => drop(device),
            Self::DropArbiter(arbiter, _) => drop(arbiter),
            Self::LiftBan(society, _, user) => society.lift_ban(user),
            Self::Look(queue, _) => {
                let (status, usage) = (queue.queue().status(), queue.queue().usage());
                let words = format!("{status:?}, {usage:?}, {}", queue.queue().waits_for());
                drop(words);
            }
        }
    }
}

/// Words for what a job suffers, for the table of faults.
pub(crate) fn injected(hits: &SharedHits, fault: FaultKind) {
    hits.lock().fault(fault_words(Some(fault)));
}
