//! Mounts of a request to make a container: binds, mounts, tmpfs and anonymous volumes.

use engine_api::{BindOptions, HostConfig, VolumeOptions};

use super::{Failure, Outcome};

/// How what is mounted below a bind is seen on its other side.
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

fn is_bind_option(word: &str) -> bool {
    const WORDS: [&str; 9] = ["", "ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"];
    WORDS.contains(&word) || PROPAGATIONS.contains(&word)
}

/// Whether a mount given without its own place in the container (`--volumes-from`) is only read; nothing for a mode that
/// is none of its: at most one word each of access, label and consistency.
pub fn is_inherited_read_only(mode: &str) -> Option<bool> {
    const KINDS: [&[&str]; 3] = [&["ro", "rw"], &["z", "Z"], &["consistent", "cached", "delegated"]];
    let words: Vec<&str> = mode.split(',').collect();
    let count = |kind: &[&str]| words.iter().filter(|word| kind.contains(word)).count();
    let counts = KINDS.map(count);
    let is_valid = counts.iter().all(|&count| count <= 1) && counts.iter().sum::<usize>() == words.len();
    is_valid.then(|| words.contains(&"ro"))
}

fn bind_options(kind: &str, options: Option<&BindOptions>) -> Outcome<()> {
    let invalid = |why: String| Err(Failure::invalid(format!("invalid mount config for type \"{kind}\": {why}")));
    let Some(options) = options else { return Ok(()) };
    if kind != "bind" {
        return invalid("field BindOptions must not be specified".to_owned());
    }
    match options.propagation.as_deref() {
        Some(word) if !word.is_empty() && !PROPAGATIONS.contains(&word) => {
            invalid(format!("invalid propagation mode: {word}"))
        }
        _ => Ok(()),
    }
}

/// Options of a mount that would be passed over in silence.
fn only_what_is_built(bind: &BindOptions, volume: &VolumeOptions) -> Outcome<()> {
    if bind.non_recursive.unwrap_or(false) {
        return Err(Failure::not_built("binds without what is mounted below are not built yet"));
    }
    if volume.subpath.as_ref().is_some_and(|path| !path.is_empty()) {
        return Err(Failure::not_built("mounts of a part of a volume are not built yet"));
    }
    let driver = volume.driver_config.clone().unwrap_or_default();
    if let Some(name) = driver.name.filter(|name| !matches!(name.as_str(), "" | "local")) {
        let words = format!("error looking up volume plugin {name}: plugin \"{name}\" not found");
        return Err(Failure::not_found(words));
    }
    match driver.options.is_some_and(|options| !options.is_empty()) {
        true => Err(Failure::not_built("options of a volume in a mount are not built yet: make the volume before")),
        false => Ok(()),
    }
}

