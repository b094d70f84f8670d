//! What this machine lends to builds: folders, the OCI runtime, the shim.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use snapshots::Snapshots;

use crate::failure::{Doing as _, Failure};
use crate::handover::Handover;
use crate::limits::Groups;
use crate::network::Networks;

#[derive(Clone, Debug)]
pub struct Machine {
    pub runtime_binary: PathBuf,
    pub shim_binary: PathBuf,
    /// State of the OCI runtime.
    pub runtime_root: PathBuf,
    /// One folder for each build in progress.
    pub builds: PathBuf,
    pub networks: Networks,
    pub handover: Handover,
    /// Control groups of builds.
    pub groups: Groups,
}

static STEPS: AtomicU64 = AtomicU64::new(0);

impl Machine {
    pub fn build_folder(&self, build_id: &str) -> PathBuf {
        self.builds.join(build_id)
    }

    /// A new folder name for one step; names are short, since they go into mount options.
    pub fn step_folder(&self, build_id: &str) -> PathBuf {
        self.build_folder(build_id).join(STEPS.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// Whom a build's unpacked layers are held by.
pub fn owner(build_id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("build-{}", build_id.chars().map(plain).collect::<String>())
}

/// Removes what a killed worker left: its steps' processes are dead, since each shim watches its worker.
pub async fn sweep(
    builds: &Path,
    snapshots: &Snapshots,
    networks: &Networks,
    handover: &Handover,
) -> Result<(), Failure> {
    let reading = || format!("reading {}", builds.display());
    std::fs::create_dir_all(builds).doing(reading)?;
    for build in std::fs::read_dir(builds).doing(reading)? {
        let build = build.doing(reading)?;
        let path = build.path();
        for step in std::fs::read_dir(&path).doing(reading)? {
            if let Some(shim) = runtime::shim::adopt(&step.doing(reading)?.path().join("shim")) {
                shim.wait_gone().await;
            }
        }
        networks.sweep(&path).await?;
        handover.sweep(&path);
        for mount in mounts_under(&path).into_iter().rev() {
            snapshots::unmount(&mount).map_err(Failure::caused)?;
        }
        snapshots.release(&owner(&build.file_name().to_string_lossy())).map_err(Failure::caused)?;
        std::fs::remove_dir_all(&path).doing(|| format!("removing {}", path.display()))?;
        tracing::info!(build_id = %build.file_name().to_string_lossy(), "swept an interrupted build");
    }
    Ok(())
}

/// Mount points below a folder, in the order in which they were made.
fn mounts_under(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| PathBuf::from(point.replace("\\040", " "))).filter(|point| point.starts_with(folder)).collect()
}
