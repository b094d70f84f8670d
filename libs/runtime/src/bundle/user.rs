//! Users and groups by the files of the container's own root.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::Error;

/// Files of an image are hostile in size too.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    /// The main group first.
    pub groups: Vec<u32>,
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Looks `user` (see [`super::ProcessSpec::user`]) and `group_add` up below `rootfs`. Missing files are empty ones.
pub(super) fn resolve(rootfs: &Path, user: &str, group_add: &[String]) -> Result<User, Error> {
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::io(format!("cannot open the root file system {}", rootfs.display()))(e.into()))?;
    lookup(&read(&root, "etc/passwd"), &read(&root, "etc/group"), user, group_add)
}

/// A number, unless it is a name.
fn id(text: &str) -> Result<Option<u32>, Error> {
    match text.parse::<i64>() {
        Ok(number) if (0..=i64::from(i32::MAX)).contains(&number) => Ok(u32::try_from(number).ok()),
        Ok(_) => Err(Error::Invalid(format!("uids and gids must be in range 0-{}", i32::MAX))),
        Err(_) => Ok(None),
    }
}

fn lookup(passwd: &str, group: &str, user: &str, group_add: &[String]) -> Result<User, Error> {
    let (user, main_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user)?;
    let account = accounts(passwd).find(|account| account.name == user || Some(account.uid) == number);
    let (uid, mut gid, home, name) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, account.home, Some(account.name)),
        (None, Some(uid)) => (uid, 0, "/", None),
        (None, None) => {
            return Err(Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let mut groups = Vec::new();
    match main_group {
        Some(wanted) => gid = group_id(group, wanted)?,
        None => {
            if let Some(name) = name {
                groups.extend(
                    self::groups(group).filter(|g| g.members.split(',').any(|m| m.trim() == name)).map(|g| g.gid),
                );
            }
        }
    }
    for wanted in group_add {
        groups.push(group_id(group, wanted)?);
    }
    groups.insert(0, gid);
    let mut seen = Vec::with_capacity(groups.len());
    groups.retain(|gid| {
        !seen.contains(gid) && {
            seen.push(*gid);
            true
        }
    });
    Ok(User { uid, gid, groups, home: if home.is_empty() { "/" } else { home }.to_owned() })
}

fn group_id(group: &str, wanted: &str) -> Result<u32, Error> {
    let named = groups(group).find(|g| g.name == wanted).map(|g| g.gid);
    let known = if named.is_some() { named } else { id(wanted)? };
    known.ok_or_else(|| Error::Invalid(format!("unable to find group {wanted}: no matching entries in group file")))
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// The text of a regular file below `root`; empty when there is none. Links are followed inside `root` only, and a
/// fifo does not block.
fn read(root: &OwnedFd, path: &str) -> String {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let Ok(fd) = openat2(root, path, how) else { return String::new() };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(MAX_FILE_BYTES).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nwheel:x:10:root,web\naudio:x:29:\n";

    #[test]
    fn users_and_groups() {
        let check = |user: &str, add: &[&str]| {
            let add: Vec<String> = add.iter().map(|g| g.to_string()).collect();
            lookup(PASSWD, GROUP, user, &add).map(|u| (u.uid, u.gid, u.groups, u.home)).map_err(|e| e.to_string())
        };
        assert_eq!(check("", &[]), Ok((0, 0, vec![0, 10], "/root".into())));
        assert_eq!(check("web", &["audio", "77"]), Ok((33, 34, vec![34, 10, 29, 77], "/var/www".into())));
        assert_eq!(check("33:wheel", &[]), Ok((33, 10, vec![10], "/var/www".into())));
        assert_eq!(check("1000:1001", &[]), Ok((1000, 1001, vec![1001], "/".into())));
        assert_eq!(check("no", &[]), Err("unable to find user no: no matching entries in passwd file".into()));
        for wrong in ["-1", "4294967294", "33:-1"] {
            assert_eq!(check(wrong, &[]), Err("uids and gids must be in range 0-2147483647".into()), "{wrong}");
        }
        assert_eq!(check("web:no", &[]), Err("unable to find group no: no matching entries in group file".into()));
    }

    #[test]
    fn a_link_out_of_the_root_reads_nothing_of_the_host() {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(root.path().join("etc")).expect("mkdir");
        std::os::unix::fs::symlink("/proc/self/status", root.path().join("etc/passwd")).expect("symlink");
        std::os::unix::fs::symlink("../../../../../../etc/group", root.path().join("etc/group")).expect("symlink");
        let user = resolve(root.path(), "", &[]).expect("root needs no entry");
        assert_eq!(user, User { uid: 0, gid: 0, groups: vec![0], home: "/".into() });
        assert!(resolve(root.path(), "root", &[]).is_err());
    }
}
