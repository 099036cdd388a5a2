//! Who is banned: a plain state machine, with time as an argument.
//!
//! # States
//! *tolerated* ──the last of N offences within the window──▶ *banned* ──lifted──▶ *tolerated*, with a clean record
//!
//! An offence is a job that had to be taken off the hardware by force: its time was over and it was cancelled, or it took a
//! reset. Going away with a long job on the hardware is none, as long as a cancel ends it.

use crate::time::Time;
use core::time::Duration;

/// The most offences that a rule can ask for.
pub const OFFENCES_MAX: u32 = 32;

/// When somebody is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BanRule {
    /// That many; 0: never.
    pub(crate) offences: u32,
    /// Within that time.
    pub(crate) window: Duration,
}

impl BanRule {
    /// A hung job costs its device for two seconds of timeout by default: who does that all the time is banned, who has
    /// a bad minute is not.
    pub(crate) const DEFAULT: Self = Self { offences: 10, window: Duration::from_secs(10) };
}

/// What somebody has done, as far as it still counts.
#[derive(Debug)]
pub(crate) struct Offences {
    /// The last ones, as a ring.
    times: [Time; OFFENCES_MAX as usize],
    /// Since the record was clean.
    count: u64,
    banned: bool,
}

impl Offences {
    pub(crate) const fn new() -> Self {
        Self { times: [Time::ZERO; OFFENCES_MAX as usize], count: 0, banned: false }
    }

    fn slot(number: u64) -> usize {
        usize::try_from(number % u64::from(OFFENCES_MAX)).unwrap_or(0)
    }

    /// One more, at `now`. Whether it is the one that bans.
    pub(crate) fn offend(&mut self, now: Time, rule: BanRule) -> bool {
        self.times[Self::slot(self.count)] = now;
        self.count += 1;
        let enough = u64::from(rule.offences.min(OFFENCES_MAX));
        if self.banned || enough == 0 || self.count < enough {
            return false;
        }
        let first = self.times[Self::slot(self.count - enough)];
        self.banned = now.since(first) <= rule.window;
        self.banned
    }

    /// All is forgiven.
    pub(crate) fn lift(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{BanRule, OFFENCES_MAX, Offences};
    use crate::time::Time;
    use core::time::Duration;

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    const RULE: BanRule = BanRule { offences: 3, window: Duration::from_millis(100) };

    #[test]
    fn the_last_of_n_within_the_window_bans_once() {
        let mut who = Offences::new();
        assert!(!who.offend(at(0), RULE) && !who.offend(at(50), RULE));
        assert!(who.offend(at(100), RULE), "a window is whole: its ends count");
        assert!(!who.offend(at(101), RULE), "banned already");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut who = Offences::new();
        assert!((0..1_000).all(|n| !who.offend(at(n * 51), RULE)), "never three within 100 ms");
        assert!(!who.offend(at(51_000), RULE));
        assert!(who.offend(at(51_010), RULE));
    }

    #[test]
    fn lifted_is_forgiven() {
        let mut who = Offences::new();
        (0..3).for_each(|n| assert_eq!(who.offend(at(n), RULE), n == 2));
        who.lift();
        assert!(!who.offend(at(3), RULE) && !who.offend(at(4), RULE));
        assert!(who.offend(at(5), RULE));
    }

    #[test]
    fn zero_is_never_and_more_than_is_remembered_is_as_many_as_that() {
        let mut who = Offences::new();
        assert!((0..100).all(|n| !who.offend(at(n), BanRule { offences: 0, ..RULE })));
        who.lift();
        let rule = BanRule { offences: u32::MAX, window: Duration::MAX };
        assert!((1..u64::from(OFFENCES_MAX)).all(|n| !who.offend(at(n), rule)));
        assert!(who.offend(at(100), rule));
    }
}
