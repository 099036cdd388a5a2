//! The compute kernel of the `gears` command: three meshing gears seen from above, lit from the upper left.
//!
//! A pure function from frame number, size and row to pixels; the command writes the rows through the page tables. Each
//! gear is a signed distance field (negative inside), so its edges are covered by fractions of a pixel and its bevels
//! get their slope from the field's gradient. The colours are the old demo's: red drives green and blue.
//!
//! Sizes are in the scene's units, in which the large gear's pitch radius is 4; `y` points up, angles go
//! counterclockwise. Gears that mesh have pitch radii in proportion to their teeth, and turn against each other in
//! inverse proportion: with 20 and 10 teeth, one degree of the large gear is two of a small one.

use core::f32::consts::PI;

/// Bytes of a pixel: red, green, blue, opacity.
pub const PIXEL_BYTES: usize = 4;

/// Half the side of the square that must be visible.
const HALF_VIEW: f32 = 6.95;
const CENTER: (f32, f32) = (-0.95, 0.1);
/// Towards the light; of length one.
const LIGHT: [f32; 3] = [-0.44, 0.62, 0.65];
/// Where the shadow falls, and how soft it is.
const SHADOW: (f32, f32) = (0.22, -0.30);
const SHADOW_SOFT: f32 = 0.55;
const BEVEL: f32 = 0.2;

/// One gear at one moment.
#[derive(Debug, Clone, Copy)]
struct Gear {
    x: f32,
    y: f32,
    pitch_radius: f32,
    teeth: f32,
    angle: f32,
    color: [f32; 3],
    bore: f32,
    holes: f32,
    /// How far from the centre the holes are, and how wide.
    hole_at: f32,
    hole_radius: f32,
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

impl Scene {
    /// Frame number `frame` in a picture of `width` by `height` pixels.
    #[must_use]
    pub fn new(width: u32, height: u32, frame: u32) -> Self {
        // CAST: at most 360 and 4096, exact in f32.
        let turn = (frame % 360) as f32 * (PI / 180.0);
        let small = Gear {
            x: 3.05,
            y: -2.0,
            pitch_radius: 2.0,
            teeth: 10.0,
            // A gap of the small gear faces a tooth of the large one: half of 36 degrees.
            angle: PI / 10.0 - 2.0 * turn,
            color: [0.10, 0.62, 0.22],
            bore: 0.62,
            holes: 0.0,
            hole_at: 0.0,
            hole_radius: 0.0,
        };
        let blue = Gear { x: -3.0, y: 4.05, angle: -2.0 * turn, color: [0.16, 0.33, 0.86], ..small };
        let red = Gear {
            x: -3.0,
            y: -2.0,
            pitch_radius: 4.0,
            teeth: 20.0,
            angle: turn,
            color: [0.80, 0.12, 0.10],
            bore: 0.85,
            holes: 5.0,
            hole_at: 2.16,
            hole_radius: 0.62,
        };
        let side = width.min(height).max(1) as f32;
        Self { gears: [red, small, blue], width, height, pixel: 2.0 * HALF_VIEW / side }
    }

    /// Draws row `y`, counted from the top, into `out`; what does not fit is left out.
    pub fn draw_row(&self, y: u32, out: &mut [u8]) {
        // CAST: at most 4096, exact in f32.
        let scene_y = CENTER.1 + (self.height as f32 * 0.5 - y as f32 - 0.5) * self.pixel;
        let row = out.chunks_exact_mut(PIXEL_BYTES).take(self.width as usize);
        for (x, pixel) in row.enumerate() {
            let scene_x = CENTER.0 + (x as f32 + 0.5 - self.width as f32 * 0.5) * self.pixel;
            let color = self.color_at(scene_x, scene_y);
            for (to, light) in pixel.iter_mut().zip(color) {
                // CAST: clamped to a byte. The square root turns light into display values.
                *to = (light.clamp(0.0, 1.0).sqrt() * 255.0 + 0.5) as u8;
            }
            pixel[3] = 255;
        }
    }

