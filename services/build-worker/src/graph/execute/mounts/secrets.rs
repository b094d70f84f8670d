//! Secrets of the client: files in memory, gone with the step, or variables.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bus::calls;
use nix::mount::{MsFlags, mount};

use super::super::Executor;
use super::Mounted;
use crate::container::bind;
use crate::failure::{Doing as _, Failure};
use crate::halt;
use crate::layers::blocking;
use crate::remote::access::Access;
use crate::remote::git::Repository;
use crate::tree::Tree;

/// A folder in memory. Unmounted when dropped.
pub struct Memory {
    folder: PathBuf,
}

impl Memory {
    fn new(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, Some("size=64m,mode=0700"))?;
        Ok(Self { folder })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = snapshots::unmount(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "a step's secrets stay mounted");
        }
    }
}

impl Executor {
    /// Adds a secret as the file or the variable that it is asked for as; one that the client has not may be left out.
    pub(super) async fn secret(
        &self,
        tree: &Tree,
        mounted: &mut Mounted,
        wanted: &proto::StepMount,
    ) -> Result<(), Failure> {
        let Some(value) = self.secret_of_client(&wanted.id).await? else {
            return match wanted.required {
                true => Err(Failure::user(format!("secret {}: not found", wanted.id))),
                false => {
                    // The variable is there all the same, and empty.
                    mounted.env.extend((!wanted.env.is_empty()).then(|| format!("{}=", wanted.env)));
                    Ok(())
                }
            };
        };
        if !wanted.env.is_empty() {
            let text = String::from_utf8(value.clone());
            let text = text.map_err(|_| Failure::user(format!("secret {} is no text for a variable", wanted.id)))?;
            mounted.env.push(format!("{}={text}", wanted.env));
        }
        if wanted.target.is_empty() {
            return Ok(());
        }
        if mounted.memory.is_none() {
            let folder = tree.folder().join("secrets");
            let memory = blocking(move || Memory::new(folder).doing(|| "mounting a step's secrets".to_owned())).await?;
            mounted.memory = Some(memory);
        }
        let folder = tree.folder().join("secrets");
        let file = folder.join(mounted.mounts.len().to_string());
        write(&file, &value, wanted).doing(|| "writing a step's secret".to_owned())?;
        let mount = bind(file, wanted.target.clone());
        mounted.mounts.push(runtime::bundle::Mount { read_only: true, ..mount });
        Ok(())
    }

    /// What the build's client may show the server of a repository; nothing for what is none.
    pub(in crate::graph) async fn git_access(&self, url: &str) -> Result<Access, Failure> {
        let Some(Repository { url, .. }) = Repository::parse(url).map_err(Failure::User)? else {
            return Ok(Access::default());
        };
        for secret in Access::secrets(&url) {
            if let Some(value) = self.secret_of_client(&secret).await? {
                return Ok(Access::of(&url, &secret, &value));
            }
        }
        Ok(Access::default())
    }

    async fn secret_of_client(&self, id: &str) -> Result<Option<Vec<u8>>, Failure> {
        if !self.client.has_session() {
            return Ok(None);
        }
        let (build_id, attempt) = (self.build_id.clone(), self.attempt);
        let request = proto::SecretGet { build_id, attempt, id: id.to_owned() };
        let reply = halt::wait(self.client.ask::<calls::SecretGet>(&request)).await??;
        Ok(reply.found.then_some(reply.value))
    }
}

fn write(file: &Path, value: &[u8], wanted: &proto::StepMount) -> std::io::Result<()> {
    std::fs::write(file, value)?;
    std::os::unix::fs::chown(file, Some(wanted.uid), Some(wanted.gid))?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(wanted.mode))
}
