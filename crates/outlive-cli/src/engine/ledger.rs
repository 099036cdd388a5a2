//! What is known of jobs that are over: matches what the library said of each with what the hardware did.

use alloc::collections::VecDeque;

use outlive_sim::driver::SimHost;

use super::film::Film;
use super::life::{Life, OpenJob};
use crate::report::{Collector, JobRecord, Outcome, Stretch};

/// Jobs are written down in batches, since asking the hardware costs a lock.
const BATCH: usize = 512;

/// Stretches of jobs that were not written down yet. The hardware numbers jobs in the order of their birth.
#[derive(Debug, Default)]
struct Stretches {
    first: u64,
    /// Absent: written down.
    jobs: VecDeque<Option<Vec<Stretch>>>,
}

impl Stretches {
    fn of(&mut self, job: u64) -> Option<&mut Option<Vec<Stretch>>> {
        let at = usize::try_from(job.checked_sub(self.first)?).ok()?;
        while self.jobs.len() <= at {
            self.jobs.push_back(Some(Vec::new()));
        }
        self.jobs.get_mut(at)
    }

    fn take(&mut self, job: u64) -> Vec<Stretch> {
        let stretches = self.of(job).and_then(Option::take).unwrap_or_default();
        while self.jobs.front().is_some_and(Option::is_none) {
            self.jobs.pop_front();
            self.first += 1;
        }
        stretches
    }
}

/// The books of a run.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    pub(super) collector: Collector<'a>,
    /// Every job, if somebody wants them.
    pub(super) kept: Option<Vec<JobRecord>>,
    film: Option<Film>,
    stretches: Stretches,
    over: Vec<(usize, OpenJob)>,
    /// The start of the run, on the host's clock.
    epoch_ns: u64,
    /// Jobs that are over.
    jobs: u64,
    /// Hardware time of each instance's jobs that were written down, as the hardware counted it.
    hardware_ns: Vec<u64>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(
        collector: Collector<'a>,
        instances: usize,
        keep: bool,
        film: Option<Film>,
        epoch_ns: u64,
    ) -> Self {
        Self {
            collector,
            kept: keep.then(Vec::new),
            film,
            stretches: Stretches::default(),
            over: Vec::with_capacity(BATCH),
            epoch_ns,
            jobs: 0,
            hardware_ns: vec![0; instances],
        }
    }

    /// Takes what has retired off `life`, which is or was `instance`'s.
    pub(super) fn harvest(&mut self, host: &SimHost, instance: usize, life: &mut Life) {
        while let Some(job) = life.take_retired() {
            self.retired(host, instance, job);
        }
    }

    /// A job has retired.
    fn retired(&mut self, host: &SimHost, instance: usize, mut job: OpenJob) {
        let outcome = job.outcome();
        if let Some(picture) = job.picture.take()
            && outcome == Outcome::Ok
            && let Some(film) = &mut self.film
        {
            film.add(instance, job.number, picture.read());
        }
        self.jobs += 1;
        self.over.push((instance, job));
        if self.over.len() >= BATCH {
            self.write_down(host);
        }
    }

    /// Writes down what has retired.
    pub(super) fn write_down(&mut self, host: &SimHost) {
        let since = |ns: u64| ns.saturating_sub(self.epoch_ns);
        for stretch in host.take_stretches() {
            if let Some(Some(of_job)) = self.stretches.of(stretch.job.0) {
                let (from_ns, to_ns) = (since(stretch.from.as_ns()), since(stretch.to.as_ns()));
                of_job.push(Stretch { engine: stretch.engine, from_ns, to_ns });
            }
        }
        for (instance, job) in self.over.drain(..) {
            let record = JobRecord {
                instance,
                cycle: job.cycle,
                cycle_jobs: job.cycle_jobs,
                committed_ns: since(job.committed_ns),
                ready_ns: job.ready_ns().map(since),
                stretches: self.stretches.take(job.id.0),
                finished_ns: since(job.finished_ns()),
                outcome: job.outcome(),
            };
            self.hardware_ns[instance] += record.hardware_ns();
            self.collector.job(&record);
            if let Some(kept) = &mut self.kept {
                kept.push(record);
            }
        }
    }

    /// Jobs that are over.
    pub(super) const fn jobs(&self) -> u64 {
        self.jobs
    }

    /// Of each instance, what the hardware counted of its jobs that were written down.
    pub(super) fn hardware_ns(&self) -> &[u64] {
        &self.hardware_ns
    }

    /// Nothing more will be drawn.
    pub(super) const fn take_film(&mut self) -> Option<Film> {
        self.film.take()
    }
}
