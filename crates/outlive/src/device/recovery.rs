//! Recovery of a device: a plain state machine, and the token by which a driver answers.
//!
//! # States
//! ```text
//!          want             held            answered(ok)
//!  up ───────────▶ holding ──────▶ resetting ───────────▶ up
//!   │                 │                │ failed or watchdog: the whole device next, then
//!   │ lost            ▼                ▼
//!   └──────────▶ unplugging ◀──────────┘
//!                     │ answered(ok): gone, quiesced      failed or watchdog: gone, quarantined
//!                     ▼
//!                   gone
//! ```
//! *Holding*: the queues concerned start nothing, and any start in progress is waited for (not blocked on), so that no
//! doorbell rings behind the reset's back. Every state but *up* and *gone* has a watchdog, so recovery ends.
//!
//! The machine has no lock, thread or clock: inputs change it, [`Recovery::poll`] says what to do next.

use super::ResetScope;
use super::shared::DeviceShared;
use crate::exec::object::Object;
use crate::time::Time;
use core::fmt;
use core::time::Duration;

/// How long each of the driver's answers to a reset or unplug may take, 1 s, if nothing else was chosen.
pub const RESET_WATCHDOG_DEFAULT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Recovery {
    phase: Phase,
    /// Wanted while something else is going on.
    wanted: Option<ResetScope>,
    lost: bool,
    /// DMA is impossible for good: the driver answered the unplug.
    excluded: bool,
    /// Counts calls into the driver; answers to earlier ones are stale.
    epoch: u64,
    /// When it last left *up*.
    since: Time,
    watchdog: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Holding { goal: Goal, until: Time },
    Waiting { goal: Goal, until: Time },
    Answered { goal: Goal, ok: bool },
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Reset(ResetScope),
    Unplug,
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Let these queues start nothing; then `held()` once no start is in progress.
    Hold(ResetScope),
    /// Give every queue up: nothing waiting will run.
    Refuse,
    /// Call the driver's `reset`; its token has this epoch.
    Reset(ResetScope, u64),
    /// Call the driver's `unplug`.
    Unplug(u64),
    /// DMA of what these queues had on the hardware is impossible; let them go on.
    Quiesced(ResetScope),
    /// DMA is impossible for good.
    Gone,
    /// It cannot be excluded.
    Quarantine,
}

impl Recovery {
    pub(crate) const fn new(watchdog: Duration) -> Self {
        let since = Time::ZERO;
        Self { phase: Phase::Up, wanted: None, lost: false, excluded: false, epoch: 0, since, watchdog }
    }

    /// A job needs this reset.
    pub(crate) fn want(&mut self, scope: ResetScope) {
        let covered = match self.phase {
            Phase::Holding { goal: Goal::Reset(now), .. } | Phase::Waiting { goal: Goal::Reset(now), .. } => {
                now == scope || now == ResetScope::Device
            }
            _ => false,
        };
        if !covered {
            self.wanted = Some(match self.wanted {
                Some(earlier) if earlier != scope => ResetScope::Device,
                _ => scope,
            });
        }
    }

