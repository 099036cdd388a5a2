//! One life of a client: from its coming to the retirement of its last job. A client that is started again gets another.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use outlive::{Fence, FenceError, JobFences, OnError, Status, Time};
use outlive_sim::driver::{Buffer, Piece, SimClient};
use outlive_sim::gpu::JobId;

use crate::report::Outcome;
use crate::scenario::memory;

/// What a job waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) job: JobFences,
    pub(super) on_error: OnError,
}

impl Wait {
    /// When it was over, if it was and let the job go on.
    fn met_ns(&self) -> Option<u64> {
        let finished = self.job.finished();
        let met = match (finished.status(), self.on_error) {
            (Status::Signaled(Ok(())), _) => finished.timestamp(),
            (Status::Signaled(Err(_)), OnError::Run) => self.job.retired().timestamp(),
            _ => None,
        };
        met.map(Time::as_ns)
    }
}

/// All that a job waits for. Most wait for one at most, which needs no list.
#[derive(Debug, Default)]
pub(super) struct Waits {
    first: Option<Wait>,
    more: Vec<Wait>,
}

impl Waits {
    pub(super) fn push(&mut self, wait: Wait) {
        match self.first {
            None => self.first = Some(wait),
            Some(_) => self.more.push(wait),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Wait> {
        self.first.iter().chain(&self.more)
    }
}

/// A job that was committed.
#[derive(Debug)]
pub(super) struct OpenJob {
    pub(super) id: JobId,
    pub(super) cycle: u64,
    /// How many jobs the cycle has.
    pub(super) cycle_jobs: u32,
    /// Over all lives, from 1.
    pub(super) number: u64,
    pub(super) committed_ns: u64,
    pub(super) finished: Fence,
    pub(super) retired: Fence,
    pub(super) waits: Waits,
    /// What it draws, if somebody wants it.
    pub(super) picture: Option<Arc<Buffer>>,
}

impl OpenJob {
    /// When all it depended on was done; absent if something failed it first.
    pub(super) fn ready_ns(&self) -> Option<u64> {
        if self.outcome() == Outcome::Dependency {
            return None;
        }
        self.waits.iter().map(Wait::met_ns).try_fold(self.committed_ns, |latest, met| Some(latest.max(met?)))
    }

    pub(super) fn finished_ns(&self) -> u64 {
        self.finished.timestamp().map_or(self.committed_ns, Time::as_ns)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self.finished.status() {
            Status::Signaled(Ok(())) => Outcome::Ok,
            Status::Signaled(Err(FenceError::TimedOut)) => Outcome::TimedOut,
            Status::Signaled(Err(FenceError::DeviceLost)) => Outcome::DeviceLost,
            Status::Signaled(Err(FenceError::Faulted { .. } | FenceError::DriverBug)) => Outcome::Faulted,
            Status::Signaled(Err(FenceError::Innocent)) => Outcome::Innocent,
            Status::Signaled(Err(FenceError::Dependency(_))) => Outcome::Dependency,
            // What never signaled is the audit's to tell; it did not end well.
            _ => Outcome::Canceled,
        }
    }
}

/// Persistent buffers that a job works on, at most.
const PIECES: usize = memory::PIECES_OF_JOB as usize;

/// One life.
#[derive(Debug)]
pub(super) struct Life {
    /// Its handles, until it dies.
    pub(super) client: Option<SimClient>,
    /// Jobs that have not retired or were not taken yet, in the order of their commits.
    jobs: VecDeque<OpenJob>,
    /// So many of them, from the front, have finished.
    finished: usize,
    /// The job before the next.
    pub(super) last: Option<JobFences>,
    pub(super) suspended: bool,
    /// What the jobs of requests share.
    pub(super) shared: Shared,
    /// Its persistent buffers.
    pub(super) pieces: Vec<Arc<Piece>>,
}

/// What the jobs of a client's requests share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What they work on.
    pub(super) data: Option<Arc<Buffer>>,
    /// The commands of one request.
    pub(super) commands: Option<Arc<Buffer>>,
}

impl Life {
    pub(super) const fn new(client: SimClient, pieces: Vec<Arc<Piece>>) -> Self {
        let shared = Shared { data: None, commands: None };
        let jobs = VecDeque::new();
        Self { client: Some(client), jobs, finished: 0, last: None, suspended: false, shared, pieces }
    }

    /// Those that its job `number` works on: in turn, and another half way round from there.
    pub(super) fn pieces_of(&self, number: u64) -> Vec<Arc<Piece>> {
        let count = self.pieces.len();
        let first = usize::try_from(number).unwrap_or(0).checked_rem(count);
        let places = first.into_iter().flat_map(|first| [first, (first + count / 2) % count]);
        // One that has only one of them works on that.
        places.take(count.min(PIECES)).map(|place| Arc::clone(&self.pieces[place])).collect()
    }

    /// How often its persistent buffers were moved out of the device's memory, and back.
    pub(super) fn moves(&self) -> (u64, u64) {
        let moves = self.pieces.iter().map(|piece| (piece.bo().evictions(), piece.bo().restores()));
        moves.fold((0, 0), |sum, moves| (sum.0 + moves.0, sum.1 + moves.1))
    }

    pub(super) fn add(&mut self, job: OpenJob, fences: JobFences) {
        self.jobs.push_back(job);
        self.last = Some(fences);
    }

    /// Jobs committed and not finished. A queue's jobs finish in order.
    pub(super) fn unfinished(&mut self) -> usize {
        while self.jobs.get(self.finished).is_some_and(|job| job.finished.is_signaled()) {
            self.finished += 1;
        }
        self.jobs.len() - self.finished
    }

    /// The fence after which at most `most` are unfinished; nothing if no more are.
    pub(super) fn fence_until(&self, most: usize) -> Option<&Fence> {
        let unfinished = self.jobs.len() - self.finished;
        let over = unfinished.checked_sub(most)?.checked_sub(1)?;
        self.jobs.get(self.finished + over).map(|job| &job.finished)
    }

    /// The retirement that comes next; nothing if no job is outstanding.
    pub(super) fn next_retirement(&self) -> Option<&Fence> {
        self.jobs.front().map(|job| &job.retired)
    }

    /// The retirement that comes last; nothing if no job is outstanding.
    pub(super) fn last_retirement(&self) -> Option<&Fence> {
        self.jobs.back().map(|job| &job.retired)
    }

    /// The oldest job, if it has retired. A queue's jobs retire in order.
    pub(super) fn take_retired(&mut self) -> Option<OpenJob> {
        if !self.jobs.front()?.retired.is_signaled() {
            return None;
        }
        self.finished = self.finished.saturating_sub(1);
        self.jobs.pop_front()
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }
}
