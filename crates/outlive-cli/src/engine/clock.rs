//! The two times a run can live in. Both do the same: what is due is done, then time goes on to what comes next.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use outlive::Time;

use super::pace::Pace;
use super::{Engine, NS_PER_MS};
use crate::args::Clock;
use crate::progress::Progress;

/// How often a run in real time looks whether it was interrupted, and shows how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Once nobody begins anything, a run in which no job ends for so long is stuck, and the audit says with what. Each job
/// that started has 10 s at most by itself.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// How often it looks whether all has ended, once nobody begins anything.
const END_LOOK_EVERY: Duration = Duration::from_millis(1);

impl Engine<'_> {
    pub(super) fn run(&mut self, clock: Clock, interrupted: &AtomicBool, progress: &Progress) {
        let mut pace = Pace::new(self.scenario, self.requests, clock);
        match clock {
            Clock::Virtual => self.run_virtual(interrupted, progress, &mut pace),
            Clock::Real => self.run_real(interrupted, progress, &mut pace),
        }
    }

    /// From event to event: no wall time passes but for the work itself.
    fn run_virtual(&mut self, interrupted: &AtomicBool, progress: &Progress, pace: &mut Pace<'_>) {
        let mut woken = Vec::new();
        loop {
            self.host.settle();
            if self.do_what_is_due(&mut woken) {
                continue;
            }
            self.look_outside(interrupted, progress, pace);
            if self.is_over() || self.is_stuck() {
                return;
            }
            let own = self.agenda.next_ns().map(|at_ns| Time::from_ns(at_ns + self.epoch_ns));
            // Nobody needs to look before a client is woken, or something of its own is due. Who has nothing more to do is woken
            // by its last job, so that the run is not longer than that; but somebody looks whether it is stuck.
            let limit = own.unwrap_or(Time::NEVER).min(self.host.now().after(STUCK_AFTER / 2));
            let (inbox, host, resets) = (&self.inbox, &self.host, self.resets_seen);
            let woken = || inbox.has_any() || host.resets() > resets || interrupted.load(Ordering::Relaxed);
            if self.host.run_while_waiting(limit, woken) {
                continue;
            }
            let next = match (self.host.next_event(), own) {
                (Some(host), Some(own)) => host.min(own),
                // With nothing to come, what has not ended never will; the audit says so.
                (host, own) => match host.or(own) {
                    Some(next) => next,
                    None => return,
                },
            };
            self.host.advance_to(next.max(self.host.now()));
        }
    }

    /// As time passes by itself.
    fn run_real(&mut self, interrupted: &AtomicBool, progress: &Progress, pace: &mut Pace<'_>) {
        let mut woken = Vec::new();
        loop {
            self.do_what_is_due(&mut woken);
            self.look_outside(interrupted, progress, pace);
            if self.is_over() || self.is_stuck() {
                return;
            }
            let now_ns = self.now_ns();
            let own = self.agenda.next_ns().map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns)));
            let at_most = if self.ending { END_LOOK_EVERY } else { LOOK_EVERY };
            self.inbox.wait(own.map_or(at_most, |own| own.min(at_most)));
        }
    }

    fn is_stuck(&mut self) -> bool {
        let (jobs, now_ns) = (self.ledger.jobs(), self.now_ns());
        if !self.ending || self.last_progress.0 != jobs {
            self.last_progress = (jobs, now_ns);
        }
        now_ns - self.last_progress.1 > STUCK_AFTER.as_nanos() as u64
    }

    fn look_outside(&mut self, interrupted: &AtomicBool, progress: &Progress, pace: &mut Pace<'_>) {
        self.note_resets();
        if interrupted.load(Ordering::Relaxed) && !self.interrupted {
            self.interrupted = true;
            self.end();
        }
        pace.show(progress, self.now_ns() / NS_PER_MS, &self.instances);
    }
}
