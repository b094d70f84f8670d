//! The two engines side by side, and the report of what they took.

use std::time::{Duration, Instant};

use kit::{Boxyard, Client, Dockerd, LoopDisk, Options, Output};

/// Room for a layer of 10 GB in a layer store and unpacked; only what is written is taken from the machine's disk.
const DISK_MB: u64 = 34 << 10;

/// One of the two engines.
pub enum Side {
    Docker(Dockerd),
    Boxyard(Boxyard),
}

impl Side {
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_fed(args, None)
    }

    /// Runs the docker command, with these bytes as its input where given.
    pub fn docker_fed(&self, args: &[&str], stdin: Option<&[u8]>) -> Output {
        kit::run_command(&mut kit::client(self.socket()), args, stdin)
    }

    /// The docker command that speaks to BuildKit, in this folder.
    pub fn buildkit(&self, folder: &std::path::Path, args: &[&str]) -> Output {
        kit::run_command(kit::session_client(self.socket()).current_dir(folder), args, None)
    }

    pub fn socket(&self) -> &std::path::Path {
        match self {
            Self::Docker(dockerd) => dockerd.socket(),
            Self::Boxyard(boxyard) => boxyard.socket(),
        }
    }

    pub fn api(&self) -> Client {
        Client::new(self.socket())
    }
}

/// dockerd first, Boxyard (or a second dockerd) second, each with its data on a fresh file system of its own.
pub struct Pair {
    pub sides: [Side; 2],
    disks: [LoopDisk; 2],
}

impl Pair {
    pub fn start(with_dockerd: bool) -> Self {
        let disks = [LoopDisk::new(DISK_MB), LoopDisk::new(DISK_MB)];
        let data = disks[1].path().join("data");
        let second = if with_dockerd {
            Side::Docker(Dockerd::start_with_data(Some(&data)))
        } else {
            Side::Boxyard(Boxyard::start(Options { data_dir: Some(data), ..Options::default() }))
        };
        let first = Side::Docker(Dockerd::start_with_data(Some(&disks[0].path().join("data"))));
        let pair = Self { sides: [first, second], disks };
        for side in &pair.sides {
            side.docker_fed(&["load", "-q"], Some(&kit::busybox())).ok();
        }
        pair
    }

    /// A folder on each side's file system, for archives that are written there.
    pub fn folder(&self, side: usize) -> &std::path::Path {
        self.disks[side].path()
    }

    /// Runs the work on both sides in turn, so that a slow moment of the machine meets both; medians in seconds.
    pub fn medians(&self, rounds: usize, mut work: impl FnMut(usize, &Side)) -> [f64; 2] {
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (index, side) in self.sides.iter().enumerate() {
                let begin = Instant::now();
                work(index, side);
                // The first round warms caches and does not count.
                if round > 0 {
                    taken[index].push(begin.elapsed());
                }
            }
        }
        taken.map(median)
    }

    /// Stops both, with the kit's checks.
    pub fn stop(self) {
        for side in self.sides {
            match side {
                Side::Docker(dockerd) => dockerd.stop(),
                Side::Boxyard(boxyard) => boxyard.stop(),
            }
        }
    }
}

fn median(mut taken: Vec<Duration>) -> f64 {
    taken.sort();
    taken[taken.len() / 2].as_secs_f64()
}

/// How a row is judged.
#[derive(Clone, Copy)]
pub enum Goal {
    /// So many times faster than dockerd, or better.
    Faster(f64),
    /// At most so many megabytes.
    Below(f64),
    None,
}

struct Row {
    name: &'static str,
    peer: &'static str,
    unit: &'static str,
    docker: f64,
    ours: f64,
    goal: Goal,
}

impl Row {
    /// One without a goal is.
    fn is_met(&self) -> bool {
        match self.goal {
            Goal::Faster(times) => self.docker / self.ours >= times,
            Goal::Below(limit) => self.ours < limit,
            Goal::None => true,
        }
    }
}

/// What was measured so far.
pub struct Report {
    words: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(words: Vec<String>) -> Self {
        Self { words, rows: Vec::new() }
    }

    /// Whether the person asked for this row.
    pub fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// Adds a row beside dockerd; smaller is better. Times in seconds are shown in milliseconds.
    pub fn row(&mut self, name: &'static str, values: [f64; 2], unit: &'static str, goal: Goal) {
        self.row_beside("dockerd", name, values, unit, goal);
    }

    /// The same beside another peer, whose value comes first.
    pub fn row_beside(
        &mut self,
        peer: &'static str,
        name: &'static str,
        values: [f64; 2],
        unit: &'static str,
        goal: Goal,
    ) {
        let factor = if unit == "ms" { 1000.0 } else { 1.0 };
        eprintln!("{name}: {peer} {:.1} {unit}, Boxyard {:.1} {unit}", values[0] * factor, values[1] * factor);
        self.rows.push(Row { name, peer, unit, docker: values[0] * factor, ours: values[1] * factor, goal });
    }

    /// Writes the rows as an array of JSON, for a program to read.
    pub fn write(&self, path: &std::path::Path) {
        let rows = self.rows.iter().map(|row| {
            let (times, below) = match row.goal {
                Goal::Faster(times) => (Some(times), None),
                Goal::Below(limit) => (None, Some(limit)),
                Goal::None => (None, None),
            };
            serde_json::json!({
                "row": row.name, "beside": row.peer, "unit": row.unit, "peer": row.docker, "boxyard": row.ours,
                "ratio": row.docker / row.ours, "goal_ratio": times, "goal_below": below, "met": row.is_met(),
            })
        });
        let text = serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).expect("plain data");
        std::fs::write(path, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub fn print(&self) {
        println!("\n{:<44} {:<16} {:>12} {:>12} {:>8}  goal", "row", "beside", "it", "Boxyard", "ratio");
        for row in &self.rows {
            let ratio = row.docker / row.ours;
            let verdict = if row.is_met() { "met:" } else { "MISSED:" };
            let goal = match row.goal {
                Goal::Faster(times) => format!("{verdict} {times}x"),
                Goal::Below(limit) => format!("{verdict} under {limit} {}", row.unit),
                Goal::None => String::new(),
            };
            let value = |number: f64| format!("{number:.1} {}", row.unit);
            let (theirs, ours) = (value(row.docker), value(row.ours));
            println!("{:<44} {:<16} {theirs:>12} {ours:>12} {ratio:>7.2}x  {goal}", row.name, row.peer);
        }
    }
}
