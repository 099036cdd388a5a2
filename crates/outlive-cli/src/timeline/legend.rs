//! Says what everything in the picture means.

use super::marks::{self, Kind};
use super::svg::{Anchor, Svg};
use super::{INK_SOFT, LANE};

/// A colour of no client.
const SAMPLE: &str = "#7a8490";

/// From `y` on; gives the bottom.
pub(super) fn draw(svg: &mut Svg, y: f64) -> f64 {
    svg.open(r#"class="legend""#);
    let mut x = 24.0;
    for (fills, words) in [
        (&[(SAMPLE, "1")][..], "running"),
        (&[(SAMPLE, "0.22"), (SAMPLE, "0.38")], "waiting for the hardware"),
        (&[(SAMPLE, "0.22")], "waiting for other jobs"),
        (&[(SAMPLE, "1"), ("url(#undead)", "1")], "failed, the hardware is not done with it"),
        (&[(LANE, "1")], "client is there"),
    ] {
        for (fill, opacity) in fills {
            svg.open(&format!(r#"fill-opacity="{opacity}""#));
            svg.rect(x, y, 22.0, 13.0, fill, "");
            svg.close();
        }
        x = label(svg, x + 28.0, y, words);
    }
    label(svg, x, y, "(numbers: which cycle)");
    let y = y + 24.0;
    x = 24.0;
    for kind in Kind::ALL {
        marks::glyph(svg, kind, x + 6.0, y + 6.5, "");
        x = label(svg, x + 18.0, y, kind.words());
    }
    label(svg, x, y, "(several at once: the gravest of them)");
    svg.close();
    y + 16.0
}

fn label(svg: &mut Svg, x: f64, y: f64, words: &str) -> f64 {
    svg.text(x, y + 10.5, 11.0, Anchor::Start, INK_SOFT, "400", words);
    // CAST: a small number; characters are about so wide.
    x + words.chars().count() as f64 * 6.2 + 22.0
}
