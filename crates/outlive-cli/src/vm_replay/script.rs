//! Scripts: one operation per line, words separated by white space, numbers decimal or `0x`, a comment after `#`.

use core::str::SplitWhitespace;

use crate::error::InputError;

/// Every word that may start a line.
const WORDS: &str = "`space`, `page`, `reserve`, `bo`, `map`, `unmap`, `protect`, `batch`, `end`, `close-bo` or `dump`";

/// A script, read. The first line is a [`Line::Space`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// Each with its number, counted from 1.
    pub(super) lines: Vec<(usize, Line)>,
}

/// What one line says; of a batch, what it and all lines up to its `end` say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Space {
        base: u64,
        len: u64,
    },
    Page {
        bytes: u64,
    },
    Reserve {
        va: u64,
        len: u64,
    },
    Bo {
        name: String,
        size: u64,
    },
    Change(Change),
    /// Its number is that of the `end`; each change has its own.
    Batch(Vec<(usize, Change)>),
    CloseBo {
        name: String,
    },
    Dump,
}

/// A line that may stand in a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Map { va: u64, len: u64, behind: Behind, read_only: bool },
    Unmap { va: u64, len: u64 },
    Protect { va: u64, len: u64, read_only: bool },
}

/// What is to be behind a mapping.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Sparse,
    Bo { name: String, offset: u64, window: Option<u64> },
}

/// What is wrong with a line, and what was expected.
struct Wrong {
    what: String,
    expected: String,
}

fn wrong(what: impl Into<String>, expected: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), expected: expected.into() }
}

impl Script {
    /// The script in `text`, which messages call `file`.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, InputError> {
        let at = |line: usize| {
            move |Wrong { what, expected }: Wrong| InputError {
                file: file.to_owned(),
                line: Some(line),
                what,
                expected,
            }
        };
        let mut lines = Vec::new();
        let mut batch: Option<(usize, Vec<(usize, Change)>)> = None;
        for (number, text) in (1..).zip(text.lines()) {
            let mut words = Words::of(text);
            let Some(first) = words.next() else { continue };
            if lines.is_empty() && first != "space" {
                let what = format!("the script starts with `{first}`");
                return Err(at(number)(wrong(what, "`space BASE LENGTH` before all else")));
            }
            match (first, &mut batch) {
                ("batch", None) => batch = Some((number, Vec::new())),
                ("end", Some(_)) => {
                    let changes = batch.take().map(|(_, changes)| changes).unwrap_or_default();
                    lines.push((number, Line::Batch(changes)));
                }
                ("end", None) => return Err(at(number)(wrong("`end` without a batch", "`batch` before it"))),
                (_, Some((_, changes))) => {
                    let change = change(first, &mut words).map_err(at(number))?;
                    let in_batch = || {
                        let what = format!("`{first}` in a batch");
                        at(number)(wrong(what, "`map`, `unmap`, `protect`, or `end` before it"))
                    };
                    changes.push((number, change.ok_or_else(in_batch)?));
                }
                (_, None) => lines.push((number, line(first, &mut words).map_err(at(number))?)),
            }
            words.end().map_err(at(number))?;
        }
        if let Some((number, _)) = batch {
            return Err(at(number)(wrong("a batch without an end", "`end` after its last line")));
        }
        if lines.is_empty() {
            return Err(InputError {
                file: file.to_owned(),
                line: None,
                what: "there is nothing in it".to_owned(),
                expected: "`space BASE LENGTH` before all else".to_owned(),
            });
        }
        Ok(Self { lines })
    }
}

/// A line outside of a batch.
fn line(first: &str, words: &mut Words<'_>) -> Result<Line, Wrong> {
    Ok(match first {
        "space" => Line::Space { base: words.number("a base")?, len: words.number("a length")? },
        "page" => Line::Page { bytes: words.number("a page size")? },
        "reserve" => Line::Reserve { va: words.number("an address")?, len: words.number("a length")? },
        "bo" => Line::Bo { name: words.name()?, size: words.number("a size")? },
        "close-bo" => Line::CloseBo { name: words.name()? },
        "dump" => Line::Dump,
        _ => match change(first, words)? {
            Some(change) => Line::Change(change),
            None => return Err(wrong(format!("`{first}` is no operation"), WORDS)),
        },
    })
}

