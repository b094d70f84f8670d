//! Programs of another machine run here by an emulator (binfmt_misc), as long as a test needs that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";
/// The head of a program of arm64, and which of its bits count.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// A handler under a name of its own; gone when dropped.
#[derive(Debug)]
pub struct Binfmt {
    folder: TempDir,
    name: String,
}

impl Binfmt {
    /// Runs programs of arm64, in containers too: the emulator is opened now (flag F).
    pub fn arm64() -> Self {
        assert!(fs::exists(EMULATOR).unwrap_or_default(), "{EMULATOR} is missing: run make setup");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc"]).arg(folder.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "binfmt_misc cannot be mounted");
        let binfmt = Self { folder, name: format!("boxyard-test-{}", std::process::id()) };
        let line = format!(":{}:M::{MAGIC}:{MASK}:{EMULATOR}:F", binfmt.name);
        fs::write(binfmt.file("register"), line).expect("the kernel takes the handler");
        binfmt
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Binfmt {
    fn drop(&mut self) {
        let _ = fs::write(self.file(&self.name), "-1");
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

/// A program that sees the kernel's handlers where it looks for them, in mounts of its own.
pub(crate) fn seeing_binfmt(program: &Path) -> Command {
    const LINE: &str = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", LINE, "sh"]).arg(program);
    command
}

/// A static program of arm64 that prints the machine's name, as `uname -m` does.
pub fn arm64_uname() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const CODE: [u32; 12] = [
        0xd108_03ff, // sub sp, sp, #512
        0x9100_03e0, // mov x0, sp
        0xd280_1408, // mov x8, #160 (uname)
        0xd400_0001, // svc #0
        0x9104_13e1, // add x1, sp, #260 (machine)
        0xd280_0020, // mov x0, #1
        0xd280_00e2, // mov x2, #7
        0xd280_0808, // mov x8, #64 (write)
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let size = 120 + 4 * CODE.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // Type, machine, version; entry, program headers, section headers; flags and sizes (System V ABI, ELF header).
    [2u16, 0xb7].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    [BASE + 120, 64, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    // One segment, read and run: type, flags; offset, addresses, sizes, alignment.
    [1u32, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    CODE.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf
}
