//! Injection: contention and want of memory where there is none, so that what follows them is tested.

/// Makes a transaction meet contention, or run out of memory, by chance; the same chance for the same seed. Both become rarer
/// each time, so a transaction that can get through does.
#[derive(Debug, Clone, Copy)]
pub struct Injection {
    state: u64,
    /// Once in so many; 0 is never.
    contention: u32,
    no_memory: u32,
}

impl Injection {
    /// Nothing yet: choose.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self { state: seed, contention: 0, no_memory: 0 }
    }

    /// Once in `times` locks, by chance, another is said to be contended: all must be given back. Not when none is held.
    #[must_use]
    pub const fn contention(mut self, times: u32) -> Self {
        self.contention = times;
        self
    }

    /// Once in `times` reservations of slots, by chance, there is no memory.
    #[must_use]
    pub const fn no_memory(mut self, times: u32) -> Self {
        self.no_memory = times;
        self
    }

    pub(super) fn contends(&mut self) -> bool {
        let hit = self.one_in(self.contention);
        if hit {
            self.contention = self.contention.saturating_mul(2);
        }
        hit
    }

    pub(super) fn refuses_memory(&mut self) -> bool {
        let hit = self.one_in(self.no_memory);
        if hit {
            self.no_memory = self.no_memory.saturating_mul(2);
        }
        hit
    }

    fn one_in(&mut self, times: u32) -> bool {
        if times == 0 {
            return false;
        }
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % u64::from(times) == 0
    }
}
