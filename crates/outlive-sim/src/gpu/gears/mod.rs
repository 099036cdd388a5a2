//! The compute kernel of the `gears` command: three meshing gears seen from above, lit from the upper left.
//!
//! A function from frame number, size and row to pixels; the command writes the rows through the page tables. Each
//! gear is a signed distance field (negative inside), so its edges are covered by fractions of a pixel and its bevels
//! get their slope from the field's gradient (`shape`, `plate`). The colours are the old demo's: red drives green and blue.
//!
//! Sizes are in the scene's units, in which the large gear's pitch radius is 4; `y` points up, angles go
//! counterclockwise. Gears that mesh have pitch radii in proportion to their teeth, and turn against each other in
//! inverse proportion: with 20 and 10 teeth, one degree of the large gear is two of a small one.

mod plate;
mod shape;

use core::f32::consts::PI;
use core::ops::Range;

use plate::{FINENESS, Plate, plates};
use shape::{LARGE, SMALL, Shape};

/// Bytes of a pixel: red, green, blue, opacity.
pub const PIXEL_BYTES: usize = 4;

/// Half the side of the square that must be visible.
const HALF_VIEW: f32 = 6.95;
const CENTER: (f32, f32) = (-0.95, 0.1);
/// Towards the light; of length one.
const LIGHT: [f32; 3] = [-0.44, 0.62, 0.65];
/// Halfway between the light and the eye straight above.
const GLOSS: [f32; 3] = [-0.242, 0.341, 0.908];
/// Where the shadow falls, and how soft it is.
const SHADOW: (f32, f32) = (0.22, -0.30);
const SHADOW_SOFT: f32 = 0.55;
/// The table below.
const GROUND: Light = [0.055, 0.062, 0.078];

/// Red, green and blue.
type Light = [f32; 3];

/// One gear at one moment.
#[derive(Debug, Clone, Copy)]
struct Gear {
    x: f32,
    y: f32,
    sin: f32,
    cos: f32,
    color: Light,
    /// Where light comes from and where it shines, in the gear's frame.
    light: [f32; 3],
    gloss: [f32; 3],
    /// How far it reaches.
    reach: f32,
    plate: &'static Plate,
}

impl Gear {
    fn new(shape: &Shape, plate: &'static Plate, (x, y): (f32, f32), angle: f32, color: Light) -> Self {
        let (sin, cos) = angle.sin_cos();
        let turned = |[x, y, z]: [f32; 3]| [cos * x + sin * y, cos * y - sin * x, z];
        Self { x, y, sin, cos, color, light: turned(LIGHT), gloss: turned(GLOSS), reach: shape.reach(), plate }
    }

    /// Where a point, given from the gear's centre, is on its plate; and how far the next point to the right is from there.
    fn on_plate(&self, dx: f32, dy: f32, next: f32) -> ([f32; 2], [f32; 2]) {
        let at = self.plate.on_table(self.cos * dx + self.sin * dy, self.cos * dy - self.sin * dx);
        (at, [self.cos * next * FINENESS, -self.sin * next * FINENESS])
    }

    /// The light from a point on the gear.
    #[inline]
    fn shade(&self, dx: f32, dy: f32, [lean_x, lean_y, web]: [f32; 3]) -> Light {
        let up = 1.0 / (lean_x * lean_x + lean_y * lean_y + 1.0).sqrt();
        let facing = |to: [f32; 3]| ((lean_x * to[0] + lean_y * to[1] + to[2]) * up).max(0.0);
        let gloss = facing(self.gloss).powi(24);
        // Metal that was turned on a lathe shines in a fan across the light's direction.
        let across = dx * 0.816 + dy * 0.578;
        let fan = across * across / (dx * dx + dy * dy).max(1e-6);
        let fan = 0.16 * fan * fan * fan * up;
        let strength = web * (0.16 + facing(self.light) + fan);
        let shine = 0.30 * gloss * web + 0.05 * fan;
        let [r, g, b] = self.color;
        [r * strength + shine, g * strength + shine, b * strength + shine]
    }
}

/// A frame to draw.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    gears: [Gear; 3],
    width: u32,
    height: u32,
    /// Scene units in a pixel.
    pixel: f32,
}