/// Binds, mounts, tmpfs and anonymous volumes of a request.
pub fn mounts(host: &HostConfig, volumes: &[String]) -> Outcome<Vec<proto::Mount>> {
    let binds = host.binds.iter().flatten().map(String::as_str).map(of_bind);
    let mounts = host.mounts.iter().flatten().map(of_mount);
    let tmpfs = host.tmpfs.iter().flatten().map(|(target, options)| of_tmpfs(target, options));
    let mut mounts: Vec<proto::Mount> = binds.chain(mounts).chain(tmpfs).collect::<Outcome<_>>()?;
    for target in volumes {
        if !mounts.iter().any(|mount| mount.target.trim_end_matches('/') == target.trim_end_matches('/')) {
            let kind = proto::mount::Type::Volume.into();
            mounts.push(proto::Mount { r#type: kind, target: target.clone(), ..Default::default() });
        }
    }
    Ok(mounts)
}

fn of_bind(bind: &str) -> Outcome<proto::Mount> {
    let parts: Vec<&str> = bind.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(Failure::invalid(format!("invalid volume specification: '{bind}'"))),
    };
    if let Some(wrong) = options.split(',').find(|word| !is_bind_option(word)) {
        return Err(Failure::invalid(match options.contains(',') {
            true => format!("invalid mode: {options}"),
            false => format!("invalid mode: {wrong}"),
        }));
    }
    if !target.starts_with('/') {
        return Err(Failure::invalid(format!(
            "invalid volume specification: '{bind}': invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let words: Vec<&str> = options.split(',').collect();
    let of_host = source.starts_with('/');
    let propagation = words.iter().find(|word| PROPAGATIONS.contains(word)).copied().unwrap_or_default();
    if !of_host && !propagation.is_empty() {
        return Err(Failure::invalid(format!(
            "invalid volume specification: '{bind}': invalid mount config for type \"volume\": field BindOptions must not be specified"
        )));
    }
    Ok(proto::Mount {
        r#type: if of_host { proto::mount::Type::Bind } else { proto::mount::Type::Volume }.into(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: words.contains(&"ro"),
        propagation: propagation.to_owned(),
        options: String::new(),
        no_copy: words.contains(&"nocopy"),
        create_source: of_host,
    })
}

fn of_mount(mount: &engine_api::Mount) -> Outcome<proto::Mount> {
    let kind = match mount.kind.as_str() {
        "bind" => proto::mount::Type::Bind,
        "volume" | "" => proto::mount::Type::Volume,
        "tmpfs" => proto::mount::Type::Tmpfs,
        "image" => return Err(Failure::not_built("mounts of images are not built yet")),
        other => {
            return Err(Failure::invalid(format!("invalid mount config for type \"{other}\": mount type unknown")));
        }
    };
    if !mount.target.starts_with('/') {
        return Err(Failure::invalid(format!(
            "invalid mount config for type \"{}\": invalid mount path: '{}' mount path must be absolute",
            mount.kind, mount.target
        )));
    }
    bind_options(&mount.kind, mount.bind_options.as_ref())?;
    let bind = mount.bind_options.clone().unwrap_or_default();
    let volume = mount.volume_options.clone().unwrap_or_default();
    only_what_is_built(&bind, &volume)?;
    let tmpfs = mount.tmpfs_options.clone().unwrap_or_default();
    let size = tmpfs.size_bytes.filter(|&bytes| bytes > 0).map(|bytes| format!("size={bytes}"));
    let mode = tmpfs.mode.filter(|&mode| mode > 0).map(|mode| format!("mode={mode:o}"));
    Ok(proto::Mount {
        r#type: kind.into(),
        source: mount.source.clone().unwrap_or_default(),
        target: mount.target.clone(),
        read_only: mount.read_only.unwrap_or(false),
        propagation: bind.propagation.unwrap_or_default(),
        options: size.into_iter().chain(mode).collect::<Vec<_>>().join(","),
        no_copy: volume.no_copy.unwrap_or(false),
        create_source: bind.create_mountpoint.unwrap_or(false),
    })
}

fn of_tmpfs(target: &str, options: &str) -> Outcome<proto::Mount> {
    if !target.starts_with('/') {
        return Err(Failure::invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    let kind = proto::mount::Type::Tmpfs.into();
    Ok(proto::Mount { r#type: kind, target: target.to_owned(), options: options.to_owned(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_binds_have_a_propagation_of_six_words() {
        for (host, words) in [
            (
                json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}}]}),
                None,
            ),
            (
                json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": ""}}]}),
                None,
            ),
            (json!({"Binds": ["/a:/b:ro,shared", "v:/c:nocopy"]}), None),
            (
                json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "xshared"}}]}),
                Some("invalid mount config for type \"bind\": invalid propagation mode: xshared"),
            ),
            (
                json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/b", "BindOptions": {"Propagation": "shared"}}]}),
                Some("invalid mount config for type \"volume\": field BindOptions must not be specified"),
            ),
            (
                json!({"Mounts": [{"Type": "tmpfs", "Target": "/b", "BindOptions": {}}]}),
                Some("invalid mount config for type \"tmpfs\": field BindOptions must not be specified"),
            ),
            (json!({"Binds": ["/a:/b:xshared"]}), Some("invalid mode: xshared")),
            (
                json!({"Binds": ["v:/b:shared"]}),
                Some(
                    "invalid volume specification: 'v:/b:shared': invalid mount config for type \"volume\": field BindOptions must not be specified",
                ),
            ),
        ] {
            let read: HostConfig = serde_json::from_value(host.clone()).expect("reads");
            assert_eq!(mounts(&read, &[]).err().map(|failure| failure.message).as_deref(), words, "{host}");
        }
    }

    #[test]
    fn inherited_volumes_are_read_only_where_a_word_says_so() {
        for (mode, wanted) in [
            ("rw", Some(false)),
            ("ro", Some(true)),
            ("z", Some(false)),
            ("ro,z", Some(true)),
            ("Z,ro,cached", Some(true)),
            ("ro,rw", None),
            ("ro,ro", None),
            ("z,Z", None),
            ("nocopy", None),
            ("ro,rslave", None),
            ("ro,", None),
            ("x", None),
        ] {
            assert_eq!(is_inherited_read_only(mode), wanted, "{mode}");
        }
    }
}
