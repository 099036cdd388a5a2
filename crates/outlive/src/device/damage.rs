//! Who pays for a reset: plain arithmetic.
//!
//! Whoever made it necessary pays for the time that the reset took, and for the hardware time that others had spent on jobs which
//! it lost them. Those pay nothing. A reset that the embedder asked for is nobody's.
//!
//! What the innocent had lost is what they had been on the hardware for, but jobs that lie on it behind each other overlap. So
//! all that a reset costs anybody is never more than the engines had to give since the first of the jobs it ended was
//! started. Two guilty queues share.

use crate::time::Time;
use core::time::Duration;

/// What one reset costs, added up over the queues it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    /// When queues were held for it.
    since: Time,
    guilty: u32,
    engines: u32,
    first: Time,
    /// What those pay anyway who have only themselves to blame.
    paid: Duration,
    lost: Duration,
}

/// One queue's part in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bill {
    /// Jobs it ended were on the hardware until then.
    pub(crate) since: Time,
    /// What each of the guilty pays.
    pub(crate) fine: Duration,
}

impl Damage {
    pub(crate) const fn new(since: Time) -> Self {
        Self { since, guilty: 0, engines: 1, first: since, paid: Duration::ZERO, lost: Duration::ZERO }
    }

    /// A queue that asked for it.
    pub(crate) fn guilty(&mut self) {
        self.guilty += 1;
    }

    /// A queue's hardware executes that many jobs at once.
    pub(crate) fn engines(&mut self, engines: u32) {
        self.engines = self.engines.max(engines);
    }

    /// A job on the hardware that this will end. `innocent`: it has no verdict but for this.
    pub(crate) fn job(&mut self, started: Time, innocent: bool) {
        let had = self.since.since(started);
        self.first = self.first.min(started);
        if innocent {
            self.lost += had;
        } else {
            self.paid += had;
        }
    }

    /// It is over.
    pub(crate) fn bill(&self, now: Time) -> Bill {
        let given = self.since.since(self.first).saturating_mul(self.engines);
        let lost = self.lost.min(given.saturating_sub(self.paid));
        let fine = (now.since(self.since) + lost).checked_div(self.guilty).unwrap_or_default();
        Bill { since: self.since, fine }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Damage;
    use crate::time::Time;
    use core::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    #[test]
    fn the_guilty_pays_for_the_reset_and_for_what_ran_beside_it() {
        let mut damage = Damage::new(at(100));
        damage.guilty();
        damage.engines(2);
        damage.job(at(0), false);
        damage.job(at(30), true);
        let bill = damage.bill(at(105));
        assert_eq!((bill.since, bill.fine), (at(100), 75 * MS), "5 ms of reset, 70 ms lost");
    }

    #[test]
    fn jobs_behind_each_other_on_one_engine_did_not_have_it_all() {
        let mut damage = Damage::new(at(100));
        damage.guilty();
        damage.job(at(10), false);
        (0..7).for_each(|_| damage.job(at(10), true));
        assert_eq!(damage.bill(at(105)).fine, 5 * MS, "it had the engine all the time, and pays for that already");
        damage.job(at(0), true);
        assert_eq!(damage.bill(at(105)).fine, 15 * MS, "before it, another had it");
    }

    #[test]
    fn two_share_and_nobody_pays_for_what_nobody_did() {
        let mut damage = Damage::new(at(100));
        damage.job(at(40), true);
        assert_eq!(damage.bill(at(110)).fine, Duration::ZERO);
        damage.guilty();
        damage.guilty();
        assert_eq!(damage.bill(at(110)).fine, 35 * MS);
    }
}
