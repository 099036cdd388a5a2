//! A gear's relief as a table, so that a pixel costs a lookup between four points instead of the geometry.
//!
//! A plate lies in its gear's own frame, and the frame turns; so one plate serves all frames of all sizes. Both are made
//! when the first frame is drawn, once in a process.

use std::sync::OnceLock;

use super::SHADOW_SOFT;
use super::shape::{LARGE, Relief, SMALL, Shape};

/// Points of the table in a unit of length.
pub(super) const FINENESS: f32 = 24.0;

/// Distance from the edge, slope in two directions, light.
pub(super) type Point = [f32; 4];

/// One gear's table: a square around its centre.
#[derive(Debug)]
pub(super) struct Plate {
    points: Vec<Point>,
    side: usize,
    /// From the centre to where the table begins.
    half: f32,
}

/// The plates of the large gear and the small ones.
pub(super) fn plates() -> &'static [Plate; 2] {
    static PLATES: OnceLock<[Plate; 2]> = OnceLock::new();
    PLATES.get_or_init(|| [Plate::new(&LARGE), Plate::new(&SMALL)])
}

impl Plate {
    fn new(shape: &Shape) -> Self {
        // As far as a shadow falls, and a point more on every side.
        let half = shape.reach() + SHADOW_SOFT + 1.0 / FINENESS;
        // CAST: a few hundred.
        let side = (2.0 * half * FINENESS) as usize + 2;
        let at = |n: usize| n as f32 / FINENESS - half;
        let mut points = Vec::with_capacity(side * side);
        for row in 0..side {
            for column in 0..side {
                let Relief { distance, slope, light } = shape.relief(at(column), at(row));
                points.push([distance, slope.0, slope.1, light]);
            }
        }
        Self { points, side, half }
    }

    /// Where on the table a point of the gear's frame is: column and row, counted in points.
    pub(super) fn on_table(&self, x: f32, y: f32) -> [f32; 2] {
        [(x + self.half) * FINENESS, (y + self.half) * FINENESS]
    }

    /// Between the four points around a place on the table.
    #[inline]
    pub(super) fn at(&self, [column, row]: [f32; 2]) -> Point {
        // CAST: not negative on the table; cut off, not rounded.
        let (left, top) = (column as i32, row as i32);
        let (right_part, lower_part) = (column - left as f32, row - top as f32);
        let first = top.wrapping_mul(self.side as i32).wrapping_add(left) as usize;
        let Some(around) = self.points.get(first..first.wrapping_add(self.side + 2)) else { return OUTSIDE };
        let above = between(around[0], around[1], right_part);
        let below = between(around[self.side], around[self.side + 1], right_part);
        between(above, below, lower_part)
    }

    /// The distance at the point next to a place on the table: enough for what is soft.
    #[inline]
    pub(super) fn distance_near(&self, [column, row]: [f32; 2]) -> f32 {
        // CAST: not negative on the table.
        let (left, top) = ((column + 0.5) as i32, (row + 0.5) as i32);
        let at = top.wrapping_mul(self.side as i32).wrapping_add(left) as usize;
        self.points.get(at).map_or(OUTSIDE[0], |point| point[0])
    }
}

/// Off the table: far from any gear.
const OUTSIDE: Point = [1.0e3, 0.0, 0.0, 1.0];

#[inline]
fn between(from: Point, to: Point, part: f32) -> Point {
    let [a, b, c, d] = from;
    // Spelled out, and so for colours: `array::map` is a call here, and this is what a frame's time is spent on.
    [a + (to[0] - a) * part, b + (to[1] - b) * part, c + (to[2] - c) * part, d + (to[3] - d) * part]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_geometry_says() {
        for (plate, shape) in plates().iter().zip([LARGE, SMALL]) {
            let (mut off, mut worst) = (0, 0.0_f32);
            for n in 0..40_000_u16 {
                let turn = f32::from(n) * 2.399_963;
                let radius = shape.reach() * (f32::from(n) / 40_000.0).sqrt();
                let (x, y) = (radius * turn.cos(), radius * turn.sin());
                let error = (plate.at(plate.on_table(x, y))[0] - shape.distance(x, y)).abs();
                off += u32::from(error > 0.01);
                worst = worst.max(error);
            }
            // The distance jumps where holes and teeth stop being looked at, far from every edge.
            assert!(off < 800, "{off} points of 40000 are off, by up to {worst}");
        }
    }

    #[test]
    fn the_whole_reach_of_a_shadow_is_on_the_table() {
        for (plate, shape) in plates().iter().zip([LARGE, SMALL]) {
            let far = shape.reach() + SHADOW_SOFT;
            for n in 0..3600_u16 {
                let (sin, cos) = (f32::from(n) * 0.001_745).sin_cos();
                let place = plate.on_table(far * cos, far * sin);
                assert!(plate.at(place)[0] < 10.0 && plate.distance_near(place) < 10.0);
            }
        }
        assert!(plates()[0].at([-5.0, -5.0])[0] > 10.0, "off the table");
    }
}
