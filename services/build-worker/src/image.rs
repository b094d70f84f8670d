//! What the builder asks of an image's run configuration, and changes in it.

use dockerfile::{Command, Healthcheck, Test};
use oci::ContainerConfig;

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell of shell-form instructions.
pub fn shell(config: &ContainerConfig) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// The value of an environment variable.
pub fn variable<'a>(config: &'a ContainerConfig, name: &str) -> Option<&'a str> {
    config.env.iter().find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// Sets a variable where it stands, or adds it at the end.
pub fn set_variable(config: &mut ContainerConfig, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match config.env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = entry,
        None => config.env.push(entry),
    }
}

/// Every stage starts with a PATH.
pub fn default_path(config: &mut ContainerConfig) {
    if variable(config, "PATH").is_none() {
        config.env.push(DEFAULT_PATH.to_owned());
    }
}

/// The words of a command; shell form goes through the shell.
pub fn resolve(command: Command, shell: Vec<String>) -> Vec<String> {
    match command {
        Command::Exec(words) => words,
        Command::Shell(line) => shell.into_iter().chain(line).collect(),
    }
}

/// A set as JSON has it.
pub fn names(list: Vec<String>) -> impl Iterator<Item = (String, oci::Empty)> {
    list.into_iter().map(|name| (name, oci::Empty {}))
}

/// A HEALTHCHECK as the configuration has it.
pub fn health(check: Healthcheck) -> oci::Healthcheck {
    let words = |kind: &str, words: Vec<String>| std::iter::once(kind.to_owned()).chain(words).collect();
    oci::Healthcheck {
        test: match check.test {
            Test::None => words("NONE", Vec::new()),
            Test::Command(Command::Exec(list)) => words("CMD", list),
            Test::Command(Command::Shell(line)) => words("CMD-SHELL", line.into_iter().collect()),
        },
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}

/// Refuses what is no signal, in Docker's words.
pub fn check_signal(signal: &str) -> Result<(), String> {
    let invalid = || format!("invalid signal: {signal}");
    if let Ok(number) = signal.parse::<i32>() {
        return if number > 0 { Ok(()) } else { Err(invalid()) };
    }
    let name = signal.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = name.strip_prefix("RTMIN").or_else(|| name.strip_prefix("RTMAX")).is_some_and(|rest| {
        rest.is_empty() || rest[1..].parse::<u8>().is_ok_and(|offset| offset <= 15) && rest.starts_with(['+', '-'])
    });
    let known = real_time || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok();
    if known { Ok(()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let mut config = ContainerConfig::default();
        default_path(&mut config);
        set_variable(&mut config, "A", "1");
        set_variable(&mut config, "PATH", "/bin");
        set_variable(&mut config, "A", "2=3");
        assert_eq!(config.env, ["PATH=/bin", "A=2=3"]);
        assert_eq!(variable(&config, "A"), Some("2=3"));
        assert_eq!(variable(&config, "B"), None);
    }

    #[test]
    fn signals() {
        for fine in ["TERM", "SIGTERM", "sigint", "9", "9999", "SIGRTMIN+3", "RTMAX-1"] {
            assert_eq!(check_signal(fine), Ok(()), "{fine}");
        }
        for wrong in ["SIGX", "", "a b", "-1", "RTMIN+99"] {
            assert_eq!(check_signal(wrong), Err(format!("invalid signal: {wrong}")));
        }
    }
}
