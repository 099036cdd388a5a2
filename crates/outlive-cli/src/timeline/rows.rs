//! Who gets a row, and in what paint. Used by the lanes and the rows.
//!
//! The colours are Okabe and Ito's, which remain distinct with any kind of colour blindness (their black is left for text and
//! marks). From the eighth row on a pattern of white tells rows of one colour apart.

use super::svg::escaped;
use super::{INK, Picture};
use crate::report::{Outcome, counted, shortened};

/// Rows of the picture, each standing for one instance or, where those are too many, for several.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) all: Vec<Row>,
    row_of: Vec<usize>,
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) label: String,
    /// How many jobs, how many of them failed.
    pub(super) note: String,
    /// The value of a `fill` attribute.
    pub(super) fill: String,
    /// Without pattern, for lines and what is translucent.
    pub(super) color: &'static str,
    /// What is legible on it, if anything is.
    pub(super) text_fill: Option<&'static str>,
}

/// More rows nobody looks through.
const ROWS_MAX: usize = 32;
const COLORS: [(&str, &str); 7] = [
    ("#0072b2", "#ffffff"),
    ("#e69f00", "#000000"),
    ("#009e73", "#000000"),
    ("#cc79a7", "#000000"),
    ("#56b4e9", "#000000"),
    ("#d55e00", "#000000"),
    ("#f0e442", "#000000"),
];
/// White on each tile of 6 by 6.
const TEXTURES: [&str; 4] = ["M0 6L6 0M-1 1L1 -1M5 7L7 5", "M0 0L6 6M-1 5L1 7M5 -1L7 1", "M3 0V6", "M0 3H6"];

impl Rows {
    pub(super) fn new(picture: &Picture<'_>) -> Self {
        let scenario = picture.scenario;
        let (labels, row_of): (Vec<String>, Vec<usize>) = if scenario.instances.len() <= ROWS_MAX {
            let labels = scenario.instances.iter().map(|instance| instance.name.clone()).collect();
            (labels, (0..scenario.instances.len()).collect())
        } else {
            let own = scenario.clients.len().min(ROWS_MAX);
            let mut labels: Vec<_> = scenario.clients.iter().take(own).map(|client| client.name.clone()).collect();
            if own < scenario.clients.len()
                && let Some(last) = labels.last_mut()
            {
                "all others".clone_into(last);
            }
            (labels, scenario.instances.iter().map(|instance| instance.client.min(own - 1)).collect())
        };
        let mut counts = vec![(0_u64, 0_u64); labels.len()];
        for job in picture.jobs {
            let (jobs, failed) = &mut counts[row_of[job.instance]];
            *jobs += 1;
            *failed += u64::from(job.outcome != Outcome::Ok);
        }
        let row = |(place, (label, (jobs, failed))): (usize, (String, (u64, u64)))| {
            let (color, text_fill) = COLORS[place % COLORS.len()];
            let fill = if place < COLORS.len() { color.to_owned() } else { format!("url(#row{place})") };
            let text_fill = (place < COLORS.len()).then_some(text_fill);
            let note = match failed {
                0 => counted(jobs, "job"),
                _ => format!("{}, {failed} failed", counted(jobs, "job")),
            };
            Row { label: shortened(&label, 18), note, fill, color, text_fill }
        };
        Self { all: labels.into_iter().zip(counts).enumerate().map(row).collect(), row_of }
    }

    /// The row of an instance.
    pub(super) fn of(&self, instance: usize) -> (usize, &Row) {
        let place = self.row_of[instance];
        (place, &self.all[place])
    }

    pub(super) fn len_f64(&self) -> f64 {
        // CAST: at most `ROWS_MAX`.
        self.all.len() as f64
    }

    /// The definitions that `fill` refers to, and that of what is failed but still on the hardware.
    pub(super) fn patterns(&self) -> String {
        // Dark lines over a pale ground: no row's pattern looks like that.
        let mut text = pattern("undead", INK, "rgba(255,255,255,0.62)", TEXTURES[1], 1.1);
        for (place, row) in self.all.iter().enumerate().skip(COLORS.len()) {
            let texture = TEXTURES[(place / COLORS.len() - 1) % TEXTURES.len()];
            text.push_str(&pattern(&format!("row{place}"), "#ffffff", row.color, texture, 1.2));
        }
        text
    }
}

fn pattern(id: &str, stroke: &str, fill: &str, texture: &str, width: f64) -> String {
    let id = escaped(id);
    format!(
        concat!(
            r#"<pattern id="{id}" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" "#,
            r#"fill="{fill}"/><path d="{texture}" stroke="{stroke}" stroke-width="{width}" fill="none"/></pattern>"#,
            "\n"
        ),
        id = id,
        fill = fill,
        texture = texture,
        stroke = stroke,
        width = width
    )
}
