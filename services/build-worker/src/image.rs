//! What the builder asks of an image's run configuration, and changes in it.

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
}
