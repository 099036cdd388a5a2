//! Typed, positioned access to one table of a scenario file. Used by the readers of the file's sections.
//!
//! Reading by hand rather than through derived code gives every mistake its line and a sentence in the file's own words.

use core::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::words::one_of;
use crate::error::InputError;

/// The text of a file, for turning byte offsets into lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The mistake at byte `at`.
    pub(super) fn error(&self, at: usize, what: impl Into<String>, expected: impl Into<String>) -> InputError {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        InputError { file: self.file.to_owned(), line: Some(line), what: what.into(), expected: expected.into() }
    }
}

/// One table and how it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) source: Source<'a>,
    /// As in the file: `[device]`, or "the file" for the top.
    title: &'a str,
    table: &'a DeTable<'a>,
    at: usize,
}

impl<'a> Section<'a> {
    /// A table, all of whose keys are among `known`.
    pub(super) fn new(
        source: Source<'a>,
        title: &'a str,
        table: &'a DeTable<'a>,
        at: usize,
        known: &[&str],
    ) -> Result<Self, InputError> {
        let section = Self { source, title, table, at };
        let mut unknown: Vec<_> = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).collect();
        // The table is sorted by name; a reader wants the first in the file.
        unknown.sort_by_key(|key| key.span().start);
        match unknown.first() {
            None => Ok(section),
            Some(key) => {
                let what = format!("unknown key `{}` in {title}", key.get_ref());
                let mut names: Vec<_> = known.iter().map(|name| (*name, ())).collect();
                // What was probably meant comes first.
                names.sort_by_key(|(name, ())| changes(name, key.get_ref()).min(CHANGES_ALIKE + 1));
                Err(source.error(key.span().start, what, one_of(&names)))
            }
        }
    }

    fn entry(&self, key: &str) -> Option<(&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.table.get_key_value(key)
    }

    /// Whether the file has it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where `key` is, or the section where it is not.
    pub(super) fn place(&self, key: &str) -> usize {
        self.entry(key).map_or(self.at, |(name, _)| name.span().start)
    }

    /// The mistake at `key`, or at the head of the section where it has none.
    pub(super) fn error(&self, key: &str, what: impl Into<String>, expected: impl Into<String>) -> InputError {
        self.source.error(self.place(key), what, expected)
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, expected: &str) -> InputError {
        self.error(key, format!("`{key}` is {}", type_name(value)), expected)
    }

    /// `value`, or the mistake that the section lacks `key`.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>, expected: &str) -> Result<T, InputError> {
        value.ok_or_else(|| self.source.error(self.at, format!("{} has no `{key}`", self.title), expected))
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, InputError> {
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let DeValue::Integer(digits) = value.get_ref() else {
            return Err(self.wrong_type(key, value.get_ref(), &expected()));
        };
        let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.error(key, format!("`{key}` is {digits}"), expected())),
        }
    }

    /// A whole number in `range`, for a field of 32 bits.
    pub(super) fn integer_u32(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, InputError> {
        let number = self.integer(key, u64::from(*range.start())..=u64::from(*range.end()))?;
        // CAST: within a range of 32-bit numbers, so nothing is lost.
        Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
    }

    /// A number from 0 to 1; a whole number will do.
    pub(super) fn share(&self, key: &str) -> Result<Option<f64>, InputError> {
        const EXPECTED: &str = "a number from 0.0 to 1.0";
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let digits = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            other => return Err(self.wrong_type(key, other, EXPECTED)),
        };
        match digits.parse::<f64>() {
            // `abs` makes minus zero, which passes the test, plain zero.
            Ok(number) if (0.0..=1.0).contains(&number) => Ok(Some(number.abs())),
            _ => Err(self.error(key, format!("`{key}` is {digits}"), EXPECTED)),
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, InputError> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(on) => Ok(Some(*on)),
            other => Err(self.wrong_type(key, other, "`true` or `false`")),
        }
    }

    /// A name: text without control characters, and not empty.
    pub(super) fn name(&self, key: &str) -> Result<Option<String>, InputError> {
        const EXPECTED: &str = "a name: a string that is not empty and has no control characters";
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong_type(key, value.get_ref(), EXPECTED));
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(self.error(key, format!("`{key}` is {text:?}"), EXPECTED));
        }
        Ok(Some(text.clone().into_owned()))
    }

    /// One word of a closed set.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, InputError> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong_type(key, value.get_ref(), &one_of(words)));
        };
        match words.iter().find(|(word, _)| *word == text.as_ref()) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.error(key, format!("`{key}` is {text:?}"), one_of(words))),
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &str, title: &'a str, known: &[&str]) -> Result<Option<Self>, InputError> {
        let Some((name, value)) = self.entry(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => Self::new(self.source, title, table, name.span().start, known).map(Some),
            other => Err(self.wrong_type(key, other, &format!("a table, {title}"))),
        }
    }

    /// All `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, key: &str, title: &'a str, known: &[&str]) -> Result<Vec<Self>, InputError> {
        let expected = format!("tables, each under {title}");
        let Some((_, value)) = self.entry(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.wrong_type(key, value.get_ref(), &expected));
        };
        let mut sections = Vec::with_capacity(array.len());
        for element in array.iter() {
            let DeValue::Table(table) = element.get_ref() else {
                let what = format!("an element of `{key}` is {}", type_name(element.get_ref()));
                return Err(self.source.error(element.span().start, what, expected));
            };
            sections.push(Self::new(self.source, title, table, element.span().start, known)?);
        }
        Ok(sections)
    }
}

/// Words that are no more changes apart are alike.
const CHANGES_ALIKE: usize = 2;

/// How many letters must be changed, put in or left out to make one word of the other.
fn changes(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, with) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *with);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn changes_are_counted_by_letters() {
        let cases = [("", "", 0), ("", "abc", 3), ("mode", "mood", 2), ("engine", "engines", 1), ("grün", "grun", 1)];
        for (one, other, expected) in cases {
            assert_eq!((changes(one, other), changes(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
