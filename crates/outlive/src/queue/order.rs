//! The order of a queue's jobs, and what may happen next: a plain state machine, without lock, thread or clock.
//!
//! # States
//! One list, in sequence order, of all jobs from the oldest that is not retired to the newest committed, and two cursors:
//! ```text
//!   front ......... next_finish ......... next_start ......... tail
//!   finished,       started (or skipped), waiting
//!   not retired     not finished
//! ```
//! Jobs start, finish and retire in this order, so each cursor only moves towards the tail. *Taking* a job means moving
//! the cursor past it; the caller then acts on it outside the queue's lock, and is the only one who does.
//!
//! # Guarantee
//! No overtaking: the job at `next_start` starts or nothing does. `finished` and `retired` each come in sequence order.
#![expect(unsafe_code, reason = "an intrusive order; docs/unsafe.md, `queue::order`")]

use super::config::dependency_failed;
use super::deps;
use super::disposal::Hardware;
use super::job::{Cells, JobCore, Stage, Step};
use super::long::LongState;
use super::native;
use super::turn::Turn;
use crate::exec::timer::Timer;
use crate::fence::{Fence, FenceError, Slot, Status};
use crate::mem::list::List;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use crate::trace::Blocked;
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

/// Everything under a queue's lock.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a queue, each with its own line")]
pub(crate) struct QueueState {
    order: List,
    next_finish: Option<NonNull<JobCore>>,
    next_start: Option<NonNull<JobCore>>,
    /// Reserved jobs that wait for user fences.
    pub(crate) pending: List,
    /// The one of them that is being committed: in no list for a moment.
    pub(crate) committing: Option<NonNull<JobCore>>,
    /// Retired jobs whose payload is to be dropped.
    pub(crate) dead: List,
    pub(crate) last_seqno: u64,
    pub(crate) credits_free: u32,
    /// Committed jobs that have not finished.
    pub(crate) depth: u32,
    /// Committed or pending jobs that have not been reaped, those in quarantine left out.
    pub(crate) unreaped: u64,
    /// Accepts nothing more.
    pub(crate) closed: bool,
    /// Its principal was banned when somebody looked.
    pub(crate) banned: bool,
    /// What waiting jobs fail with, if they may not start any more.
    pub(crate) refuse: Option<FenceError>,
    /// What running jobs fail with, if nobody is interested in them any more.
    pub(crate) refuse_running: Option<FenceError>,
    pub(crate) suspended_at: Option<Time>,
    /// Its device holds it for a reset.
    pub(crate) held: bool,
    /// Jobs whose time was up and that have not left the hardware. What was started behind them would be lost to the reset
    /// that may follow, so nothing is.
    overdue: u32,
    /// How it stands with its arbiter.
    pub(crate) turn: Turn,
    /// Since when the head could have started but for what stops it now, if that is known.
    pub(crate) ready_since: Option<Time>,
    /// Somebody is starting jobs or calling the driver for this queue.
    pub(crate) token: bool,
    /// The lane wanted the token meanwhile.
    pub(crate) token_wanted: bool,
    /// It wanted it for jobs whose time is over.
    pub(crate) token_late: bool,
    /// Somebody is signalling fences of this queue.
    pub(crate) passing: bool,
    /// The reaper has been told.
    pub(crate) reap_queued: bool,
    /// Some settled job may still hold what `acquire` took: see `QueueShared::release_settled`.
    pub(crate) release: bool,
    /// Running jobs are to get their drain deadline.
    pub(crate) drain: bool,
    /// `drained` has been signaled.
    pub(crate) drained: bool,
    /// What `acquire` named, while its head waits for it.
    pub(crate) resource: Option<Fence>,
    /// How often in a row `acquire` named a fence that had signaled.
    pub(crate) resource_spins: u32,
    /// Since when the job clock stands still.
    pub(crate) clock_paused: Option<Time>,
    /// The earliest `due` of a running or pending job, or earlier.
    pub(crate) next_due: Time,
    pub(crate) timer: Timer,
    /// Where it is a long-running queue.
    pub(crate) long: Option<LongState>,
}

// SAFETY: the pointers are to jobs in this queue's lists, and go with the lock.
unsafe impl Send for QueueState {}

/// What the start cursor says.
#[derive(Debug)]
pub(crate) enum Next {
    /// No job waits, or none may start any more.
    Nothing,
    /// The head cannot start now.
    Blocked(Blocked),
    /// The head has been decided: it is passed over.
    Skip,
    /// The head may start.
    Start(NonNull<JobCore>),
}

