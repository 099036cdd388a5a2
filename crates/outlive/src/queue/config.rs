//! What a submitter says: the queue it wants, the job, its dependencies. Plain values: nothing here locks or waits.

use crate::device::Principal;
use crate::fence::{Fence, FenceError, Retired};
use crate::mem::shared::Ref;
use crate::sched::{Arbiter, ArbiterShared, Priority, Share};
use core::time::Duration;

/// The longest any limit of a queue may be, 10 s, so that every fence is finite (rule 2).
pub const LIMIT_MAX: Duration = Duration::from_secs(10);

/// How a queue is made; see each method for the default.
#[derive(Debug)]
pub struct QueueConfig {
    pub(crate) name: &'static str,
    pub(crate) credits: u32,
    pub(crate) client: u64,
    pub(crate) engine: u8,
    pub(crate) share: Share,
    pub(crate) timeout: Duration,
    pub(crate) progress_cap: Duration,
    pub(crate) drain: Duration,
    pub(crate) suspend_limit: Duration,
    pub(crate) preempt_timeout: Duration,
    pub(crate) pipelined: bool,
    pub(crate) bypass: bool,
    pub(crate) principal: Option<Principal>,
    pub(crate) arbiter: Option<Ref<ArbiterShared>>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self::new("queue")
    }
}

impl QueueConfig {
    /// A queue called `name`, with 64 credits, a timeout of 2 s, normal priority, and bypass.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            credits: 64,
            client: 0,
            engine: 0,
            share: Share { group: 0, group_weight: 100, weight: 100, priority: Priority::Normal },
            timeout: Duration::from_secs(2),
            progress_cap: LIMIT_MAX,
            drain: Duration::from_secs(2),
            suspend_limit: LIMIT_MAX,
            preempt_timeout: Duration::from_secs(1),
            pipelined: false,
            bypass: true,
            principal: None,
            arbiter: None,
        }
    }

    /// Its size: jobs on the hardware hold credits that add up to at most this. Default 64.
    #[must_use]
    pub const fn credits(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    /// Whose it is: decides the default [`OnError`] of a dependency. Default 0, which is nobody's and equal to no other.
    #[must_use]
    pub const fn client(mut self, client: u64) -> Self {
        self.client = client;
        self
    }

    /// The kind of engine its jobs run on, below [`ENGINES_MAX`](crate::ENGINES_MAX): a client's hardware time is told apart
    /// by it. Default 0.
    #[must_use]
    pub const fn engine(mut self, engine: u8) -> Self {
        self.engine = engine;
        self
    }

    /// The group that fair shares go to first. Default 0: a group of its own.
    #[must_use]
    pub const fn group(mut self, group: u64) -> Self {
        self.share.group = group;
        self
    }

    /// The weight of the whole group, from 1 to [`WEIGHT_MAX`](crate::sched::WEIGHT_MAX): what the queue that joined it last
    /// said counts. Default 100.
    #[must_use]
    pub const fn group_weight(mut self, weight: u32) -> Self {
        self.share.group_weight = weight;
        self
    }

    /// For an arbiter; changeable later. Default normal.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.share.priority = priority;
        self
    }

    /// Share within its group, from 1 to [`WEIGHT_MAX`](crate::sched::WEIGHT_MAX), for an arbiter; changeable later. Default
    /// 100.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.share.weight = weight;
        self
    }

    /// Hardware time a job may take from its start, unless it says otherwise. Zero, or more than [`LIMIT_MAX`]: the
    /// device's watchdog of [`LIMIT_MAX`]. Default 2 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long reported progress may extend a job in all, from its start. At most, and by default, [`LIMIT_MAX`].
    #[must_use]
    pub const fn progress_cap(mut self, cap: Duration) -> Self {
        self.progress_cap = cap;
        self
    }

    /// How long a job of a closed queue may stay on the hardware before it is cancelled, one of a suspended queue before it is
    /// treated as over its timeout. At most [`LIMIT_MAX`]; default 2 s.
    #[must_use]
    pub const fn drain_timeout(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// How long a suspension may last before the waiting jobs fail `TimedOut`. At most, and by default, [`LIMIT_MAX`].
    #[must_use]
    pub const fn suspend_limit(mut self, limit: Duration) -> Self {
        self.suspend_limit = limit;
        self
    }

    /// For a long-running queue: how long the driver may take to take its context off the hardware, before the queue is closed
    /// and its jobs are taken off by force. At most [`LIMIT_MAX`], which leaves no time for the force; default 1 s.
    #[must_use]
    pub const fn preempt_timeout(mut self, timeout: Duration) -> Self {
        self.preempt_timeout = timeout;
        self
    }

    /// Promises that the hardware executes this queue's jobs strictly in order, so that a dependency on an earlier job of the
    /// same queue (the newest, if several are named) needs no wait at all: it is handed over behind that one, and fails when
    /// it ends if that one failed. Default false: it starts when that one has finished.
    #[must_use]
    pub const fn pipelined(mut self, pipelined: bool) -> Self {
        self.pipelined = pipelined;
        self
    }

    /// Whether a job with nothing to wait for runs in its submitter's thread. Default true.
    #[must_use]
    pub const fn bypass(mut self, bypass: bool) -> Self {
        self.bypass = bypass;
        self
    }

    /// Who is charged for its jobs until they have retired. Default nobody.
    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// Starts its jobs in turn with other queues of `arbiter`, and with credits of its pool besides its own: no more of them
    /// than the pool has. Default: none, firmware mode.
    #[must_use]
    pub fn arbiter(mut self, arbiter: &Arbiter) -> Self {
        self.arbiter = Some(arbiter.shared().clone());
        self
    }

    pub(crate) fn clamp(mut self) -> Self {
        if let Some(arbiter) = &self.arbiter {
            self.credits = self.credits.min(arbiter.credits());
        }
        if self.timeout.is_zero() || self.timeout > LIMIT_MAX {
            self.timeout = LIMIT_MAX;
        }
        self.progress_cap = self.progress_cap.min(LIMIT_MAX);
        self.drain = self.drain.min(LIMIT_MAX);
        self.suspend_limit = self.suspend_limit.min(LIMIT_MAX);
        self.preempt_timeout = self.preempt_timeout.min(LIMIT_MAX);
        self
    }
}