/// So many pixels of a row are worked on at once.
const SPAN: usize = 128;

/// Pixels of a row next to each other, on their way from nothing to bytes.
struct Span {
    /// Of the first pixel, and of all.
    x: f32,
    y: f32,
    len: usize,
    /// Light of the gears, as far as they cover the ground.
    light: [[f32; SPAN]; 3],
    /// How much of the ground is seen.
    bare: [f32; SPAN],
    /// How much light falls on it.
    open: [f32; SPAN],
}

impl Scene {
    /// Frame number `frame` in a picture of `width` by `height` pixels.
    #[must_use]
    pub fn new(width: u32, height: u32, frame: u32) -> Self {
        // CAST: at most 360 and 4096, exact in f32.
        let turn = (frame % 360) as f32 * (PI / 180.0);
        let [large, small] = plates();
        let red = Gear::new(&LARGE, large, (-3.0, -2.0), turn, [0.80, 0.12, 0.10]);
        // A gap of the small gear faces a tooth of the large one: half of 36 degrees.
        let green = Gear::new(&SMALL, small, (3.05, -2.0), PI / 10.0 - 2.0 * turn, [0.10, 0.62, 0.22]);
        let blue = Gear::new(&SMALL, small, (-3.0, 4.05), -2.0 * turn, [0.16, 0.33, 0.86]);
        let side = width.min(height).max(1) as f32;
        Self { gears: [red, green, blue], width, height, pixel: 2.0 * HALF_VIEW / side }
    }

    /// Draws row `y`, counted from the top, into `out`; what does not fit is left out.
    pub fn draw_row(&self, y: u32, out: &mut [u8]) {
        // CAST: here and below, at most 4096, exact in f32.
        let (width, height) = (self.width as f32, self.height as f32);
        let scene_y = CENTER.1 + (height * 0.5 - y as f32 - 0.5) * self.pixel;
        let len = out.len().min(self.width as usize * PIXEL_BYTES);
        for (n, out) in out[..len].chunks_mut(SPAN * PIXEL_BYTES).enumerate() {
            let first = (n * SPAN) as f32;
            let mut span = Span {
                x: CENTER.0 + (first + 0.5 - width * 0.5) * self.pixel,
                y: scene_y,
                len: out.len() / PIXEL_BYTES,
                light: [[0.0; SPAN]; 3],
                bare: [1.0; SPAN],
                open: [1.0; SPAN],
            };
            self.draw_gears(&mut span);
            self.cast_shadows(&mut span);
            self.show(&mut span, out);
        }
    }

    /// The pixels of the span that are within `reach` of a point at height `dy` from its row.
    fn within(&self, span: &Span, center: f32, dy: f32, reach: f32) -> Range<usize> {
        let half = (reach * reach - dy * dy).max(0.0).sqrt();
        let from = ((center - half - span.x) / self.pixel).ceil().max(0.0);
        let to = ((center + half - span.x) / self.pixel).floor() + 1.0;
        // CAST: not negative, and cut to the span.
        from as usize..(to.max(from) as usize).min(span.len)
    }

    /// Looks the pixels up one by one, then lights them side by side.
    fn draw_gears(&self, span: &mut Span) {
        let sharpness = 1.0 / self.pixel;
        for gear in &self.gears {
            let (first, dy) = (span.x - gear.x, span.y - gear.y);
            let (from, step) = gear.on_plate(first, dy, self.pixel);
            let met = self.within(span, gear.x, dy, gear.reach + 0.5 * self.pixel);
            let mut points = [[0.0; SPAN]; 4];
            for n in met.clone() {
                let along = n as i32 as f32;
                let point = gear.plate.at([from[0] + step[0] * along, from[1] + step[1] * along]);
                for (to, value) in points.iter_mut().zip(point) {
                    to[n] = value;
                }
            }
            let [red, green, blue] = &mut span.light;
            for n in met {
                let cover = (0.5 - points[0][n] * sharpness).clamp(0.0, 1.0);
                let dx = first + self.pixel * n as i32 as f32;
                let lit = gear.shade(dx, dy, [points[1][n], points[2][n], points[3][n]]);
                span.bare[n] *= 1.0 - cover;
                red[n] += (lit[0] - red[n]) * cover;
                green[n] += (lit[1] - green[n]) * cover;
                blue[n] += (lit[2] - blue[n]) * cover;
            }
        }
    }