    /// The device is gone or given up.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost || self.phase == Phase::Gone
    }

    /// Whether it is gone, and known to be unable to make any DMA.
    pub(crate) fn is_quiesced_for_good(&self) -> bool {
        self.phase == Phase::Gone && self.excluded
    }

    /// Whether nothing is going on.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    #[cfg(test)]
    fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// No start is in progress on the queues held.
    pub(crate) fn held(&mut self, now: Time) {
        if let Phase::Holding { goal, .. } = self.phase {
            self.epoch += 1;
            self.phase = Phase::Waiting { goal, until: now.after(self.watchdog) };
        }
    }

    /// The driver answered the call of `epoch`.
    pub(crate) fn answered(&mut self, epoch: u64, ok: bool) {
        if let Phase::Waiting { goal, .. } = self.phase {
            if epoch == self.epoch {
                self.phase = Phase::Answered { goal, ok };
            }
        }
    }

    /// When to poll again if nothing happens.
    pub(crate) fn due(&self) -> Time {
        match self.phase {
            Phase::Holding { until, .. } | Phase::Waiting { until, .. } => until,
            _ => Time::NEVER,
        }
    }

    /// Since when it has been going on; a larger step goes on with the smaller one's time.
    pub(crate) const fn since(&self) -> Time {
        self.since
    }

    fn hold(&mut self, goal: Goal, now: Time) -> Action {
        if self.is_up() {
            self.since = now;
        }
        self.phase = Phase::Holding { goal, until: now.after(self.watchdog) };
        match goal {
            Goal::Reset(scope) => Action::Hold(scope),
            Goal::Unplug => Action::Refuse,
        }
    }

    fn after_failure(&mut self, goal: Goal, now: Time) -> Action {
        match goal {
            Goal::Reset(ResetScope::Queue(_)) => self.hold(Goal::Reset(ResetScope::Device), now),
            Goal::Reset(ResetScope::Device) => {
                self.lost = true;
                self.hold(Goal::Unplug, now)
            }
            Goal::Unplug => {
                self.phase = Phase::Gone;
                Action::Quarantine
            }
        }
    }

    /// What to do next; `None`: wait for an input or for [`Recovery::due`].
    pub(crate) fn poll(&mut self, now: Time) -> Option<Action> {
        match self.phase {
            Phase::Up if self.lost => Some(self.hold(Goal::Unplug, now)),
            Phase::Up => self.wanted.take().map(|scope| self.hold(Goal::Reset(scope), now)),
            // Loss overtakes a reset that has not been handed to the driver, and one that was: it is its watchdog's
            // business no more.
            Phase::Holding { goal: Goal::Reset(_), .. } | Phase::Waiting { goal: Goal::Reset(_), .. } if self.lost => {
                self.epoch += 1;
                Some(self.hold(Goal::Unplug, now))
            }
            // A start that does not return is a driver's bug; what it started cannot be excluded from DMA by a reset.
            Phase::Holding { goal: Goal::Reset(_), until, .. } if until <= now => {
                self.lost = true;
                Some(self.hold(Goal::Unplug, now))
            }
            Phase::Holding { goal: Goal::Unplug, until, .. } if until <= now => {
                Some(self.after_failure(Goal::Unplug, now))
            }
            Phase::Waiting { goal, until } if until <= now => Some(self.after_failure(goal, now)),
            Phase::Answered { goal, ok: false } => Some(self.after_failure(goal, now)),
            Phase::Answered { goal: Goal::Reset(scope), ok: true } => {
                self.phase = Phase::Up;
                if matches!((self.wanted, scope), (Some(_), ResetScope::Device)) || self.wanted == Some(scope) {
                    self.wanted = None;
                }
                Some(Action::Quiesced(scope))
            }
            Phase::Answered { goal: Goal::Unplug, ok: true } => {
                self.phase = Phase::Gone;
                self.excluded = true;
                Some(Action::Gone)
            }
            Phase::Holding { .. } | Phase::Waiting { .. } | Phase::Gone => None,
        }
    }

    /// The queues that are to start nothing while a start in progress is waited for.
    pub(crate) fn holding(&self) -> Option<ResetScope> {
        match self.phase {
            Phase::Holding { goal: Goal::Reset(scope), .. } => Some(scope),
            Phase::Holding { goal: Goal::Unplug, .. } => Some(ResetScope::Device),
            _ => None,
        }
    }

    /// Whether a queue made now would have to start nothing: the whole device is concerned.
    pub(crate) fn covers_new_queues(&self) -> bool {
        let goal = match self.phase {
            Phase::Holding { goal, .. } | Phase::Waiting { goal, .. } | Phase::Answered { goal, .. } => goal,
            Phase::Up | Phase::Gone => return false,
        };
        !matches!(goal, Goal::Reset(ResetScope::Queue(_)))
    }

    /// The driver call that `held` made due.
    pub(crate) fn call(&self) -> Option<Action> {
        match self.phase {
            Phase::Waiting { goal: Goal::Reset(scope), .. } => Some(Action::Reset(scope, self.epoch)),
            Phase::Waiting { goal: Goal::Unplug, .. } => Some(Action::Unplug(self.epoch)),
            _ => None,
        }
    }
}

