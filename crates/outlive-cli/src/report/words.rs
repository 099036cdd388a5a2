//! Numbers and lists as people write them. Used by the table and the timeline.

/// A length of time in three digits: `12 µs`, `1.02 ms`, `23.4 s`.
pub(crate) fn duration(us: u64) -> String {
    // CAST: shown in three digits, of which an f64 has enough.
    let us_float = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", three_digits(us_float / 1e3)),
        _ => format!("{} s", three_digits(us_float / 1e6)),
    }
}

fn three_digits(number: f64) -> String {
    if number < 9.995 {
        format!("{number:.2}")
    } else if number < 99.95 {
        format!("{number:.1}")
    } else {
        grouped(number.round() as u64)
    }
}

/// A share of 1 in percent, in three digits.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 99.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// At most `width` characters, with an ellipsis where some are missing.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `text` after `prefix`, in lines of at most `width`, the further ones below the beginning of `text`.
pub(crate) fn wrapped(prefix: &str, text: &str, width: usize) -> String {
    let indent = prefix.chars().count();
    let mut lines = prefix.to_owned();
    let mut used = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > indent && used + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if used > indent {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let shown: Vec<_> =
            [0, 999, 1_000, 1_020, 9_996, 99_960, 999_400, 1_500_000, 4_000_000_000].map(duration).into();
        let expected = ["0 µs", "999 µs", "1.00 ms", "1.02 ms", "10.0 ms", "100 ms", "999 ms", "1.50 s", "4,000 s"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn text_is_cut_and_wrapped_by_characters() {
        assert_eq!(shortened("äöüß", 4), "äöüß");
        assert_eq!(shortened("äöüßa", 4), "äöü…");
        assert_eq!(wrapped("- ", "one two three", 9), "- one two\n  three");
        assert_eq!((grouped(1_234_567), grouped(999)), ("1,234,567".to_owned(), "999".to_owned()));
    }
}
