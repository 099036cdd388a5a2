//! Maps from numbers that were never chosen by an adversary: hashed by one multiplication, in no order.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

/// A map whose keys are one or two numbers. Whoever walks it sorts what comes out: the audit's words have an order.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Mixes numbers; good enough where they count up.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // The table takes its place from the low bits and a tag from the high ones, so both must depend on all of `n`.
        let wide = u128::from(self.0.rotate_left(5) ^ n) * 0x9e37_79b9_7f4a_7c15;
        // CAST: the two halves.
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn write_isize(&mut self, n: isize) {
        // CAST: which variant of an enum.
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_count_up_do_not_crowd() {
        let mut places = [0_u32; 256];
        let mut tags = [0_u32; 128];
        for n in 0..25_600 {
            let mut hasher = IdHasher::default();
            hasher.write_u64(n);
            places[(hasher.finish() % 256) as usize] += 1;
            tags[(hasher.finish() >> 57) as usize] += 1;
        }
        assert!(places.iter().all(|count| (30..300).contains(count)), "{places:?}");
        assert!(tags.iter().all(|count| (60..600).contains(count)), "{tags:?}");
    }
}
