//! Which capabilities a container has.

use crate::Error;

/// In the kernel's order (linux/capability.h), so that the index is the number.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What Docker gives by default (its documentation, "Runtime privilege and Linux capabilities").
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All that this process may pass on; a runtime refuses more.
pub(crate) fn available() -> Vec<&'static str> {
    let bounding = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?.trim().to_owned();
            u64::from_str_radix(&line, 16).ok()
        })
        .unwrap_or(u64::MAX);
    ALL.into_iter().enumerate().filter(|(number, _)| bounding >> number & 1 == 1).map(|(_, name)| name).collect()
}

/// The default set with `add` and `drop` applied as Docker does: `ALL` in `add` starts from every capability, `ALL` in
/// `drop` from none.
pub(crate) fn resolve(add: &[String], drop: &[String]) -> Result<Vec<&'static str>, Error> {
    let (add, add_all) = parse(add)?;
    let (drop, drop_all) = parse(drop)?;
    let base: Vec<&str> = match (add_all, drop_all) {
        (true, _) => available(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT.to_vec(),
    };
    // With both a name added and the base dropped, the added name wins; else a dropped name does.
    let mut set: Vec<&str> = base.into_iter().filter(|name| !drop.contains(name)).collect();
    for name in add {
        if !set.contains(&name) && (drop_all || !drop.contains(&name)) {
            set.push(name);
        }
    }
    Ok(set)
}

fn parse(names: &[String]) -> Result<(Vec<&'static str>, bool), Error> {
    let mut known = Vec::new();
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" || upper == "CAP_ALL" {
            all = true;
            continue;
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match ALL.into_iter().find(|capability| &capability[4..] == bare) {
            Some(capability) => known.push(capability),
            None => return Err(Error::Invalid(format!("invalid capability: \"{name}\""))),
        }
    }
    Ok((known, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(resolve(&[], &[]).expect("known").len(), 14);
        assert_eq!(
            resolve(&names(&["kill", "NET_ADMIN"]), &names(&["all"])).expect("known"),
            ["CAP_KILL", "CAP_NET_ADMIN"]
        );
        let dropped = resolve(&[], &names(&["CAP_CHOWN"])).expect("known");
        assert!(dropped.len() == 13 && !dropped.contains(&"CAP_CHOWN"));
        assert!(resolve(&names(&["ALL"]), &names(&["MKNOD"])).expect("known").len() > 30);
        assert!(resolve(&names(&["../x"]), &[]).is_err());
    }
}
