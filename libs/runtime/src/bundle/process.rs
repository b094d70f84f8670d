use std::path::Path;

use serde_json::{Map, Value, json};

use super::user::{self, User};
use super::{BundleSpec, ExecSpec, ProcessSpec};
use crate::{Error, capabilities};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Set in the bundle when HOME was ours and not the image's, so that an exec by another user gets that user's.
const HOME_ANNOTATION: &str = "boxyard.home";

/// The `process` object, and the annotations that go with it.
pub(super) fn process(spec: &BundleSpec) -> Result<(Map<String, Value>, Value), Error> {
    let ProcessSpec {
        args,
        env,
        cwd,
        user,
        group_add,
        tty,
        cap_add,
        cap_drop,
        no_new_privileges,
        rlimits,
        oom_score_adj,
        hides_hostname,
    } = &spec.process;
    let user = user::resolve(&spec.rootfs, user, group_add)?;
    let caps = if spec.privileged { capabilities::available() } else { capabilities::resolve(cap_add, cap_drop)? };
    let mut base = vec![PATH.to_owned()];
    if !spec.hostname.is_empty() && !hides_hostname {
        base.push(format!("HOSTNAME={}", spec.hostname));
    }
    if *tty {
        base.push("TERM=xterm".into());
    }
    let mut env = merge(base, env);
    let own_home = value_of(&env, "HOME").is_none();
    if own_home {
        env.push(format!("HOME={}", user.home));
    }
    let mut map = Map::new();
    map.insert("terminal".into(), json!(tty));
    map.insert("user".into(), user_json(&user));
    map.insert("args".into(), json!(args));
    map.insert("env".into(), json!(env));
    map.insert("cwd".into(), json!(if cwd.is_empty() { "/" } else { cwd }));
    map.insert("capabilities".into(), capabilities_json(&caps, user.uid));
    map.insert("noNewPrivileges".into(), json!(no_new_privileges));
    if !rlimits.is_empty() {
        let list: Vec<Value> = rlimits
            .iter()
            .map(|limit| {
                let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
                // -1 is "unlimited", which the runtime-spec writes as the largest u64.
                json!({"type": name, "soft": limit.soft as u64, "hard": limit.hard as u64})
            })
            .collect();
        map.insert("rlimits".into(), list.into());
    }
    if let Some(adj) = oom_score_adj {
        map.insert("oomScoreAdj".into(), json!(adj));
    }
    Ok((map, json!({HOME_ANNOTATION: own_home.to_string()})))
}

/// An exec's process: the container's with what `spec` changes.
pub(super) fn exec(config: &Value, rootfs: &Path, spec: &ExecSpec) -> Result<Value, Error> {
    let mut process = config["process"].clone();
    let Some(map) = process.as_object_mut() else {
        return Err(Error::Invalid("the container's bundle has no process".into()));
    };
    map.insert("args".into(), json!(spec.args));
    map.insert("terminal".into(), json!(spec.tty));
    if !spec.cwd.is_empty() {
        map.insert("cwd".into(), json!(spec.cwd));
    }
    let mut env: Vec<String> = serde_json::from_value(config["process"]["env"].clone()).unwrap_or_default();
    let own_home = config["annotations"][HOME_ANNOTATION] == "true";
    if !spec.user.is_empty() {
        let user = user::resolve(rootfs, &spec.user, &[])?;
        if own_home {
            env = merge(env, &[format!("HOME={}", user.home)]);
        }
        map.insert("user".into(), user_json(&user));
        let bounding: Vec<String> =
            serde_json::from_value(config["process"]["capabilities"]["bounding"].clone()).unwrap_or_default();
        let names: Vec<&str> = bounding.iter().map(String::as_str).collect();
        map.insert("capabilities".into(), capabilities_json(&names, user.uid));
    }
    if spec.privileged {
        let uid = map["user"]["uid"].as_u64().unwrap_or(0) as u32;
        map.insert("capabilities".into(), capabilities_json(&capabilities::available(), uid));
    }
    if spec.tty && value_of(&env, "TERM").is_none() {
        env.push("TERM=xterm".into());
    }
    map.insert("env".into(), json!(merge(env, &spec.env)));
    Ok(process)
}

fn user_json(user: &User) -> Value {
    json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups})
}

/// As Docker: a user that is not root gets them in the bounding set only.
fn capabilities_json(names: &[&str], uid: u32) -> Value {
    if uid == 0 {
        json!({"bounding": names, "effective": names, "permitted": names})
    } else {
        json!({"bounding": names})
    }
}

/// `more` replaces the same names in place, adds others, and removes a name that stands without `=`.
fn merge(mut env: Vec<String>, more: &[String]) -> Vec<String> {
    for entry in more {
        let name = entry.split('=').next().unwrap_or_default();
        let at = env.iter().position(|old| old.split('=').next() == Some(name));
        match (at, entry.contains('=')) {
            (Some(at), true) => env[at] = entry.clone(),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_merge() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(merge(list("A=1 B=2"), &list("B=3 C=4 A D")), list("B=3 C=4"));
        assert_eq!(value_of(&list("AB=1 A=x=y"), "A"), Some("x=y"));
    }

    #[test]
    fn an_exec_takes_over_what_it_does_not_name() {
        let config = json!({
            "annotations": {HOME_ANNOTATION: "true"},
            "process": {
                "cwd": "/w", "env": ["HOME=/root", "A=1"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
        });
        let spec = ExecSpec { args: vec!["id".into()], user: "7:8".into(), tty: true, ..ExecSpec::default() };
        let process = exec(&config, Path::new("/proc/self/root/var/empty-or-not/.."), &spec)
            .or_else(|_| exec(&config, Path::new("/"), &spec))
            .expect("numbers need no passwd entry");
        assert_eq!(process["cwd"], "/w");
        assert_eq!(process["user"]["uid"], 7);
        assert_eq!(process["capabilities"], json!({"bounding": ["CAP_KILL"]}));
        assert_eq!(process["env"][1], "A=1");
        assert_eq!(process["env"][2], "TERM=xterm");
    }
}
