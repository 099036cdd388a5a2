//! How far a run is, how fast, and who has what of it: for the lines that are shown meanwhile.
//!
//! What clients have had is asked of the library's accounts, which may be read at any time without stopping anybody.

use core::cmp::Reverse;
use core::time::Duration;
use std::time::Instant;

use super::Request;
use super::clients::Instance;
use crate::args::Clock;
use crate::progress::{LINES_MAX, Line, Progress};
use crate::report::{counted, duration, percent};
use crate::scenario::Scenario;
use crate::scenario::model::Work;

const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Jobs per second are counted over so long.
const COUNTED_OVER: Duration = Duration::from_secs(1);

/// Remembers what was shown.
pub(super) struct Pace<'a> {
    scenario: &'a Scenario,
    clock: Clock,
    /// Of a trace: how many jobs each instance has in all.
    jobs: Option<Vec<u64>>,
    shown: Instant,
    counted: Instant,
    /// Jobs that had ended by `counted`, and how many a second there were then.
    ended: Vec<(u64, Option<f64>)>,
    calls: u32,
}

impl<'a> Pace<'a> {
    pub(super) fn new(scenario: &'a Scenario, requests: Option<&[Vec<Request>]>, clock: Clock) -> Self {
        let (shown, counted) = (Instant::now(), Instant::now());
        let of_one = |requests: &Vec<Request>| requests.iter().map(|request| u64::from(request.jobs())).sum();
        let jobs = requests.map(|requests| requests.iter().map(of_one).collect());
        Self { scenario, clock, jobs, shown, counted, ended: vec![(0, None); scenario.instances.len()], calls: 0 }
    }

    /// Shows it, if that is due and anybody looks. Cheap if not.
    pub(super) fn show(&mut self, progress: &Progress, at_ms: u64, instances: &[Instance<'_>]) {
        self.calls = self.calls.wrapping_add(1);
        if self.clock == Clock::Virtual && !self.calls.is_multiple_of(64) {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.shown) < SHOW_EVERY || !progress.is_shown() {
            return;
        }
        self.shown = now;
        let over = now.duration_since(self.counted);
        if over >= COUNTED_OVER {
            self.counted = now;
            for ((before, rate), instance) in self.ended.iter_mut().zip(instances) {
                let ended = instance.principal.usage().ended();
                *rate = Some((ended - *before) as f64 / over.as_secs_f64());
                *before = ended;
            }
        }
        self.draw(progress, at_ms, instances);
    }

    fn draw(&self, progress: &Progress, at_ms: u64, instances: &[Instance<'_>]) {
        let usage: Vec<_> = instances.iter().map(|instance| instance.principal.usage()).collect();
        let (ended, active) = usage
            .iter()
            .fold((0, Duration::ZERO), |(ended, active), usage| (ended + usage.ended(), active + usage.active()));
        let mut order: Vec<usize> = (0..usage.len()).collect();
        if order.len() > LINES_MAX {
            order.sort_by_key(|instance| Reverse(usage[*instance].active()));
            // They stay in their places as long as they are the busiest.
            order.truncate(LINES_MAX);
            order.sort_unstable();
        }
        let line = |instance: usize| {
            let usage = &usage[instance];
            let share = if active.is_zero() { 0.0 } else { usage.active().div_duration_f64(active) };
            let mut text = format!("{:>6}, {}", percent(share), counted(usage.ended(), "job"));
            if let Some(rate) = self.ended[instance].1.filter(|_| self.clock == Clock::Real) {
                let what = if self.scenario.client_of(instance).work == Work::Gears { "frames" } else { "jobs" };
                text += &format!(", {rate:.0} {what}/s");
            }
            if instances[instance].principal.is_banned() {
                text += ", banned";
            }
            // Of a trace it is known how much there is; else the bar is the client's part of the hardware.
            let part = match self.jobs.as_ref().map(|jobs| jobs[instance]) {
                Some(jobs) => usage.ended() as f64 / jobs.max(1) as f64,
                None => share,
            };
            Line { name: &self.scenario.instances[instance].name, part, text }
        };
        let at = if self.jobs.is_some() { ended } else { at_ms };
        let mut what = format!("{}, {}", duration(at_ms * 1000), counted(ended, "job"));
        if usage.len() > LINES_MAX {
            what += &format!(", {}; the busiest:", counted(usage.len() as u64, "client"));
        }
        progress.at(at, what, order.into_iter().map(line));
    }
}
