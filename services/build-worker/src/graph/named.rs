//! Named contexts (`--build-context NAME=SOURCE`): they stand for images and stages of that name.

use model::ImageRef;

use super::Graph;
use super::folders::Folder;
use super::plan::{Base, Plan};
use super::remote::Remote;
use crate::failure::Failure;
use crate::remote::Archives;
use crate::remote::git::is_git;

/// What a named context is.
#[derive(Clone, Debug, PartialEq)]
pub enum Named {
    Image(String),
    /// A stage of the same Dockerfile.
    Stage(String),
    /// A repository, or an archive.
    Url(String),
    /// The client sends it.
    Folder(Folder),
    Brought(Brought),
}

/// An image that only the build's client can name.
#[derive(Clone, Debug, PartialEq)]
pub enum Brought {
    Layout(Layout),
    /// What an earlier build of the client has made.
    Result(proto::NamedContext),
}

/// An image in an OCI layout of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// As the Dockerfile calls it.
    pub context: String,
    /// `oci-layout://STORE[:TAG]@DIGEST`
    pub source: String,
}

impl Graph {
    /// What `--from` or FROM means where it names a context.
    ///
    /// # Errors
    /// `User` for a source that cannot be used.
    pub(super) fn resolved(&self, plan: &Plan, base: &Base) -> Result<Resolved, Failure> {
        let Base::Context(name) = base else { return Ok(Resolved::Base(base.clone())) };
        let missing = || Failure::internal(format!("no context is named {name}"));
        let context = self.options.contexts.iter().find(|context| context.name == *name).ok_or_else(missing)?;
        Ok(match parse(context)? {
            Named::Image(reference) => Resolved::Base(Base::Image(reference)),
            Named::Stage(stage) => match plan.copied_from(&stage)? {
                stage @ Base::Stage(_) => Resolved::Base(stage),
                _ => {
                    let stage = dockerfile::quote(&stage);
                    return Err(Failure::user(format!("target stage {stage} could not be found")));
                }
            },
            Named::Url(url) => Resolved::Url(url),
            Named::Folder(folder) => Resolved::Folder(folder),
            Named::Brought(image) => Resolved::Brought(image),
        })
    }

    /// The content of a context that is named by URL: of a repository's folder, or of an archive.
    pub(super) async fn url_context(&self, url: &str, use_cache: bool) -> Result<Remote, Failure> {
        let file = proto::RemoteFile { url: url.to_owned(), ..proto::RemoteFile::default() };
        self.remote(&file, Archives::Unpacked, use_cache).await
    }
}

/// A base after named contexts were looked at.
pub enum Resolved {
    Base(Base),
    Url(String),
    Folder(Folder),
    Brought(Brought),
}

pub(super) fn parse(context: &proto::NamedContext) -> Result<Named, Failure> {
    let proto::NamedContext { name, source, results } = context;
    if !results.is_empty() {
        return Ok(Named::Brought(Brought::Result(context.clone())));
    }
    if let Some(reference) = source.strip_prefix("docker-image://") {
        return Ok(Named::Image(reference.to_owned()));
    }
    if let Some(stage) = source.strip_prefix("target:") {
        return Ok(Named::Stage(stage.to_owned()));
    }
    if let Some(folder) = source.strip_prefix("session:").filter(|folder| !folder.is_empty()) {
        return Ok(Named::Folder(Folder { context: name.clone(), name: folder.to_owned() }));
    }
    if source.starts_with("oci-layout://") {
        return Ok(Named::Brought(Brought::Layout(Layout { context: name.clone(), source: source.clone() })));
    }
    if is_git(source) || source.starts_with("http://") || source.starts_with("https://") {
        return Ok(Named::Url(source.clone()));
    }
    Err(Failure::user(format!("unsupported context source {source:?} for {name}")))
}

/// Names of images are the same in every way of writing them.
fn is_called(context: &str, name: &str) -> bool {
    let whole = |text: &str| text.parse::<ImageRef>().ok().map(|name| name.or_latest().to_string());
    context.eq_ignore_ascii_case(name) || whole(context).is_some_and(|context| whole(name) == Some(context))
}

/// The name of the context that stands for an image or a stage of this name, if there is one.
pub fn context_of(contexts: &[proto::NamedContext], name: &str) -> Option<String> {
    contexts.iter().find(|context| is_called(&context.name, name)).map(|context| context.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        for (source, named) in [
            ("docker-image://busybox:1", Some(Named::Image("busybox:1".to_owned()))),
            ("target:base", Some(Named::Stage("base".to_owned()))),
            ("https://h/r.git#v1", Some(Named::Url("https://h/r.git#v1".to_owned()))),
            ("https://h/x.tar", Some(Named::Url("https://h/x.tar".to_owned()))),
            ("session:_n", Some(Named::Folder(Folder { context: "n".to_owned(), name: "_n".to_owned() }))),
            ("session:", None),
            (
                "oci-layout://x@sha256:1",
                Some(Named::Brought(Brought::Layout(Layout {
                    context: "n".to_owned(),
                    source: "oci-layout://x@sha256:1".to_owned(),
                }))),
            ),
            ("nothing://x", None),
        ] {
            let (name, source) = ("n".to_owned(), source.to_owned());
            let context = proto::NamedContext { name, source, results: Vec::new() };
            assert_eq!(parse(&context).ok(), named, "{context:?}");
        }
        for (context, name, same) in
            [("base", "BASE", true), ("alpine", "docker.io/library/alpine:latest", true), ("alpine:3", "alpine", false)]
        {
            assert_eq!(is_called(context, name), same, "{context} {name}");
        }
    }
}
