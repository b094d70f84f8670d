//! Figures of this process, for its `/boxyard/v1/metrics` page: counters and histograms, kept in memory, read as a
//! whole by [`snapshot`]. They are sent with the sign of life; this room only keeps them.
//!
//! A label's values must be few and known beforehand (a call's name, a route's pattern), never what a user sent: each
//! combination is kept for ever.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of a histogram's buckets.
pub const BOUNDS_SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Histogram,
}

/// Figures of one name, declared as a constant beside what they count.
#[derive(Debug)]
pub struct Family {
    /// As Prometheus names them: with the unit, a counter ends in `_total`.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    pub kind: Kind,
}

/// One combination of labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    /// Of a counter: its value. Of a histogram: how many were observed.
    pub count: u64,
    /// Of a histogram: how many lie in each bucket alone, the last above all bounds.
    pub buckets: Vec<u64>,
    pub sum_seconds: f64,
}

type Labels = Vec<(&'static str, String)>;
type Kept = BTreeMap<&'static str, (&'static Family, BTreeMap<Labels, Sample>)>;

static FIGURES: Mutex<Kept> = Mutex::new(BTreeMap::new());

/// Counts one more.
pub fn count(family: &'static Family, labels: &[(&'static str, &str)]) {
    add(family, labels, 1);
}

/// Counts so many more.
pub fn add(family: &'static Family, labels: &[(&'static str, &str)], more: u64) {
    change(family, labels, |sample| sample.count += more);
}

/// Adds what took so long to a histogram.
pub fn observe(family: &'static Family, labels: &[(&'static str, &str)], took: Duration) {
    let seconds = took.as_secs_f64();
    change(family, labels, |sample| {
        sample.buckets.resize(BOUNDS_SECONDS.len() + 1, 0);
        sample.buckets[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
        sample.count += 1;
        sample.sum_seconds += seconds;
    });
}

fn change(family: &'static Family, labels: &[(&'static str, &str)], apply: impl FnOnce(&mut Sample)) {
    let labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    // Figures are whole after every statement, so a panic elsewhere does not spoil them.
    let mut figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, samples) = figures.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
    apply(samples.entry(labels).or_default());
}

/// All figures now, by name.
pub fn snapshot() -> Vec<(&'static Family, Vec<Sample>)> {
    let figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    let with_labels = |(labels, sample): (&Labels, &Sample)| Sample { labels: labels.clone(), ..sample.clone() };
    figures.values().map(|(family, samples)| (*family, samples.iter().map(with_labels).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_holds_its_bound() {
        static FAMILY: Family = Family { name: "t_seconds", help: "For this test.", kind: Kind::Histogram };
        for ms in [0, 1, 2, 500, 301_000] {
            observe(&FAMILY, &[("route", "/x")], Duration::from_millis(ms));
        }
        observe(&FAMILY, &[("route", "/y")], Duration::ZERO);
        let figures = snapshot();
        let (_, samples) = figures.iter().find(|(family, _)| family.name == "t_seconds").expect("observed");
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].labels, [("route", "/x".to_owned())]);
        assert_eq!(samples[0].buckets, [2, 1, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!(samples[0].count, 5);
        assert!((samples[0].sum_seconds - 301.503).abs() < 1e-9);
    }

    #[test]
    fn counters_count() {
        static FAMILY: Family = Family { name: "t_total", help: "For this test.", kind: Kind::Counter };
        for _ in 0..3 {
            count(&FAMILY, &[]);
        }
        let figures = snapshot();
        let (_, samples) = figures.iter().find(|(family, _)| family.name == "t_total").expect("counted");
        assert_eq!(samples[..], [Sample { count: 3, ..Default::default() }]);
    }
}
