//! What `vm replay` prints: one JSON object per line, addresses and lengths as hexadecimal strings.

use core::fmt::Write;

use outlive::vm::{self, BoId, Flags, Source};
use serde::{Serialize, Serializer};

/// One mapping.
#[derive(Debug, Serialize)]
pub(super) struct Mapping {
    va: String,
    len: String,
    /// `null` for sparse.
    bo: Option<String>,
    offset: String,
    /// The window's length.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<String>,
    /// Where in the window the mapping starts, if not at its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
}

/// A page as the device holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) va: u64,
    /// Its size.
    pub(super) page: u64,
    /// Where in its BO it starts; none if it is sparse.
    pub(super) offset: Option<u64>,
    pub(super) read_only: bool,
}

/// Pages alike that go on from each other.
#[derive(Debug, Serialize)]
pub(super) struct Pages {
    #[serde(serialize_with = "as_hex")]
    va: u64,
    #[serde(serialize_with = "as_hex")]
    len: u64,
    /// The size of each.
    #[serde(serialize_with = "as_hex")]
    page: u64,
    /// `null` for sparse.
    bo: Option<String>,
    #[serde(serialize_with = "as_hex")]
    offset: u64,
    /// They come again and again: so long is what does.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
}

impl Pages {
    pub(super) fn new(first: Page, bo: Option<String>) -> Self {
        let Page { va, page, offset, read_only } = first;
        Self { va, len: page, page, bo, offset: offset.unwrap_or(0), repeat: None, read_only }
    }

    /// Takes a page of the same BO, or a sparse one, in that goes on from these.
    pub(super) fn take(&mut self, next: Page) -> bool {
        let offset_goes_on = next.offset.is_none_or(|offset| offset == self.offset + self.len);
        let goes_on = next.va == self.va + self.len && offset_goes_on;
        let alike = next.page == self.page && next.read_only == self.read_only;
        if goes_on && alike {
            self.len += next.page;
        }
        goes_on && alike
    }

    /// Folds pages that come again right behind themselves into one, also the start of them at the end.
    pub(super) fn fold(all: Vec<Self>) -> Vec<Self> {
        let mut folded: Vec<Self> = Vec::new();
        let mut window = 0;
        for next in all {
            if let Some(last) = folded.last_mut() {
                let alike = (last.page, last.offset, last.read_only) == (next.page, next.offset, next.read_only);
                let again = alike && last.bo == next.bo && next.bo.is_some();
                let whole = (last.len).is_multiple_of(window) && next.len <= window;
                if again && whole && next.va == last.va + last.len {
                    last.len += next.len;
                    last.repeat = Some(hex(window));
                    continue;
                }
            }
            window = next.len;
            folded.push(next);
        }
        folded
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn as_hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(*value))
}

/// One step; the order of fields is that of the contract.
#[derive(Debug, Serialize)]
#[expect(clippy::large_enum_variant, reason = "printed and gone")]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Step {
    Unmap {
        #[serde(flatten)]
        mapping: Mapping,
        keep: bool,
    },
    Remap {
        unmap: Mapping,
        #[serde(skip_serializing_if = "Option::is_none")]
        prev: Option<Mapping>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Mapping>,
        keep: bool,
    },
    Map {
        #[serde(flatten)]
        mapping: Mapping,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [Step]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mappings: Option<&'a [Mapping]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_tables: Option<&'a [Pages]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Line<'_> {
    const fn new(line: usize) -> Self {
        Self { line, steps: None, mappings: None, page_tables: None, error: None }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// A mapping as it is printed.
pub(super) fn mapping(mapping: &vm::Mapping, name: &impl Fn(BoId) -> String) -> Mapping {
    let (offset, repeat, phase) = match mapping.source {
        Source::Bo { offset, .. } => (offset, None, 0),
        Source::Repeated { offset, window, phase, .. } => (offset, Some(hex(window)), phase),
        Source::Sparse => (0, None, 0),
    };
    Mapping {
        va: hex(mapping.range.base()),
        len: hex(mapping.range.len()),
        bo: mapping.source.bo().map(name),
        offset: hex(offset),
        repeat,
        phase: (phase > 0).then(|| hex(phase)),
        read_only: mapping.flags.has(Flags::READ_ONLY),
    }
}

/// A step as it is printed.
pub(super) fn step(step: &vm::Step, name: &impl Fn(BoId) -> String) -> Step {
    let piece = |piece: Option<vm::Mapping>| piece.map(|piece| mapping(&piece, name));
    match step {
        vm::Step::Unmap { mapping: old, keep } => Step::Unmap { mapping: mapping(old, name), keep: *keep },
        vm::Step::Remap { unmap, keep, .. } => {
            Step::Remap { unmap: mapping(unmap, name), prev: piece(step.prev()), next: piece(step.next()), keep: *keep }
        }
        vm::Step::Map { mapping: new } => Step::Map { mapping: mapping(new, name) },
    }
}

/// A line that was carried out.
pub(super) fn steps(out: &mut String, line: usize, steps: &[Step]) {
    write(out, &Line { steps: Some(steps), ..Line::new(line) });
}

/// A dump.
pub(super) fn mappings(out: &mut String, line: usize, mappings: &[Mapping]) {
    write(out, &Line { mappings: Some(mappings), ..Line::new(line) });
}

/// What the device holds.
pub(super) fn page_tables(out: &mut String, line: usize, held: &[Pages]) {
    write(out, &Line { page_tables: Some(held), ..Line::new(line) });
}

/// A line that was refused.
pub(super) fn error(out: &mut String, line: usize, why: &str) {
    write(out, &Line { error: Some(why), ..Line::new(line) });
}

fn write(out: &mut String, line: &Line<'_>) {
    // Numbers, strings and lists only: there is nothing that could not be written.
    if let Ok(json) = serde_json::to_string(line) {
        let _ = writeln!(out, "{json}");
    }
}
