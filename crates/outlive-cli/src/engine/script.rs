//! What one client does next: the loop of a scenario's client, or a trace's requests, as a plain state machine.
//!
//! ```text
//!   away ──came──▶ ready ──begin──▶ submitting ──last──▶ syncing ──finished──▶ thinking ──▶ ready
//!    ▲                             │                    (sync only)
//!    │                             └── may begin nothing more ──▶ over
//!    └── left (killed, closed, its device gone) from anywhere; cycle numbers run on
//! ```
//!
//! With requests, it is ready when the next one arrives and there is nothing to think about or to wait for.
//!
//! It is asked ([`Script::next`]) with what can be seen of the client from outside, and answers what to do or to wait for.
//! Asking again changes nothing until the answer was carried out. It touches neither clock nor device.

use outlive_sim::gpu::rng::Rng;

use crate::scenario::model::{Client, FaultKind};

const NS_PER_US: u64 = 1000;

/// One request of a trace: a prefill job, and jobs that decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, from the start of the run.
    pub at_ns: u64,
    /// Hardware time of its first job.
    pub prefill_ns: u64,
    /// What that holds of the arbiter's credits.
    pub prefill_credits: u32,
    /// How many jobs decode.
    pub decodes: u32,
    /// Hardware time of each of them but the last.
    pub decode_ns: u64,
    /// Hardware time of the last of them.
    pub last_decode_ns: u64,
    /// What each of them holds.
    pub decode_credits: u32,
}

impl Request {
    /// All its jobs.
    #[must_use]
    pub const fn jobs(&self) -> u32 {
        1 + self.decodes
    }

    /// Hardware time and credits of one job.
    const fn job(&self, place: u32) -> (u64, u32) {
        if place == 0 {
            (self.prefill_ns, self.prefill_credits)
        } else if place == self.decodes {
            (self.last_decode_ns, self.decode_credits)
        } else {
            (self.decode_ns, self.decode_credits)
        }
    }
}

/// A job to submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobPlan {
    /// In which cycle.
    pub(super) cycle: u64,
    /// Which of the cycle, from 0.
    pub(super) place: u32,
    /// How many the cycle has.
    pub(super) of: u32,
    /// Which of this instance's jobs, over all incarnations, from 1.
    pub(super) number: u64,
    /// Hardware time.
    pub(super) duration_ns: u64,
    /// What it holds.
    pub(super) credits: u32,
    /// What it shall do wrong.
    pub(super) fault: Option<FaultKind>,
}

/// What can be seen of a client from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Now.
    pub(super) now_ns: u64,
    /// Jobs committed and not finished.
    pub(super) unfinished: usize,
    /// Whether it may begin a cycle: neither its stop nor the end of the run has come.
    pub(super) may_begin: bool,
    /// Whether the cycle that its next one is `after` is there, or will never be.
    pub(super) other_ready: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until it comes.
    Away,
    /// Nothing ever again in this life.
    Over,
    /// Wait until at most so many jobs are unfinished.
    UntilUnfinished(usize),
    /// Wait for the other's cycle.
    UntilOther,
    /// Wait for a time.
    Until(u64),
    /// Submit this and say [`Script::submitted`].
    Submit(JobPlan),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away,
    Ready,
    Submitting { due_ns: u64, plan: JobPlan },
    Syncing,
    Thinking { until_ns: u64 },
    Over,
}

/// The loop of one instance.
#[derive(Debug)]
pub(super) struct Script<'a> {
    client: &'a Client,
    /// Each is a cycle, instead of the client's loop.
    requests: Option<&'a [Request]>,
    latency_ns: u64,
    rng: Rng,
    phase: Phase,
    cycle: u64,
    jobs: u64,
}

impl<'a> Script<'a> {
    /// Of an instance of `client`; each submission takes `latency_ns`.
    pub(super) const fn new(client: &'a Client, latency_ns: u64, seed: u64) -> Self {
        Self { client, requests: None, latency_ns, rng: Rng::new(seed), phase: Phase::Away, cycle: 0, jobs: 0 }
    }

    /// Of an instance that submits each of `requests` whole when it arrives, and nothing else.
    pub(super) const fn replaying(client: &'a Client, requests: &'a [Request]) -> Self {
        Self { requests: Some(requests), ..Self::new(client, 0, 0) }
    }

    /// The number of the cycle that is next, or under way.
    pub(super) const fn cycle(&self) -> u64 {
        self.cycle
    }

    pub(super) fn is_away(&self) -> bool {
        self.phase == Phase::Away
    }