/// A line that may stand in a batch; none if `first` starts no such line.
fn change(first: &str, words: &mut Words<'_>) -> Result<Option<Change>, Wrong> {
    if !matches!(first, "map" | "unmap" | "protect") {
        return Ok(None);
    }
    let (va, len) = (words.number("an address")?, words.number("a length")?);
    Ok(Some(match first {
        "map" => map(va, len, words)?,
        "protect" => {
            let read_only = match words.next() {
                Some("read-only") => true,
                Some("read-write") => false,
                other => return Err(words.not(other, "`read-only` or `read-write`")),
            };
            Change::Protect { va, len, read_only }
        }
        _ => Change::Unmap { va, len },
    }))
}

fn map(va: u64, len: u64, words: &mut Words<'_>) -> Result<Change, Wrong> {
    let name = match words.next() {
        Some("sparse") => None,
        Some(name) if is_name(name) => Some(name.to_owned()),
        other => return Err(words.not(other, "a BO's name, or `sparse`")),
    };
    let offset = if name.is_some() { words.number("an offset")? } else { 0 };
    let (mut window, mut read_only) = (None, false);
    while let Some(word) = words.next() {
        match (word, word.strip_prefix("repeat=")) {
            ("read-only", _) if !read_only => read_only = true,
            (_, Some(bytes)) if window.is_none() && name.is_some() => window = Some(number(bytes)?),
            (_, Some(_)) if name.is_none() => {
                return Err(wrong("a sparse mapping with a window", "`read-only`, or no more"));
            }
            _ => {
                return Err(wrong(
                    format!("`{word}`"),
                    "`repeat=BYTES` and `read-only`, each at most once, or no more",
                ));
            }
        }
    }
    let behind = match name {
        Some(name) => Behind::Bo { name, offset, window },
        None => Behind::Sparse,
    };
    Ok(Change::Map { va, len, behind, read_only })
}

/// A decimal number, or a hexadecimal one after `0x`, of 64 bits.
fn number(word: &str) -> Result<u64, Wrong> {
    let hex = word.strip_prefix("0x");
    let (digits, radix) = hex.map_or((word, 10), |digits| (digits, 16));
    let refuse = |what: String| wrong(what, "a number below 2^64, decimal or after `0x`");
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(refuse(format!("`{word}` is no number")));
    }
    u64::from_str_radix(digits, radix).map_err(|_| refuse(format!("{word} is too large")))
}

/// Whether `word` can name a BO.
fn is_name(word: &str) -> bool {
    word != "sparse" && !word.contains('=') && !word.chars().any(char::is_control)
}

/// The words of a line, without its comment.
struct Words<'a> {
    words: SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { words: line.split('#').next().unwrap_or_default().split_whitespace() }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    /// `found` where `expected` should be.
    fn not(&self, found: Option<&str>, expected: &str) -> Wrong {
        match found {
            Some(word) => wrong(format!("`{word}`"), expected),
            None => wrong("the line ends too early", expected),
        }
    }

    fn number(&mut self, expected: &str) -> Result<u64, Wrong> {
        match self.next() {
            Some(word) => number(word),
            None => Err(self.not(None, expected)),
        }
    }

    fn name(&mut self) -> Result<String, Wrong> {
        match self.next() {
            Some(word) if is_name(word) => Ok(word.to_owned()),
            other => Err(self.not(other, "a BO's name: a word without `=`, and not `sparse`")),
        }
    }

    fn end(&mut self) -> Result<(), Wrong> {
        self.next().map_or(Ok(()), |word| Err(wrong(format!("`{word}` after the operation"), "the end of the line")))
    }
}
