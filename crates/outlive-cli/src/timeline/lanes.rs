//! Draws one engine: each job that is wide enough as a bar, all others as how busy the engine was, and for whom.

use super::bins::Bins;
use super::rows::Rows;
use super::scale::{self, Scale};
use super::svg::{Anchor, Svg, num};
use super::{INK, LANE, Picture, marks};
use crate::report::{JobRecord, Outcome, Stretch, duration};

/// From one lane to the next.
pub(super) const PITCH: f64 = 42.0;
const HEIGHT: f64 = 34.0;
/// Narrower jobs are not drawn one by one.
pub(super) const JOB_WIDTH_MIN: f64 = 2.0;
/// Of small text, about.
const CHARACTER_WIDTH: f64 = 6.3;

/// Engine number `engine`, its upper edge at `y`.
pub(super) fn draw(svg: &mut Svg, picture: &Picture<'_>, rows: &Rows, scale: &Scale, engine: u32, y: f64) {
    svg.open(&format!(r#"class="engine" data-engine="{engine}""#));
    svg.text(LEFT_LABEL, y + HEIGHT / 2.0 + 4.0, 12.0, Anchor::End, INK, "600", &format!("engine {engine}"));
    svg.rect(scale.left(), y, scale.right() - scale.left(), HEIGHT, LANE, "");
    let shown = || {
        let stretches = |job| stretches_on(job, engine).map(move |stretch| (job, stretch));
        picture.jobs.iter().flat_map(stretches).filter(|(_, stretch)| scale.shows(stretch.from_ns, stretch.to_ns))
    };
    let is_wide = |stretch: &Stretch| scale.width(stretch.to_ns.saturating_sub(stretch.from_ns)) >= JOB_WIDTH_MIN;
    let narrow = shown().filter(|(_, stretch)| !is_wide(stretch));
    density(svg, narrow, rows, scale, y);
    for (job, stretch) in shown().filter(|(_, stretch)| is_wide(stretch)) {
        bar(svg, picture, rows, scale, (job, stretch), y);
    }
    svg.close();
}

const LEFT_LABEL: f64 = super::LEFT - 12.0;

/// The stretches of a job on one engine, joined where the device only looked at another ring and came back at once.
fn stretches_on(job: &JobRecord, engine: u32) -> impl Iterator<Item = Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for stretch in job.stretches.iter().filter(|stretch| stretch.engine == engine) {
        match joined.last_mut() {
            Some(last) if last.to_ns == stretch.from_ns => last.to_ns = stretch.to_ns,
            _ => joined.push(*stretch),
        }
    }
    joined.into_iter()
}

/// One path for each row: in every slice a stroke as high as the share of time that it had.
fn density<'a>(
    svg: &mut Svg,
    narrow: impl Iterator<Item = (&'a JobRecord, Stretch)>,
    rows: &Rows,
    scale: &Scale,
    y: f64,
) {
    let mut bins: Vec<Option<(Bins, u64)>> = vec![None; rows.all.len()];
    for (job, stretch) in narrow {
        let (bins, jobs) = bins[rows.of(job.instance).0].get_or_insert_with(|| (Bins::new(scale), 0));
        bins.add(stretch.from_ns, stretch.to_ns);
        *jobs += 1;
    }
    let mut tops = vec![y + HEIGHT; scale.slices()];
    for (row, bins) in rows.all.iter().zip(bins) {
        let Some((bins, jobs)) = bins else { continue };
        let mut path = String::new();
        for (place, mean) in bins.means().into_iter().enumerate() {
            let height = (mean.min(1.0) * HEIGHT).min(tops[place] - y);
            if height < 0.05 {
                continue;
            }
            let bottom = tops[place];
            tops[place] -= height;
            // CAST: a small number. Strokes are drawn around their line.
            let x = scale.left() + (place as f64 + 0.5) * scale.grain;
            path.push_str(&format!("M{} {}V{}", num(x), num(bottom), num(tops[place])));
        }
        let tooltip = format!("{}: {jobs} stretches too narrow to be drawn one by one", row.label);
        svg.path(&path, &format!(r#"class="density" stroke="{}" stroke-width="{}""#, row.fill, scale.grain), &tooltip);
    }
}

fn bar(
    svg: &mut Svg,
    picture: &Picture<'_>,
    rows: &Rows,
    scale: &Scale,
    (job, stretch): (&JobRecord, Stretch),
    y: f64,
) {
    let (x, end) = (scale.x(stretch.from_ns), scale.x(stretch.to_ns));
    let width = end - x;
    let (_, row) = rows.of(job.instance);
    // A gap of half a pixel tells neighbours apart.
    svg.rect(x, y, (width - 0.5).max(0.5), HEIGHT, &row.fill, &tooltip(picture, job, &stretch));
    let finished_x = scale.x(job.finished_ns);
    if job.outcome != Outcome::Ok && end - finished_x >= 1.0 {
        // Its fence has signaled, its memory is not free yet.
        let from = finished_x.max(x);
        svg.rect(from, y, end - from - 0.5, HEIGHT, "url(#undead)", "");
    }
    let is_last = job.left_hardware_ns() == Some(stretch.to_ns) && stretch.to_ns <= scale.to_ns;
    let mark_room = match marks::Kind::of(job.outcome) {
        Some(kind) if is_last && width >= 16.0 => {
            marks::glyph(svg, kind, end - 9.0, y + HEIGHT / 2.0, "");
            18.0
        }
        _ => 0.0,
    };
    // CAST: a small positive number, or zero.
    let characters = ((width - mark_room - 6.0) / CHARACTER_WIDTH).max(0.0) as usize;
    let Some(text_fill) = row.text_fill else { return };
    // The colour says whose it is; the number of its cycle is what a reader cannot see otherwise.
    let cycle = job.cycle.to_string();
    let label = format!("{} {cycle}", picture.scenario.instances[job.instance].name);
    let label = if label.chars().count() <= characters { label } else { cycle };
    if label.chars().count() <= characters {
        svg.text(x + 4.0, y + HEIGHT / 2.0 + 4.0, 10.0, Anchor::Start, text_fill, "400", &label);
    }
}

fn tooltip(picture: &Picture<'_>, job: &JobRecord, stretch: &Stretch) -> String {
    let name = &picture.scenario.instances[job.instance].name;
    let had = duration(stretch.to_ns.saturating_sub(stretch.from_ns) / 1000);
    let mut text = format!(
        "{name}, cycle {}: engine {} at {} for {had}",
        job.cycle,
        stretch.engine,
        scale::moment(stretch.from_ns)
    );
    if let (Some(ready), Some(started)) = (job.ready_ns, job.started_ns()) {
        text.push_str(&format!("; waited {}", duration(started.saturating_sub(ready) / 1000)));
    }
    if let Some(kind) = marks::Kind::of(job.outcome) {
        text.push_str(&format!("; {} at {}", kind.words(), scale::moment(job.finished_ns)));
    }
    text
}