    /// The light that comes from a point.
    fn color_at(&self, x: f32, y: f32) -> [f32; 3] {
        let mut color = self.ground(x, y);
        for gear in &self.gears {
            let (dx, dy) = (x - gear.x, y - gear.y);
            let Some(distance) = gear.distance_near(dx, dy, self.pixel) else { continue };
            let cover = (0.5 - distance / self.pixel).clamp(0.0, 1.0);
            if cover > 0.0 {
                let lit = gear.shade(dx, dy, distance, self.pixel);
                color = mix(color, lit, cover);
            }
        }
        color
    }

    /// The table below the gears, with their shadows.
    fn ground(&self, x: f32, y: f32) -> [f32; 3] {
        let (cx, cy) = ((x - CENTER.0) / HALF_VIEW, (y - CENTER.1) / HALF_VIEW);
        let glow = 1.0 - 0.28 * (cx * cx + cy * cy) + 0.10 * cy;
        let mut open = 1.0_f32;
        for gear in &self.gears {
            let (dx, dy) = (x - SHADOW.0 - gear.x, y - SHADOW.1 - gear.y);
            if let Some(distance) = gear.distance_near(dx, dy, SHADOW_SOFT) {
                let t = (0.5 + 0.5 * distance / SHADOW_SOFT).clamp(0.0, 1.0);
                open = open.min(0.35 + 0.65 * t * t * (3.0 - 2.0 * t));
            }
        }
        [0.055, 0.062, 0.078].map(|light| light * glow * open)
    }
}

impl Gear {
    /// Distance from the gear's edge, or none for a point that is further than `margin` outside of its teeth.
    fn distance_near(&self, dx: f32, dy: f32, margin: f32) -> Option<f32> {
        let reach = self.pitch_radius + 0.36 + margin;
        (dx * dx + dy * dy <= reach * reach).then(|| self.distance(dx, dy))
    }

    /// Distance from the edge: teeth outside, the bore and the holes inside.
    fn distance(&self, dx: f32, dy: f32) -> f32 {
        let radius = (dx * dx + dy * dy).sqrt();
        let mut distance = self.bore - radius;
        let root = self.pitch_radius - 0.42;
        if radius > root - 2.0 * BEVEL {
            distance = distance.max(self.teeth_distance(dx, dy, radius));
        } else {
            distance = distance.max(radius - root);
        }
        if self.holes > 0.0 && (radius - self.hole_at).abs() < self.hole_radius + 2.0 * BEVEL {
            let step = 2.0 * PI / self.holes;
            let within = wrap(atan2(dy, dx) - self.angle, step);
            let (sin, cos) = within.sin_cos();
            let (hx, hy) = (radius * cos - self.hole_at, radius * sin);
            distance = distance.max(self.hole_radius - (hx * hx + hy * hy).sqrt());
        }
        distance
    }

    /// Distance from the outline: the root circle and, in the frame of the nearest tooth, a trapezoid on it.
    fn teeth_distance(&self, dx: f32, dy: f32, radius: f32) -> f32 {
        let step = 2.0 * PI / self.teeth;
        let within = wrap(atan2(dy, dx) - self.angle, step);
        let (sin, cos) = within.sin_cos();
        let (along, across) = (radius * cos, (radius * sin).abs());
        let (root, tip) = (self.pitch_radius - 0.42, self.pitch_radius + 0.34);
        // Half a tooth at the pitch circle is a quarter of the pitch, less some play.
        let half = self.pitch_radius * step * 0.25 - 0.03;
        let slope = 0.36;
        let flank = (across - half + (along - self.pitch_radius) * slope) / (1.0 + slope * slope).sqrt();
        let tooth = smooth_max(flank, along - tip, 0.10);
        -smooth_max(-tooth, root - radius, 0.14)
    }

