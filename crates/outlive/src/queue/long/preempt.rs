//! When a long-running context may be on the hardware: a plain state machine, without lock, thread or clock.
//!
//! # States
//! ```text
//!            take, publish           restart            armed             left
//!  off ────────────────────▶ guarded ───────▶ on ─────────────▶ leaving ───────▶ off, its fence signals
//!   ▲                           │ armed     (returning first,      │ refused, or too late
//!   └───────────────────────────┘           if it was saved)       ▼
//!        its fence signals                            closed ──▶ ending ──no job is on the hardware──▶ ended
//! ```
//! A *fence* is pending from `publish` until a [`Step::Signal`]: while it is, the context may touch the memory that it guards.
//! *Armed*: somebody waits for that fence. *Lent*: somebody has the context in his hands to bring it back
//! ([`Off`](super::long::Off)), and nobody else does.
//!
//! # Guarantee
//! Each published fence is signaled once. It is signaled with `Ok` only in a state in which the context is off the hardware,
//! and after it was armed that takes at most `grace` and what a device's recovery takes.

use crate::fence::FenceError;
use crate::time::Time;
use core::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct Preempt {
    phase: Phase,
    grace: Duration,
    /// The driver keeps jobs that it took off: it has to put them back.
    saved: bool,
    /// Some job's memory is in quarantine: what guards it is never free.
    quarantined: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off { lent: bool },
    Guarded,
    Returning,
    On,
    Leaving { until: Time, answer: Option<bool> },
    Ending,
    Ended,
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the driver to take the context off.
    Preempt,
    /// Ask the driver to put it back.
    Restore,
    /// Close the queue and take its jobs off by force.
    Kill,
    /// Signal the fence.
    Signal(Result<(), FenceError>),
}

/// What the shell knows when it asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Somebody waits for the fence.
    pub(crate) armed: bool,
    /// A job was started and the hardware is not done with it.
    pub(crate) running: bool,
    /// The queue accepts nothing more.
    pub(crate) closed: bool,
}

impl Preempt {
    pub(crate) const fn new(grace: Duration) -> Self {
        Self { phase: Phase::Off { lent: false }, grace, saved: false, quarantined: false }
    }

    /// Whether the queue may start nothing.
    pub(crate) fn is_parked(&self) -> bool {
        self.phase != Phase::On
    }

    /// Whether somebody should bring it back, and nobody does.
    pub(crate) fn is_on_offer(&self) -> bool {
        self.phase == Phase::Off { lent: false }
    }

    /// Whether it waits for its last job to leave the hardware.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// When to poll again if nothing happens, if that is after `now`.
    pub(crate) fn due(&self, now: Time) -> Time {
        match self.phase {
            Phase::Leaving { until, .. } if until > now => until,
            _ => Time::NEVER,
        }
    }

    /// Lends it to one who will bring it back; false if it is not there to be lent.
    pub(crate) fn take(&mut self) -> bool {
        let free = self.is_on_offer();
        if free {
            self.phase = Phase::Off { lent: true };
        }
        free
    }

    /// The borrower published a fence for it.
    pub(crate) fn publish(&mut self) {
        match self.phase {
            Phase::Off { .. } => self.phase = Phase::Guarded,
            // Its fence is told the end like any other.
            Phase::Ended => self.phase = Phase::Ending,
            _ => {}
        }
    }

    /// The borrower lets it go on.
    pub(crate) fn restart(&mut self) {
        match self.phase {
            Phase::Guarded if self.saved => self.phase = Phase::Returning,
            Phase::Guarded => self.phase = Phase::On,
            // Its fence was armed, and has signaled, before it was on.
            Phase::Off { .. } => self.phase = Phase::Off { lent: false },
            _ => {}
        }
    }

    /// The borrower gives it up. True: the fence he published is to be signaled, since the context is off.
    pub(crate) fn give_up(&mut self) -> bool {
        let guarded = self.phase == Phase::Guarded;
        if guarded || matches!(self.phase, Phase::Off { .. }) {
            self.phase = Phase::Off { lent: false };
        }
        guarded
    }

    /// The driver's answer: whether the context is off.
    pub(crate) fn left(&mut self, ok: bool) {
        if let Phase::Leaving { answer, .. } = &mut self.phase {
            answer.get_or_insert(ok);
        }
    }

    /// A job of it went into quarantine.
    pub(crate) fn quarantined(&mut self) {
        self.quarantined = true;
    }

    /// What to do next; `None`: wait for an input or for [`Preempt::due`].
    pub(crate) fn poll(&mut self, facts: Facts, now: Time) -> Option<Step> {
        if facts.closed && !matches!(self.phase, Phase::Ending | Phase::Ended) {
            self.phase = Phase::Ending;
        }
        let (phase, step) = match self.phase {
            Phase::Guarded if facts.armed => (Phase::Off { lent: true }, Step::Signal(Ok(()))),
            Phase::Returning => {
                self.saved = false;
                (Phase::On, Step::Restore)
            }
            Phase::On if facts.armed && facts.running => {
                (Phase::Leaving { until: now.after(self.grace), answer: None }, Step::Preempt)
            }
            Phase::On if facts.armed => (Phase::Off { lent: false }, Step::Signal(Ok(()))),
            Phase::Leaving { answer: Some(true), .. } => {
                self.saved = true;
                (Phase::Off { lent: false }, Step::Signal(Ok(())))
            }
            Phase::Leaving { answer: Some(false), .. } => (Phase::Ending, Step::Kill),
            Phase::Leaving { until, .. } if until <= now => (Phase::Ending, Step::Kill),
            Phase::Ending if !facts.running => {
                let result = if self.quarantined { Err(FenceError::Quarantined) } else { Ok(()) };
                (Phase::Ended, Step::Signal(result))
            }
            _ => return None,
        };
        self.phase = phase;
        Some(step)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Facts, Preempt, Step};
    use crate::fence::FenceError;
    use crate::time::Time;
    use core::time::Duration;

