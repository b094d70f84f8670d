//! What this machine can run: its own platform, and others by an emulator that the kernel starts (binfmt_misc).

use std::path::Path;

use model::Platform;

const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// ELF class and e_machine, and what runs such programs.
const MACHINES: &[(u8, u16, (&str, &str))] = &[
    (2, 0x3e, ("amd64", "")),
    (1, 0x03, ("386", "")),
    (2, 0xb7, ("arm64", "")),
    (1, 0x28, ("arm", "v7")),
    (2, 0x15, ("ppc64le", "")),
    (2, 0x16, ("s390x", "")),
    (2, 0xf3, ("riscv64", "")),
    (2, 0x08, ("mips64le", "")),
    (2, 0x102, ("loong64", "")),
];

/// Its own first.
pub fn supported() -> Vec<Platform> {
    emulated(Path::new(REGISTERED), Platform::host())
}

fn emulated(registered: &Path, own: Platform) -> Vec<Platform> {
    let entries = std::fs::read_dir(registered).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut found: Vec<Platform> = texts.filter_map(|text| of_entry(&text)).filter(|other| *other != own).collect();
    found.sort_by_key(ToString::to_string);
    found.dedup();
    found.insert(0, own);
    found
}

/// What a registered emulator runs. One that the kernel would look for in a step's own root (without flag F) runs nothing.
fn of_entry(text: &str) -> Option<Platform> {
    let mut lines = text.lines();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if lines.next() != Some("enabled") || value("offset ") != Some("0") || !value("flags:")?.contains('F') {
        return None;
    }
    let magic = hex::decode(value("magic ")?).ok()?;
    if !magic.starts_with(b"\x7fELF") {
        return None;
    }
    let (class, order, machine) = (*magic.get(4)?, *magic.get(5)?, [*magic.get(18)?, *magic.get(19)?]);
    let machine = if order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let (_, _, (architecture, variant)) = MACHINES.iter().find(|known| (known.0, known.1) == (class, machine))?;
    Some(Platform::new("linux", architecture, variant))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "7f454c460201010000000000000000000200b700";
    const S390X: &str = "7f454c4602020100000000000000000000020016";
    const I386: &str = "7f454c4601010100000000000000000002000300";

    fn entry(state: &str, flags: &str, magic: &str) -> String {
        format!("{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask ffff\n")
    }

    #[test]
    fn emulators_of_the_kernel() {
        for (text, wanted) in [
            (entry("enabled", "OCF", ARM64), Some("linux/arm64")),
            (entry("enabled", "F", S390X), Some("linux/s390x")),
            (entry("enabled", "PF", I386), Some("linux/386")),
            (entry("disabled", "F", ARM64), None),
            (entry("enabled", "OC", ARM64), None),
            (entry("enabled", "F", "7f454c46"), None),
            (entry("enabled", "F", "cafebabe0000003400000000000000000000b700"), None),
            ("enabled\ninterpreter /usr/bin/jexec\nflags: F\noffset 0\nextension .jar\n".to_owned(), None),
            ("enabled\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(of_entry(&text).map(|platform| platform.to_string()).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn the_own_platform_comes_first_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("status", "enabled\n".to_owned()),
            ("register", String::new()),
            ("qemu-s390x", entry("enabled", "F", S390X)),
            ("qemu-aarch64", entry("enabled", "F", ARM64)),
            ("again", entry("enabled", "F", ARM64)),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let own = |text: &str| text.parse::<Platform>().expect("a platform");
        let texts = |own| emulated(folder.path(), own).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(own("linux/amd64")), ["linux/amd64", "linux/arm64", "linux/s390x"]);
        assert_eq!(texts(own("linux/arm64")), ["linux/arm64", "linux/s390x"]);
        assert_eq!(emulated(Path::new("/nowhere"), own("linux/amd64")), [own("linux/amd64")]);
    }
}
