use serde_json::Value;

/// Lays `given` over `defaults`: an absent field or a null keeps its default.
pub fn fill(defaults: Value, given: &Value) -> Value {
    let (Value::Object(mut filled), Value::Object(given)) = (defaults, given) else { return Value::Null };
    for (key, value) in given {
        if !value.is_null() {
            filled.insert(key.clone(), value.clone());
        }
    }
    Value::Object(filled)
}

/// A time as Go writes it (RFC 3339 with nanoseconds); zero is Go's zero time.
pub fn time(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let nanos = nanoseconds.rem_euclid(1_000_000_000);
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}").trim_end_matches('0').to_owned() };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Day of the proleptic Gregorian calendar, counted from 1970-01-01 (years begin in March, so a leap day is last).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0001-01-01T00:00:00Z"),
            (1_000_000_000, "1970-01-01T00:00:01Z"),
            (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_795_498_947_543_131_424, "2026-11-24T05:42:27.543131424Z"),
        ] {
            assert_eq!(time(nanoseconds), text);
        }
    }

    #[test]
    fn null_keeps_the_default() {
        assert_eq!(fill(json!({"a": 1, "b": 2}), &json!({"a": null, "b": 3})), json!({"a": 1, "b": 3}));
    }
}
