//! Interleaving: in each round every contender runs once, in an order rotated by one per round, and what counts is its
//! ratio to the first one **in that round**. Medians and quartiles are over rounds. A machine that is three times slower
//! for a second is so for all contenders of a round, and drops out.

use core::fmt;
use core::time::Duration;

/// Something that does `n` jobs and says how long they took, set-up left out.
pub struct Contender {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration>,
}

impl Contender {
    /// Called `name`.
    pub fn new(name: impl Into<String>, run: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Lower quartile, median, upper quartile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// A quarter is below.
    pub low: f64,
    /// Half is below.
    pub mid: f64,
    /// A quarter is above.
    pub high: f64,
}

impl Spread {
    /// Of `values`, which are sorted for it. NaN for none.
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
            let place = part * last as f64;
            let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self { low: at(0.25), mid: at(0.5), high: at(0.75) }
    }
}

/// What one contender did.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Nanoseconds per job.
    pub ns: Spread,
    /// Time per job divided by that of the first contender in the same round.
    pub ratio: Spread,
}

/// How much to run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds that count.
    pub rounds: usize,
    /// Divides how many jobs a contender does in a round.
    pub divide: u64,
}

impl Effort {
    /// For a table.
    pub const FULL: Self = Self { rounds: 60, divide: 1 };
    /// To see that it works.
    pub const QUICK: Self = Self { rounds: 5, divide: 10 };

    /// `jobs`, or fewer.
    #[must_use]
    pub const fn of(self, jobs: u64) -> u64 {
        let jobs = jobs / self.divide;
        if jobs == 0 { 1 } else { jobs }
    }
}

/// Runs all of them, after one round that does not count. Each does `jobs` per round, divided by its own `scale` where one
/// job of it is many.
pub fn race(contenders: &mut [Contender], effort: Effort, jobs: u64, per_job: u64) -> Vec<Row> {
    let jobs = effort.of(jobs);
    let count = contenders.len();
    let mut times = vec![Vec::with_capacity(effort.rounds); count];
    for round in 0..=effort.rounds {
        for turn in 0..count {
            let who = (round + turn) % count;
            let time = (contenders[who].run)(jobs);
            if round > 0 {
                times[who].push(time.as_nanos() as f64 / (jobs * per_job) as f64);
            }
        }
    }
    let first = times[0].clone();
    let names = contenders.iter().map(|contender| contender.name.clone());
    let row = |(name, mut times): (String, Vec<f64>)| {
        let mut ratios: Vec<f64> = times.iter().zip(&first).map(|(time, first)| time / first).collect();
        Row { name, ns: Spread::of(&mut times), ratio: Spread::of(&mut ratios) }
    };
    names.zip(times).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{Contender, Effort, Spread, race};
    use core::time::Duration;

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of(&mut [4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((spread.low, spread.mid, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(Spread::of(&mut [1.0, 2.0]).mid, 1.5);
        assert!(Spread::of(&mut []).mid.is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine slows down by 1000 from round to round; the ratio stays 2.
        let slow = |factor: u64| {
            let mut machine = 1;
            Contender::new("x", move |jobs| {
                machine *= 10;
                Duration::from_nanos(machine * jobs * factor)
            })
        };
        let rows = race(&mut [slow(1), slow(2)], Effort { rounds: 4, divide: 1 }, 10, 1);
        assert_eq!((rows[1].ratio.low, rows[1].ratio.mid, rows[1].ratio.high), (2.0, 2.0, 2.0));
        assert!(rows[0].ns.high > rows[0].ns.low);
    }
}
