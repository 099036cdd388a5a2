//! The free ones of up to 64 numbered slots: a plain state machine.

/// Up to 64 numbered slots, of which some are free. Taking always yields the lowest free one, so that a trace is
/// reproducible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet {
    free: u64,
    all: u64,
}

impl SlotSet {
    /// The most slots there can be.
    pub const MOST: u32 = 64;

    /// `count` free slots, at most 64.
    ///
    /// Worked example: `SlotSet::new(5)` has the free mask `0b1_1111`.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        let all = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        Self { free: all, all }
    }

    /// Takes the lowest free slot.
    pub const fn take(&mut self) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let slot = self.free.trailing_zeros();
        self.free &= self.free - 1;
        Some(slot)
    }

    /// Gives `slot` back; false if it was not taken, or is none: nothing was changed then.
    #[must_use = "false means that somebody gives back what he does not have"]
    pub const fn give_back(&mut self, slot: u32) -> bool {
        let bit = if slot < 64 { 1 << slot } else { 0 };
        if self.all & bit == 0 || self.free & bit != 0 {
            return false;
        }
        self.free |= bit;
        true
    }

    /// How many are free.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.free.count_ones()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::SlotSet;

    #[test]
    fn slots_are_taken_lowest_first_and_given_back_once() {
        let mut slots = SlotSet::new(3);
        assert_eq!([slots.take(), slots.take(), slots.take(), slots.take()], [Some(0), Some(1), Some(2), None]);
        assert!(slots.give_back(1));
        assert!(!slots.give_back(1), "it is free already");
        assert!(!slots.give_back(3) && !slots.give_back(64), "there is no such slot");
        assert_eq!((slots.free(), slots.take()), (1, Some(1)));
        assert_eq!(SlotSet::new(64).free(), 64);
    }
}
