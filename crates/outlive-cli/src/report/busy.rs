//! Hardware time up to any moment, for shares. Used by the collector.
//!
//! Hardware time that had passed at `t` is the sum over all stretches of how long each had lasted: with `n` starts and `m`
//! ends before `t`, that is `n * t - sum of those starts - (m * t - sum of those ends)`. For stretches 0..10 and 5..8, at 6
//! it is 2 * 6 - (0 + 5) - 0 = 7: six of the first and one of the second.

/// Stretches on the hardware, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct BusyTime {
    starts: Edges,
    ends: Edges,
}

#[derive(Debug, Clone)]
struct Edges {
    at_ns: Vec<u64>,
    /// `sums[i]` is the sum of the first `i` edges.
    sums: Vec<u128>,
}

impl BusyTime {
    /// Of these stretches, each from and to.
    pub(super) fn new(stretches: &[(u64, u64)]) -> Self {
        Self {
            starts: Edges::new(stretches.iter().map(|(from, _)| *from).collect()),
            ends: Edges::new(stretches.iter().map(|(from, to)| *to.max(from)).collect()),
        }
    }

    /// Hardware time in a window, stretches cut at its edges.
    pub(super) fn within_ns(&self, from_ns: u64, to_ns: u64) -> u128 {
        self.until_ns(to_ns).saturating_sub(self.until_ns(from_ns))
    }

    fn until_ns(&self, t_ns: u64) -> u128 {
        self.starts.passed_ns(t_ns) - self.ends.passed_ns(t_ns)
    }
}

impl Edges {
    fn new(mut at_ns: Vec<u64>) -> Self {
        at_ns.sort_unstable();
        let mut sums = Vec::with_capacity(at_ns.len() + 1);
        let mut sum = 0_u128;
        sums.push(sum);
        for at in &at_ns {
            sum += u128::from(*at);
            sums.push(sum);
        }
        Self { at_ns, sums }
    }

    /// How long ago the edges before `t_ns` were, in sum.
    fn passed_ns(&self, t_ns: u64) -> u128 {
        let before = self.at_ns.partition_point(|at| *at < t_ns);
        // CAST: usize to u128 only widens.
        before as u128 * u128::from(t_ns) - self.sums[before]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_cut_at_the_edges() {
        let busy = BusyTime::new(&[(0, 10), (5, 8), (20, 25)]);
        assert_eq!(busy.within_ns(0, 6), 7);
        assert_eq!(busy.within_ns(0, 100), 18);
        assert_eq!(busy.within_ns(6, 7), 2);
        assert_eq!(busy.within_ns(9, 22), 3);
        assert_eq!(busy.within_ns(10, 20), 0);
        assert_eq!(busy.within_ns(30, 20), 0);
        assert_eq!(BusyTime::new(&[]).within_ns(0, 9), 0);
    }
}
