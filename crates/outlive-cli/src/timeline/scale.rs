//! Maps time to the picture, and draws the axis.

use super::svg::{Anchor, Svg};
use super::{GRID, INK_SOFT};
use crate::report::grouped;

/// A stretch of time and where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// How many pixels are one slice, where single jobs are not drawn.
    pub(super) grain: f64,
    left: f64,
    right: f64,
}

impl Scale {
    pub(super) const fn new(from_ns: u64, to_ns: u64, left: f64, right: f64) -> Self {
        Self { from_ns, to_ns, grain: 2.0, left, right }
    }

    /// Where a moment lies; outside the stretch, its nearer end.
    pub(super) fn x(&self, at_ns: u64) -> f64 {
        self.left + self.width(at_ns.clamp(self.from_ns, self.to_ns) - self.from_ns)
    }

    /// How wide a length of time is.
    pub(super) fn width(&self, length_ns: u64) -> f64 {
        // CAST: a picture's precision is a few thousand pixels.
        length_ns as f64 / (self.to_ns - self.from_ns).max(1) as f64 * (self.right - self.left)
    }

    /// Whether any of this lies inside.
    pub(super) const fn shows(&self, from_ns: u64, to_ns: u64) -> bool {
        from_ns < self.to_ns && to_ns >= self.from_ns
    }

    /// How many slices there are.
    pub(super) fn slices(&self) -> usize {
        // CAST: a small positive number.
        ((self.right - self.left) / self.grain) as usize
    }

    pub(super) const fn left(&self) -> f64 {
        self.left
    }

    pub(super) const fn right(&self) -> f64 {
        self.right
    }

    /// Between ticks: 1, 2 or 5 of a power of ten, so that there are about ten.
    pub(super) fn step_ns(&self) -> u64 {
        let least_ns = ((self.to_ns - self.from_ns) / 12).max(1);
        let mut power_ns = 1;
        loop {
            for digit in [1, 2, 5] {
                if digit * power_ns >= least_ns {
                    return digit * power_ns;
                }
            }
            power_ns *= 10;
        }
    }
}

/// Grid lines from `top` to `bottom`, and what they mean below; gives the bottom of that.
pub(super) fn axis(svg: &mut Svg, scale: &Scale, top: f64, bottom: f64) -> f64 {
    let step_ns = scale.step_ns();
    let (unit_ns, unit) = unit(step_ns);
    svg.open(r#"class="axis""#);
    let mut tick_ns = scale.from_ns.div_ceil(step_ns) * step_ns;
    while tick_ns <= scale.to_ns {
        let x = scale.x(tick_ns);
        svg.line((x, top), (x, bottom + 5.0), &format!(r#"stroke="{GRID}""#));
        let label = format!("{} {unit}", in_unit(tick_ns, unit_ns));
        svg.text(x, bottom + 19.0, 11.0, Anchor::Middle, INK_SOFT, "400", &label);
        tick_ns += step_ns;
    }
    svg.line((scale.left, bottom), (scale.right, bottom), &format!(r#"stroke="{INK_SOFT}""#));
    svg.close();
    bottom + 26.0
}

/// A moment in words: `1.25 s`, `30.5 ms`.
pub(super) fn moment(at_ns: u64) -> String {
    let (unit_ns, unit) = match at_ns {
        0..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    // CAST: shown in a few digits.
    let digits = format!("{:.3}", at_ns as f64 / unit_ns);
    format!("{} {unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// The unit in which multiples of a step are short.
const fn unit(step_ns: u64) -> (u64, &'static str) {
    match step_ns {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..500_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    }
}

/// At most one digit after the point is needed: for half seconds.
fn in_unit(at_ns: u64, unit_ns: u64) -> String {
    let whole = grouped(at_ns / unit_ns);
    match at_ns % unit_ns * 10 / unit_ns {
        0 => whole,
        tenths => format!("{whole}.{tenths}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_about_ten() {
        for (span_ns, step_ns) in [(10_000_000_000, 1_000_000_000), (50_000_000, 5_000_000), (130, 10), (7, 1)] {
            assert_eq!(Scale::new(0, span_ns, 0.0, 100.0).step_ns(), step_ns);
        }
    }

    #[test]
    fn moments_have_no_idle_zeros() {
        let shown = [0, 1_500, 30_000_000, 1_250_000_000].map(moment);
        assert_eq!(shown, ["0 µs", "1.5 µs", "30 ms", "1.25 s"]);
    }

    #[test]
    fn moments_outside_lie_at_the_ends() {
        let scale = Scale::new(100, 200, 10.0, 110.0);
        assert_eq!([50, 100, 150, 300].map(|at_ns| scale.x(at_ns)), [10.0, 10.0, 60.0, 110.0]);
        assert_eq!((in_unit(1_500_000_000, 1_000_000_000), in_unit(2_000_000, 1_000_000)), ("1.5".into(), "2".into()));
    }
}
