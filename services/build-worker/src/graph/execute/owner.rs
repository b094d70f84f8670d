//! `user[:group]` of `--chown` and WORKDIR, with names as the image itself knows them.

use crate::copy::owner::in_line;
use crate::rooted::{Owner, Root};

/// Reads it as BuildKit does: a number alone stands for the group too, a name for its account's own group, and a name
/// that the image does not know for root, as an empty group does. `None` where nothing is written.
pub fn of(image: &Root, text: &str) -> Option<Owner> {
    if text.is_empty() {
        return None;
    }
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let mut owner = match user.parse() {
        Ok(id) => Owner { uid: id, gid: id },
        Err(_) => match fields(image, "/etc/passwd", user).as_deref() {
            Some([uid, gid, ..]) => Owner { uid: *uid, gid: *gid },
            _ => Owner::ROOT,
        },
    };
    if let Some(group) = group {
        if group.is_empty() {
            owner.gid = 0;
        }
        let known = || fields(image, "/etc/group", group).and_then(|numbers| numbers.first().copied());
        if let Some(gid) = group.parse().ok().or_else(known) {
            owner.gid = gid;
        }
    }
    Some(owner)
}

/// Whether a user or a group is written by its name.
pub fn is_named(text: &str) -> bool {
    text.split(':').any(|word| !word.is_empty() && word.parse::<u32>().is_err())
}

/// The numbers after the password in the line that starts with the name.
fn fields(image: &Root, file: &str, name: &str) -> Option<Vec<u32>> {
    in_line(image, file, name, |fields| Some(fields.skip(1).map_while(|field| field.parse().ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let temp = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(temp.path().join("etc")).expect("folder");
        std::fs::write(temp.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\n").expect("passwd");
        std::fs::write(temp.path().join("etc/group"), "root:x:0:\nstaff:x:50:app\n").expect("group");
        let root = Root::open(temp.path()).expect("root");
        for (text, expected) in [
            ("", None),
            ("app", Some((1000, 1001))),
            ("app:staff", Some((1000, 50))),
            ("7", Some((7, 7))),
            ("7:8", Some((7, 8))),
            ("app:", Some((1000, 0))),
            ("nobody-knows", Some((0, 0))),
        ] {
            assert_eq!(is_named(text), text.contains(char::is_alphabetic), "{text}");
            assert_eq!(of(&root, text).map(|owner| (owner.uid, owner.gid)), expected, "{text}");
        }
    }
}
