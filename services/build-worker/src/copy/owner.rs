//! `--chown=user[:group]`, with names as the image itself knows them.

use std::path::Path;
use std::str::Split;

use crate::rooted::{Owner, Root, read_limited};

const ACCOUNTS_LIMIT_BYTES: u64 = 4 << 20;

/// Reads the flag. A user alone stands for the group of the same name or number too.
pub fn parse(flag: &str, image: &Root) -> Result<Owner, String> {
    let (user, group) = match flag.split(':').collect::<Vec<_>>().as_slice() {
        [user] => (*user, *user),
        [user, group] => (*user, *group),
        _ => return Err(format!("invalid chown string format: {flag}")),
    };
    let wrap = |message: String| format!("unable to convert uid/gid chown string to host mapping: {message}");
    let uid = find(image, "/etc/passwd", user)
        .ok_or_else(|| wrap(format!("can't find uid for user {user}: no such user: {user}")))?;
    let gid = find(image, "/etc/group", group)
        .ok_or_else(|| wrap(format!("can't find gid for group {group}: no such group: {group}")))?;
    Ok(Owner { uid, gid })
}

/// A number as it is, else the third field of the line that starts with the name.
fn find(image: &Root, file: &str, name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    in_line(image, file, name, |mut fields| fields.nth(1)?.parse().ok())
}

/// What `read` finds in the fields after the name, in the first line of a file of accounts that begins with the name.
pub fn in_line<T>(image: &Root, file: &str, name: &str, read: impl Fn(Split<char>) -> Option<T>) -> Option<T> {
    let content = read_limited(image, Path::new(file), ACCOUNTS_LIMIT_BYTES).ok()?;
    String::from_utf8_lossy(&content).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| read(fields))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let temp = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(temp.path().join("etc")).expect("folder");
        std::fs::write(temp.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\nlone:x:5:5::/:\n")
            .expect("passwd");
        std::fs::write(temp.path().join("etc/group"), "root:x:0:\napp:x:1001:\n").expect("group");
        let root = Root::open(temp.path()).expect("root");
        let prefix = "unable to convert uid/gid chown string to host mapping: ";
        for (flag, expected) in [
            ("app", Ok((1000, 1001))),
            ("7", Ok((7, 7))),
            ("7:8", Ok((7, 8))),
            ("app:0", Ok((1000, 0))),
            ("0:app", Ok((0, 1001))),
            ("no", Err(format!("{prefix}can't find uid for user no: no such user: no"))),
            ("lone", Err(format!("{prefix}can't find gid for group lone: no such group: lone"))),
            ("a:b:c", Err("invalid chown string format: a:b:c".to_owned())),
        ] {
            let actual = parse(flag, &root).map(|owner| (owner.uid, owner.gid));
            assert_eq!(actual, expected, "{flag}");
        }
    }
}
