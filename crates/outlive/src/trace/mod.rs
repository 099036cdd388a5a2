//! The event vocabulary and the recorder hooks. No output format lives here.
//!
//! Names follow the kernel's stable trace points (`drm_sched_job_queue`, `_add_dep`, `_unschedulable`, `_run`, `_done`) and
//! its `dma_fence` ones; a fence is always `context:seqno`, with the client beside it. So one event maps to a Perfetto
//! packet, a line of ftrace text and a counter alike.
//!
//! # Cost and context
//! Without a recorder a hook is a load and a branch. With one, [`Record::record`] is called where the transition happens,
//! mostly in the signalling path: it may not allocate, block, or call back into the library. Write into a ring.

use crate::fence::FenceError;
use crate::mem::{AllocError, HeapBox, try_box};
use crate::time::Time;
use core::fmt;
use core::time::Duration;

/// `context:seqno`, as traces name a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FenceId {
    /// The fence context's number, never reused in a process.
    pub context: u64,
    /// The number within the context, from 1.
    pub seqno: u64,
}

impl fmt::Display for FenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.context, self.seqno)
    }
}

/// What happened. A job is named by its `finished` fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A job was committed (`drm_sched_job_queue`).
    JobQueued {
        /// The job.
        job: FenceId,
        /// Whose it is.
        client: u64,
        /// Credits it will hold.
        credits: u32,
        /// Jobs of its queue not finished, this one included.
        depth: u32,
    },
    /// One for each dependency of the job just queued (`drm_sched_job_add_dep`).
    JobDependency {
        /// The job.
        job: FenceId,
        /// What it waits for.
        on: FenceId,
    },
    /// The head of a queue cannot start (`drm_sched_job_unschedulable`).
    JobBlocked {
        /// The job.
        job: FenceId,
        /// What it waits for.
        reason: Blocked,
    },
    /// Handed to the hardware (`drm_sched_job_run`).
    JobStarted {
        /// The job.
        job: FenceId,
        /// Whose it is.
        client: u64,
    },
    /// The verdict is in (`drm_sched_job_done`); `finished` signals after this.
    JobDone {
        /// The job.
        job: FenceId,
        /// The verdict.
        result: Result<(), FenceError>,
        /// Time on the hardware, if it left that before its verdict: as the driver measured it, else from its start.
        active: Option<Duration>,
    },
    /// The hardware can no longer touch what the job touched (`retired`), or that cannot be excluded.
    JobRetired {
        /// The job.
        job: FenceId,
        /// `Err(Quarantined)` where the memory is never free.
        result: Result<(), FenceError>,
    },
    /// A job's or a context's fence signaled (`dma_fence_signaled`).
    FenceSignaled {
        /// The fence.
        fence: FenceId,
        /// With what.
        result: Result<(), FenceError>,
    },
    /// A queue changed what it accepts or starts.
    Queue {
        /// The queue, by the context of its `scheduled` fences.
        context: u64,
        /// How.
        change: QueueChange,
    },
    /// A driver's verdict or a drain deadline led here.
    Escalated {
        /// The job.
        job: FenceId,
        /// The step taken.
        step: Escalation,
    },
    /// A principal had too many jobs that had to be taken off the hardware by force.
    Banned {
        /// The principal's number.
        principal: u64,
        /// Whose the last of these jobs was.
        client: u64,
    },
    /// The device changed state.
    Device {
        /// The device's number.
        device: u64,
        /// How.
        change: DeviceChange,
    },
    /// A fence's producer let its watchdog expire.
    WatchdogExpired {
        /// The fence.
        fence: FenceId,
    },
}

/// Why a queue's head waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocked {
    /// Dependencies, that many.
    Dependencies(u32),
    /// Credits.
    Credits,
    /// The driver's `acquire` named a fence.
    Resource(FenceId),
    /// It is not its turn with its arbiter.
    Gate,
    /// Suspended, its device is being reset, or a job whose time was up has not left the hardware.
    Suspended,
}

/// A queue's change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueChange {
    /// Made.
    Opened,
    /// Starts nothing for now.
    Suspended,
    /// Starts jobs again.
    Resumed,
    /// Accepts nothing more.
    Closed,
    /// Closed and empty.
    Drained,
}

/// The steps by which a job is taken off the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Escalation {
    /// Its timeout expired; the driver was asked.
    TimedOut,
    /// The driver was asked to cancel it.
    Cancel,
    /// Its engine is being reset.
    EngineReset,
    /// The device is being reset.
    DeviceReset,
    /// The device is given up.
    Lost,
}

/// A device's change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChange {
    /// A reset began.
    Resetting,
    /// It worked: nothing of what it covered runs any more.
    Quiesced,
    /// Gone: unplugged or beyond repair.
    Lost,
    /// DMA of that many bytes' jobs cannot be excluded.
    Quarantined {
        /// Bytes now in quarantine.
        bytes: u64,
    },
}

/// Receives events.
///
/// Called in the signalling path: must not allocate, block, panic, or call into the library.
pub trait Record: Send + Sync + 'static {
    /// `event` happened at `at` on the executor's clock.
    fn record(&self, at: Time, event: Event);
}

pub(crate) struct Recorder(HeapBox<dyn Record>);

impl Recorder {
    pub(crate) fn try_new(recorder: impl Record) -> Result<Self, AllocError> {
        let recorder: HeapBox<dyn Record> = try_box(recorder).map_err(|(error, _)| error)?;
        Ok(Self(recorder))
    }

    pub(crate) fn record(&self, at: Time, event: Event) {
        self.0.record(at, event);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl crate::exec::hub::Hub {
    /// The hook: a load and a branch when nobody records.
    #[inline]
    pub(crate) fn trace(&self, event: impl FnOnce() -> Event) {
        if self.recorder.is_some() {
            self.record(event);
        }
    }

    /// Apart, so that who is not recorded pays for nothing else.
    #[cold]
    #[inline(never)]
    fn record(&self, event: impl FnOnce() -> Event) {
        if let Some(recorder) = &self.recorder {
            recorder.record(self.now(), event());
        }
    }
}
