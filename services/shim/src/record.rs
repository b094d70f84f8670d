use std::fs::File;
use std::io::Write;

use anyhow::Context;
use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Survives a crash of the machine.
    Yes,
    No,
}

/// Writes `value` to `name` in the shim's folder, whole or not at all.
pub fn write<T: Serialize>(name: &str, value: &T, durable: Durable) -> anyhow::Result<()> {
    let temporary = format!("{name}.tmp");
    let doing = || format!("cannot write {name}");
    let mut file = File::create(&temporary).with_context(doing)?;
    file.write_all(&serde_json::to_vec(value)?).with_context(doing)?;
    if durable == Durable::Yes {
        file.sync_data().with_context(doing)?;
    }
    std::fs::rename(&temporary, name).with_context(doing)
}
