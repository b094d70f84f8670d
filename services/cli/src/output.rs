//! Standard output, with a broken pipe as a quiet end (`boxyard images | head -1`).

use std::io::Write;

/// Writes bytes at once.
pub fn write(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

pub fn error(bytes: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

pub fn line(text: impl AsRef<str>) {
    write(format!("{}\n", text.as_ref()).as_bytes());
}
