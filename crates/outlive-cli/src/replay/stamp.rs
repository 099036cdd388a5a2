//! Points in time as traces write them. Used by `read`.

const NS_PER_S: u64 = 1_000_000_000;

/// `2023-11-16 18:15:46.6805900`, perhaps with `T` in the middle and `Z` or `+00:00` at the end, in nanoseconds since 1970.
pub(super) fn date_time(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = parts(time, ':', [2, 2, 2])?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let seconds = (days_since_1970(year, month, day) * 24 + hour) * 3600 + minute * 60 + second;
    seconds.checked_mul(NS_PER_S)?.checked_add(fraction_ns(fraction)?)
}

/// Three numbers of so many digits each.
fn parts(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        *number = number_of(parts.next().filter(|part| part.len() == digits)?)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn number_of(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What stands behind the point: one to nine digits.
fn fraction_ns(digits: &str) -> Option<u64> {
    let number = number_of(digits).filter(|_| (1..=9).contains(&digits.len()))?;
    let missing = u32::try_from(9 - digits.len()).ok()?;
    Some(number * 10_u64.pow(missing))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Whole days. Worked example: 1970-03-01 is 59 days after 1970-01-01.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    years + (1..month).map(|month| days_of(year, month)).sum::<u64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_time_is_nanoseconds() {
        assert_eq!(date_time("1970-01-01 00:00:00"), Some(0));
        assert_eq!(date_time("1970-03-01 00:00:01.5"), Some((59 * 86_400 + 1) * NS_PER_S + 500_000_000));
        // `date -u -d '2023-11-16 18:15:46' +%s` says 1700158546.
        let azure = Some(1_700_158_546_680_590_000);
        assert_eq!(date_time("2023-11-16 18:15:46.6805900"), azure);
        assert_eq!(date_time("2023-11-16T18:15:46.68059Z"), azure);
        assert_eq!(date_time("2024-02-29 00:00:00+00:00"), Some(1_709_164_800 * NS_PER_S));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "2023-11-16",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-01 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 18:60:00",
            "2023-11-16 18:15",
            "2023-11-16 18:15:46.",
            "2023-11-16 18:15:46.0123456789",
            "2023-11-16 18:15:46.+1",
            "2023-11-16 +8:15:46",
            "23-11-16 18:15:46",
            "2023-11-16 18:15:46 18:15:46",
        ] {
            assert_eq!(date_time(text), None, "{text}");
        }
    }
}
