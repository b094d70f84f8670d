//! Named contexts (`--build-context NAME=SOURCE`): they stand for images and stages of that name.

use dockerfile::Dockerfile;
use model::ImageRef;

use super::Graph;
use super::folders::Folder;
use super::plan::{Base, Plan};
use super::remote::Remote;
use crate::failure::Failure;
use crate::remote::Archives;
use crate::remote::git::is_git;

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Image(String),
    /// A stage of the same Dockerfile.
    Stage(String),
    /// A repository, or an archive.
    Url(String),
    /// The client sends it.
    Folder(Folder),
}

impl Graph {
    /// The context that stands for a name, if the build was given one.
    ///
    /// # Errors
    /// `User` for a source that cannot be used.
    pub(super) fn named_context(&self, name: &str) -> Result<Option<Named>, Failure> {
        let found = self.options.contexts.iter().find(|context| is_called(&context.name, name));
        found.map(|context| parse(&context.name, &context.source)).transpose()
    }

    /// What `--from` or FROM means where a context of that name was given.
    pub(super) fn resolved(&self, plan: &Plan, base: &Base) -> Result<Resolved, Failure> {
        let Base::Image(reference) = base else { return Ok(Resolved::Base(base.clone())) };
        Ok(match self.named_context(reference)? {
            None => Resolved::Base(base.clone()),
            Some(Named::Image(reference)) => Resolved::Base(Base::Image(reference)),
            Some(Named::Stage(stage)) => match plan.from(&stage)? {
                stage @ Base::Stage(_) => Resolved::Base(stage),
                _ => return Err(Failure::user(format!("target stage {stage:?} could not be found"))),
            },
            Some(Named::Url(url)) => Resolved::Url(url),
            Some(Named::Folder(folder)) => Resolved::Folder(folder),
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
}

fn parse(name: &str, source: &str) -> Result<Named, Failure> {
    if let Some(reference) = source.strip_prefix("docker-image://") {
        return Ok(Named::Image(reference.to_owned()));
    }
    if let Some(stage) = source.strip_prefix("target:") {
        return Ok(Named::Stage(stage.to_owned()));
    }
    if let Some(folder) = source.strip_prefix("session:").filter(|folder| !folder.is_empty()) {
        return Ok(Named::Folder(Folder { context: name.to_owned(), name: folder.to_owned() }));
    }
    if is_git(source) || source.starts_with("http://") || source.starts_with("https://") {
        return Ok(Named::Url(source.to_owned()));
    }
    Err(Failure::user(format!("unsupported context source {source:?} for {name}")))
}

/// Names of images are the same in every way of writing them.
fn is_called(context: &str, name: &str) -> bool {
    let whole = |text: &str| text.parse::<ImageRef>().ok().map(|name| name.or_latest().to_string());
    context.eq_ignore_ascii_case(name) || whole(context).is_some_and(|context| whole(name) == Some(context))
}

/// A stage that a named context stands for is replaced by it, so nothing of it is built.
pub fn replace_stages(file: &mut Dockerfile, contexts: &[proto::NamedContext]) {
    for stage in &mut file.stages {
        let Some(name) = &stage.name else { continue };
        if contexts.iter().any(|context| context.name.eq_ignore_ascii_case(name)) {
            stage.base.clone_from(name);
            stage.instructions.clear();
        }
    }
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
            ("oci-layout://x", None),
        ] {
            assert_eq!(parse("n", source).ok(), named, "{source}");
        }
        for (context, name, same) in
            [("base", "BASE", true), ("alpine", "docker.io/library/alpine:latest", true), ("alpine:3", "alpine", false)]
        {
            assert_eq!(is_called(context, name), same, "{context} {name}");
        }
    }

    #[test]
    fn a_stage_that_is_given_is_not_built() {
        let source = "FROM busybox AS base\nRUN make\nFROM base\n";
        let mut file = Dockerfile::parse_as(source, dockerfile::Dialect::BuildKit).expect("parses");
        let given = proto::NamedContext { name: "Base".to_owned(), source: "docker-image://x".to_owned() };
        replace_stages(&mut file, &[given]);
        assert_eq!((file.stages[0].base.as_str(), file.stages[0].instructions.len()), ("base", 0));
    }
}
