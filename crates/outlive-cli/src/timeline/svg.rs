//! Writes SVG elements. Used by everything that draws.
//!
//! Coordinates have one digit after the point: a tenth of a pixel is less than anybody sees, and keeps files small.

use core::fmt::Write;

/// The elements so far.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
}

/// Where a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) const fn new() -> Self {
        Self { body: String::new() }
    }

    /// A rectangle; `tooltip` where it is not empty.
    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str, tooltip: &str) {
        let (x, y, width, height) = (num(x), num(y), num(width), num(height));
        self.element(
            &format!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}""#),
            "rect",
            tooltip,
        );
    }

    /// Any path; `style` are further attributes.
    pub(super) fn path(&mut self, commands: &str, style: &str, tooltip: &str) {
        self.element(&format!(r#"<path d="{commands}" {style}"#), "path", tooltip);
    }

    /// What the definitions call `id`.
    pub(super) fn reuse(&mut self, id: &str, x: f64, y: f64, tooltip: &str) {
        let (x, y) = (num(x), num(y));
        self.element(&format!(r##"<use href="#{id}" x="{x}" y="{y}""##), "use", tooltip);
    }

    /// A straight line.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let (x1, y1, x2, y2) = (num(from.0), num(from.1), num(to.0), num(to.1));
        self.element(&format!(r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {style}"#), "line", "");
    }

    /// One line of text; `y` is its base line.
    #[expect(clippy::too_many_arguments, reason = "each is one attribute of the element")]
    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, fill: &str, weight: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, size, text) = (num(x), num(y), num(size), escaped(text));
        self.add(format_args!(
            r#"<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{text}</text>"#
        ));
    }

    /// What follows is one group until [`Svg::close`]; `attributes` may hold its class.
    pub(super) fn open(&mut self, attributes: &str) {
        self.add(format_args!("<g {attributes}>"));
    }

    pub(super) fn close(&mut self) {
        self.add(format_args!("</g>"));
    }

    /// The whole file.
    pub(super) fn finish(self, width: f64, height: f64, definitions: &str) -> String {
        let (width, height) = (num(width), num(height.ceil()));
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" "#,
                r#"font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">"#,
                "\n<defs>\n{definitions}</defs>\n",
                r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##,
                "\n{body}</svg>\n"
            ),
            width = width,
            height = height,
            definitions = definitions,
            body = self.body
        )
    }

    fn element(&mut self, start: &str, name: &str, tooltip: &str) {
        if tooltip.is_empty() {
            self.add(format_args!("{start}/>"));
        } else {
            self.add(format_args!("{start}><title>{}</title></{name}>", escaped(tooltip)));
        }
    }

    fn add(&mut self, element: core::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }
}

/// A coordinate.
pub(super) fn num(number: f64) -> String {
    let text = format!("{number:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// `text` for use in XML, where control characters have no place at all.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}
