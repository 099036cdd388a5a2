//! Deeds: what can be done to the library with handles, wherever one may stand.
//!
//! A deed owns what it needs and is done once: by the client's thread, in a fence's closure, or in a payload's drop.
//! Dropping it undone drops its handles, which is a deed of its own kind.

use alloc::sync::Arc;
use core::ops::Deref;
use outlive::sched::Priority;
use outlive::{Device, FenceError, JobFences, Pending, Reserved, Signaler, UserSource};
use std::sync::{Mutex, PoisonError};

use super::hits::{Place, SharedHits};
use crate::driver::{JobSpec, SimClient, SimDriver, SimQueue, Submitted};

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

/// The fences of a queue's jobs: for the table of hits, and to be looked at in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs(Arc<Mutex<Vec<JobFences>>>);

impl Jobs {
    pub(crate) fn push(&self, job: JobFences) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }

    pub(crate) fn all(&self) -> Vec<JobFences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
    Commit(Reserved<SimDriver>, Jobs),
    DropReserved(Reserved<SimDriver>, Jobs),
    CancelPending(Pending),
    SignalUser(UserSource, Result<(), FenceError>),
    SignalBare(Signaler, Result<(), FenceError>),
    DropSignaler(Signaler),
    Reset(Device<SimDriver>, Jobs),
    Lose(Device<SimDriver>, Jobs),
    CloseDevice(Device<SimDriver>, Jobs),
    DropDevice(Device<SimDriver>, Jobs),
    DropFences(Vec<Submitted>),
}

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
            Self::Reset(..) => "reset device",
            Self::Lose(..) => "unplug",
            Self::CloseDevice(..) => "close device",
            Self::DropDevice(..) => "drop device",
            Self::DropFences(..) => "drop fences",
        }
    }

    fn jobs(&self) -> Vec<JobFences> {
        match self {
            Self::Kill(_, jobs)
            | Self::Close(_, jobs)
            | Self::Suspend(_, jobs)
            | Self::Resume(_, jobs)
            | Self::SetPriority(_, jobs, _)
            | Self::Submit(_, jobs, _)
            | Self::Commit(_, jobs)
            | Self::DropReserved(_, jobs)
            | Self::Reset(_, jobs)
            | Self::Lose(_, jobs)
            | Self::CloseDevice(_, jobs)
            | Self::DropDevice(_, jobs) => jobs.all(),
            Self::DropFences(jobs) => jobs.iter().map(|job| job.fences.clone()).collect(),
            Self::CancelPending(pending) => pending.fences().into_iter().collect(),
            Self::SignalUser(..) | Self::SignalBare(..) | Self::DropSignaler(..) => Vec::new(),
        }
    }

    /// Does it. May block and allocate; not in a signalling section.
    pub(crate) fn perform(self, place: Place, hits: &SharedHits) {
        let jobs = self.jobs();
        hits.lock().deed(self.name(), place, &jobs);
        drop(jobs);
        match self {
            Self::Kill(queue, _) => drop(queue),
            Self::Close(queue, _) => drop(queue.close()),
            Self::Suspend(queue, _) => queue.queue().suspend(),
            Self::Resume(queue, _) => queue.queue().resume(),
            Self::SetPriority(queue, _, priority) => queue.queue().set_priority(priority),
            Self::Submit(queue, jobs, spec) => {
                if let Ok(job) = queue.submit(spec) {
                    jobs.push(job.fences);
                }
            }
            Self::Commit(reserved, jobs) => jobs.push(reserved.commit()),
            Self::DropReserved(reserved, _) => drop(reserved),
            Self::CancelPending(pending) => drop(pending.cancel()),
            Self::SignalUser(source, result) => drop(source.signal(result)),
            Self::SignalBare(signaler, result) => signaler.signal(result),
            Self::DropSignaler(signaler) => drop(signaler),
            Self::Reset(device, _) => device.reset(),
            Self::Lose(device, _) => device.unplug(),
            Self::CloseDevice(device, _) => drop(device.close()),
            Self::DropDevice(device, _) => drop(device),
            Self::DropFences(jobs) => drop(jobs),
        }
    }
}