/// A job as its submitter describes it: a payload (what must stay as it is until the hardware is done: buffers, mappings,
/// commands) and its size.
#[derive(Debug)]
pub struct Job<P> {
    pub(crate) payload: P,
    pub(crate) credits: u32,
    pub(crate) bytes: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) user_waits: u16,
}

impl<P> Job<P> {
    /// One credit, no bytes, the queue's timeout.
    #[must_use]
    pub const fn new(payload: P) -> Self {
        Self { payload, credits: 1, bytes: 0, timeout: None, user_waits: 0 }
    }

    /// Credits it holds from `run` until the hardware is done with it; at least 1, at most the queue's.
    #[must_use]
    pub const fn credits(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    /// Bytes charged to the queue's principal until it has retired.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Its own timeout instead of the queue's. Zero, or more than [`LIMIT_MAX`]: [`LIMIT_MAX`].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Room for that many user fences in [`commit_when`](crate::Reserved::commit_when).
    #[must_use]
    pub const fn user_waits(mut self, count: u16) -> Self {
        self.user_waits = count;
        self
    }
}

impl<P> From<P> for Job<P> {
    fn from(payload: P) -> Self {
        Self::new(payload)
    }
}

/// What a dependant does when a fence it depends on fails (rule 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Fails with [`FenceError::Dependency`].
    Fail,
    /// Runs all the same, after the failed job has retired, and may read the cause
    /// ([`JobCx::despite`](crate::JobCx::despite)). Where the hardware waits, and that job fails only then, it runs as soon as the
    /// hardware lets it.
    Run,
}

/// A fence that must have signaled before a job starts, and what its error means.
#[derive(Debug, Clone)]
pub struct Dependency {
    pub(crate) fence: Fence,
    pub(crate) on_error: Option<OnError>,
    pub(crate) pipelined: bool,
}

impl Dependency {
    /// Default policy: fail for a fence of the same client, run for another's.
    #[must_use]
    pub const fn on(fence: Fence) -> Self {
        Self { fence, on_error: None, pipelined: false }
    }

    /// With an explicit policy.
    #[must_use]
    pub const fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = Some(on_error);
        self
    }

    /// On a job's [`finished`](crate::JobFences::finished), under the same arbiter, whose hardware executes in order
    /// ([`ArbiterConfig::in_order`](crate::sched::ArbiterConfig::in_order)): allows the dependant to be handed over behind that job
    /// as soon as it is on the hardware, without a round trip through the CPU. Never after it has failed; if it fails later, the
    /// dependant's `finished` says so, unless it runs in spite of errors. On any other fence this changes nothing. Default: it
    /// starts when the fence has signaled. (`drm_sched` does this unasked, unless the producer forbids it with
    /// `DRM_SCHED_FENCE_DONT_PIPELINE`.)
    #[must_use]
    pub const fn pipelined(mut self) -> Self {
        self.pipelined = true;
        self
    }
}

impl From<Fence> for Dependency {
    fn from(fence: Fence) -> Self {
        Self::on(fence)
    }
}

impl From<&Fence> for Dependency {
    fn from(fence: &Fence) -> Self {
        Self::on(fence.clone())
    }
}

impl From<&Retired> for Dependency {
    fn from(retired: &Retired) -> Self {
        Self::on(Fence::clone(retired))
    }
}

/// The verdict of a failed dependency.
pub(crate) fn dependency_failed(error: FenceError) -> Result<(), FenceError> {
    Err(FenceError::Dependency(error.cause()))
}
