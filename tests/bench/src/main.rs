//! Speed and memory beside dockerd, measured in one run on one machine, row by row and interleaved.
//!
//!     bench [ROW...]                 rows whose name holds one of these words; all without
//!     bench --with dockerd [ROW...]  a second dockerd in Boxyard's place: ratios must be about 1
//!
//! How to read the numbers is in README.md beside this crate.

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
    let with_dockerd = words.first().is_some_and(|word| word == "--with");
    if with_dockerd {
        words.drain(..2.min(words.len()));
    }
    let mut report = Report::new(words);
    let pair = Pair::start(with_dockerd);
    containers::measure(&pair, &mut report);
    builds::measure(&pair, &mut report);
    graph::measure(&pair, &mut report);
    contexts::measure(&pair, &mut report);
    transfers::measure(&pair, &mut report);
    pulls::measure(&pair, &mut report);
    memory::measure(&pair, &mut report);
    registries::measure(&mut report);
    pair.stop();
    farm::measure(&mut report);
    report.print();
}