    const IDLE: Facts = Facts { armed: false, running: false, closed: false };
    const RUNNING: Facts = Facts { running: true, ..IDLE };
    const WANTED: Facts = Facts { armed: true, ..RUNNING };
    const CLOSED: Facts = Facts { closed: true, ..RUNNING };
    const OFF: Option<Step> = Some(Step::Signal(Ok(())));

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    fn on() -> Preempt {
        let mut machine = Preempt::new(Duration::from_millis(10));
        assert!(machine.is_parked() && machine.take() && !machine.take(), "lent once");
        machine.publish();
        assert!(machine.is_parked());
        machine.restart();
        assert!(!machine.is_parked());
        machine
    }

    #[test]
    fn it_leaves_when_somebody_waits_and_comes_back_with_its_jobs() {
        let mut machine = on();
        assert_eq!(machine.poll(RUNNING, at(0)), None, "nobody waits");
        assert_eq!(machine.poll(WANTED, at(1)), Some(Step::Preempt));
        assert_eq!((machine.poll(WANTED, at(2)), machine.due(at(2))), (None, at(11)));
        machine.left(true);
        assert_eq!(machine.poll(WANTED, at(3)), OFF);
        assert!(machine.is_on_offer() && machine.take());
        machine.publish();
        machine.restart();
        assert!(machine.is_parked(), "not before the driver has put it back");
        assert_eq!(machine.poll(RUNNING, at(4)), Some(Step::Restore));
        assert!(!machine.is_parked());
    }

    #[test]
    fn without_a_job_on_the_hardware_it_is_off_at_once() {
        let mut machine = on();
        assert_eq!(machine.poll(Facts { armed: true, ..IDLE }, at(0)), OFF);
        assert!(machine.take());
        machine.publish();
        machine.restart();
        assert!(!machine.is_parked(), "there was nothing to put back");
    }

    #[test]
    fn a_driver_that_refuses_or_does_not_answer_loses_the_context() {
        for answers in [true, false] {
            let mut machine = on();
            machine.poll(WANTED, at(0));
            let now = if answers {
                machine.left(false);
                at(1)
            } else {
                assert_eq!(machine.poll(WANTED, at(9)), None);
                at(10)
            };
            assert_eq!(machine.poll(WANTED, now), Some(Step::Kill));
            machine.left(true);
            assert_eq!(machine.poll(CLOSED, at(11)), None, "jobs are on the hardware, whatever it says now");
            assert_eq!(machine.poll(Facts { running: false, ..CLOSED }, at(12)), OFF);
            assert_eq!(machine.poll(CLOSED, at(13)), None);
            assert!(!machine.take(), "gone for good");
        }
    }

    #[test]
    fn memory_in_quarantine_is_never_said_to_be_free() {
        let mut machine = on();
        machine.quarantined();
        let signal = machine.poll(Facts { running: false, ..CLOSED }, at(0));
        assert_eq!(signal, Some(Step::Signal(Err(FenceError::Quarantined))));
    }

    #[test]
    fn armed_before_it_was_on_it_does_not_go_on() {
        let mut machine = Preempt::new(Duration::from_millis(10));
        machine.take();
        machine.publish();
        assert_eq!(machine.poll(Facts { armed: true, ..IDLE }, at(0)), OFF);
        assert!(!machine.is_on_offer(), "who has it finds out when he restarts it");
        machine.restart();
        assert!(machine.is_parked() && machine.is_on_offer());
    }

    #[test]
    fn given_up_it_is_on_offer_again_and_what_was_published_signals() {
        let mut machine = Preempt::new(Duration::from_millis(10));
        machine.take();
        assert!(!machine.give_up() && machine.take());
        machine.publish();
        assert!(machine.give_up() && machine.is_on_offer());
    }

    #[test]
    fn closed_in_any_state_its_fence_signals_when_the_hardware_is_done() {
        let stages: [fn(&mut Preempt); 5] = [
            |_| (),
            |machine| {
                machine.take();
            },
            |machine| {
                machine.take();
                machine.publish();
            },
            |machine| *machine = on(),
            |machine| {
                *machine = on();
                machine.poll(WANTED, at(0));
            },
        ];
        for reach in stages {
            let mut machine = Preempt::new(Duration::from_millis(10));
            reach(&mut machine);
            assert_eq!(machine.poll(CLOSED, at(1)), None);
            assert_eq!(machine.poll(Facts { running: false, ..CLOSED }, at(2)), OFF);
            machine.publish();
            assert_eq!(machine.poll(Facts { running: false, ..CLOSED }, at(3)), OFF, "a fence published after the end");
            machine.restart();
            assert!(machine.is_parked());
        }
    }
}
