//! How far a run is, and how fast: for the progress line.

use core::time::Duration;
use std::time::Instant;

use super::ledger::Ledger;
use crate::args::Clock;
use crate::progress::Progress;
use crate::scenario::Scenario;
use crate::scenario::model::Work;

const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Frames per second are counted over so long.
const COUNTED_OVER: Duration = Duration::from_secs(1);
/// More than so many clients are counted as one.
const CLIENTS_MAX: usize = 6;

/// Remembers what was shown.
pub(super) struct Pace<'a> {
    scenario: &'a Scenario,
    clock: Clock,
    shown: Instant,
    counted: Instant,
    /// Jobs that had ended well by `counted`.
    well: Vec<u64>,
    frames: String,
    calls: u32,
}

impl<'a> Pace<'a> {
    pub(super) fn new(scenario: &'a Scenario, clock: Clock) -> Self {
        let (shown, counted) = (Instant::now(), Instant::now());
        Self {
            scenario,
            clock,
            shown,
            counted,
            well: vec![0; scenario.instances.len()],
            frames: String::new(),
            calls: 0,
        }
    }

    /// Shows it, if that is due. Cheap if not.
    pub(super) fn show(&mut self, progress: &Progress, at_ms: u64, ledger: &Ledger<'_>) {
        self.calls = self.calls.wrapping_add(1);
        if self.clock == Clock::Virtual && !self.calls.is_multiple_of(1024) {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.shown) < SHOW_EVERY {
            return;
        }
        self.shown = now;
        let over = now.duration_since(self.counted);
        if over >= COUNTED_OVER {
            if self.clock == Clock::Real {
                self.frames = self.rates(ledger.well(), over);
            }
            self.counted = now;
            self.well.copy_from_slice(ledger.well());
        }
        progress.at(Duration::from_millis(at_ms), ledger.jobs(), &self.frames);
    }

    fn rates(&self, well: &[u64], over: Duration) -> String {
        let drawing: Vec<usize> =
            (0..well.len()).filter(|instance| self.scenario.client_of(*instance).work == Work::Gears).collect();
        if drawing.is_empty() {
            return String::new();
        }
        let rate = |frames: u64| (frames as f64 / over.as_secs_f64()).round();
        let since = |instance: &usize| well[*instance] - self.well[*instance];
        if drawing.len() > CLIENTS_MAX {
            return format!("; {} frames/s", rate(drawing.iter().map(since).sum()));
        }
        let one = |instance: &usize| format!("{} {}", self.scenario.instances[*instance].name, rate(since(instance)));
        format!("; frames/s: {}", drawing.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}
