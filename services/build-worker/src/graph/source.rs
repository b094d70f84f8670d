//! What a build begins with: the Dockerfile, and the context that its files come from.

use std::path::Path;
use std::sync::Arc;

use bus::calls;
use dockerfile::{Dialect, Dockerfile, Ignore, Kind, MountType};
use tokio::sync::OnceCell;

use super::Graph;
use super::files::Origin;
use super::plan::Plan;
use super::trace::Vertex;
use super::view::View;
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::halt;
use crate::layers::Unchanged;
use crate::rooted::clean;

const TEXT_LIMIT_BYTES: u64 = 4 << 20;

pub struct Source {
    pub file: Arc<Dockerfile>,
    /// Digest of the step that read the file.
    pub definition: String,
    /// The context's ignore file.
    pub ignore: Option<Ignore>,
    context: Files,
    /// Told once, by the first step that reads it.
    told: OnceCell<()>,
}

/// The context's files.
enum Files {
    /// They are in the layer store.
    There(Origin),
    /// The client sends them when a step needs them.
    Client(Box<Client>),
}

struct Client {
    /// Patterns of the ignore file.
    excludes: Vec<String>,
    /// What the stages that are built read; empty where only the whole will do.
    paths: Vec<String>,
    some: OnceCell<Origin>,
    /// For what a base image's triggers read.
    whole: OnceCell<Origin>,
}

/// How much of a context a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// What the file itself reads.
    Named,
    Whole,
}

impl Source {
    /// Of a client's context only that is asked for which the plans read.
    pub fn read_by(&mut self, plans: &[Plan]) {
        if let Files::Client(client) = &mut self.context {
            client.paths = paths(plans);
        }
    }
}

impl Graph {
    /// Brings the Dockerfile, and with it the context where that comes in one piece.
    ///
    /// # Errors
    /// `User` for a Dockerfile that is missing or wrong.
    pub(super) async fn source(&self) -> Result<Source, Failure> {
        let name = match self.options.dockerfile.as_str() {
            "" => "Dockerfile",
            name => name.rsplit('/').next().unwrap_or(name),
        };
        let shown = format!("[internal] load build definition from {name}");
        let mut vertex = Vertex::new(&self.trace, &self.named("definition"), shown);
        if self.options.session_context {
            return self.source_of_client(&mut vertex).await;
        }
        let context = vertex.around(self.context()).await?;
        if context.ignore.is_some() {
            let shown = "[internal] load .dockerignore".to_owned();
            Vertex::new(&self.trace, &self.named("ignore"), shown).around(async { Ok(()) }).await?;
        }
        let definition = vertex.digest().to_owned();
        let of_client = match self.options.session_dockerfile {
            true => Some(self.dockerfile_of_client(name).await?.0.ok_or_else(|| missing_dockerfile(name))?),
            false => None,
        };
        let text = of_client.as_ref().unwrap_or(&context.dockerfile);
        self.dockerfile.keep(name, text);
        let file = Arc::new(Dockerfile::parse_as(text, Dialect::BuildKit)?);
        let ignore = context.ignore.as_deref().map(Ignore::parse);
        let context = Files::There(self.origin_of(context).await?);
        Ok(Source { file, definition, ignore, context, told: OnceCell::new() })
    }

    fn named(&self, what: &str) -> String {
        format!("{} {what}", self.executor.build_id)
    }