    /// The light from a point on the gear.
    fn shade(&self, dx: f32, dy: f32, distance: f32, pixel: f32) -> [f32; 3] {
        let radius = (dx * dx + dy * dy).sqrt().max(1e-3);
        let (rx, ry) = (dx / radius, dy / radius);
        let mut normal = [0.0, 0.0, 1.0];
        if distance > -BEVEL {
            let h = 0.5 * pixel.min(0.05);
            let gx = self.distance(dx + h, dy) - self.distance(dx - h, dy);
            let gy = self.distance(dx, dy + h) - self.distance(dx, dy - h);
            let t = (1.0 + distance / BEVEL).clamp(0.0, 1.0);
            normal = tilt(gx / (2.0 * h), gy / (2.0 * h), 1.5 * t * t);
        } else {
            let slope = self.web_slope(radius);
            if slope != 0.0 {
                normal = tilt(rx, ry, slope);
            }
        }
        let diffuse = dot(normal, LIGHT).max(0.0);
        // Halfway between the light and the eye straight above.
        let half = [-0.242, 0.341, 0.908];
        let gloss = dot(normal, half).max(0.0).powi(24);
        // Metal that was turned on a lathe shines in a fan across the light's direction.
        let fan = (rx * 0.816 + ry * 0.578).powi(2);
        let fan = 0.16 * fan * fan * fan * normal[2];
        let web = if self.in_web(radius) { 0.74 } else { 1.0 };
        let strength = web * (0.16 + 1.0 * diffuse + fan);
        self.color.map(|part| part * strength + 0.30 * gloss * web + 0.05 * fan)
    }

    /// Whether a radius lies in the sunken part between hub and rim.
    fn in_web(&self, radius: f32) -> bool {
        let (inner, outer) = self.web();
        (inner..outer).contains(&radius)
    }

    fn web(&self) -> (f32, f32) {
        (self.bore + 0.30, self.pitch_radius - 0.80)
    }

    /// How steeply the walls of the sunken part go down: outwards at the hub, inwards at the rim.
    fn web_slope(&self, radius: f32) -> f32 {
        let (inner, outer) = self.web();
        let wall = |edge: f32| (1.0 - (radius - edge).abs() / 0.10).max(0.0);
        1.2 * (wall(inner) - wall(outer))
    }
}

/// A unit normal that leans by `amount` towards (x, y).
fn tilt(x: f32, y: f32, amount: f32) -> [f32; 3] {
    let (x, y) = (x * amount, y * amount);
    let length = (x * x + y * y + 1.0).sqrt();
    [x / length, y / length, 1.0 / length]
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn mix(below: [f32; 3], above: [f32; 3], cover: f32) -> [f32; 3] {
    [0, 1, 2].map(|i| below[i] + (above[i] - below[i]) * cover)
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

/// The angle of a point, within 0.0002 of the exact one: a polynomial of the smaller ratio, unfolded to all octants.
fn atan2(y: f32, x: f32) -> f32 {
    let (ax, ay) = (x.abs(), y.abs());
    let ratio = ax.min(ay) / ax.max(ay).max(1e-9);
    let s = ratio * ratio;
    let mut angle = ((-0.046_496_5 * s + 0.159_314_22) * s - 0.327_622_76) * s * ratio + ratio;
    if ay > ax {
        angle = PI / 2.0 - angle;
    }
    if x < 0.0 {
        angle = PI - angle;
    }
    if y < 0.0 { -angle } else { angle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_angle_is_near_enough() {
        for i in 0_u16..3600 {
            let angle = (f32::from(i) / 1800.0 - 1.0) * PI;
            let (sin, cos) = angle.sin_cos();
            let error = wrap(atan2(sin, cos) - angle, 2.0 * PI).abs();
            assert!(error < 4e-4, "{angle}: off by {error}");
        }
    }

    #[test]
    fn meshing_gears_never_overlap() {
        for frame in 0..72 {
            let scene = Scene::new(200, 200, frame);
            for i in 0..200_u16 {
                for j in 0..200_u16 {
                    let (x, y) = (f32::from(i) * 0.07 - 8.0, f32::from(j) * 0.07 - 6.0);
                    let depth = |gear: &Gear| gear.distance(x - gear.x, y - gear.y);
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
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 12), "row {y}");
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
