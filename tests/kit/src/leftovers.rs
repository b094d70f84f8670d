//! What an engine may leave on the machine, found in /proc and /sys, and removed where a test failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Asks again and again until `check` gives a value; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_until<T>(what: &str, seconds: u64, check: impl FnMut() -> Option<T>) -> T {
    let found = try_until(Duration::from_secs(seconds), check);
    found.unwrap_or_else(|| panic!("after {seconds} s still waiting for: {what}"))
}

/// Asks again and again until `check` gives a value; none after `patience`.
pub fn try_until<T>(patience: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let value = check();
        if value.is_some() || Instant::now() >= end {
            return value;
        }
        sleep(Duration::from_millis(20));
    }
}

/// Panics when a process or a mount under the folder is left. The kernel finishes an exit a moment after the signal; a
/// true leftover stays.
#[track_caller]
pub fn assert_nothing_left(folder: &Path) {
    let name = folder.to_string_lossy();
    let clean = || (processes_naming(&name).is_empty() && mounts_under(folder).is_empty()).then_some(());
    if try_until(Duration::from_secs(2), clean).is_none() {
        assert_eq!(processes_naming(&name), [], "processes are left");
        assert_eq!(mounts_under(folder), [] as [PathBuf; 0], "mounts are left");
    }
}

/// Processes whose command line or working folder names this text, with their command lines. Not the caller.
pub fn processes_naming(text: &str) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).expect("a process id fits");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && !is_zombie(*pid))
        .filter_map(|pid| {
            let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&raw).replace('\0', " ");
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            (line.contains(text) || cwd.to_string_lossy().contains(text)).then_some((pid, line))
        })
        .collect()
}

/// Whether a process is gone, or has ended and was not yet waited for by a parent that stands still.
pub fn has_ended(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid)
}

/// Processes of one program whose command line or environment names this text.
pub fn pids_of(program: &str, text: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let names = ["environ", "cmdline"].map(|file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
        exe.file_name().is_some_and(|name| name == program)
            && names.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(text))
    })
    .collect()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Mount points of this mount namespace at or under a folder, deepest last.
pub fn mounts_under(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect()
}

/// Control groups whose folder name holds one of these container ids.
pub fn cgroups_of(ids: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if !ids.is_empty() {
        walk(Path::new("/sys/fs/cgroup"), 6, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ids.iter().any(|id| name.contains(id.as_str())) {
                found.push(path.to_path_buf());
            }
        });
    }
    found
}

/// Network links, nft tables and control groups whose name holds an instance's id.
pub fn named_on_host(instance: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(instance) {
            found.push(format!("link {name}"));
        }
    }
    let mut nft = Command::new("nft");
    let tables = crate::engine::run_command(nft.args(["list", "tables"]), &[] as &[&str], None);
    found.extend(tables.stdout.lines().filter(|line| line.contains(instance)).map(str::to_owned));
    walk(Path::new("/sys/fs/cgroup"), 3, &mut |path| {
        if path.file_name().unwrap_or_default().to_string_lossy().contains(instance) {
            found.push(path.display().to_string());
        }
    });
    found
}

/// Removes what [`named_on_host`] finds, after everything that used it has ended. For failed tests and kill -9 tests.
pub fn remove_named_on_host(instance: &str) {
    if instance.len() < 6 {
        return; // Too short to be sure that it names nothing else.
    }
    for found in named_on_host(instance) {
        let words: Vec<&str> = found.split_whitespace().collect();
        match words.as_slice() {
            ["link", name] => drop(Command::new("ip").args(["link", "delete", name]).status()),
            ["table", family, name] => drop(Command::new("nft").args(["delete", "table", family, name]).status()),
            _ => remove_cgroup(Path::new(&found)),
        }
    }
}

/// Ends what runs in a control group and removes its folders, the deepest first.
fn remove_cgroup(folder: &Path) {
    let mut folders = vec![folder.to_path_buf()];
    walk(folder, 6, &mut |path| folders.push(path.to_path_buf()));
    for folder in folders.iter().rev() {
        for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        for _ in 0..50 {
            if fs::remove_dir(folder).is_ok() || !folder.exists() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

fn walk(folder: &Path, depth: usize, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, visit);
            }
        }
    }
}

/// Ends every process that names the folder and takes down every mount under it. For failed tests and kill -9 tests.
pub fn sweep(folder: &Path) {
    let text = folder.to_string_lossy();
    for (pid, _) in processes_naming(&text) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for point in mounts_under(folder).iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}
