use std::fs;

/// The kernel tells times in these ticks to every program, whatever it counts in itself (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Smallest page of the machines that this runs on.
const PAGE_BYTES: u64 = 4096;

/// What the kernel says of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
    pub threads: u32,
    pub open_files: u32,
}

/// Reads `/proc/self`; what cannot be read is zero.
pub fn process() -> Process {
    let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = memory.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold spaces; fields are counted from behind it (proc(5): utime is the 14th).
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |at: usize| rest.split(' ').nth(at - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Process {
        resident_bytes: pages * PAGE_BYTES,
        cpu_seconds: (field(14) + field(15)) as f64 / TICKS_PER_SECOND,
        threads: u32::try_from(field(20)).unwrap_or(0),
        open_files: u32::try_from(open_files).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = super::process();
        assert!(process.resident_bytes > 100_000 && process.threads >= 1 && process.open_files >= 3, "{process:?}");
    }
}
