//! Finding a buffer's pair in a VM: a hash table from the buffer's number, which the library gives out and nobody can choose.
//! O(1) expected; only [`Table::reserve`] and
//! [`Table::with`] allocate.
//!
//! # Invariants
//! - The number of places is zero or a power of two, and at most half of them are taken.
//! - From a number's own place (its hash) to the one it is in, every place is taken (linear probing).

use super::bo::BoId;
use crate::mem::{AllocError, HeapVec, try_reserve};

#[derive(Debug, Default)]
pub(super) struct Table {
    places: HeapVec<Option<(u64, BoId)>>,
    len: usize,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { places: HeapVec::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Makes room for one more.
    pub(super) fn reserve(&mut self) -> Result<(), AllocError> {
        if let Some(places) = self.places_for_one() {
            self.move_to(&mut Self::with(places)?);
        }
        Ok(())
    }

    /// How many places there must be for one more; none if there are enough.
    pub(super) fn places_for_one(&self) -> Option<usize> {
        ((self.len + 1) * 2 > self.places.len()).then(|| (self.places.len() * 2).max(8))
    }

    /// An empty one of so many places.
    pub(super) fn with(places: usize) -> Result<Self, AllocError> {
        let mut table = Self::new();
        try_reserve(&mut table.places, places)?;
        table.places.resize(places, None);
        Ok(table)
    }

    /// Moves into `wider`, which is empty. Allocates nothing, frees nothing; `wider` has the old memory then.
    pub(super) fn move_to(&mut self, wider: &mut Self) {
        if wider.places.len() > self.places.len() {
            for (key, bo) in self.places.iter().flatten() {
                wider.insert(*key, *bo);
            }
            core::mem::swap(self, wider);
        }
    }

    /// Puts in what is not there; there is room.
    pub(super) fn insert(&mut self, key: u64, bo: BoId) {
        let mut at = self.home(key);
        while self.places[at].is_some() {
            at = self.after(at);
        }
        self.places[at] = Some((key, bo));
        self.len += 1;
    }

    pub(super) fn get(&self, key: u64) -> Option<BoId> {
        self.find(key).and_then(|at| self.places[at]).map(|(_, bo)| bo)
    }

    pub(super) fn remove(&mut self, key: u64) {
        let Some(mut hole) = self.find(key) else { return };
        self.len -= 1;
        let mut at = hole;
        loop {
            at = self.after(at);
            let Some((key, _)) = self.places[at] else { break };
            // Who would not be found any more with the hole before it moves into it.
            let mask = self.places.len() - 1;
            let from_home = at.wrapping_sub(self.home(key)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[at];
                hole = at;
            }
        }
        self.places[hole] = None;
    }

    fn find(&self, key: u64) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        while let Some((found, _)) = self.places[at] {
            if found == key {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    /// The number's own place: its product with 2^64 divided by the golden ratio, whose top bits are well mixed.
    fn home(&self, key: u64) -> usize {
        let bits = self.places.len().trailing_zeros();
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits);
        usize::try_from(mixed).unwrap_or(0)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Table;
    use crate::vm::{Geometry, Space};

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let mut space = Space::<(), ()>::new(Geometry { base: 0, len: 1 << 30, page: 4096 }).unwrap();
        let bo = space.open_bo(4096, ()).unwrap();
        let mut table = Table::new();
        let mut inside = std::collections::HashSet::new();
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (seed >> 33) % 300;
            assert_eq!(table.get(key).is_some(), inside.contains(&key));
            if inside.remove(&key) {
                table.remove(key);
            } else {
                table.reserve().unwrap();
                table.insert(key, bo);
                inside.insert(key);
            }
            assert_eq!(table.len(), inside.len());
        }
    }
}
