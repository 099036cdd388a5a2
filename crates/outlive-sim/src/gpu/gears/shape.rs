//! What a gear looks like: distance from its edge and slope of its surface, at any point of its own frame.
//!
//! Exact and slow: `plate` asks once for every point of its tables.

use core::f32::consts::PI;

pub(super) const BEVEL: f32 = 0.2;
/// How much light the sunken part between hub and rim takes.
const WEB_LIGHT: f32 = 0.74;

/// One kind of gear, with a tooth in the direction of `x`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) pitch_radius: f32,
    teeth: f32,
    bore: f32,
    holes: f32,
    /// How far from the centre the holes are, and how wide.
    hole_at: f32,
    hole_radius: f32,
}

pub(super) const LARGE: Shape =
    Shape { pitch_radius: 4.0, teeth: 20.0, bore: 0.85, holes: 5.0, hole_at: 2.16, hole_radius: 0.62 };
pub(super) const SMALL: Shape =
    Shape { pitch_radius: 2.0, teeth: 10.0, bore: 0.62, holes: 0.0, hole_at: 0.0, hole_radius: 0.0 };

/// What there is at a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relief {
    /// From the edge; negative inside.
    pub(super) distance: f32,
    /// Where the surface leans, and how much.
    pub(super) slope: (f32, f32),
    /// Light that it does not take, as a factor.
    pub(super) light: f32,
}

impl Shape {
    /// How far the teeth reach.
    pub(super) const fn reach(&self) -> f32 {
        self.pitch_radius + 0.36
    }

    /// Distance from the edge: teeth outside, the bore and the holes inside.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let radius = x.hypot(y);
        let mut distance = self.bore - radius;
        let root = self.pitch_radius - 0.42;
        if radius > root - 2.0 * BEVEL {
            distance = distance.max(self.teeth_distance(x, y, radius));
        } else {
            distance = distance.max(radius - root);
        }
        if self.holes > 0.0 && (radius - self.hole_at).abs() < self.hole_radius + 2.0 * BEVEL {
            let (sin, cos) = wrap(y.atan2(x), 2.0 * PI / self.holes).sin_cos();
            let to_hole = (radius * cos - self.hole_at).hypot(radius * sin);
            distance = distance.max(self.hole_radius - to_hole);
        }
        distance
    }

    /// Distance from the outline: the root circle and, in the frame of the nearest tooth, a trapezoid on it.
    fn teeth_distance(&self, x: f32, y: f32, radius: f32) -> f32 {
        let step = 2.0 * PI / self.teeth;
        let (sin, cos) = wrap(y.atan2(x), step).sin_cos();
        let (along, across) = (radius * cos, (radius * sin).abs());
        let (root, tip) = (self.pitch_radius - 0.42, self.pitch_radius + 0.34);
        // Half a tooth at the pitch circle is a quarter of the pitch, less some play.
        let half = self.pitch_radius * step * 0.25 - 0.03;
        let slope = 0.36;
        let flank = (across - half + (along - self.pitch_radius) * slope) / (1.0 + slope * slope).sqrt();
        let tooth = smooth_max(flank, along - tip, 0.10);
        -smooth_max(-tooth, root - radius, 0.14)
    }

    /// All that a point's picture depends on.
    pub(super) fn relief(&self, x: f32, y: f32) -> Relief {
        let (radius, distance) = (x.hypot(y).max(1e-3), self.distance(x, y));
        let light = if self.in_web(radius) { WEB_LIGHT } else { 1.0 };
        let slope = if distance > -BEVEL {
            let h = 0.01;
            let across = self.distance(x + h, y) - self.distance(x - h, y);
            let up = self.distance(x, y + h) - self.distance(x, y - h);
            let t = (1.0 + distance / BEVEL).clamp(0.0, 1.0);
            let lean = 1.5 * t * t / (2.0 * h);
            (across * lean, up * lean)
        } else {
            let lean = self.web_slope(radius) / radius;
            (x * lean, y * lean)
        };
        Relief { distance, slope, light }
    }

    /// Whether a radius lies in the sunken part between hub and rim.
    fn in_web(&self, radius: f32) -> bool {
        let (inner, outer) = self.web();
        (inner..outer).contains(&radius)
    }

    const fn web(&self) -> (f32, f32) {
        (self.bore + 0.30, self.pitch_radius - 0.80)
    }

    /// How steeply the walls of the sunken part go down: outwards at the hub, inwards at the rim.
    fn web_slope(&self, radius: f32) -> f32 {
        let (inner, outer) = self.web();
        let wall = |edge: f32| (1.0 - (radius - edge).abs() / 0.10).max(0.0);
        1.2 * (wall(inner) - wall(outer))
    }
}

/// The larger of two, with the corner between them rounded over `round`.
fn smooth_max(a: f32, b: f32, round: f32) -> f32 {
    let overlap = (round - (a - b).abs()).max(0.0) / round;
    a.max(b) + overlap * overlap * round * 0.25
}

/// An angle brought to within half a `step` of zero.
fn wrap(angle: f32, step: f32) -> f32 {
    angle - (angle / step).round() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_where_it_should_be() {
        assert!(SMALL.distance(0.0, 0.0) > 0.5 && LARGE.distance(0.0, 0.0) > 0.5, "the bore");
        assert!(LARGE.distance(2.16, 0.0) > 0.5, "a hole");
        assert!(LARGE.distance(4.3, 0.0) < 0.0 && SMALL.distance(2.3, 0.0) < 0.0, "a tooth");
        let (sin, cos) = (PI / 20.0).sin_cos();
        assert!(LARGE.distance(4.3 * cos, 4.3 * sin) > 0.1, "a gap");
    }

    #[test]
    fn the_surface_is_flat_but_for_its_edges() {
        let flat = SMALL.relief(1.4, 0.0);
        assert!(flat.distance < -BEVEL);
        let rim = LARGE.relief(4.28, 0.0);
        assert!(rim.slope.0 > 0.1 && rim.slope.1.abs() < 0.05, "{rim:?}: it falls off outwards");
    }
}
