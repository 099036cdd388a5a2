//! The audit's ear on the library: events become observations, under numbers of the audit's own.
//!
//! Numbers of fence contexts differ from run to run of one process, so each gets a small number in the order in which
//! its queue was opened; then the same run gives the same words.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use outlive::Time;
use outlive::trace::{Blocked, Event, FenceId, QueueChange, Record};

use super::machine::{Machine, Shared};
use crate::gpu::checkers::ids::IdMap;
use crate::gpu::checkers::window::Window;
use crate::gpu::{Audit, FenceName, JobId, Observation, OrderedBy};

/// Violations kept in words, of those that the driver itself finds.
const WORDS_MAX: usize = 20;

/// Which of a job's fences a context issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Scheduled,
    Finished,
    Retired,
    /// A bare fence.
    Bare,
}

/// A context whose fences are watched.
#[derive(Debug)]
struct Watched {
    /// The audit's own number for it.
    number: u64,
    slot: Slot,
    /// Fences that were published and have not signaled.
    open: u32,
    /// Its queue is closed and empty; it goes with its last fence.
    ended: bool,
    /// Of bare fences: the newest that was published, as far as the audit was told, and those that signaled before it was.
    newest: u64,
    early: Vec<u64>,
    /// Of `retired` fences: their jobs, until they signal.
    jobs: Window<Committed>,
}

/// A job that was committed and has not retired.
#[derive(Debug, Default)]
struct Committed {
    credits: u32,
    /// `finished` fences of jobs that go before it: the first, and more.
    behind: Option<FenceId>,
    more_behind: Vec<FenceId>,
    /// Its name for the checkers, once it was on a ring.
    name: Option<JobId>,
}

/// What the audit remembers of the library's events.
#[derive(Debug, Default)]
pub(crate) struct Books {
    contexts: IdMap<u64, Watched>,
    next_context: u64,
    /// By the library's number of a queue: credits that it withheld though nobody had them.
    withheld: BTreeMap<u64, u64>,
    overdrawn: u64,
    /// Credits that all rings share, if the audit was told.
    pub(crate) pool: Option<u32>,
    words: Vec<String>,
}

impl Books {
    fn add_words(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words());
        }
    }

    /// Watches a context from now on, under a small number.
    fn watch(&mut self, context: u64, slot: Slot) {
        if !self.contexts.contains_key(&context) {
            let (number, newest, early, jobs) = (self.next_context, 0, Vec::new(), Window::default());
            self.contexts.insert(context, Watched { number, slot, open: 0, ended: false, newest, early, jobs });
            self.next_context += 1;
        }
    }

    /// The `finished` fence of the job of which `fence` is the `finished` or `retired` one.
    fn job_behind(&self, fence: FenceId) -> Option<FenceId> {
        match self.contexts.get(&fence.context)?.slot {
            Slot::Finished => Some(fence),
            Slot::Retired => Some(FenceId { context: fence.context - 1, ..fence }),
            Slot::Scheduled | Slot::Bare => None,
        }
    }

    /// The jobs of the queue of one whose `finished` fence is given. They are kept with the last of its fences to signal.
    fn jobs_of(&mut self, finished: FenceId) -> Option<&mut Window<Committed>> {
        self.contexts.get_mut(&(finished.context + 1)).map(|watched| &mut watched.jobs)
    }

    /// The job whose `finished` fence is given.
    fn job(&self, finished: FenceId) -> Option<&Committed> {
        self.contexts.get(&(finished.context + 1))?.jobs.get(finished.seqno)
    }

    /// As [`Books::job`]; a new one if there is none, unless its queue is not known.
    fn job_or_new(&mut self, finished: FenceId) -> Option<&mut Committed> {
        Some(self.jobs_of(finished)?.entry(finished.seqno))
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let jobs: usize = self.contexts.values().map(|watched| watched.jobs.len()).sum();
        self.contexts.len() + jobs + self.withheld.len() + self.words.len()
    }

    /// Something that one may have has two.
    pub(crate) fn taken_twice(&mut self, words: impl FnOnce() -> String) {
        self.overdrawn += 1;
        self.add_words(words);
    }

    /// Adds what the driver itself found to what the checkers did.
    pub(crate) fn finish(&self, audit: &mut Audit) {
        audit.leases_leaked += self.withheld.values().sum::<u64>() + self.overdrawn;
        let room = crate::gpu::checkers::VIOLATIONS_MAX.saturating_sub(audit.violations.len());
        audit.violations.extend(self.words.iter().take(room).cloned());
    }
}

impl Machine {
    /// Bare fences of this context will be watched.
    pub(crate) fn context_made(&mut self, context: u64) {
        self.books.watch(context, Slot::Bare);
    }

    /// A bare fence was published: it is to signal, once. It may have done so already.
    pub(crate) fn fence_published(&mut self, fence: FenceId) {
        self.context_made(fence.context);
        self.created(fence);
        let Some(watched) = self.books.contexts.get_mut(&fence.context) else { return };
        watched.newest = watched.newest.max(fence.seqno);
        if let Some(at) = watched.early.iter().position(|seqno| *seqno == fence.seqno) {
            watched.early.swap_remove(at);
            self.signaled(fence);
        }
    }

    fn created(&mut self, fence: FenceId) {
        let Some(watched) = self.books.contexts.get_mut(&fence.context) else { return };
        watched.open += 1;
        let fence = FenceName { context: watched.number, seqno: fence.seqno };
        self.observe(Observation::FenceCreated { fence });
    }