    async fn context(&self) -> Result<Arc<Context>, Failure> {
        if let Some(kept) = self.executor.worker.contexts.find(&context::key(&self.options)) {
            return Ok(kept);
        }
        let folder = self.executor.worker.machine.build_folder(&self.executor.build_id).join("context");
        let access = self.executor.git_access(&self.options.remote).await?;
        tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            context = Context::fetch(&self.executor.layers.store, &self.options, (folder, &access)) => context.map(Arc::new),
        }
    }

    /// A tar in the layer store is there for every worker; what was fetched from elsewhere becomes a layer to be so.
    async fn origin_of(&self, context: Arc<Context>) -> Result<Origin, Failure> {
        if context.blob.is_some() {
            let _ = self.executor.context.set(context.clone());
            return Ok(Origin::Context(context));
        }
        let made = self.executor.layers.adopt(context.folder.clone(), Vec::new(), Unchanged::EmptyLayer).await?;
        let made = made.ok_or_else(|| Failure::internal("a context without a layer"))?;
        halt::wanted(async { made.upload.await.map_err(Failure::caused)? }).await?;
        Ok(Origin::Layers(vec![made.layer]))
    }

    async fn source_of_client(&self, vertex: &mut Vertex) -> Result<Source, Failure> {
        let path = match self.options.dockerfile.as_str() {
            "" => "Dockerfile",
            path => path,
        };
        let [own_ignore, ignore] = dockerfile::ignore_files(path);
        // Most Dockerfiles have no ignore file of their own, so the general one is asked for meanwhile.
        let general = async {
            let sent = self.small_files("context", vec![ignore.clone()]).await?;
            Ok::<_, Failure>(self.text(&sent, &ignore).await?.unwrap_or_default())
        };
        let (loaded, general) = tokio::join!(vertex.around(self.dockerfile_of_client(path)), general);
        let (text, own_rules) = loaded?;
        let text = text.ok_or_else(|| missing_dockerfile(path))?;
        let definition = vertex.digest().to_owned();
        let shown = format!("[internal] load {}", if own_rules.is_some() { &own_ignore } else { &ignore });
        let mut vertex = Vertex::new(&self.trace, &self.named("ignore"), shown);
        let rules = vertex.around(async { own_rules.map_or(general, Ok) }).await?;
        self.dockerfile.keep(path, &text);
        let file = Arc::new(Dockerfile::parse_as(&text, Dialect::BuildKit)?);
        let ignore = Some(Ignore::parse(&rules));
        let (some, whole) = (OnceCell::new(), OnceCell::new());
        let client = Client { excludes: patterns(&rules), paths: Vec::new(), some, whole };
        Ok(Source { file, definition, ignore, context: Files::Client(Box::new(client)), told: OnceCell::new() })
    }

    /// The Dockerfile out of the client's folder for it, and the ignore file of its own, where they are there.
    async fn dockerfile_of_client(&self, path: &str) -> Result<(Option<String>, Option<String>), Failure> {
        let [own_ignore, _] = dockerfile::ignore_files(path);
        let lower = path.to_lowercase();
        let mut wanted = vec![path.to_owned(), own_ignore.clone()];
        if path == "Dockerfile" {
            wanted.push(lower.clone());
        }
        let sent = self.small_files("dockerfile", wanted).await?;
        let text = match self.text(&sent, path).await? {
            None if path == "Dockerfile" => self.text(&sent, &lower).await?,
            text => text,
        };
        Ok((text, self.text(&sent, &own_ignore).await?))
    }

    /// Asks the client for files, of which only those are sent whose content is not known.
    ///
    /// # Errors
    /// `User` where the build has no client to ask.
    pub(super) async fn sync(
        &self,
        name: &str,
        follow_paths: Vec<String>,
        exclude_patterns: Vec<String>,
    ) -> Result<proto::ContextTree, Failure> {
        let name = name.to_owned();
        self.ask_client(proto::ContextSync { name, follow_paths, exclude_patterns, ..Default::default() }).await
    }

    /// Asks the client for a file or two, as [`Graph::text`] reads them.
    ///
    /// # Errors
    /// As [`Graph::sync`].
    pub(super) async fn small_files(&self, name: &str, paths: Vec<String>) -> Result<proto::ContextTree, Failure> {
        let name = name.to_owned();
        self.ask_client(proto::ContextSync { name, follow_paths: paths, small: true, ..Default::default() }).await
    }

    async fn ask_client(&self, asked: proto::ContextSync) -> Result<proto::ContextTree, Failure> {
        if !self.executor.client.has_session() {
            return Err(Failure::user("the build has no session: its client sends no files"));
        }
        let request = proto::ContextSync {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            lease: self.executor.layers.lease.clone(),
            ..asked
        };
        tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            sent = self.executor.client.ask::<calls::ContextSync>(&request) => Ok(sent?),
        }
    }

    /// A small file of what a client sent; `None` where there is no such file.
    pub(super) async fn text(&self, sent: &proto::ContextTree, path: &str) -> Result<Option<String>, Failure> {
        let tree = self.executor.worker.trees.tree(&sent.tree.clone().unwrap_or_default()).await?;
        let unreadable = |why: &str| Failure::user(format!("failed to read {path}: {why}"));
        let Some(entry) = View(&tree).follow(&clean(Path::new(path))).and_then(|path| tree.find(&path)) else {
            return Ok(None);
        };
        match &entry.kind {
            contexts::Kind::File { content, .. } if content.size <= TEXT_LIMIT_BYTES => {
                let bytes = self.executor.worker.trees.content(&tree, content).await?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            contexts::Kind::File { .. } => Err(unreadable("file is too large")),
            _ => Err(unreadable("not a regular file")),
        }
    }

    /// The files that the build was given.
    pub(super) async fn build_context(&self, source: &Source, needs: Needs) -> Result<Origin, Failure> {
        let mut vertex = Vertex::new(&self.trace, &self.named("context"), "[internal] load build context".to_owned());
        match &source.context {
            Files::There(origin) => {
                let tell = async {
                    vertex.start().await;
                    vertex.complete(None).await;
                };
                source.told.get_or_init(|| tell).await;
                Ok(origin.clone())
            }
            Files::Client(_) if source.ignore.as_ref().is_some_and(|ignore| !ignore.is_legal()) => {
                Err(Failure::user("syntax error in pattern"))
            }
            Files::Client(client) => {
                let (cell, paths) = match needs {
                    Needs::Named if !client.paths.is_empty() => (&client.some, client.paths.clone()),
                    _ => (&client.whole, Vec::new()),
                };
                let load = vertex.around(async {
                    let sent = self.sync("context", paths, client.excludes.clone()).await?;
                    let descriptor = sent.tree.unwrap_or_default();
                    let tree = self.executor.worker.trees.tree(&descriptor).await?;
                    Ok(Origin::Tree(descriptor, tree))
                });
                cell.get_or_try_init(|| load).await.cloned()
            }
        }
    }
}

