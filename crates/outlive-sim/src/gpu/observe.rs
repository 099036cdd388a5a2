//! What the checkers are told: a stream of observations, from the device and from its host, in one order.
//!
//! The [`Tap`] hangs on the memory, which the host and every device are handed for each call; so a page freed by the
//! host and a page touched by a device come in the order in which they happened. Nothing in the model reads the tap:
//! switching it off changes no byte and no time.

use super::faults::FaultKind;
use super::types::{Access, JobId, OwnerId, PageId, QueueId, Time, Va};

/// Names a fence: its context and its sequence number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceName {
    /// The timeline.
    pub context: u64,
    /// The point on it.
    pub seqno: u64,
}

/// What keeps a pair of jobs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderedBy {
    /// The host starts the later job only once the earlier one is off the hardware. The two must never be seen at once.
    Host,
    /// A semaphore inside the jobs: both may be on the hardware, and their accesses may be live at once.
    Hardware,
}

/// How a job left the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// It ran to its end.
    Done,
    /// It failed: a page fault or a bad command.
    Failed,
    /// The host cancelled it.
    Canceled,
    /// A reset killed it.
    Reset,
    /// The device was unplugged.
    Unplugged,
}

/// A countable thing that must be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKind {
    /// Credits of a queue or an arbiter.
    Credits,
    /// A scarce hardware resource, such as an address space number.
    Resource,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observation {
    /// Host: the job is in its ring; from here on the hardware may touch what it names.
    Submitted {
        /// Which job.
        job: JobId,
        /// On which ring.
        queue: QueueId,
    },
    /// Host: this job was told to fail.
    FaultRequested {
        /// Which job.
        job: JobId,
        /// How.
        kind: FaultKind,
    },
    /// Host: `after` was ordered behind `before`.
    Ordered {
        /// Goes first.
        before: JobId,
        /// Goes second.
        after: JobId,
        /// What keeps them apart.
        by: OrderedBy,
    },
    /// Host: a page got an owner.
    PageAllocated {
        /// Which page.
        page: PageId,
        /// Whom it is charged to.
        owner: OwnerId,
    },
    /// Host: the last holder of a page gave it back.
    PageFreed {
        /// Which page.
        page: PageId,
    },
    /// Host: a page's owner is done with it and keeps it for later; until it is taken up it counts as free.
    PageLaidAside {
        /// Which page.
        page: PageId,
    },
    /// Host: a page that was laid aside is in use again.
    PageTakenUp {
        /// Which page.
        page: PageId,
    },
    /// Host: the CPU read or wrote data in a page.
    HostTouched {
        /// Which page.
        page: PageId,
        /// [`Access::Read`] or [`Access::Write`].
        access: Access,
    },
    /// Device: the job is on an engine for the first time.
    Started {
        /// Which job.
        job: JobId,
    },
    /// Device: the job has an engine to itself from here on.
    OnEngine {
        /// Which job.
        job: JobId,
        /// Which engine.
        engine: u32,
    },
    /// Device: the job was taken off the engine: it ended, or waits for another turn.
    OffEngine {
        /// Which job.
        job: JobId,
        /// Which engine.
        engine: u32,
    },
    /// Device: the job touches this page now, and may at any time until it has stopped.
    Live {
        /// Which job.
        job: JobId,
        /// Which page.
        page: PageId,
        /// How.
        access: Access,
    },
    /// Device: an access of the job found no page that allows it.
    PageFault {
        /// Which job.
        job: JobId,
        /// Where.
        va: Va,
        /// What was wanted.
        access: Access,
    },
    /// Device: the hardware can no longer touch what the job named.
    Stopped {
        /// Which job.
        job: JobId,
        /// Why.
        cause: StopCause,
    },
    /// Library: a fence was published.
    FenceCreated {
        /// Which fence.
        fence: FenceName,
    },
    /// Library: fences of this context may signal in any order.
    Unordered {
        /// Which context.
        context: u64,
    },
    /// Library: no fence of this context will be published any more.
    ContextClosed {
        /// The timeline.
        context: u64,
    },
    /// Library: a fence was signalled.
    FenceSignaled {
        /// Which fence.
        fence: FenceName,
    },
    /// Host: a payload came to life.
    PayloadCreated {
        /// A number never used twice.
        payload: u64,
        /// The job that holds it.
        job: JobId,
        /// What it is charged.
        bytes: u64,
    },
    /// Host: a payload was dropped.
    PayloadReleased {
        /// Which payload.
        payload: u64,
    },
    /// Host: leases or credits were taken.
    LeaseTaken {
        /// What.
        kind: LeaseKind,
        /// By which job.
        job: JobId,
        /// How many.
        count: u64,
    },
    /// Host: leases or credits came back.
    LeaseReturned {
        /// What.
        kind: LeaseKind,
        /// From which job.
        job: JobId,
        /// How many.
        count: u64,
    },
    /// Host: a payload is never to be freed, because the hardware could not be stopped.
    Quarantined {
        /// Which payload.
        payload: u64,
    },
}

/// An observation and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamped {
    /// The virtual time of whoever reported it. Two devices that are advanced one after the other may report times
    /// that go back; the order of the stream is what counts.
    pub at: Time,
    /// What happened.
    pub what: Observation,
}

/// Collects observations until someone takes them.
#[derive(Debug, Default)]
pub struct Tap {
    on: bool,
    now: Time,
    seen: Vec<Stamped>,
}

impl Tap {
    /// Starts to collect.
    pub const fn switch_on(&mut self) {
        self.on = true;
    }

    /// Stops collecting; what was collected stays.
    pub const fn switch_off(&mut self) {
        self.on = false;
    }

    /// Whether it collects.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Sets the time that later observations are stamped with.
    pub const fn set_time(&mut self, now: Time) {
        self.now = now;
    }

    /// Adds one observation, if switched on.
    #[inline]
    pub fn observe(&mut self, what: Observation) {
        if self.on {
            self.seen.push(Stamped { at: self.now, what });
        }
    }

    /// What was collected since the last [`Tap::clear`].
    #[must_use]
    pub fn seen(&self) -> &[Stamped] {
        &self.seen
    }

    /// Forgets what was collected and keeps the room.
    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_collects_nothing() {
        let mut tap = Tap::default();
        let started = Observation::Started { job: JobId(1) };
        tap.observe(started);
        assert!(tap.seen().is_empty());
        tap.switch_on();
        tap.set_time(Time::from_ns(9));
        tap.observe(started);
        assert_eq!(tap.seen(), [Stamped { at: Time::from_ns(9), what: started }]);
        tap.clear();
        assert!(tap.seen().is_empty());
    }
}
