//! `-p` and `--expose`: single ports and ranges.

use serde_json::{Map, Value, json};

use crate::failure::{Failure, Outcome};

/// ExposedPorts and PortBindings.
pub fn published(publish: &[String], expose: &[String]) -> Outcome<(Value, Value)> {
    let mut exposed = Map::new();
    let mut bindings: Map<String, Value> = Map::new();
    for text in publish {
        let invalid = || Failure::new(format!("invalid publish opts format (should be name=value but got '{text}')"));
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (rest, inside) = ports.rsplit_once(':').map_or((None, ports), |(r, i)| (Some(r), i));
        let (address, outside) = match rest {
            None => ("", ""),
            Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
        };
        let inside = range(inside).ok_or_else(|| Failure::new(format!("invalid containerPort: {inside}")))?;
        let outside = match outside {
            "" => None,
            text => Some(range(text).ok_or_else(|| Failure::new(format!("invalid hostPort: {text}")))?),
        };
        let count = inside.1 - inside.0;
        for i in 0..=count {
            let host_port = match outside {
                None => String::new(),
                Some((from, to)) if to - from == count => (from + i).to_string(),
                Some((from, to)) if count == 0 => format!("{from}-{to}"),
                Some(_) => return Err(invalid()),
            };
            let port = format!("{}/{}", inside.0 + i, protocol.to_ascii_lowercase());
            exposed.insert(port.clone(), json!({}));
            let list = bindings.entry(port).or_insert_with(|| json!([]));
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if let Some(list) = list.as_array_mut() {
                list.push(json!({"HostIp": address, "HostPort": host_port}));
            }
        }
    }
    for text in expose {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (from, to) =
            range(ports).ok_or_else(|| Failure::new(format!("invalid range format for --expose: {text}")))?;
        for port in from..=to {
            exposed.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    Ok((Value::Object(exposed), Value::Object(bindings)))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let (exposed, bindings) =
            published(&["80".into(), "127.0.0.1:8080:81".into(), "1-2:3-4/udp".into()], &["9".into()]).expect("parses");
        assert_eq!(exposed.as_object().map(Map::len), Some(5));
        assert_eq!(bindings["80/tcp"], json!([{"HostIp": "", "HostPort": ""}]));
        assert_eq!(bindings["81/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "8080"}]));
        assert_eq!(bindings["4/udp"], json!([{"HostIp": "", "HostPort": "2"}]));
        assert!(published(&["x".into()], &[]).is_err());
    }
}
