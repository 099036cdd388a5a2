//! What is due when, in an order that never depends on chance: by time; at one instant first the scenario's events, by
//! client and then in the order of the file, those of the whole device last; then the end; then the clients' own loops.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// An event of the scenario.
    Event {
        /// Whom it is about; the whole device stands behind all clients.
        instance: usize,
        /// Its place in the scenario.
        event: usize,
    },
    /// Nobody begins a cycle any more.
    End,
    /// This instance may have something to do; it looks for itself.
    Look(usize),
}

impl What {
    /// In place of an instance: the whole device.
    pub(super) const DEVICE: usize = usize::MAX;
}

/// Everything that is due, the next first.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Reverse<(u64, What)>>,
}

impl Agenda {
    pub(super) fn add(&mut self, at_ns: u64, what: What) {
        self.due.push(Reverse((at_ns, what)));
    }

    /// The next that is due by `now_ns`. The same thing twice at one instant comes once.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<What> {
        let first = self.due.peek()?.0;
        if first.0 > now_ns {
            return None;
        }
        while self.due.peek() == Some(&Reverse(first)) {
            self.due.pop();
        }
        Some(first.1)
    }

    /// When the next is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ns, _))| *at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_client_then_file() {
        let event = |instance, event| What::Event { instance, event };
        let mut agenda = Agenda::default();
        agenda.add(4, What::Look(9));
        for what in [What::Look(1), event(What::DEVICE, 0), What::Look(0), What::End, event(1, 3), event(1, 2)] {
            agenda.add(5, what);
            agenda.add(5, what);
        }
        assert_eq!((agenda.take(3), agenda.next_ns()), (None, Some(4)));
        let all: Vec<What> = core::iter::from_fn(|| agenda.take(5)).collect();
        let device = event(What::DEVICE, 0);
        assert_eq!(all, [What::Look(9), event(1, 2), event(1, 3), device, What::End, What::Look(0), What::Look(1)]);
    }
}
