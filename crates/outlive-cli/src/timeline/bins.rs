//! How many of something there were in each pixel, on average. Used where single jobs are too narrow.

use super::scale::Scale;

/// Time in which something was the case, summed for each of equal slices of a stretch of time.
#[derive(Debug, Clone)]
pub(super) struct Bins {
    from_ns: u64,
    span_ns: u64,
    sums_ns: Vec<u64>,
}

impl Bins {
    /// The slices of what `scale` shows.
    pub(super) fn new(scale: &Scale) -> Self {
        let sums_ns = vec![0; scale.slices().max(1)];
        Self { from_ns: scale.from_ns, span_ns: (scale.to_ns - scale.from_ns).max(1), sums_ns }
    }

    /// Something was the case in this time.
    pub(super) fn add(&mut self, from_ns: u64, to_ns: u64) {
        let end_ns = self.from_ns + self.span_ns;
        let (from_ns, to_ns) = (from_ns.max(self.from_ns), to_ns.min(end_ns));
        if from_ns >= to_ns {
            return;
        }
        let first = self.place(from_ns);
        let last = self.place(to_ns - 1);
        for place in first..=last {
            let (start, end) = (self.edge_ns(place), self.edge_ns(place + 1));
            self.sums_ns[place] += to_ns.min(end).saturating_sub(from_ns.max(start));
        }
    }

    /// How many there were on average in each slice.
    pub(super) fn means(&self) -> Vec<f64> {
        let mean = |(place, sum_ns): (usize, &u64)| {
            // CAST: shown with a precision of some hundred.
            *sum_ns as f64 / (self.edge_ns(place + 1) - self.edge_ns(place)).max(1) as f64
        };
        self.sums_ns.iter().enumerate().map(mean).collect()
    }

    fn count(&self) -> u128 {
        // CAST: usize to u128 only widens.
        self.sums_ns.len() as u128
    }

    fn place(&self, at_ns: u64) -> usize {
        let guess = u128::from(at_ns - self.from_ns) * self.count() / u128::from(self.span_ns);
        let mut place = usize::try_from(guess).unwrap_or(usize::MAX).min(self.sums_ns.len() - 1);
        // Edges are rounded down, so the guess may be one too low.
        while place + 1 < self.sums_ns.len() && self.edge_ns(place + 1) <= at_ns {
            place += 1;
        }
        place
    }

    fn edge_ns(&self, place: usize) -> u64 {
        // CAST: usize to u128 only widens; the result is within the stretch.
        let offset = u128::from(self.span_ns) * place as u128 / self.count();
        self.from_ns + u64::try_from(offset).unwrap_or(self.span_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_falls_into_its_slices() {
        let mut bins = Bins::new(&Scale::new(100, 200, 0.0, 8.0));
        bins.add(0, 110);
        bins.add(120, 160);
        bins.add(140, 150);
        bins.add(199, 400);
        assert_eq!(bins.means(), [15.0 / 25.0, 35.0 / 25.0, 10.0 / 25.0, 1.0 / 25.0]);
    }

    #[test]
    fn nothing_is_lost_where_slices_are_uneven() {
        let mut bins = Bins::new(&Scale::new(0, 10, 0.0, 14.0));
        for at_ns in 0..10 {
            bins.add(at_ns, at_ns + 1);
        }
        assert_eq!(bins.sums_ns.iter().sum::<u64>(), 10);
        assert!(bins.means().iter().all(|mean| (mean - 1.0).abs() < 1e-9));
    }
}
