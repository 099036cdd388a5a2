//! Reads a trace from its file. Used by `outlive replay`.
//!
//! Each line is a request of its own, so one that makes no sense can be left out; without that, the first is the end.

use std::fs;
use std::path::Path;

use super::cost::Costs;
use super::row::{Bad, EXPECTED, Format, Layout, Row, is_json};
use crate::error::{InputError, Stop, one_line};

/// What a file says.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) format: Format,
    /// In the order of the file; at least one.
    pub(super) rows: Vec<Row>,
    /// Lines that were left out.
    pub(super) bad_rows: u64,
}

/// The first `limit` requests of the trace at `path`, each of which `costs` can be told of.
///
/// # Errors
///
/// The first line that makes no sense, unless `skip_bad_rows`; or there is nothing to replay.
pub(super) fn trace(path: &Path, limit: Option<u64>, skip_bad_rows: bool, costs: &Costs) -> Result<Trace, Stop> {
    let file = one_line(&path.to_string_lossy());
    let refuse = |line, Bad { what, expected }| Stop::from(InputError { file: file.clone(), line, what, expected });
    let bytes = fs::read(path)
        .map_err(|error| refuse(None, Bad::new(format!("cannot be read: {error}"), "a trace of requests")))?;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut layout: Option<Layout> = None;
    let (mut rows, mut bad_rows) = (Vec::new(), 0);
    for (line, number) in lines(&bytes) {
        if rows.len() >= limit {
            break;
        }
        let row = match (line, &layout) {
            (Ok(line), Some(layout)) => layout.row(line).and_then(|row| costs.check(row)),
            (Ok(line), None) => match Layout::of(line) {
                // The header is no request.
                Ok(found) if !is_json(line) => {
                    layout = Some(found);
                    continue;
                }
                Ok(found) => {
                    let row = found.row(line).and_then(|row| costs.check(row));
                    layout = Some(found);
                    row
                }
                // Of a file without a header that means something, no row does.
                Err(bad) if !is_json(line) => return Err(refuse(Some(number), bad)),
                Err(bad) => Err(bad),
            },
            (Err(bad), _) => Err(bad),
        };
        match row {
            Ok(row) => rows.push(row),
            Err(_) if skip_bad_rows => bad_rows += 1,
            Err(bad) => return Err(refuse(Some(number), bad)),
        }
    }
    match layout {
        Some(layout) if !rows.is_empty() => Ok(Trace { format: layout.format(), rows, bad_rows }),
        _ => {
            let what = match bad_rows {
                0 => "there is no request in it".to_owned(),
                _ => format!("none of its {bad_rows} rows makes sense"),
            };
            Err(refuse(None, Bad::new(what, EXPECTED)))
        }
    }
}

/// Lines with their numbers, without those that are blank.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (Result<&str, Bad>, usize)> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    lines.map(|(line, number)| {
        let text = core::str::from_utf8(line).map(str::trim);
        (text.map_err(|_| Bad::new("a byte that is not UTF-8", "text")), number)
    })
}