impl QueueState {
    pub(crate) fn new(credits: u32, timer: Timer, long: Option<LongState>) -> Self {
        Self {
            order: List::new(),
            next_finish: None,
            next_start: None,
            pending: List::new(),
            committing: None,
            dead: List::new(),
            last_seqno: 0,
            credits_free: credits,
            depth: 0,
            unreaped: 0,
            closed: false,
            banned: false,
            refuse: None,
            refuse_running: None,
            suspended_at: None,
            held: false,
            overdue: 0,
            turn: Turn::Idle,
            ready_since: None,
            token: false,
            token_wanted: false,
            token_late: false,
            passing: false,
            reap_queued: false,
            release: false,
            drain: false,
            drained: false,
            resource: None,
            resource_spins: 0,
            clock_paused: None,
            next_due: Time::NEVER,
            timer,
            long,
        }
    }

    /// A job's cells: the lock on `self` is the lock on them.
    #[expect(clippy::mut_from_ref, clippy::unused_self, reason = "the borrow of the state is the evidence of the lock")]
    pub(crate) fn cells(&self, job: NonNull<JobCore>) -> &mut Cells {
        // SAFETY: the job is in a list of this queue, hence alive, and its lock is held. Callers do not keep two borrows of
        // one job's cells.
        unsafe { JobCore::cells(job) }
    }

    fn core(&self, job: NonNull<JobCore>) -> &JobCore {
        let _ = &self.order;
        // SAFETY: the job is in a list of this queue, hence alive.
        unsafe { job.as_ref() }
    }

    /// Appends a job that was just given its number. The list takes over a count of the block.
    pub(crate) fn push(&mut self, job: NonNull<JobCore>) {
        // SAFETY: in no list; counted; the lock is held.
        unsafe { self.order.push_back(job.cast()) };
        self.next_finish.get_or_insert(job);
        self.next_start.get_or_insert(job);
        self.depth += 1;
        self.unreaped += 1;
    }

    pub(crate) fn next_start(&self) -> Option<NonNull<JobCore>> {
        self.next_start
    }

    pub(crate) fn next_finish(&self) -> Option<NonNull<JobCore>> {
        self.next_finish
    }

    /// The job after `job`, in order.
    pub(crate) fn after(&self, job: NonNull<JobCore>) -> Option<NonNull<JobCore>> {
        // SAFETY: in the order, whose lock is held.
        unsafe { self.order.next(job.cast()) }.map(JobCore::from_link)
    }

    /// One of the fences that `job`, which is waiting, waits for; the last few of very many are not looked for.
    pub(crate) fn awaited(&self, job: NonNull<JobCore>, pipelined: bool) -> Option<Fence> {
        let _ = &self.order;
        // SAFETY: in a list of this queue, whose lock is held: committed or pending, and not reaped.
        let of_others = unsafe { deps::first_armed(job) };
        // SAFETY: as above.
        let own = unsafe { JobCore::own(job) }.filter(|_| !pipelined);
        of_others.or_else(|| match own?.status() {
            Status::Pending => own.cloned(),
            Status::Signaled(_) => Some(own?.sibling(Slot::Retired)),
        })
    }

    pub(crate) fn front(&self) -> Option<NonNull<JobCore>> {
        self.order.front().map(JobCore::from_link)
    }

    /// Whether the head may start. Does not ask for credits or a turn: see `QueueShared::next`.
    pub(crate) fn peek(&self, pipelined: bool) -> Next {
        let Some(job) = self.next_start else { return Next::Nothing };
        if self.refuse.is_some() && !sabotage::is(Sabotage::StartAfterClose) {
            return Next::Nothing;
        }
        if self.suspended_at.is_some() || self.held || self.overdue > 0 || self.is_parked() {
            return Next::Blocked(Blocked::Suspended);
        }
        // ORDERING: Acquire pairs with the last `count_down`: the verdict of a failed dependency is seen.
        let waiting = self.core(job).waiting.load(Ordering::Acquire);
        if waiting > 0 {
            return Next::Blocked(Blocked::Dependencies(waiting));
        }
        if let Some(resource) = &self.resource {
            return Next::Blocked(Blocked::Resource(resource.id()));
        }
        if self.core(job).disposal.verdict().is_some() {
            return Next::Skip;
        }
        if self.cells(job).flags.native {
            // SAFETY: waiting in the order, whose lock is held.
            match unsafe { native::before_start(job) } {
                Ok(0) => {}
                Ok(waiting) => return Next::Blocked(Blocked::Dependencies(waiting)),
                Err(error) => {
                    self.core(job).disposal.decide(dependency_failed(error));
                    return Next::Skip;
                }
            }
        }
        self.own_dependency(job, pipelined)
    }

