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

/// A job that was committed and has not retired.
#[derive(Debug, Default)]
struct Committed {
    credits: u32,
    /// `finished` fences of jobs that go before it.
    behind: Vec<FenceId>,
    /// Its name for the checkers, once it was on a ring.
    name: Option<JobId>,
}

/// What the audit remembers of the library's events.
#[derive(Debug, Default)]
pub(crate) struct Books {
    contexts: IdMap<u64, (u64, Slot)>,
    next_context: u64,
    jobs: IdMap<FenceId, Committed>,
    /// By the library's number of a queue: credits that it withheld though nobody had them.
    withheld: BTreeMap<u64, u64>,
    overdrawn: u64,
    words: Vec<String>,
}

impl Books {
    fn add_words(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words());
        }
    }

    /// A context whose fences are watched, and its small number.
    fn watch(&mut self, context: u64, slot: Slot) {
        let number = self.next_context;
        if self.contexts.insert(context, (number, slot)).is_none() {
            self.next_context += 1;
        }
    }

    fn name(&self, fence: FenceId) -> Option<(FenceName, Slot)> {
        let (context, slot) = *self.contexts.get(&fence.context)?;
        Some((FenceName { context, seqno: fence.seqno }, slot))
    }

    /// The `finished` fence of the job of which `fence` is the `finished` or `retired` one.
    fn job_behind(&self, fence: FenceId) -> Option<FenceId> {
        match self.contexts.get(&fence.context)?.1 {
            Slot::Finished => Some(fence),
            Slot::Retired => Some(FenceId { context: fence.context - 1, ..fence }),
            Slot::Scheduled | Slot::Bare => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.contexts.len() + self.jobs.len() + self.withheld.len() + self.words.len()
    }

    /// Adds what the driver itself found to what the checkers did.
    pub(crate) fn finish(&self, audit: &mut Audit) {
        audit.leases_leaked += self.withheld.values().sum::<u64>() + self.overdrawn;
        let room = crate::gpu::checkers::VIOLATIONS_MAX.saturating_sub(audit.violations.len());
        audit.violations.extend(self.words.iter().take(room).cloned());
    }
}

impl Machine {
    /// A bare fence was published: it is to signal, once.
    pub(crate) fn fence_published(&mut self, fence: FenceId) {
        if !self.books.contexts.contains_key(&fence.context) {
            self.books.watch(fence.context, Slot::Bare);
        }
        if let Some((fence, _)) = self.books.name(fence) {
            self.observe(Observation::FenceCreated { fence });
        }
    }

    /// A job is about to be put on a ring: from here on it has a name, and so do those that go before it.
    pub(crate) fn job_named(&mut self, finished: FenceId, job: JobId) {
        let entry = self.books.jobs.entry(finished).or_default();
        entry.name = Some(job);
        let behind = core::mem::take(&mut entry.behind);
        for earlier in behind {
            if let Some(before) = self.books.jobs.get(&earlier).and_then(|earlier| earlier.name) {
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
            Event::Queue { context, change: QueueChange::Opened } => {
                self.books.watch(context, Slot::Scheduled);
                self.books.watch(context + 1, Slot::Finished);
                self.books.watch(context + 2, Slot::Retired);
                // A job that will not run keeps its `scheduled` until its turn to finish; later ones start meanwhile.
                if let Some((FenceName { context, .. }, _)) = self.books.name(FenceId { context, seqno: 0 }) {
                    self.observe(Observation::Unordered { context });
                }
            }
            // Closed, and all its jobs are gone: their fences have signaled.
            Event::Queue { context, change: QueueChange::Drained } => {
                for context in [context, context + 1, context + 2] {
                    if let Some((context, _)) = self.books.contexts.remove(&context) {
                        self.observe(Observation::ContextClosed { context });
                    }
                }
            }
            Event::JobQueued { job, credits, .. } => {
                self.books.jobs.entry(job).or_default().credits = credits;
                for context in [job.context - 1, job.context, job.context + 1] {
                    if let Some((fence, _)) = self.books.name(FenceId { context, ..job }) {
                        self.observe(Observation::FenceCreated { fence });
                    }
                }
            }
            Event::JobDependency { job, on } => {
                if let Some(earlier) = self.books.job_behind(on) {
                    self.books.jobs.entry(job).or_default().behind.push(earlier);
                }
            }
            Event::JobBlocked { job, reason: Blocked::Credits } => self.held_back(job),
            Event::FenceSignaled { fence, .. } => self.signaled(fence),
            _ => {}
        }
    }

    fn signaled(&mut self, fence: FenceId) {
        // What was cancelled before its commit was never published, and has no number.
        let Some((name, slot)) = self.books.name(fence).filter(|_| fence.seqno > 0) else { return };
        self.observe(Observation::FenceSignaled { fence: name });
        if slot == Slot::Retired {
            self.books.jobs.remove(&FenceId { context: fence.context - 1, ..fence });
        }
    }

    /// The library holds a job back for want of credits. By the ring's own book, is it right?
    fn held_back(&mut self, job: FenceId) {
        let wanted = self.books.jobs.get(&job).map_or(0, |job| job.credits);
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
