//! When the jobs that may still use what left the page tables are done: a plain state machine, as sleepable RCU does it.
//!
//! # States
//! Every use enters on one of two sides. A *period* begins by turning the sides over, and ends when nobody is left on the
//! one that was turned away from: all uses that had begun before the period have ended then. Only one period is under
//! way at a time; whoever asks meanwhile is promised the next. New uses never hold a period up, so each one ends.
//!
//! # Invariant
//! While no period is under way, the side that is not in use is empty: so nobody is on the side that the next period
//! turns to.

/// Which side a use has entered on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side(usize);

/// Whose end is to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
pub(super) struct Grace {
    live: [usize; 2],
    side: usize,
    /// The last period that began, that ended, and that was promised.
    begun: u64,
    ended: u64,
    promised: u64,
}

impl Grace {
    pub(super) const fn new() -> Self {
        Self { live: [0; 2], side: 0, begun: 0, ended: 0, promised: 0 }
    }

    /// Uses that have not ended.
    pub(super) const fn live(&self) -> usize {
        self.live[0] + self.live[1]
    }

    /// A use begins.
    pub(super) const fn enter(&mut self) -> Side {
        self.live[self.side] += 1;
        Side(self.side)
    }

    /// A use ends. True if a period ended with it.
    pub(super) const fn leave(&mut self, Side(side): Side) -> bool {
        self.live[side] -= 1;
        if self.begun == self.ended || side == self.side || self.live[side] > 0 {
            return false;
        }
        self.ended = self.begun;
        self.go_on();
        true
    }

    /// Stands for all uses that have begun by now.
    pub(super) const fn ticket(&mut self) -> Ticket {
        self.promised = self.begun + 1;
        self.go_on();
        Ticket(self.promised)
    }

    /// Whether all that `ticket` stands for have ended.
    pub(super) const fn is_over(&self, Ticket(period): Ticket) -> bool {
        self.ended >= period
    }

    /// Begins the period that was promised, if none is under way.
    const fn go_on(&mut self) {
        if self.begun == self.ended && self.promised > self.begun {
            self.begun += 1;
            self.side ^= 1;
            if self.live[self.side ^ 1] == 0 {
                self.ended = self.begun;
            }
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Grace;

    #[test]
    fn a_ticket_stands_for_those_before_it_and_for_nobody_after() {
        let mut grace = Grace::new();
        let idle = grace.ticket();
        assert!(grace.is_over(idle), "nobody there");
        let first = grace.enter();
        let one = grace.ticket();
        let second = grace.enter();
        let two = grace.ticket();
        let third = grace.enter();
        assert!(!grace.is_over(one) && !grace.is_over(two));
        assert!(!grace.leave(third), "began after both");
        assert!(grace.leave(first) && grace.is_over(one) && !grace.is_over(two));
        assert!(grace.leave(second) && grace.is_over(two));
        assert_eq!(grace.live(), 0);
    }

    /// Every sequence of eight deeds: what has begun before a ticket has ended when the ticket is over, and whenever nobody
    /// is left every ticket is.
    #[test]
    fn no_sequence_of_eight_deeds_breaks_it() {
        for script in 0..3_u32.pow(8) {
            let mut grace = Grace::new();
            let mut live = [None; 8];
            let mut tickets = [None; 8];
            let mut script = script;
            for now in 0..8 {
                match script % 3 {
                    0 => live[now] = Some(grace.enter()),
                    1 => tickets[now] = Some(grace.ticket()),
                    _ => {
                        if let Some(side) = live.iter_mut().find_map(Option::take) {
                            grace.leave(side);
                        }
                    }
                }
                script /= 3;
                for (at, ticket) in tickets.iter().enumerate() {
                    let over = ticket.is_some_and(|ticket| grace.is_over(ticket));
                    assert!(!over || live[..at].iter().all(Option::is_none), "over while one from before is there");
                }
            }
            for side in live.into_iter().flatten() {
                grace.leave(side);
            }
            assert!(tickets.into_iter().flatten().all(|ticket| grace.is_over(ticket)));
        }
    }
}
