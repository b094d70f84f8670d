//! Docker's json-file log: a line of JSON for each line of output, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use runtime::wire::{LogConfig, now_ns};

/// A longer line is written in pieces, each but the last without a newline (as Docker's).
const MAX_LINE_BYTES: usize = 16 * 1024;

pub struct Log {
    config: LogConfig,
    file: File,
    bytes: u64,
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
    /// A failed write was told of.
    complained: bool,
}

impl Log {
    pub fn open(config: LogConfig) -> std::io::Result<Self> {
        let file = open(&config)?;
        let bytes = file.metadata()?.len();
        Ok(Self { config, file, bytes, begun: Default::default(), complained: false })
    }

    /// Output of `stream` (1 or 2). Never fails: a full disk must not stop the container.
    pub fn write(&mut self, stream: u8, mut bytes: &[u8]) {
        let at = usize::from(stream == 2);
        let mut text = String::new();
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.begun[at].len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.begun[at].extend_from_slice(&window[..=end]);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.begun[at].extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.begun[at].len() < MAX_LINE_BYTES {
                        break;
                    }
                }
            }
            entry(&mut text, stream, &self.begun[at], now_ns());
            self.begun[at].clear();
            if text.len() > 256 * 1024 {
                self.append(&text);
                text.clear();
            }
        }
        self.append(&text);
    }

    /// What was begun and not ended is kept without a newline, as Docker keeps it.
    pub fn finish(&mut self) {
        let mut text = String::new();
        for (at, stream) in [(0, 1), (1, 2)] {
            if !self.begun[at].is_empty() {
                entry(&mut text, stream, &self.begun[at], now_ns());
                self.begun[at].clear();
            }
        }
        self.append(&text);
    }

    fn append(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let result = self.rotate(text.len() as u64).and_then(|()| self.file.write_all(text.as_bytes()));
        match result {
            Ok(()) => self.bytes += text.len() as u64,
            Err(e) if !self.complained => {
                eprintln!("cannot write the container's log: {e}");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self, coming: u64) -> std::io::Result<()> {
        let LogConfig { path, max_bytes, max_files } = &self.config;
        if *max_bytes == 0 || self.bytes == 0 || self.bytes + coming <= *max_bytes {
            return Ok(());
        }
        if *max_files <= 1 {
            self.file.set_len(0)?;
            self.bytes = 0;
            return Ok(());
        }
        let numbered = |n: u32| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..max_files - 1).rev() {
            // A number not reached yet is missing.
            let _ = std::fs::rename(numbered(n), numbered(n + 1));
        }
        std::fs::rename(path, numbered(1))?;
        self.file = open(&self.config)?;
        self.bytes = 0;
        Ok(())
    }
}

fn open(config: &LogConfig) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(&config.path)
}

fn entry(out: &mut String, stream: u8, line: &[u8], time_ns: i64) {
    out.push_str("{\"log\":\"");
    escape(out, &String::from_utf8_lossy(line));
    out.push_str(if stream == 2 {
        "\",\"stream\":\"stderr\",\"time\":\""
    } else {
        "\",\"stream\":\"stdout\",\"time\":\""
    });
    out.push_str(&rfc3339(time_ns));
    out.push_str("\"}\n");
}

/// As Go's encoding/json writes strings: `<`, `>`, `&` and the line separators too.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
}

/// Go's RFC3339Nano in UTC: trailing zeros of the fraction are left out.
fn rfc3339(time_ns: i64) -> String {
    let (seconds, nanos) = (time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos != 0 {
        let fraction = format!("{nanos:09}");
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Date of a day counted from 1970-01-01, by the Gregorian calendar's 400 years of 146097 days beginning in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
            (1_735_689_599_000_000_001, "2024-12-31T23:59:59.000000001Z"),
        ] {
            assert_eq!(rfc3339(ns), text);
        }
    }

    fn log(dir: &tempfile::TempDir, max_bytes: u64, max_files: u32) -> Log {
        Log::open(LogConfig { path: dir.path().join("log"), max_bytes, max_files }).expect("a log")
    }

    fn lines(dir: &tempfile::TempDir, name: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(dir.path().join(name)).expect("the log");
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let get = |key: &str| value[key].as_str().expect("a string").to_owned();
                (get("stream"), get("log"))
            })
            .collect()
    }

    #[test]
    fn lines_pieces_and_ends() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir, 0, 1);
        log.write(1, b"a\nb<");
        log.write(2, b"e\"\n");
        log.write(1, b">\n");
        log.write(1, &[b'x'; MAX_LINE_BYTES + 3]);
        log.finish();
        let pair = |stream: &str, log: &str| (stream.to_owned(), log.to_owned());
        let got = lines(&dir, "log");
        assert_eq!(got[..3], [pair("stdout", "a\n"), pair("stderr", "e\"\n"), pair("stdout", "b<>\n")]);
        assert_eq!(got[3].1.len(), MAX_LINE_BYTES);
        assert_eq!(got[4], pair("stdout", "xxx"));
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = log(&dir, 200, 3);
        for n in 0..20 {
            log.write(1, format!("{n}\n").as_bytes());
        }
        assert_eq!(lines(&dir, "log").last().expect("a line").1, "19\n");
        assert!(dir.path().join("log.1").exists() && dir.path().join("log.2").exists());
        assert!(!dir.path().join("log.3").exists());
    }
}
