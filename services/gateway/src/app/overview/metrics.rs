//! The page for Prometheus, in its text format 0.0.4.
//!
//! Figures of other processes come with their signs of life, so they are up to five seconds old. What a process sends
//! is checked: a name or a label that is none would spoil the page for all.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use service::metrics::BOUNDS_SECONDS;

use super::services::Sign;
use super::summary::Summary;
use crate::app::{App, Outcome};

/// What our own figures begin with.
const OURS: &str = "boxyard_";
/// Set here, so no process may send them.
const RESERVED: [&str; 3] = ["service", "id", "le"];

/// A page that is being written, by family.
#[derive(Default)]
struct Exposition {
    families: BTreeMap<String, Family>,
    written: HashSet<String>,
}

struct Family {
    help: String,
    kind: &'static str,
    lines: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    fn family(&mut self, name: &str, help: &str, kind: &'static str) -> bool {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.replace('\\', "\\\\").replace('\n', "\\n"),
            kind,
            lines: String::new(),
        });
        family.kind == kind
    }

    /// Writes one sample; one that was written before is left out, since Prometheus refuses a page that has it twice.
    fn sample(&mut self, family: &str, suffix: &str, labels: Labels, value: f64) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let sample = format!("{family}{suffix}{labels}");
        if let Some(family) = self.families.get_mut(family)
            && !self.written.contains(&sample)
        {
            let _ = writeln!(family.lines, "{sample} {value}");
            self.written.insert(sample);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, samples: &[(Labels, f64)]) {
        self.family(name, help, "gauge");
        for (labels, value) in samples {
            self.sample(name, "", labels, *value);
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, Family { help, kind, lines }) in &self.families {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }

    fn process(&mut self, sign: &Sign) {
        let alive = &sign.alive;
        let labels: Labels = &[("service", &alive.kind), ("id", &alive.id)];
        let up = if sign.is_alive { 1.0 } else { 0.0 };
        self.gauge("boxyard_up", "Whether the process gave a sign of life in the last 15 seconds.", &[(labels, up)]);
        if !sign.is_alive {
            return;
        }
        let version: Labels = &[labels[0], labels[1], ("version", &alive.version), ("host", &alive.host)];
        self.gauge("boxyard_service_info", "Version and host of the process.", &[(version, 1.0)]);
        let started = alive.started_at_ms as f64 / 1000.0;
        let help = "Start time of the process since unix epoch in seconds.";
        self.gauge("process_start_time_seconds", help, &[(labels, started)]);
        if let Some(process) = &alive.process {
            let proto::ProcessFigures { resident_bytes, cpu_seconds, threads, open_files } = *process;
            let help = "Resident memory size in bytes.";
            self.gauge("process_resident_memory_bytes", help, &[(labels, resident_bytes as f64)]);
            self.gauge("process_open_fds", "Number of open file descriptors.", &[(labels, f64::from(open_files))]);
            self.gauge("process_threads", "Number of threads.", &[(labels, f64::from(threads))]);
            let name = "process_cpu_seconds_total";
            self.family(name, "Total user and system CPU time spent in seconds.", "counter");
            self.sample(name, "", labels, cpu_seconds);
        }
        for family in &alive.metrics {
            self.figures(labels, family);
        }
    }

    fn figures(&mut self, process: Labels, family: &proto::MetricFamily) {
        let proto::MetricFamily { name, help, histogram, samples } = family;
        let kind = if *histogram { "histogram" } else { "counter" };
        if !(name.starts_with(OURS) && is_name(name) && self.family(name, help, kind)) {
            return;
        }
        for proto::MetricSample { labels, count, buckets, sum_seconds } in samples {
            let fine = |label: &proto::MetricLabel| is_name(&label.name) && !RESERVED.contains(&label.name.as_str());
            let is_whole = !histogram || buckets.len() == BOUNDS_SECONDS.len() + 1;
            if !(labels.iter().all(fine) && is_whole) {
                continue;
            }
            let own = labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
            let labels: Vec<(&str, &str)> = process.iter().copied().chain(own).collect();
            if !histogram {
                self.sample(name, "", &labels, *count as f64);
                continue;
            }
            let mut below = 0;
            let bounds = BOUNDS_SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, bucket) in bounds.zip(buckets) {
                below += bucket;
                let labels = [&labels[..], &[("le", &*bound)]].concat();
                self.sample(name, "_bucket", &labels, below as f64);
            }
            self.sample(name, "_sum", &labels, *sum_seconds);
            self.sample(name, "_count", &labels, below as f64);
        }
    }

    fn summary(&mut self, summary: &Summary) {
        let Summary { version: _, containers, images, image_bytes, builds, store } = summary;
        for (name, help, counts) in [
            ("boxyard_containers", "Containers by state.", containers),
            ("boxyard_builds", "Builds of the last day by state.", builds),
        ] {
            self.family(name, help, "gauge");
            for (state, count) in counts {
                self.sample(name, "", &[("state", state)], *count as f64);
            }
        }
        self.gauge("boxyard_images", "Images, without those that are only steps of a build.", &[(&[], *images as f64)]);
        let help = "Sum of the files of all images; a layer that they share counts once.";
        self.gauge("boxyard_image_bytes", help, &[(&[], *image_bytes as f64)]);
        if let Some(store) = store {
            self.gauge("boxyard_store_blobs", "Blobs in the layer store.", &[(&[], store.blobs as f64)]);
            self.gauge("boxyard_store_bytes", "Bytes in the layer store.", &[(&[], store.bytes as f64)]);
            let help = "Bytes that are free on the layer store's disk.";
            self.gauge("boxyard_store_free_bytes", help, &[(&[], store.free_bytes as f64)]);
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl App {
    /// The whole page. Without the bus it has this process and the database.
    pub async fn metrics(&self) -> Outcome<String> {
        let mut signs = self.signs().await.unwrap_or_default();
        let own = std::process::id();
        let is_own = |sign: &&mut Sign| sign.is_alive && sign.alive.kind == "gateway" && sign.alive.pid == own;
        if let Some(sign) = signs.iter_mut().find(is_own) {
            (sign.alive.process, sign.alive.metrics) = (Some(bus::process()), bus::figures());
        }
        let mut page = Exposition::default();
        page.summary(&self.summary().await?);
        for sign in &signs {
            page.process(sign);
        }
        Ok(page.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, value: &str) -> proto::MetricLabel {
        proto::MetricLabel { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_histogram_adds_up_and_a_hostile_label_is_quoted_or_left_out() {
        let mut buckets = vec![0; 10];
        (buckets[0], buckets[3], buckets[9]) = (2, 1, 1);
        let sample = |labels| proto::MetricSample { labels, count: 4, buckets: buckets.clone(), sum_seconds: 1.5 };
        let family = |name: &str, samples| proto::MetricFamily {
            name: name.to_owned(),
            help: "Two\nlines.".to_owned(),
            histogram: true,
            samples,
        };
        let mut page = Exposition::default();
        let process: Labels = &[("service", "node"), ("id", "a\"b\\c\nd")];
        let bad = vec![sample(vec![label("x y", "1")]), sample(vec![label("id", "1")]), sample(vec![])];
        let good = vec![sample(vec![label("call", "X")]), sample(vec![label("call", "X")])];
        page.figures(process, &family("boxyard_t_seconds", [bad, good].concat()));
        page.figures(process, &family("other_seconds", vec![sample(vec![])]));
        page.figures(process, &family("boxyard_t_seconds{} 1\nx", vec![sample(vec![])]));
        let text = page.text();
        let with = |suffix: &str| text.lines().filter(|line| line.contains(suffix)).count();
        assert!(
            text.starts_with("# HELP boxyard_t_seconds Two\\nlines.\n# TYPE boxyard_t_seconds histogram\n"),
            "{text}"
        );
        assert_eq!((with("_sum{"), with("_count{"), with("_bucket{"), text.lines().count()), (2, 2, 20, 26), "{text}");
        let start = r#"boxyard_t_seconds_bucket{service="node",id="a\"b\\c\nd",call="X",le="#;
        let counts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(start)).collect();
        assert_eq!(counts[..4], ["\"0.001\"} 2", "\"0.005\"} 2", "\"0.025\"} 2", "\"0.1\"} 3"]);
        assert_eq!(counts[9], "\"+Inf\"} 4");
    }
}
