//! Marks what went wrong, each kind with a shape of its own, so that nobody needs colour to tell them apart.

use super::rows::Rows;
use super::scale::{self, Scale};
use super::svg::{Anchor, Svg};
use super::{INK, Moment, Picture};
use crate::report::{Outcome, counted};

/// How a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A cross.
    Killed,
    /// A ring.
    Dependency,
    /// A hollow square.
    Innocent,
    /// A solid square.
    DeviceLost,
    /// A diamond.
    Failed,
    /// An hourglass.
    Hung,
}

impl Kind {
    /// In the order of the legend.
    pub(super) const ALL: [Self; 6] =
        [Self::Killed, Self::Hung, Self::Failed, Self::Dependency, Self::Innocent, Self::DeviceLost];

    /// What a reader must see first, where not all can be seen.
    const BY_GRAVITY: [Self; 6] =
        [Self::Hung, Self::Failed, Self::DeviceLost, Self::Innocent, Self::Killed, Self::Dependency];

    const fn place(self) -> usize {
        match self {
            Self::Killed => 0,
            Self::Hung => 1,
            Self::Failed => 2,
            Self::Dependency => 3,
            Self::Innocent => 4,
            Self::DeviceLost => 5,
        }
    }

    pub(super) const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Ok => None,
            Outcome::Canceled => Some(Self::Killed),
            Outcome::TimedOut => Some(Self::Hung),
            Outcome::Faulted => Some(Self::Failed),
            Outcome::Dependency => Some(Self::Dependency),
            Outcome::Innocent => Some(Self::Innocent),
            Outcome::DeviceLost => Some(Self::DeviceLost),
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Killed => "killed or closed",
            Self::Hung => "hung",
            Self::Failed => "failed by itself",
            Self::Dependency => "failed with another",
            Self::Innocent => "lost to a reset",
            Self::DeviceLost => "lost with the device",
        }
    }
}

/// Marks in one row that are too near to each other to be told apart. They are drawn as the gravest of them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) row: usize,
    x: f64,
    from_ns: u64,
    /// Of each kind, in the order of the kinds.
    jobs: [u64; Kind::ALL.len()],
}

/// Marks nearer than this are one.
const NEAR: f64 = 11.0;

/// All marks of what `scale` shows.
pub(super) fn clusters(picture: &Picture<'_>, rows: &Rows, scale: &Scale) -> Vec<Cluster> {
    let mut marks: Vec<(usize, u64, Kind)> = picture
        .jobs
        .iter()
        .filter(|job| (scale.from_ns..=scale.to_ns).contains(&job.finished_ns))
        .filter_map(|job| Some((rows.of(job.instance).0, job.finished_ns, Kind::of(job.outcome)?)))
        .collect();
    marks.sort_unstable();
    let mut clusters: Vec<Cluster> = Vec::new();
    for (row, at_ns, kind) in marks {
        let x = scale.x(at_ns);
        match clusters.last_mut() {
            Some(last) if last.row == row && x - last.x < NEAR => last.jobs[kind.place()] += 1,
            _ => {
                let mut jobs = [0; Kind::ALL.len()];
                jobs[kind.place()] = 1;
                clusters.push(Cluster { row, x, from_ns: at_ns, jobs });
            }
        }
    }
    clusters
}

/// One cluster, around the height `y`.
pub(super) fn draw(svg: &mut Svg, cluster: &Cluster, y: f64) {
    let mut tooltip = scale::moment(cluster.from_ns);
    let mut gravest = None;
    for kind in Kind::BY_GRAVITY {
        let jobs = cluster.jobs[kind.place()];
        if jobs > 0 {
            gravest = gravest.or(Some(kind));
            tooltip.push_str(&format!(", {} {}", counted(jobs, "job"), kind.words()));
        }
    }
    if let Some(kind) = gravest {
        glyph(svg, kind, cluster.x, y, &tooltip);
    }
}

/// A mark in the middle of `x` and `y`, about 8 wide.
pub(super) fn glyph(svg: &mut Svg, kind: Kind, x: f64, y: f64, tooltip: &str) {
    svg.reuse(&format!("mark-{kind:?}"), x, y, tooltip);
}

