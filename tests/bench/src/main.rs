//! Speed and memory beside dockerd, measured in one run on one machine, row by row and interleaved.
//!
//!     bench [ROW...]                 rows whose name holds one of these words; all without
//!     bench --with dockerd [ROW...]  a second dockerd in Boxyard's place: ratios must be about 1
//!     bench --json FILE [ROW...]     the rows as JSON, too
//!
//! How to read the numbers is in README.md beside this crate.

mod api;
mod buildah;
mod builds;
mod containers;
mod contexts;
mod farm;
mod graph;
mod load;
mod memory;
mod pair;
mod programs;
mod pulls;
mod registries;
mod transfers;

use pair::{Pair, Report};

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let with_dockerd = take_option(&mut words, "--with").is_some();
    let json = take_option(&mut words, "--json");
    // These rows start what they measure themselves.
    let by_themselves = |word: &String| ["farm:", "registry:"].iter().any(|group| word.starts_with(group));
    let needs_pair = words.is_empty() || !words.iter().all(by_themselves);
    let mut report = Report::new(words);
    if needs_pair {
        let pair = Pair::start(with_dockerd);
        containers::measure(&pair, &mut report);
        builds::measure(&pair, &mut report);
        graph::measure(&pair, &mut report);
        contexts::measure(&pair, &mut report);
        transfers::measure(&pair, &mut report);
        pulls::measure(&pair, &mut report);
        memory::measure(&pair, &mut report);
        pair.stop();
    }
    registries::measure(&mut report);
    farm::measure(&mut report);
    if let Some(path) = json {
        report.write(path.as_ref());
    }
    report.print();
}

/// An option's value, taken out with it.
fn take_option(words: &mut Vec<String>, name: &str) -> Option<String> {
    let at = words.iter().position(|word| word == name)?;
    let mut taken = words.drain(at..(at + 2).min(words.len()));
    taken.nth(1)
}