    /// A queue's contexts, of which something will be heard.
    fn queue_heard_of(&mut self, queue: u64) {
        if self.books.contexts.contains_key(&queue) {
            return;
        }
        for (context, slot) in [(queue, Slot::Scheduled), (queue + 1, Slot::Finished), (queue + 2, Slot::Retired)] {
            self.books.watch(context, slot);
        }
        // A job that will not run keeps its `scheduled` until its turn to finish; later ones start meanwhile.
        if let Some(context) = self.books.contexts.get(&queue).map(|watched| watched.number) {
            self.observe(Observation::Unordered { context });
        }
    }

    /// A queue is closed and empty. A reservation may still be committed, and its fences will fail.
    fn queue_drained(&mut self, queue: u64) {
        for context in [queue, queue + 1, queue + 2] {
            if let Some(watched) = self.books.contexts.get_mut(&context) {
                watched.ended = true;
            }
            self.forget_ended(context);
        }
    }

    fn forget_ended(&mut self, context: u64) {
        if let Some(Watched { number, open: 0, ended: true, .. }) = self.books.contexts.get(&context) {
            let number = *number;
            self.books.contexts.remove(&context);
            self.observe(Observation::ContextClosed { context: number });
        }
    }

    /// A job is about to be put on a ring: from here on it has a name, and so do those that go before it.
    pub(crate) fn job_named(&mut self, finished: FenceId, job: JobId) {
        let Some(entry) = self.books.job_or_new(finished) else { return };
        entry.name = Some(job);
        let behind = (entry.behind.take(), core::mem::take(&mut entry.more_behind));
        for earlier in behind.0.into_iter().chain(behind.1) {
            if let Some(before) = self.books.job(earlier).and_then(|earlier| earlier.name) {
                self.observe(Observation::Ordered { before, after: job, by: OrderedBy::Host });
            }
        }
    }

    /// A job was started although the ring's size does not allow it.
    pub(crate) fn overdrawn(&mut self, job: JobId, held: u32, size: u32) {
        self.books.overdrawn += 1;
        let now = self.now;
        self.books.add_words(|| format!("{now}: {job} makes {held} credits held of {size}"));
    }

    fn heard(&mut self, event: &Event) {
        match *event {
            Event::Queue { context, change: QueueChange::Opened } => self.queue_heard_of(context),
            Event::Queue { context, change: QueueChange::Drained } => self.queue_drained(context),
            Event::JobQueued { job, credits, .. } => {
                self.queue_heard_of(job.context - 1);
                if let Some(entry) = self.books.job_or_new(job) {
                    entry.credits = credits;
                }
                for context in [job.context - 1, job.context, job.context + 1] {
                    self.created(FenceId { context, ..job });
                }
            }
            Event::JobDependency { job, on } => {
                let earlier = self.books.job_behind(on);
                if let Some((earlier, entry)) = earlier.and_then(|earlier| Some((earlier, self.books.job_or_new(job)?)))
                {
                    match entry.behind {
                        None => entry.behind = Some(earlier),
                        Some(_) => entry.more_behind.push(earlier),
                    }
                }
            }
            Event::JobBlocked { job, reason: Blocked::Credits } => self.held_back(job),
            Event::FenceSignaled { fence, .. } => self.signaled(fence),
            _ => {}
        }
    }

    fn signaled(&mut self, fence: FenceId) {
        // What was cancelled before its commit was never published, and has no number.
        let watched = self.books.contexts.get_mut(&fence.context).filter(|_| fence.seqno > 0);
        let Some(watched) = watched else { return };
        let slot = watched.slot;
        if slot == Slot::Bare && fence.seqno > watched.newest {
            watched.early.push(fence.seqno);
            return;
        }
        watched.open = watched.open.saturating_sub(1);
        if slot == Slot::Retired {
            watched.jobs.remove(fence.seqno);
        }
        let name = FenceName { context: watched.number, seqno: fence.seqno };
        self.observe(Observation::FenceSignaled { fence: name });
        self.forget_ended(fence.context);
    }

    /// The library holds a job back for want of credits. By the ring's own book, is it right?
    fn held_back(&mut self, job: FenceId) {
        let wanted = self.books.job(job).map_or(0, |job| job.credits);
        let queue = job.context - 1;
        let Some((_, ring)) = self.all_units().find_map(|unit| unit.ring_of(queue)) else { return };
        let free = ring.credits.saturating_sub(ring.held);
        if wanted == 0 || wanted > free {
            return;
        }
        let (queue, held, size) = (ring.queue, ring.held, ring.credits);
        let missing = u64::from(free - wanted + 1);
        let withheld = self.books.withheld.entry(queue).or_default();
        let grown = missing > *withheld;
        *withheld = missing.max(*withheld);
        if grown {
            let now = self.now;
            self.books.add_words(|| {
                format!("{now}: a job of {wanted} credits is held back though only {held} of {size} are on the ring")
            });
        }
    }
}

/// Whether [`Machine::heard`] does anything with it: most events are not worth a lock.
const fn concerns_the_audit(event: &Event) -> bool {
    matches!(
        event,
        Event::Queue { change: QueueChange::Opened | QueueChange::Drained, .. }
            | Event::JobQueued { .. }
            | Event::JobDependency { .. }
            | Event::JobBlocked { reason: Blocked::Credits, .. }
            | Event::FenceSignaled { .. }
    )
}

/// Hears the library's events, and passes them on.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    next: Option<Box<dyn Record>>,
}

impl Listener {
    pub(crate) fn new(shared: Arc<Shared>, next: Option<Box<dyn Record>>) -> Self {
        Self { shared, next }
    }
}

impl Record for Listener {
    fn record(&self, at: Time, event: Event) {
        if concerns_the_audit(&event) {
            self.shared.lock().heard(&event);
        }
        if let Some(next) = &self.next {
            next.record(at, event);
        }
    }
}