/// The definitions that glyphs refer to: each shape on a white edge that sets it off from what lies below.
pub(super) fn shapes() -> String {
    let shape = |kind: Kind| {
        let commands = match kind {
            Kind::Killed => "M-3.5 -3.5l7 7m0 -7l-7 7",
            Kind::Hung => "M-4 -4.5h8l-8 9h8z",
            Kind::Failed => "M0 -5l5 5l-5 5l-5 -5z",
            Kind::Dependency => "M-3.8 0a3.8 3.8 0 1 0 7.6 0a3.8 3.8 0 1 0 -7.6 0z",
            Kind::Innocent => "M-3.4 -3.4h6.8v6.8h-6.8z",
            Kind::DeviceLost => "M-3.8 -3.8h7.6v7.6h-7.6z",
        };
        let (edge_width, fill, width) = match kind {
            Kind::Killed => ("5", "none", "2.2"),
            Kind::Dependency | Kind::Innocent => ("4", "#ffffff", "1.8"),
            Kind::Hung | Kind::Failed | Kind::DeviceLost => ("3", INK, "0.6"),
        };
        format!(
            concat!(
                r##"<g id="mark-{kind:?}" stroke-linecap="round" stroke-linejoin="round">"##,
                r##"<path d="{commands}" fill="none" stroke="#ffffff" stroke-width="{edge_width}"/>"##,
                r##"<path d="{commands}" fill="{fill}" stroke="{ink}" stroke-width="{width}"/></g>"##,
                "\n"
            ),
            kind = kind,
            commands = commands,
            edge_width = edge_width,
            fill = fill,
            ink = INK,
            width = width
        )
    };
    Kind::ALL.map(shape).concat()
}

/// Lines where something happened to the whole device, with labels where there is room: through the whole panel, or, where
/// so many would hide it, above it only.
pub(super) fn moments(svg: &mut Svg, picture: &Picture<'_>, scale: &Scale, top: f64, bottom: f64) {
    const THROUGH_MAX: usize = 24;
    const TICK: f64 = 10.0;
    let shown = |moment: &&Moment| (scale.from_ns..=scale.to_ns).contains(&moment.at_ns);
    let count = picture.moments.iter().filter(shown).count();
    let bottom = if count > THROUGH_MAX { top + TICK } else { bottom };
    let mut free_from = f64::MIN;
    let mut last_x = f64::MIN;
    for moment in picture.moments.iter().filter(shown) {
        let x = scale.x(moment.at_ns);
        if x - last_x < 1.0 {
            continue;
        }
        last_x = x;
        svg.line((x, top), (x, bottom), &format!(r#"stroke="{INK}" stroke-width="0.8" stroke-dasharray="3 3""#));
        // CAST: a small number.
        let width = moment.label.chars().count() as f64 * 6.0;
        if x >= free_from && x + width < scale.right() {
            svg.text(x + 3.0, top + 6.0, 10.0, Anchor::Start, INK, "400", &moment.label);
            free_from = if count > THROUGH_MAX { f64::MAX } else { x + width + 8.0 };
        }
    }
    if count > THROUGH_MAX {
        let text = format!("{} like this; each dash is one or more", counted(count as u64, "event"));
        svg.text(scale.right(), top - 3.0, 10.0, Anchor::End, INK, "400", &text);
    }
}

/// When a closer look shows most: the first of the gravest failures that had the hardware, else the first failure.
pub(super) fn most_telling(picture: &Picture<'_>) -> Option<u64> {
    let failed = picture.jobs.iter().filter_map(|job| Some((Kind::of(job.outcome)?, job)));
    let graveness = |kind: Kind, had_hardware: bool| match kind {
        Kind::Hung => 0,
        Kind::Failed => 1,
        Kind::Killed if had_hardware => 2,
        _ => 3,
    };
    failed
        .map(|(kind, job)| (graveness(kind, !job.stretches.is_empty()), job.finished_ns))
        .min()
        .map(|(_, at_ns)| at_ns)
}