/// The driver's answer to `reset` or `unplug`, given now or later, from any context. Dropping it says that it failed.
#[must_use = "dropping it says that DMA could not be excluded"]
pub struct ResetToken {
    pub(crate) device: Object<DeviceShared>,
    pub(crate) epoch: u64,
    pub(crate) answered: bool,
}

impl ResetToken {
    /// DMA is impossible now: nothing that was on the hardware before, as far as the call covered it, can touch memory any
    /// more. Its jobs retire.
    pub fn quiesced(mut self) {
        self.answered = true;
        self.device.answered(self.epoch, true);
    }

    /// DMA cannot be excluded. The next larger step follows.
    pub fn failed(mut self) {
        self.answered = true;
        self.device.answered(self.epoch, false);
    }
}

impl Drop for ResetToken {
    fn drop(&mut self) {
        if !self.answered {
            self.device.answered(self.epoch, false);
        }
    }
}

impl fmt::Debug for ResetToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResetToken({})", self.epoch)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Action, Recovery};
    use crate::device::ResetScope;
    use crate::time::Time;
    use core::time::Duration;

    const WATCHDOG: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_reset_holds_calls_and_lets_go() {
        let mut machine = Recovery::new(WATCHDOG);
        machine.want(ResetScope::Queue(7));
        assert_eq!(machine.poll(at(0)), Some(Action::Hold(ResetScope::Queue(7))));
        assert_eq!(machine.poll(at(1)), None, "a start is in progress");
        machine.held(at(2));
        assert_eq!(machine.call(), Some(Action::Reset(ResetScope::Queue(7), 1)));
        machine.want(ResetScope::Queue(7));
        machine.answered(1, true);
        assert_eq!(machine.poll(at(3)), Some(Action::Quiesced(ResetScope::Queue(7))));
        assert_eq!(machine.poll(at(4)), None, "a wish that the reset covered is met");
    }

    #[test]
    fn each_failure_and_each_watchdog_is_answered_by_the_next_larger_step() {
        for by_watchdog in [false, true] {
            let mut machine = Recovery::new(WATCHDOG);
            let mut now = 0;
            let mut fail = |machine: &mut Recovery, expected: Action| {
                machine.held(at(now));
                if by_watchdog {
                    assert_eq!(machine.poll(at(now + 999)), None);
                    now += 1000;
                } else {
                    machine.answered(machine.epoch, false);
                }
                assert_eq!(machine.poll(at(now)), Some(expected));
            };
            machine.want(ResetScope::Queue(1));
            assert_eq!(machine.poll(at(0)), Some(Action::Hold(ResetScope::Queue(1))));
            fail(&mut machine, Action::Hold(ResetScope::Device));
            fail(&mut machine, Action::Refuse);
            fail(&mut machine, Action::Quarantine);
            assert!(machine.is_gone());
            assert_eq!(machine.since(), at(0), "one recovery, however many steps");
            assert_eq!((machine.poll(at(99_999)), machine.due()), (None, Time::NEVER));
        }
    }

    #[test]
    fn a_stale_answer_changes_nothing() {
        let mut machine = Recovery::new(WATCHDOG);
        machine.want(ResetScope::Device);
        machine.poll(at(0));
        machine.held(at(0));
        assert_eq!(machine.poll(at(1000)), Some(Action::Refuse), "the watchdog gave it up");
        machine.answered(1, true);
        assert_eq!(machine.poll(at(1001)), None);
        machine.held(at(1001));
        machine.answered(1, true);
        assert_eq!(machine.poll(at(1002)), None, "only the present call counts");
        machine.answered(2, true);
        assert_eq!(machine.poll(at(1003)), Some(Action::Gone));
    }

    #[test]
    fn loss_overtakes_a_reset() {
        let mut machine = Recovery::new(WATCHDOG);
        machine.want(ResetScope::Device);
        machine.poll(at(0));
        machine.held(at(0));
        machine.lose();
        assert_eq!(machine.poll(at(1)), Some(Action::Refuse));
        machine.answered(1, true);
        assert_eq!(machine.poll(at(1)), None, "the overtaken reset's answer is stale");
    }
}