    /// Whether it was found that it begins nothing more in this life.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether it is in the middle of a cycle's submissions.
    pub(super) const fn is_submitting(&self) -> bool {
        matches!(self.phase, Phase::Submitting { .. })
    }

    /// It came, for the first time or again.
    pub(super) fn came(&mut self) {
        self.phase = Phase::Ready;
    }

    /// It was killed or closed, or can submit nothing more. A cycle that was begun counts as one, and a job that was not
    /// submitted as none.
    pub(super) fn left(&mut self) {
        if let Phase::Submitting { plan, .. } = self.phase {
            self.cycle += u64::from(plan.place > 0);
            self.jobs -= 1;
        }
        self.phase = Phase::Away;
    }

    /// What to do.
    pub(super) fn next(&mut self, seen: &Seen) -> Step {
        let client = self.client;
        if let Phase::Syncing = self.phase {
            if seen.unfinished > 0 {
                return Step::UntilUnfinished(0);
            }
            self.think(seen.now_ns);
        }
        if let Phase::Thinking { until_ns } = self.phase {
            if seen.now_ns < until_ns && seen.may_begin {
                return Step::Until(until_ns);
            }
            self.phase = Phase::Ready;
        }
        match self.phase {
            Phase::Away => Step::Away,
            Phase::Ready if !seen.may_begin => {
                self.phase = Phase::Over;
                Step::Over
            }
            Phase::Ready if self.requests.is_some() => match self.request() {
                None => {
                    self.phase = Phase::Over;
                    Step::Over
                }
                Some(request) if seen.now_ns < request.at_ns => Step::Until(request.at_ns),
                Some(_) => {
                    self.plan_job(0, seen.now_ns);
                    self.next(seen)
                }
            },
            Phase::Ready => {
                let room = usize::try_from(client.depth.saturating_sub(client.jobs_per_cycle)).unwrap_or(usize::MAX);
                if client.depth > 0 && seen.unfinished > room {
                    return Step::UntilUnfinished(room);
                }
                if !seen.other_ready {
                    return Step::UntilOther;
                }
                self.plan_job(0, seen.now_ns);
                self.next(seen)
            }
            Phase::Submitting { due_ns, .. } if seen.now_ns < due_ns => Step::Until(due_ns),
            Phase::Submitting { plan, .. } => Step::Submit(plan),
            // The first two were left above.
            Phase::Syncing | Phase::Thinking { .. } | Phase::Over => Step::Over,
        }
    }

    /// The job of [`Step::Submit`] was committed. True if that was the cycle's last.
    pub(super) fn submitted(&mut self, now_ns: u64) -> bool {
        let Phase::Submitting { plan, .. } = self.phase else { return false };
        let place = plan.place + 1;
        if place < plan.of {
            self.plan_job(place, now_ns);
            return false;
        }
        self.cycle += 1;
        if self.requests.is_some() {
            self.phase = Phase::Ready;
        } else if self.client.sync {
            self.phase = Phase::Syncing;
        } else {
            self.think(now_ns);
        }
        true
    }

    /// The one that is next, or under way.
    fn request(&self) -> Option<Request> {
        self.requests?.get(usize::try_from(self.cycle).ok()?).copied()
    }

    fn plan_job(&mut self, place: u32, now_ns: u64) {
        self.jobs += 1;
        let fault = self.client.fault.filter(|fault| self.jobs.is_multiple_of(fault.every)).map(|fault| fault.kind);
        let Client { jobs_per_cycle, duration_us, credits, .. } = *self.client;
        let (of, (duration_ns, credits)) = match self.request() {
            Some(request) => (request.jobs(), request.job(place)),
            None => (jobs_per_cycle, (self.varied(duration_us * NS_PER_US), credits)),
        };
        let duration_ns = duration_ns.max(1);
        let plan = JobPlan { cycle: self.cycle, place, of, number: self.jobs, duration_ns, credits, fault };
        self.phase = Phase::Submitting { due_ns: now_ns + self.latency_ns, plan };
    }

    fn think(&mut self, now_ns: u64) {
        let think_ns = self.varied(self.client.think_us * NS_PER_US);
        self.phase = Phase::Thinking { until_ns: now_ns + think_ns };
    }

    /// More or less by up to the client's `jitter`.
    fn varied(&mut self, time_ns: u64) -> u64 {
        if self.client.jitter == 0.0 || time_ns == 0 {
            return time_ns;
        }
        // CAST: 53 bits fit a double, and times of a scenario are far below that.
        let chance = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let factor = 1.0 + self.client.jitter * (2.0 * chance - 1.0);
        // CAST: not negative, and within twice the time.
        (time_ns as f64 * factor).round() as u64
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