    /// Shadows of the gears on the ground, where it is seen.
    fn cast_shadows(&self, span: &mut Span) {
        for gear in &self.gears {
            let (x, dy) = (gear.x + SHADOW.0, span.y - SHADOW.1 - gear.y);
            let (from, step) = gear.on_plate(span.x - x, dy, self.pixel);
            for n in self.within(span, x, dy, gear.reach + SHADOW_SOFT) {
                if span.bare[n] > 0.0 {
                    let along = n as i32 as f32;
                    let distance = gear.plate.distance_near([from[0] + step[0] * along, from[1] + step[1] * along]);
                    let t = (0.5 + distance * (0.5 / SHADOW_SOFT)).clamp(0.0, 1.0);
                    span.open[n] = span.open[n].min(0.35 + 0.65 * t * t * (3.0 - 2.0 * t));
                }
            }
        }
    }

    /// Puts the ground below, and turns light into bytes.
    fn show(&self, span: &mut Span, out: &mut [u8]) {
        let cy = (span.y - CENTER.1) / HALF_VIEW;
        let (at_row, from, step) = (1.0 - 0.28 * cy * cy + 0.10 * cy, span.x - CENTER.0, self.pixel);
        for (n, (open, bare)) in span.open.iter_mut().zip(&span.bare).enumerate() {
            let cx = (from + n as i32 as f32 * step) * (1.0 / HALF_VIEW);
            *open *= (at_row - 0.28 * cx * cx) * bare;
        }
        let mut pixels = [0; SPAN];
        for (n, pixel) in pixels.iter_mut().enumerate() {
            let shown = |channel: usize| shown(span.light[channel][n] + GROUND[channel] * span.open[n]);
            *pixel = shown(0) | shown(1) << 8 | shown(2) << 16 | 0xff << 24;
        }
        for (to, pixel) in out.chunks_exact_mut(PIXEL_BYTES).zip(pixels) {
            to.copy_from_slice(&pixel.to_le_bytes());
        }
    }
}

/// Light as a display takes it: 0 to 255.
#[inline]
fn shown(light: f32) -> u32 {
    // The square root turns light into display values. Beside 2^23, the last bits of a float count in ones, and adding
    // rounds to the nearest: a conversion that vector units can do.
    let value = light.clamp(0.0, 1.0).sqrt() * 255.0;
    (value + 8_388_608.0).to_bits() & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshing_gears_never_overlap() {
        for frame in 0..72 {
            let scene = Scene::new(200, 200, frame);
            for i in 0..200_u16 {
                for j in 0..200_u16 {
                    let (x, y) = (f32::from(i) * 0.07 - 8.0, f32::from(j) * 0.07 - 6.0);
                    let depth = |gear: &Gear| {
                        let (dx, dy) = (x - gear.x, y - gear.y);
                        let near = dx.hypot(dy) < gear.reach;
                        if near { gear.plate.at(gear.on_plate(dx, dy, 0.0).0)[0] } else { 1.0 }
                    };
                    let inside = scene.gears.iter().filter(|gear| depth(gear) < -0.03);
                    assert!(inside.count() <= 1, "frame {frame}: two gears at {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn turning_by_a_tooth_and_the_holes_symmetry_is_the_same_picture() {
        // 72 degrees: four teeth of the large gear, one of its holes, four teeth of each small one.
        let (first, later) = (Scene::new(64, 64, 0), Scene::new(64, 64, 72));
        let (mut a, mut b) = ([0; 256], [0; 256]);
        for y in 0..64 {
            first.draw_row(y, &mut a);
            later.draw_row(y, &mut b);
            // Not to the last level: the points of the tables do not turn with the gears.
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 24), "row {y}");
        }
    }

    #[test]
    fn rows_are_opaque_and_frames_differ() {
        let (mut a, mut b) = (vec![0; 64 * 4], vec![0; 64 * 4]);
        Scene::new(64, 64, 0).draw_row(32, &mut a);
        Scene::new(64, 64, 5).draw_row(32, &mut b);
        assert!(a.chunks_exact(4).all(|pixel| pixel[3] == 255));
        assert_ne!(a, b);
    }
}
