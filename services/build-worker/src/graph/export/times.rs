//! Layers without times after SOURCE_DATE_EPOCH.

use std::io::{self, Read, Write};

use tar::{Archive, Builder, EntryType, Header};

/// Records of a pax header that are times (POSIX.1-2001, pax Extended Header).
const TIMES: [&str; 3] = ["mtime", "atime", "ctime"];
/// No header is longer.
const MAX_PAX_BYTES: u64 = 1 << 20;

/// Copies a tar; whatever was changed after `epoch`, in seconds, was changed then. The rest stays as it is.
///
/// # Errors
/// What reading or writing says; `InvalidData` for what is no tar.
pub fn clamp(from: impl Read, epoch: i64, to: impl Write) -> io::Result<()> {
    let epoch = u64::try_from(epoch).unwrap_or(0);
    let mut out = Builder::new(to);
    let mut archive = Archive::new(from);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        if header.mtime()? > epoch {
            header.set_mtime(epoch);
        }
        if header.entry_type() == EntryType::XHeader {
            pax(&mut header, entry, epoch, &mut out)?;
            continue;
        }
        header.set_cksum();
        out.append(&header, &mut entry)?;
    }
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    out.into_inner()?.flush()
}

/// A pax header whose times are clamped, too.
fn pax(header: &mut Header, entry: impl Read, epoch: u64, out: &mut Builder<impl Write>) -> io::Result<()> {
    let mut records = Vec::new();
    entry.take(MAX_PAX_BYTES).read_to_end(&mut records)?;
    let mut clamped = Vec::new();
    for record in tar::PaxExtensions::new(&records) {
        let record = record?;
        let key = record.key().map_err(io::Error::other)?;
        let late = TIMES.contains(&key)
            && record.value().ok().and_then(|value| value.parse::<f64>().ok()).is_some_and(|time| time > epoch as f64);
        let value = if late { epoch.to_string().into_bytes() } else { record.value_bytes().to_vec() };
        write_record(&mut clamped, key.as_bytes(), &value);
    }
    header.set_size(clamped.len() as u64);
    header.set_cksum();
    out.append(header, clamped.as_slice())
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn write_record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, mtime: u64, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        header.set_size(size as u64);
        header
    }

    fn sample(early: u64, late: u64) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let long = "d/".repeat(60) + "file";
        builder.append_data(&mut header(EntryType::Regular, early, 3), "early", &b"abc"[..]).expect("entry");
        let time = format!("{late}.25");
        builder.append_pax_extensions([("mtime", time.as_bytes()), ("path", long.as_bytes())]).expect("entry");
        builder.append_data(&mut header(EntryType::Regular, late, 2), "late", &b"de"[..]).expect("entry");
        builder.append_link(&mut header(EntryType::Symlink, late, 0), "link", "early").expect("entry");
        builder.into_inner().expect("tar")
    }

    #[test]
    fn late_times_are_the_epoch_and_nothing_else_changes() {
        let mut clamped = Vec::new();
        clamp(sample(50, 200).as_slice(), 100, &mut clamped).expect("clamped");
        let mut found = Vec::new();
        for entry in Archive::new(clamped.as_slice()).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let records: Vec<String> = entry
                .pax_extensions()
                .expect("records")
                .into_iter()
                .flatten()
                .map(|record| {
                    let record = record.expect("a record");
                    format!("{}={}", record.key().expect("text"), record.value().expect("text").len())
                })
                .collect();
            let mtime = entry.header().mtime().expect("a time");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("content");
            found.push((entry.path_bytes().len(), mtime, content, records));
        }
        assert_eq!(found[0], (5, 50, "abc".to_owned(), Vec::new()));
        assert_eq!(found[1].0, 124);
        assert_eq!((found[1].1, found[1].2.as_str()), (100, "de"));
        assert_eq!(found[1].3, ["mtime=3", "path=124"]);
        assert_eq!((found[2].0, found[2].1), (4, 100));
        let mut again = Vec::new();
        clamp(clamped.as_slice(), 100, &mut again).expect("clamped");
        assert!(again == clamped);
        let mut one = Vec::new();
        let mut other = Vec::new();
        clamp(sample(50, 200).as_slice(), 100, &mut one).expect("clamped");
        clamp(sample(50, 300).as_slice(), 100, &mut other).expect("clamped");
        assert!(one == other, "two builds at two times");
    }
}
