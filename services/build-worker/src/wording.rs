//! How Docker writes an instruction into an image's history: Go's `%v` and `%q`.

use dockerfile::{quote, quote_number};
use oci::Healthcheck;

/// Why a step ran that was not looked for in the cache.
pub const CACHE_UNUSED: &str = "the cache was not to be used";

/// `[/a /b]`
pub fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `["a" "b"]`
pub fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// ` a=b c=d`, each with a blank before it.
pub fn pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect()
}

/// `&{["CMD-SHELL" "x"] "5s" "0s" "0s" "0s" '\x03'}`: interval, timeout, start period and the interval in it.
pub fn health(health: &Healthcheck) -> String {
    let times = [health.interval, health.timeout, health.start_period, health.start_interval];
    let times: String = times.iter().map(|nanos| format!(" {}", quote(&duration(*nanos)))).collect();
    format!("&{{{}{times} {}}}", quoted_list(&health.test), quote_number(health.retries))
}

/// A duration as Go prints it: `1m0s`, `1.5s`, `20ms`.
pub fn duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |unit: u64, name: &str| {
        let whole = total / unit;
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", total % unit);
        match rest.trim_end_matches('0') {
            "" => format!("{sign}{whole}{name}"),
            rest => format!("{sign}{whole}.{rest}{name}"),
        }
    };
    match total {
        0..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let seconds = total / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = format!("{:09}", total % 1_000_000_000);
            let rest = rest.trim_end_matches('0');
            let dot = if rest.is_empty() { "" } else { "." };
            let last = format!("{}{dot}{rest}s", seconds % 60);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{last}"),
                (0, minutes) => format!("{sign}{minutes}m{last}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{last}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_prints() {
        for (nanos, expected) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (60_000_000_000, "1m0s"),
            (1_500_000_000, "1.5s"),
            (20_000_000, "20ms"),
            (1_500_000, "1.5ms"),
            (3_600_000_000_000, "1h0m0s"),
            (5_430_500_000_000, "1h30m30.5s"),
        ] {
            assert_eq!(duration(nanos), expected);
        }
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(plain_list(&words(&["/a", "/b"])), "[/a /b]");
        assert_eq!(quoted_list(&words(&["/bin/sh", "-c", "[\"a\", b]"])), r#"["/bin/sh" "-c" "[\"a\", b]"]"#);
        let check = Healthcheck {
            test: words(&["CMD-SHELL", "a b"]),
            interval: 5_000_000_000,
            timeout: 3_000_000_000,
            start_period: 60_000_000_000,
            start_interval: 0,
            retries: 3,
        };
        assert_eq!(health(&check), r#"&{["CMD-SHELL" "a b"] "5s" "3s" "1m0s" "0s" '\x03'}"#);
        assert_eq!(quoted_list(&words(&["\u{1}ä\u{200b}'"])), r#"["\x01ä\u200b'"]"#);
    }
}
