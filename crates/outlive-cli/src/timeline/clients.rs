//! Draws the rows of the clients: when each was there, what it had running, what it had waiting, and what went wrong.

use super::bins::Bins;
use super::marks;
use super::rows::{Row, Rows};
use super::scale::Scale;
use super::svg::{Anchor, Svg, num};
use super::{INK, INK_SOFT, LANE, LEFT, Picture};

/// From one row to the next.
pub(super) const PITCH: f64 = 54.0;
/// From the top of a row: marks, what waits, the base line, what runs.
const MARKS_HEIGHT: f64 = 14.0;
const WAITING_HEIGHT: f64 = 20.0;
const RUNNING_HEIGHT: f64 = 11.0;

/// What one row shows, for each slice of time.
struct Load {
    /// Committed, not yet on the hardware.
    committed: Bins,
    /// Those of them that nothing but the hardware holds back.
    ready: Bins,
    running: Bins,
}

/// All rows, from `top` on.
pub(super) fn draw(svg: &mut Svg, picture: &Picture<'_>, rows: &Rows, scale: &Scale, top: f64) {
    let loads = loads(picture, rows, scale);
    let clusters = marks::clusters(picture, rows, scale);
    for (place, (row, load)) in rows.all.iter().zip(&loads).enumerate() {
        // CAST: a small number.
        let y = top + place as f64 * PITCH;
        svg.open(r#"class="client""#);
        label(svg, row, y);
        for life in picture.lives.iter().filter(|life| rows.of(life.instance).0 == place) {
            if scale.shows(life.from_ns, life.to_ns) {
                let (x, end) = (scale.x(life.from_ns), scale.x(life.to_ns));
                let base = y + MARKS_HEIGHT;
                svg.rect(x, base, (end - x).max(0.5), WAITING_HEIGHT + RUNNING_HEIGHT, LANE, "");
            }
        }
        areas(svg, row, load, scale, y + MARKS_HEIGHT + WAITING_HEIGHT);
        for cluster in clusters.iter().filter(|cluster| cluster.row == place) {
            marks::draw(svg, cluster, y + MARKS_HEIGHT / 2.0);
        }
        svg.close();
    }
}

fn label(svg: &mut Svg, row: &Row, y: f64) {
    let base = y + MARKS_HEIGHT + WAITING_HEIGHT;
    svg.rect(LEFT - 20.0, base - 16.0, 9.0, 26.0, &row.fill, "");
    svg.text(LEFT - 28.0, base - 5.0, 12.0, Anchor::End, INK, "600", &row.label);
    svg.text(LEFT - 28.0, base + 9.0, 10.0, Anchor::End, INK_SOFT, "400", &row.note);
}

fn loads(picture: &Picture<'_>, rows: &Rows, scale: &Scale) -> Vec<Load> {
    let bins = || Bins::new(scale);
    let mut loads: Vec<_> =
        rows.all.iter().map(|_| Load { committed: bins(), ready: bins(), running: bins() }).collect();
    for job in picture.jobs {
        let load = &mut loads[rows.of(job.instance).0];
        let waited_until_ns = job.started_ns().unwrap_or(job.finished_ns);
        load.committed.add(job.committed_ns, waited_until_ns);
        if let Some(ready_ns) = job.ready_ns {
            load.ready.add(ready_ns, waited_until_ns);
        }
        for stretch in &job.stretches {
            load.running.add(stretch.from_ns, stretch.to_ns);
        }
    }
    loads
}

/// What waits stands above the base line, light; what runs hangs below it, solid.
fn areas(svg: &mut Svg, row: &Row, load: &Load, scale: &Scale, base: f64) {
    let committed = load.committed.means();
    let running = load.running.means();
    let most_waiting = committed.iter().copied().fold(1.0, f64::max);
    let most_running = running.iter().copied().fold(1.0, f64::max);
    let up = WAITING_HEIGHT / most_waiting;
    let color = row.color;
    let waiting = format!("{}: waiting, at most {:.0} jobs at once", row.label, most_waiting.ceil());
    svg.path(
        &area(&committed, scale, base, -up),
        &format!(r#"class="waiting" fill="{color}" fill-opacity="0.22""#),
        &waiting,
    );
    svg.path(
        &area(&load.ready.means(), scale, base, -up),
        &format!(r#"class="ready" fill="{color}" fill-opacity="0.38""#),
        &waiting,
    );
    svg.path(
        &area(&running, scale, base, RUNNING_HEIGHT / most_running),
        &format!(r#"class="running" fill="{}""#, row.fill),
        &format!("{}: running", row.label),
    );
    svg.line((scale.left(), base), (scale.right(), base), &format!(r#"stroke="{color}" stroke-width="0.8""#));
}

/// Steps, from the base line by `factor` times the mean; equal neighbours are one step.
fn area(means: &[f64], scale: &Scale, base: f64, factor: f64) -> String {
    let mut path = format!("M{} {}", num(scale.left()), num(base));
    let mut height = num(base);
    for (place, mean) in means.iter().enumerate() {
        let next = num(mean.mul_add(factor, base));
        if next != height {
            // CAST: small numbers.
            path.push_str(&format!("H{}V{next}", num(scale.left() + place as f64 * scale.grain)));
            height = next;
        }
    }
    // CAST: small numbers.
    path.push_str(&format!("H{}V{}z", num(scale.left() + means.len() as f64 * scale.grain), num(base)));
    path
}
