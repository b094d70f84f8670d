//! What a build names by URL, as origins of files: fetched once, and remembered among the results of steps.

use super::Graph;
use super::files::Origin;
use super::records::Made;
use super::trace::Vertex;
use crate::failure::Failure;
use crate::layers::now_ns;
use crate::remote::{self, Archives, Remotes};

/// What a URL gave.
pub struct Remote {
    pub layer: proto::Layer,
    pub origin: Origin,
    /// Path of what is meant: a file, or a folder whose content is.
    pub source: String,
}

impl Graph {
    /// Fetches a file or a repository, unless it is known and unchanged.
    ///
    /// # Errors
    /// `User` in BuildKit's words: what is not there, and what has not its checksum.
    pub(super) async fn remote(
        &self,
        file: &proto::RemoteFile,
        archives: Archives,
        use_cache: bool,
    ) -> Result<Remote, Failure> {
        let key = remote::key(file, archives);
        let place = format!("{} {key}", self.executor.build_id);
        let mut vertex = Vertex::new(&self.trace, &place, shown(&file.url));
        vertex.start().await;
        let known = if use_cache { self.found(&key).await? } else { None };
        let started = now_ns();
        let fetch = async {
            let remotes = Remotes {
                layers: &self.executor.layers,
                folder: self.executor.worker.machine.step_folder(&self.executor.build_id),
                archives,
                access: self.executor.git_access(&file.url).await?,
            };
            remotes.fetch(file, known.as_ref()).await
        };
        let fetched = tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            fetched = fetch => fetched,
        };
        vertex.told.cached = fetched.as_ref().is_ok_and(|fetched| fetched.upload.is_none());
        vertex.complete(fetched.as_ref().err()).await;
        let fetched = fetched?;
        let record = proto::StepRecord {
            key,
            layers: vec![fetched.layer.clone()],
            created_ns: now_ns(),
            took_ns: now_ns() - started,
            worker_id: self.worker_id.clone(),
            description: shown(&file.url),
            value_json: fetched.value_json,
        };
        self.exchange.note(&record.key, &record);
        if known.as_ref().is_none_or(|known| known.value_json != record.value_json) {
            self.records.add(Made { record, upload: fetched.upload, also: None, claim: None }).await;
        }
        Ok(Remote { origin: Origin::Layers(vec![fetched.layer.clone()]), layer: fetched.layer, source: fetched.source })
    }
}

/// A URL without what only its owner may know.
fn shown(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (user, rest))) if !user.contains('/') => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn passwords_are_not_told() {
        for (url, told) in [
            ("https://u:p@h/a.git#main", "https://h/a.git#main"),
            ("https://h/a@b", "https://h/a@b"),
            ("git@h:a/b.git", "git@h:a/b.git"),
        ] {
            assert_eq!(shown(url), told);
        }
    }
}
