//! Sizes and times as Docker writes them.

use jiff::Timestamp;

/// Four significant digits, powers of 1000: `762kB`, `1.984MB`.
pub fn size(bytes: f64) -> String {
    size_with(bytes, 4)
}

/// Docker's tables of images and containers show three digits.
pub fn size3(bytes: f64) -> String {
    size_with(bytes, 3)
}

fn size_with(bytes: f64, precision: usize) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    scaled(bytes, 1000.0, &UNITS, precision)
}

/// Powers of 1024: `23.54GiB`.
pub fn binary_size(bytes: f64) -> String {
    const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    scaled(bytes, 1024.0, &UNITS, 4)
}

fn scaled(mut value: f64, base: f64, units: &[&str], precision: usize) -> String {
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    format!("{}{}", general(value, precision), units[unit])
}

/// C's `%.{precision}g` for the range that `scaled` leaves.
fn general(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    // Rust writes the exponent after rounding, which is what decides the notation.
    let scientific = format!("{:.*e}", precision - 1, value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent >= precision as i32 {
        return format!("{}e+{exponent:02}", trimmed(mantissa));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{value:.decimals$}"))
}

/// `Less than a second`, `2 minutes`, `About an hour`, `3 weeks`.
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a time in Unix seconds was.
pub fn ago(unix_seconds: i64) -> String {
    format!("{} ago", duration(Timestamp::now().as_second() - unix_seconds))
}

/// Seconds of an RFC 3339 time; 0 when it is none.
pub fn unix_seconds(rfc3339: &str) -> i64 {
    rfc3339.parse::<Timestamp>().map_or(0, |t| t.as_second())
}

/// Go's `time.Time.String()` in the local zone: `2026-11-24 08:21:34 +0000 UTC`.
pub fn go_time(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    let mut text = zoned.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let nanos = zoned.subsec_nanosecond();
    if nanos != 0 {
        text.push('.');
        text.push_str(format!("{nanos:09}").trim_end_matches('0'));
    }
    text.push_str(&zoned.strftime(" %z %Z").to_string());
    text
}

/// `512m`, `1.5g`, `64KiB`: bytes, binary as Docker's RAMInBytes.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let invalid = || format!("invalid size: '{text}'");
    let split = lower.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(lower.len());
    let number: f64 = lower[..split].parse().map_err(|_| invalid())?;
    let suffix = lower[split..].trim().trim_end_matches("ib").trim_end_matches('b');
    let power = match suffix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    Ok((number * 1024f64.powi(power)) as i64)
}

/// Go's durations (`1h30m`, `10s`, `500ms`) in nanoseconds.
pub fn parse_duration_ns(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration \"{text}\"");
    if text == "0" {
        return Ok(0);
    }
    let mut total = 0f64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        total += number * scale;
        rest = &rest[unit_end..];
    }
    Ok(total as i64)
}

/// `--since` and `--until`: a duration back from now, Unix seconds, or a date, as
/// `seconds.nanoseconds`.
pub fn timestamp(text: &str) -> Result<String, String> {
    let now = Timestamp::now();
    if let Ok(ns) = parse_duration_ns(text.trim_start_matches('-')).map(i128::from)
        && text.ends_with(|c: char| c.is_alphabetic())
    {
        let at = if text.starts_with('-') { now.as_nanosecond() + ns } else { now.as_nanosecond() - ns };
        return Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let _ = seconds;
        return Ok(text.to_owned());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(format!("{}.{:09}", at.as_second(), at.subsec_nanosecond()));
    }
    let civil =
        text.parse::<jiff::civil::DateTime>().or_else(|_| text.parse::<jiff::civil::Date>().map(|d| d.at(0, 0, 0, 0)));
    let civil = civil.map_err(|_| format!("failed to parse value as time or duration: {text:?}"))?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::system()).map_err(|e| e.to_string())?;
    Ok(format!("{}.{:09}", zoned.timestamp().as_second(), zoned.timestamp().subsec_nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in
            [(0.0, "0B"), (2048.0, "2.048kB"), (762296.0, "762.3kB"), (1984000.0, "1.984MB"), (999.0, "999B")]
        {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(size3(762296.0), "762kB");
        assert_eq!(size3(1983999.0), "1.98MB");
        assert_eq!(size3(999999.0), "1e+03kB");
        assert_eq!(binary_size(524288.0), "512KiB");
    }

    #[test]
    fn durations() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 15, "2 weeks"),
            (86400 * 70, "2 months"),
            (86400 * 365 * 3, "3 years"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn parsing() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("-1"), Ok(-1));
        assert!(parse_bytes("x").is_err());
        assert_eq!(parse_duration_ns("1m30s"), Ok(90_000_000_000));
        assert!(parse_duration_ns("1").is_err());
    }
}
