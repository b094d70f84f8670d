//! The ports of EXPOSE, in all the forms that Docker takes: `80`, `80/udp`, `100-102`, `[ip:][host:]container`.

/// The ports that one word names, as `80/tcp`.
pub fn parse(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = match word.split_once('/') {
        Some((ports, protocol)) => (ports, protocol),
        None => (word, "tcp"),
    };
    let container = ports.rsplit(':').next().unwrap_or_default();
    if container.is_empty() {
        return Err(format!("No port specified: {word}<empty>"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("Invalid proto: {protocol}"));
    }
    let host = ports.rsplit(':').nth(1).unwrap_or_default();
    if !host.is_empty() && range(host).is_none() {
        return Err(format!("Invalid hostPort: {host}"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn words_of_docker() {
        for (word, expected) in [
            ("80", Ok("80/tcp")),
            ("80/TCP", Ok("80/tcp")),
            ("90/udp", Ok("90/udp")),
            ("100-102", Ok("100/tcp 101/tcp 102/tcp")),
            ("8080:80", Ok("80/tcp")),
            ("1.2.3.4:81:82", Ok("82/tcp")),
            ("x", Err("invalid containerPort: x")),
            ("70000", Err("invalid containerPort: 70000")),
            ("80-", Err("invalid containerPort: 80-")),
            ("90-80", Err("invalid containerPort: 90-80")),
            ("80/foo", Err("Invalid proto: foo")),
            ("/tcp", Err("No port specified: /tcp<empty>")),
        ] {
            let actual = parse(word).map(|ports| ports.join(" "));
            assert_eq!(actual, expected.map(str::to_owned).map_err(str::to_owned), "{word}");
        }
    }
}