fn missing_dockerfile(path: &str) -> Failure {
    Failure::user(format!("failed to read dockerfile: open {path}: no such file or directory"))
}

/// The patterns of an ignore file, as a client takes them.
pub fn patterns(rules: &str) -> Vec<String> {
    let lines = rules.trim_start_matches('\u{feff}').lines().map(str::trim);
    let pattern = |line: &str| {
        let (keeps, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern.trim()));
        let pattern = clean(Path::new(pattern)).display().to_string();
        format!("{keeps}{}", if pattern.is_empty() { "." } else { &pattern })
    };
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(pattern).collect()
}

/// The paths that plans read of their context; none where it turns out only when they are built.
fn paths(plans: &[Plan]) -> Vec<String> {
    let mut paths = Vec::new();
    for plan in plans {
        let instructions = plan.graph.needed.iter().flat_map(|number| plan.instructions(*number));
        for instruction in instructions {
            match &instruction.kind {
                Kind::Copy(copy) | Kind::Add(copy) if copy.from.is_none() => paths.extend(copy.sources.iter().cloned()),
                Kind::Run(run) => {
                    for mount in run.mounts.iter().filter(|mount| mount.from.is_none()) {
                        match mount.expanded(&plan.lexer, &|_| None, "/") {
                            Ok(mount) if mount.kind == MountType::Bind => paths.push(mount.source),
                            Ok(_) => {}
                            Err(_) => return Vec::new(),
                        }
                        if mount.text.contains('$') {
                            return Vec::new();
                        }
                    }
                }
                _ => {}
            }
        }
    }
    if paths.iter().any(|path| path.contains('$')) {
        return Vec::new();
    }
    let local = paths.iter().map(String::as_str).filter(|path| !path.contains("://"));
    dockerfile::follow_paths(local.map(|path| path.split("/./").next().unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_asked_for() {
        let file = |text: &str| {
            let file = Dockerfile::parse_as(text, Dialect::BuildKit).expect(text);
            let plan = Plan::new(Arc::new(file), &proto::BuildOptions::default(), model::Platform::host());
            paths(&[plan.expect(text)])
        };
        assert_eq!(
            file("FROM a\nCOPY b/x c /\nRUN --mount=source=m,target=/m ls\nCOPY --from=z n /\n"),
            ["b/x", "c", "m"]
        );
        assert_eq!(file("FROM a AS other\nCOPY $V unneeded /\nFROM b\nCOPY x /\n"), ["x"]);
        assert!(file("FROM a\nARG V\nCOPY $V /\n").is_empty(), "the whole");
        assert!(file("FROM a\nCOPY . /\n").is_empty(), "the whole");
        assert_eq!(patterns("\u{feff}# no\n\n /a/ \n!b/../c\n"), ["a", "!c"]);
    }
}