    /// The dependency on an earlier job of the same queue: no node, just a look at its fence.
    fn own_dependency(&self, job: NonNull<JobCore>, pipelined: bool) -> Next {
        // SAFETY: written before the commit, read under the queue's lock, taken by reaping.
        let Some(own) = (unsafe { JobCore::own(job) }) else { return Next::Start(job) };
        let mut status = own.status();
        if pipelined && status == Status::Pending {
            // It may have failed, and wait for its predecessors to say so.
            // SAFETY: a fence of this queue is a job's, and counts its block.
            if let Some(verdict @ Err(_)) = unsafe { JobCore::of(own).as_ref() }.disposal.verdict() {
                status = Status::Signaled(verdict);
            }
        }
        if pipelined && !matches!(status, Status::Signaled(Err(_))) {
            self.cells(job).flags.native = true;
            return Next::Start(job);
        }
        match status {
            Status::Pending => Next::Blocked(Blocked::Dependencies(1)),
            Status::Signaled(Ok(())) => Next::Start(job),
            Status::Signaled(Err(error)) if self.cells(job).flags.own_fails => {
                self.core(job).disposal.decide(dependency_failed(error));
                Next::Skip
            }
            Status::Signaled(Err(_)) if own.sibling_status(Slot::Retired) != Status::Pending => Next::Start(job),
            Status::Signaled(Err(_)) => Next::Blocked(Blocked::Dependencies(1)),
        }
    }

    /// Moves the start cursor past its job, which will not run.
    pub(crate) fn skip(&mut self) {
        if let Some(job) = self.next_start {
            self.cells(job).flags.settled = true;
            self.next_start = self.after(job);
            self.ready_since = None;
        }
    }

    /// Moves the start cursor past its job, which is handed to the hardware. `now`: its start; the timeout begins. Says how
    /// long it could have before; from now on the next one can.
    pub(crate) fn start(&mut self, now: Time) -> Option<Duration> {
        let job = self.next_start?;
        let cells = self.cells(job);
        cells.stage = Stage::Running;
        cells.flags.busy = true;
        cells.started = now;
        cells.due = Time::from_ns(now.as_ns().saturating_add(cells.due.as_ns()));
        let credits = cells.credits;
        self.credits_free -= credits;
        self.turn = Turn::Idle;
        self.next_start = self.after(job);
        core::mem::replace(&mut self.ready_since, Some(now).filter(|_| self.next_start.is_some()))
            .map(|since| now.since(since))
    }

    /// The hardware is done with `job`, or it is given up: its credits come back, however early it is.
    pub(crate) fn settle(&mut self, job: NonNull<JobCore>, at: Time, active: Duration) {
        let overdue = core::mem::take(&mut self.cells(job).flags.overdue);
        self.overdue -= u32::from(overdue);
        let cells = self.cells(job);
        cells.flags.settled = true;
        cells.ended = at;
        cells.due = Time::ZERO.after(active);
        if !sabotage::is(Sabotage::LeakCredit) {
            self.credits_free += cells.credits;
        }
    }

    /// `job`'s time was up, and it is to leave the hardware: nothing starts until it has.
    pub(crate) fn hold_back(&mut self, job: NonNull<JobCore>) {
        let flags = &mut self.cells(job).flags;
        if !flags.settled && !core::mem::replace(&mut flags.overdue, true) {
            self.overdue += 1;
        }
    }

    /// Takes the job at the finish cursor, if there is a verdict or the queue gives it one, and returns it with the verdict.
    pub(crate) fn take_finish(&mut self, now: Time) -> Option<(NonNull<JobCore>, Result<(), FenceError>)> {
        let job = self.next_finish?;
        let cells = self.cells(job);
        if cells.flags.busy {
            return None;
        }
        let running = cells.stage == Stage::Running;
        let refuse = match running {
            true => self.refuse_running,
            false if sabotage::is(Sabotage::StartAfterClose) => None,
            false => self.refuse,
        };
        let disposal = &self.core(job).disposal;
        if disposal.verdict().is_none() {
            disposal.decide(Err(refuse?));
            self.cells(job).ended = now;
        }
        let verdict = self.core(job).disposal.verdict()?;
        let may_owe = running && self.cells(job).flags.native && native::counts(verdict);
        // SAFETY: on the hardware, hence in the order, whose lock is held.
        if may_owe && unsafe { native::before_end(job) } {
            return None;
        }
        if !running {
            // The one at the finish cursor is the one at the start cursor if it has not started: its predecessors have.
            if self.next_start == Some(job) {
                self.resource = None;
                self.skip();
            }
            self.cells(job).ended = now;
        }
        self.next_finish = self.after(job);
        self.depth -= 1;
        Some((job, verdict))
    }

