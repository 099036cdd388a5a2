//! One line of a trace: which format it is in, and what it says. Used by `read`.
//!
//! A format is told by its names: of a CSV file's columns, or of a JSON object's keys. Order does not matter, and what else
//! is there is not looked at. A CSV field may be quoted; a list in brackets is one field, whatever is in it.

use serde_json::{Map, Value};

use super::stamp;

/// Whose traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Azure LLM inference 2023: arrivals as date and time.
    Azure,
    /// Mooncake: arrivals in milliseconds.
    Mooncake,
}

/// A request, as its trace has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Since whenever the trace counts from.
    pub(super) at_ns: u64,
    /// Tokens of the prompt.
    pub(super) input: u64,
    /// Tokens generated.
    pub(super) output: u64,
}

/// What is wrong with a line, and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) what: String,
    pub(super) expected: String,
}

impl Bad {
    pub(super) fn new(what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { what: what.into(), expected: expected.into() }
    }
}

/// What any trace may look like, for messages.
pub(super) const EXPECTED: &str = "CSV with the columns `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` or `timestamp`, \
     `input_length`, `output_length`, or JSON lines with these keys";

impl Format {
    /// As in the results.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Azure => "azure-llm-2023",
            Self::Mooncake => "mooncake",
        }
    }

    /// Of the arrival, the prompt's length, the answer's length.
    const fn names(self) -> [&'static str; 3] {
        match self {
            Self::Azure => ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
            Self::Mooncake => ["timestamp", "input_length", "output_length"],
        }
    }

    fn of(has: impl Fn(&str) -> bool) -> Option<Self> {
        [Self::Azure, Self::Mooncake].into_iter().find(|format| format.names().into_iter().all(&has))
    }

    fn row(self, [at, input, output]: [&str; 3]) -> Result<Row, Bad> {
        let names = self.names();
        let at_ns = match self {
            Self::Azure => stamp::date_time(at).ok_or("a time such as `2023-11-16 18:15:46.6805900`"),
            Self::Mooncake => at.parse().ok().and_then(|ms: u64| ms.checked_mul(1_000_000)).ok_or("whole milliseconds"),
        };
        let at_ns = at_ns.map_err(|expected| Bad::new(format!("`{}` is {at:?}", names[0]), expected))?;
        let tokens = |name: &str, text: &str| {
            text.parse::<u64>().map_err(|_| Bad::new(format!("`{name}` is {text:?}"), "a whole number of tokens"))
        };
        Ok(Row { at_ns, input: tokens(names[1], input)?, output: tokens(names[2], output)? })
    }
}

/// How the lines of a file are to be read.
#[derive(Debug)]
pub(super) enum Layout {
    /// Comma-separated.
    Csv {
        format: Format,
        /// Where the names stand among the columns.
        places: [usize; 3],
        columns: usize,
    },
    /// An object a line.
    Json(Format),
}

impl Layout {
    /// By the file's first line. For JSON that is a request too.
    pub(super) fn of(line: &str) -> Result<Self, Bad> {
        if is_json(line) {
            let object = object(line)?;
            let format = Format::of(|name| object.contains_key(name));
            return format.map(Self::Json).ok_or_else(|| {
                let keys: Vec<_> = object.keys().map(|key| format!("`{key}`")).collect();
                Bad::new(format!("the keys are {}", keys.join(", ")), EXPECTED)
            });
        }
        let columns = fields(line)?;
        let place = |name: &str| columns.iter().position(|column| column == name);
        let format = Format::of(|name| place(name).is_some());
        let Some(format) = format else {
            return Err(Bad::new(format!("the header is {line:?}"), EXPECTED));
        };
        let places = format.names().map(|name| place(name).unwrap_or(0));
        Ok(Self::Csv { format, places, columns: columns.len() })
    }

    pub(super) const fn format(&self) -> Format {
        match self {
            Self::Csv { format, .. } | Self::Json(format) => *format,
        }
    }

    /// What one line says.
    pub(super) fn row(&self, line: &str) -> Result<Row, Bad> {
        match self {
            Self::Csv { format, places, columns } => {
                let fields = fields(line)?;
                if fields.len() != *columns {
                    let what = format!("the row has {} of {columns} fields", fields.len());
                    return Err(Bad::new(what, "as many as the header"));
                }
                format.row(places.map(|place| fields[place].as_str()))
            }
            Self::Json(format) => {
                let object = object(line)?;
                let mut values = [const { String::new() }; 3];
                for (value, name) in values.iter_mut().zip(format.names()) {
                    *value = match object.get(name) {
                        Some(Value::String(text)) => text.clone(),
                        Some(other) => other.to_string(),
                        None => return Err(Bad::new(format!("the row has no `{name}`"), format!("`{name}`"))),
                    };
                }
                format.row(values.each_ref().map(String::as_str))
            }
        }
    }
}

/// Whether a line is meant to be a JSON object.
pub(super) fn is_json(line: &str) -> bool {
    line.trim_start().starts_with('{')
}

fn object(line: &str) -> Result<Map<String, Value>, Bad> {
    serde_json::from_str(line)
        .map_err(|error| Bad::new(format!("not a JSON object: {error}"), "one object on each line"))
}

/// The fields of a CSV line.
fn fields(line: &str) -> Result<Vec<String>, Bad> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut depth) = (false, 0_usize);
    let mut rest = line.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted && depth == 0 => fields.push(core::mem::take(&mut field)),
            _ => {
                match character {
                    '[' if !quoted => depth += 1,
                    ']' if !quoted => depth = depth.saturating_sub(1),
                    _ => {}
                }
                field.push(character);
            }
        }
    }
    if quoted {
        return Err(Bad::new("a quote is open at the end of the row", "its end on the same line"));
    }
    fields.push(field);
    for field in &mut fields {
        let trimmed = field.trim();
        if trimmed.len() < field.len() {
            *field = trimmed.to_owned();
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, line: &str) -> Result<Row, Bad> {
        Layout::of(head).unwrap().row(line)
    }

    #[test]
    fn formats_are_told_by_their_names_in_either_syntax() {
        let azure = Row { at_ns: 1_500_000_000, input: 374, output: 44 };
        let head = "TIMESTAMP,ContextTokens,GeneratedTokens";
        assert_eq!(read(head, "1970-01-01 00:00:01.5,374,44").unwrap(), azure);
        assert_eq!(
            read("\"GeneratedTokens\", \"TIMESTAMP\",x,ContextTokens", "\"44\",1970-01-01T00:00:01.5Z,,374"),
            Ok(azure)
        );
        let json = "{\"TIMESTAMP\":\"1970-01-01 00:00:01.5\",\"ContextTokens\":374,\"GeneratedTokens\":\"44\"}";
        assert_eq!(read(json, json), Ok(azure));

        let mooncake = Row { at_ns: 3_000_000_000, input: 6758, output: 500 };
        let head = "timestamp,input_length,output_length,hash_ids";
        for line in ["3000,6758,500,\"[0, 1, 2]\"", "3000,6758,500,[0, 1, 2]", "3000,6758,500,"] {
            assert_eq!(read(head, line), Ok(mooncake), "{line}");
        }
        let json = "{\"timestamp\": 3000, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}";
        assert_eq!(read(json, json), Ok(mooncake));
        assert_eq!([Layout::of(head), Layout::of(json)].map(|layout| layout.unwrap().format()), [Format::Mooncake; 2]);
    }
}
