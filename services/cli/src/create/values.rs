//! Single values of options: `name=value`, limits, policies, devices.

use serde_json::{Map, Value, json};

use crate::failure::{Failure, Outcome};

/// `--env-file` first, then `-e`. A name without a value takes this process's.
pub fn environment(files: &[String], given: &[String]) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(Failure::new(format!("invalid env file ({file}): variable '{name}' contains whitespaces")));
            }
            match (line.contains('='), std::env::var(name)) {
                (true, _) => all.push(line),
                (false, Ok(value)) => all.push(format!("{name}={value}")),
                (false, Err(_)) => {}
            }
        }
    }
    for text in given {
        if text.is_empty() || text.starts_with('=') {
            return Err(Failure::new(format!(
                "invalid argument {text:?} for \"-e, --env\" flag: invalid environment variable: {text}"
            )));
        }
        match (text.contains('='), std::env::var(text)) {
            (false, Ok(value)) => all.push(format!("{text}={value}")),
            _ => all.push(text.clone()),
        }
    }
    Ok(all)
}

pub fn labels(files: &[String], given: &[String]) -> Outcome<Value> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?);
    }
    all.extend(given.iter().cloned());
    Ok(pairs(&all))
}

/// `name=value` texts as an object; a missing value is the empty text.
pub fn pairs(texts: &[String]) -> Value {
    let split = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), Value::from(value))
    };
    Value::Object(texts.iter().map(split).collect::<Map<_, _>>())
}

fn lines(file: &str) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::new(format!("open {file}: {e}")))?;
    let kept = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    Ok(kept.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}

pub fn restart_policy(text: &str) -> Outcome<Value> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let count: i64 = count.parse().map_err(|_| {
        Failure::new(format!("invalid restart policy format: maximum retry count must be an integer: {text}"))
    })?;
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// `0.5` CPUs as billionths.
pub fn nano_cpus(text: &str) -> Outcome<i64> {
    let invalid = || {
        Failure::new(format!(
            "invalid argument {text:?} for \"--cpus\" flag: failed to parse {text} as a rational number"
        ))
    };
    let cpus: f64 = text.parse().map_err(|_| invalid())?;
    Ok((cpus * 1e9).round() as i64)
}

pub fn extra_hosts(texts: &[String]) -> Outcome<Vec<String>> {
    let parse = |text: &String| {
        let (host, address) =
            text.split_once(['=', ':']).filter(|(h, a)| !h.is_empty() && !a.is_empty()).ok_or_else(|| {
                Failure::new(format!(
                    "invalid argument {text:?} for \"--add-host\" flag: bad format for add-host: {text:?}"
                ))
            })?;
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(Failure::new(format!(
                "invalid argument {text:?} for \"--add-host\" flag: invalid IP address in add-host: {address:?}"
            )));
        }
        Ok(format!("{host}:{bare}"))
    };
    texts.iter().map(parse).collect()
}

/// `name=soft[:hard]`.
pub fn ulimits(texts: &[String]) -> Outcome<Value> {
    let parse = |text: &String| -> Option<Value> {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some(json!({"Name": name, "Hard": hard.parse::<i64>().ok()?, "Soft": soft.parse::<i64>().ok()?}))
    };
    let one = |text| parse(text).ok_or_else(|| Failure::new(format!("invalid ulimit argument: {text}")));
    texts.iter().map(one).collect()
}

/// `host[:container[:rwm]]`.
pub fn devices(texts: &[String]) -> Outcome<Value> {
    let parse = |text: &String| {
        let parts: Vec<_> = text.split(':').collect();
        let is_mode = |m: &str| !m.is_empty() && m.chars().all(|c| "rwm".contains(c));
        let (inside, mode) = match parts.as_slice() {
            [host] => (*host, "rwm"),
            [host, mode] if is_mode(mode) => (*host, *mode),
            [_, inside] => (*inside, "rwm"),
            [_, inside, mode] if is_mode(mode) => (*inside, *mode),
            _ => return Err(Failure::new(format!("invalid device specification: {text}"))),
        };
        Ok(json!({"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": mode}))
    };
    texts.iter().map(parse).collect()
}

/// A seccomp profile is read here, since the daemon may be elsewhere.
pub fn security_options(texts: &[String]) -> Outcome<Vec<String>> {
    let parse = |text: &String| {
        let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        if name != "seccomp" || value == "unconfined" || value == "builtin" {
            return Ok(text.clone());
        }
        let profile = std::fs::read_to_string(value)
            .map_err(|e| Failure::new(format!("opening seccomp profile ({value}) failed: {e}")))?;
        let profile: Value = serde_json::from_str(&profile)
            .map_err(|e| Failure::new(format!("compacting json for seccomp profile ({value}) failed: {e}")))?;
        Ok(format!("seccomp={profile}"))
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_policies() {
        assert_eq!(ulimits(&["nofile=1:2".into()]).expect("fits"), json!([{"Name": "nofile", "Hard": 2, "Soft": 1}]));
        assert!(ulimits(&["x".into()]).is_err());
        assert_eq!(nano_cpus("1.5").expect("fits"), 1_500_000_000);
        assert_eq!(
            restart_policy("on-failure:3").expect("fits"),
            json!({"Name": "on-failure", "MaximumRetryCount": 3})
        );
        assert_eq!(extra_hosts(&["a:1.2.3.4".into(), "b=[::1]".into()]).expect("fits"), ["a:1.2.3.4", "b:::1"]);
        assert!(extra_hosts(&["a".into()]).is_err());
    }
}