    /// Takes the oldest job out if it has finished and the hardware cannot touch it any more (or that is given up).
    pub(crate) fn take_retire(&mut self) -> Option<(NonNull<JobCore>, Hardware)> {
        let job = self.front()?;
        if self.next_finish == Some(job) {
            return None;
        }
        let flags = self.cells(job).flags;
        let early = sabotage::is(Sabotage::ReleaseAtFinished) || (self.closed && sabotage::is(Sabotage::FreeAtClose));
        // A count in `waiting` belongs to somebody who still needs the queue: see `deps`.
        let owed = self.core(job).disposal.is_owed();
        let held = flags.acquired && !early;
        let idle = !flags.busy && !held && !owed && self.core(job).waiting.load(Ordering::Acquire) == 0;
        if !idle || !(flags.settled || early) {
            return None;
        }
        // SAFETY: the front of the order, whose lock is held.
        unsafe { self.order.remove(job.cast()) };
        Some((job, self.core(job).disposal.hardware()))
    }

    /// Calls `visit` with start and verdict of each job that the hardware has.
    pub(crate) fn each_on_hardware(&self, mut visit: impl FnMut(Time, Option<Result<(), FenceError>>)) {
        let mut at = self.front();
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start) {
            if self.core(job).disposal.hardware() == Hardware::On {
                visit(self.cells(job).started, self.core(job).disposal.verdict());
            }
            at = self.after(job);
        }
    }

    /// Gives running jobs their drain deadline: `by` at the latest.
    pub(crate) fn drain_running(&mut self, by: Time) {
        let mut at = self.front();
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start) {
            let cells = self.cells(job);
            if cells.stage == Stage::Running
                && !cells.flags.settled
                && cells.due > by
                && !sabotage::is(Sabotage::NoDrainDeadline)
            {
                cells.due = by;
            }
            at = self.after(job);
        }
        self.next_due = self.next_due.min(by);
    }

    /// The first running job, from `from` on (from the front, if `None`), whose time is over; and the earliest due time
    /// of those passed over.
    pub(crate) fn find_expired(&self, from: Option<NonNull<JobCore>>, now: Time) -> (Option<NonNull<JobCore>>, Time) {
        let mut earliest = Time::NEVER;
        let mut at = match from {
            Some(job) => self.after(job),
            None => self.front(),
        };
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start) {
            let cells = self.cells(job);
            if cells.stage == Stage::Running
                && !cells.flags.settled
                && cells.step != Step::Resetting
                && !cells.flags.busy
            {
                if cells.due <= now {
                    return (Some(job), earliest);
                }
                earliest = earliest.min(cells.due);
            }
            at = self.after(job);
        }
        (None, earliest)
    }

    /// The first settled job that still holds what `acquire` took, and that nobody has.
    pub(crate) fn find_unreleased(&self) -> Option<NonNull<JobCore>> {
        let mut at = self.front();
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start) {
            let flags = self.cells(job).flags;
            if flags.settled && flags.acquired && !flags.busy {
                return Some(job);
            }
            at = self.after(job);
        }
        None
    }

    /// Lets the job clock go on, if it stands still: the time it did does not count against running jobs. The next look
    /// finds the new earliest deadline.
    pub(crate) fn resume_clock(&mut self, now: Time) {
        let Some(since) = self.clock_paused.take() else { return };
        self.next_due = self.next_due.min(now);
        let mut at = self.front();
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start) {
            let cells = self.cells(job);
            if cells.stage == Stage::Running && cells.step == Step::Running && !cells.flags.settled {
                let by = now.since(since.max(cells.started));
                cells.due = cells.due.after(by);
                cells.started = cells.started.after(by);
            }
            at = self.after(job);
        }
    }
}

impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueState(seqno {}, depth {}, unreaped {})", self.last_seqno, self.depth, self.unreaped)
    }
}
