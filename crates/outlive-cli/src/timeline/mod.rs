//! The timeline picture: who had the hardware when, who waited, and whose jobs went wrong. Used by `outlive run`.
//!
//! One panel shows the whole run: a lane for each engine and, below, a row for each client, in which what runs hangs below
//! the base line and what waits stands above it. Where most jobs are too narrow to be seen, the engines show how busy they
//! were and for whom, and a second panel takes a closer look at a stretch in which something happens. So the picture is
//! readable, and of bounded size, whatever the number of jobs.
//!
//! Parts: `svg` writes elements, `scale` maps time, `rows` decides who gets a row and a paint, `lanes` draws engines,
//! `clients` draws rows, `marks` draws what went wrong, `legend` says what it all means.

mod bins;
mod clients;
mod lanes;
mod legend;
mod marks;
mod rows;
mod scale;
mod svg;
#[cfg(test)]
mod tests;

use crate::report::JobRecord;
use crate::scenario::Scenario;
use rows::Rows;
use scale::Scale;
use svg::{Anchor, Svg};

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// What ran.
    pub scenario: &'a Scenario,
    /// On what, in words.
    pub device_name: &'a str,
    /// From the start until everything was retired.
    pub elapsed_ns: u64,
    /// Every job, in any order.
    pub jobs: &'a [JobRecord],
    /// When clients were there, in any order.
    pub lives: &'a [Life],
    /// What happened to the whole device, in order of time.
    pub moments: &'a [Moment],
}

/// A time in which a client was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// An index into the scenario's instances.
    pub instance: usize,
    /// When it came.
    pub from_ns: u64,
    /// When it left, or the end of the run.
    pub to_ns: u64,
}

/// Something that happened to the whole device, as a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at_ns: u64,
    /// One word or two.
    pub label: String,
}

/// The whole width; the height follows from the number of engines and clients.
const WIDTH: f64 = 1440.0;
/// Where labels end and time begins.
const LEFT: f64 = 176.0;
/// Where time ends.
const RIGHT: f64 = WIDTH - 32.0;
/// No more engines than this are drawn.
const ENGINES_MAX: u32 = 16;

/// Almost black: text and marks.
const INK: &str = "#1f2328";
const INK_SOFT: &str = "#59636e";
const GRID: &str = "#dfe3e8";
const LANE: &str = "#eceff3";

/// Draws it.
#[must_use]
pub fn render(picture: &Picture<'_>) -> String {
    let rows = Rows::new(picture);
    let mut whole = Scale::new(0, picture.elapsed_ns.max(1), LEFT, RIGHT);
    let closer = closer_look(picture, &whole);
    if closer.is_some() {
        // Fine detail of what is only an overview would be noise.
        whole.grain = 4.0;
    }
    let mut svg = Svg::new();
    let mut y = title(&mut svg, picture);
    y = panel(&mut svg, picture, &rows, &whole, closer.as_ref(), y);
    if let Some(closer) = &closer {
        let (from, to) = (scale::moment(closer.from_ns), scale::moment(closer.to_ns));
        let text = format!("A closer look, from {from} to {to}");
        svg.text(24.0, y + 34.0, 15.0, Anchor::Start, INK, "600", &text);
        y = panel(&mut svg, picture, &rows, closer, None, y + 46.0);
    }
    y = legend::draw(&mut svg, y + 14.0);
    svg.finish(WIDTH, y + 16.0, &(rows.patterns() + &marks::shapes()))
}

fn title(svg: &mut Svg, picture: &Picture<'_>) -> f64 {
    let scenario = picture.scenario;
    svg.text(24.0, 36.0, 20.0, Anchor::Start, INK, "700", &format!("{}, seed {}", scenario.name, scenario.seed));
    let scheduler = match scenario.scheduler.mode {
        crate::scenario::model::Mode::Firmware => "scheduled by firmware".to_owned(),
        crate::scenario::model::Mode::Arbiter => format!("arbiter, {}", scenario.scheduler.policy),
    };
    let jobs = crate::report::counted(picture.jobs.len() as u64, "job");
    let elapsed = crate::report::duration(picture.elapsed_ns / 1000);
    let text = format!("{jobs} in {elapsed} on {}, {scheduler}", picture.device_name);
    svg.text(24.0, 57.0, 13.0, Anchor::Start, INK_SOFT, "400", &text);
    74.0
}

/// Lanes, rows and a time axis, from `top` on; gives the bottom.
fn panel(svg: &mut Svg, picture: &Picture<'_>, rows: &Rows, scale: &Scale, closer: Option<&Scale>, top: f64) -> f64 {
    let engines = picture.scenario.device.engines;
    let shown = engines.min(ENGINES_MAX);
    let lanes_top = top + 16.0;
    let rows_top = lanes_top + f64::from(shown) * lanes::PITCH + 12.0;
    let bottom = rows_top + rows.len_f64() * clients::PITCH;
    if let Some(closer) = closer {
        let (from, to) = (scale.x(closer.from_ns), scale.x(closer.to_ns));
        svg.rect(from, top, (to - from).max(2.0), bottom - top + 4.0, "#fff3c4", "");
        for x in [from, to.max(from + 2.0)] {
            svg.line((x, top), (x, bottom + 4.0), r##"stroke="#b58900" stroke-width="0.8""##);
        }
    }
    // The axis lies below everything, so that its lines never hide a job.
    let axis_bottom = scale::axis(svg, scale, lanes_top - 4.0, bottom);
    for engine in 0..shown {
        lanes::draw(svg, picture, rows, scale, engine, lanes_top + f64::from(engine) * lanes::PITCH);
    }
    if shown < engines {
        let text = format!("and {} more engines", engines - shown);
        svg.text(LEFT - 12.0, rows_top - 4.0, 10.0, Anchor::End, INK_SOFT, "400", &text);
    }
    clients::draw(svg, picture, rows, scale, rows_top);
    marks::moments(svg, picture, scale, top + 4.0, bottom);
    axis_bottom
}

/// Part of a run most of whose jobs are too narrow: around what goes wrong first, or the middle.
fn closer_look(picture: &Picture<'_>, whole: &Scale) -> Option<Scale> {
    /// How wide an ordinary job shall be.
    const JOB_WIDTH: f64 = 26.0;
    let mut lengths_ns: Vec<u64> = picture
        .jobs
        .iter()
        .flat_map(|job| &job.stretches)
        .map(|stretch| stretch.to_ns.saturating_sub(stretch.from_ns).max(1))
        .collect();
    lengths_ns.sort_unstable();
    let median_ns = *lengths_ns.get(lengths_ns.len() / 2)?;
    if whole.width(median_ns) >= lanes::JOB_WIDTH_MIN * 2.0 {
        return None;
    }
    // CAST: a picture's precision is a few thousand pixels.
    let span_ns = ((RIGHT - LEFT) / JOB_WIDTH * median_ns as f64) as u64;
    let span_ns = span_ns.clamp(1, picture.elapsed_ns);
    let middle_ns = marks::most_telling(picture).unwrap_or(picture.elapsed_ns / 2);
    let from_ns = middle_ns.saturating_sub(span_ns / 2).min(picture.elapsed_ns - span_ns);
    Some(Scale::new(from_ns, from_ns + span_ns, LEFT, RIGHT))
}
