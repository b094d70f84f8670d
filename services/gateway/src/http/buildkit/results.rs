//! What a client names by a definition: what its builds have made, for later builds to stand on (`contexts = { base =
//! "target:base" }` of bake), and what a URL leads to, such as a repository with the files of bake.
//!
//! A client of BuildKit takes the definition that comes with a result and sends it back as an input of another build. Ours
//! only names the result: one operation, a source that nobody else can have, and the end that BuildKit's definitions have.
//! Of a client's own only those are read that name a source, or a folder of one.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::Ref;
use bollard_buildkit_proto::pb;
use model::Digest;
use prost::Message as _;

use crate::app::{Failure, Outcome, lock, random_id};

const SCHEME: &str = "boxyard-result://";

/// Results of one connection's builds; their layers are kept until they are forgotten, or it closes.
#[derive(Default)]
pub struct Results {
    by_id: Mutex<HashMap<String, Made>>,
}

/// Holds the layers of all that one build has made.
type Guard = Arc<dyn Any + Send + Sync>;

struct Made {
    /// None of a build that is done, but whose log did not tell what it has made.
    input: Option<Input>,
    _guard: Option<Guard>,
}

/// What a definition stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Image(Box<proto::BuiltImage>),
    /// A repository's folder, or a file.
    Url(String),
}

impl Input {
    /// A file that an URL names, no repository.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Url(url) if !url.contains('#'))
    }

    /// As the only context of a build that looks at its files.
    pub fn context(self) -> proto::NamedContext {
        let context = proto::NamedContext { name: "source".to_owned(), ..Default::default() };
        match self {
            Self::Image(image) => proto::NamedContext { results: vec![*image], ..context },
            Self::Url(source) => proto::NamedContext { source, ..context },
        }
    }
}

impl Results {
    /// Keeps what a build has made, whose layers are there as long as the guard; gives what a client calls each.
    pub fn keep(&self, images: &[proto::BuiltImage], guard: impl Any + Send + Sync) -> Vec<Ref> {
        let guard: Guard = Arc::new(guard);
        let keep = |image: &proto::BuiltImage| {
            let id = self.insert(Some(Input::Image(Box::new(image.clone()))), Some(guard.clone()));
            Ref { def: Some(definition(&id)), id }
        };
        images.iter().map(keep).collect()
    }

    /// What a client calls the result of a build that is done, of which no more is known: only who builds on it fails.
    pub fn keep_untold(&self) -> Ref {
        let id = self.insert(None, None);
        Ref { def: Some(definition(&id)), id }
    }

    /// Lets go of results, by what the client calls them.
    pub fn forget(&self, ids: &[String]) {
        lock(&self.by_id).retain(|id, _| !ids.contains(id));
    }

    #[cfg(test)]
    pub fn holds(&self, id: &str) -> bool {
        lock(&self.by_id).contains_key(id)
    }

    fn insert(&self, input: Option<Input>, guard: Option<Guard>) -> String {
        let id = random_id();
        lock(&self.by_id).insert(id.clone(), Made { input, _guard: guard });
        id
    }

    /// Gives a name to what a client's definition stands for; nothing is fetched.
    ///
    /// # Errors
    /// As [`Results::inputs`].
    pub fn name(&self, definition: pb::Definition) -> Outcome<Ref> {
        let input = self.input(&definition)?;
        Ok(Ref { id: self.insert(Some(input), None), def: Some(definition) })
    }

    /// # Errors
    /// `NotFound` for a result of another connection, for one that was forgotten, and for one that the log of its build did
    /// not tell.
    pub fn find(&self, id: &str) -> Outcome<Input> {
        let by_id = lock(&self.by_id);
        let made = by_id.get(id).ok_or_else(|| {
            Failure::not_found(format!("no build of this connection has made {id}, or its time is over"))
        })?;
        made.input.clone().ok_or_else(|| {
            Failure::not_found(
                "what an input's build made is not known, since the end of its log was lost or the image's config is too \
                 large to be handed on: build it again",
            )
        })
    }

    /// What these definitions, by the client's names for them, stand for.
    ///
    /// # Errors
    /// `Unimplemented` for a definition that names no source, and as [`Results::find`].
    pub fn inputs(&self, definitions: &HashMap<String, pb::Definition>) -> Outcome<HashMap<String, Input>> {
        definitions.iter().map(|(name, definition)| Ok((name.clone(), self.input(definition)?))).collect()
    }

    fn input(&self, definition: &pb::Definition) -> Outcome<Input> {
        match Named::of(definition) {
            Some(Named::Result(id)) => self.find(&id),
            Some(Named::Url(url)) => Ok(Input::Url(url)),
            None => Err(Failure::not_built(
                "LLB definitions are not solved, but for sources by URL and results of builds: name the frontend dockerfile.v0",
            )),
        }
    }
}

/// What a definition names.
#[derive(Debug, PartialEq)]
enum Named {
    Result(String),
    Url(String),
}

fn definition(id: &str) -> pb::Definition {
    let source = pb::SourceOp { identifier: format!("{SCHEME}{id}"), ..Default::default() };
    let source = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec();
    let digest = Digest::of(&source).to_string();
    let end = pb::Op { inputs: vec![pb::Input { digest: digest.clone(), index: 0 }], ..Default::default() };
    pb::Definition {
        def: vec![source, end.encode_to_vec()],
        metadata: BTreeMap::from([(digest, pb::OpMetadata::default())]),
        source: None,
    }
}

impl Named {
    fn of(definition: &pb::Definition) -> Option<Self> {
        let decode = |bytes: &Vec<u8>| Some((Digest::of(bytes).to_string(), pb::Op::decode(bytes.as_slice()).ok()?));
        let ops: HashMap<String, pb::Op> = definition.def.iter().map(decode).collect::<Option<_>>()?;
        let end = pb::Op::decode(definition.def.last()?.as_slice()).ok().filter(|end| end.op.is_none())?;
        Self::at(&ops, end.inputs.first()?)
    }

    fn at(ops: &HashMap<String, pb::Op>, input: &pb::Input) -> Option<Self> {
        let op = ops.get(&input.digest)?;
        match op.op.as_ref()? {
            pb::op::Op::Source(source) => Self::source(source),
            pb::op::Op::File(file) => {
                let (folder, from) = copied(file)?;
                let repository = ops.get(&op.inputs.get(from)?.digest)?;
                match repository.op.as_ref()? {
                    pb::op::Op::Source(source) => Self::source(source)?.folder(folder),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn source(source: &pb::SourceOp) -> Option<Self> {
        let identifier = source.identifier.as_str();
        if let Some(id) = identifier.strip_prefix(SCHEME) {
            return Some(Self::Result(id.to_owned()));
        }
        if identifier.starts_with("http://") || identifier.starts_with("https://") {
            return Some(Self::Url(identifier.to_owned()));
        }
        let place = identifier.strip_prefix("git://")?;
        let fragment = place.split_once('#').map_or("", |(_, fragment)| fragment);
        let url = source.attrs.get("git.fullurl")?;
        Some(Self::Url(format!("{url}#{fragment}")))
    }

    /// A folder of a repository.
    fn folder(self, folder: &str) -> Option<Self> {
        let folder = folder.trim_matches('/');
        match self {
            named if matches!(folder, "" | ".") => Some(named),
            Self::Url(url) => {
                let (repository, fragment) = url.split_once('#')?;
                let (reference, above) = fragment.split_once(':').unwrap_or((fragment, ""));
                let path = [above.trim_matches('/'), folder].join("/");
                Some(Self::Url(format!("{repository}#{reference}:{}", path.trim_start_matches('/'))))
            }
            Self::Result(_) => None,
        }
    }
}

/// The folder that is all of what a file operation makes, and which input has it.
fn copied(file: &pb::FileOp) -> Option<(&str, usize)> {
    let [action] = file.actions.as_slice() else { return None };
    match action.action.as_ref()? {
        pb::file_action::Action::Copy(copy) if copy.dest == "/" && action.input < 0 => {
            Some((copy.src.as_str(), usize::try_from(action.secondary_input).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str, attrs: &[(&str, &str)]) -> Vec<u8> {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs };
        pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec()
    }

    fn input(op: &[u8]) -> Vec<pb::Input> {
        vec![pb::Input { digest: Digest::of(op).to_string(), index: 0 }]
    }

    fn copy(from: &[u8], src: &str, dest: &str) -> Vec<u8> {
        let copy = pb::FileActionCopy { src: src.to_owned(), dest: dest.to_owned(), ..Default::default() };
        let action = Some(pb::file_action::Action::Copy(copy));
        let action = pb::FileAction { input: -1, secondary_input: 0, output: 0, action };
        let file = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        pb::Op { inputs: input(from), op: Some(file), ..Default::default() }.encode_to_vec()
    }

    fn named(mut ops: Vec<Vec<u8>>) -> Option<Named> {
        let end = pb::Op { inputs: input(ops.last()?), ..Default::default() };
        ops.push(end.encode_to_vec());
        Named::of(&pb::Definition { def: ops, ..Default::default() })
    }

    #[test]
    fn a_definition_of_ours_names_its_result() {
        let ours = definition("abc");
        assert_eq!(Named::of(&ours), Some(Named::Result("abc".to_owned())));
        assert!(ours.metadata.contains_key(Digest::of(&ours.def[0]).as_str()), "clients look for it");
        let cut = pb::Definition { def: ours.def[..1].to_vec(), ..Default::default() };
        let wrong = pb::Definition { def: vec![vec![0xff], vec![0xff]], ..Default::default() };
        for other in [cut, wrong, pb::Definition::default()] {
            assert_eq!(Named::of(&other), None, "{other:?}");
        }
    }

    #[test]
    fn definitions_of_clients_name_urls_and_folders() {
        let url = |text: &str| Some(Named::Url(text.to_owned()));
        let git = |place: &str| source(place, &[("git.fullurl", "https://h/r.git")]);
        assert_eq!(named(vec![source("https://h/f", &[])]), url("https://h/f"));
        assert_eq!(named(vec![git("git://h/r.git#main")]), url("https://h/r.git#main"));
        assert_eq!(named(vec![git("git://h/r.git")]), url("https://h/r.git#"));
        for (place, folder, whole) in [
            ("git://h/r.git#main", "/", "https://h/r.git#main"),
            ("git://h/r.git#main", "sub", "https://h/r.git#main:sub"),
            ("git://h/r.git#main:above", "sub/", "https://h/r.git#main:above/sub"),
        ] {
            assert_eq!(named(vec![git(place), copy(&git(place), folder, "/")]), url(whole), "{place} {folder}");
        }
        let base = source("docker-image://busybox", &[]);
        assert_eq!(named(vec![base]), None);
        assert_eq!(named(vec![git("git://h/r#"), copy(&git("git://h/r#"), "a", "/else")]), None);
        assert_eq!(named(vec![copy(&git("git://h/r#"), "a", "/")]), None, "of nothing that is there");
    }

    #[test]
    fn inputs_are_results_of_the_same_connection() {
        let (ours, others, name) = (Results::default(), Results::default(), "0-base".to_owned());
        let of = |results: &Results, definition: &pb::Definition| {
            let asked = HashMap::from([(name.clone(), definition.clone())]);
            results.inputs(&asked).map(|mut found| found.remove(&name)).map_err(|why| why.kind)
        };
        let image_of = |made: &proto::BuiltImage| Some(Input::Image(Box::new(made.clone())));
        let image = |platform: &str| proto::BuiltImage { platform: platform.to_owned(), ..Default::default() };
        let (made, guard) = ([image("linux/amd64"), image("linux/arm64")], Arc::new(()));
        let kept = ours.keep(&made, guard.clone());
        let definitions: Vec<_> = kept.iter().map(|kept| kept.def.clone().expect("named")).collect();
        for (definition, made) in definitions.iter().zip(&made) {
            assert_eq!(of(&ours, definition), Ok(image_of(made)));
            assert_eq!(of(&others, definition), Err(model::ErrorKind::NotFound));
        }
        assert_eq!(of(&ours, &pb::Definition::default()), Err(model::ErrorKind::Unimplemented));

        ours.forget(&[kept[0].id.clone()]);
        assert_eq!(of(&ours, &definitions[0]), Err(model::ErrorKind::NotFound), "it was forgotten");
        assert_eq!(of(&ours, &definitions[1]), Ok(image_of(&made[1])), "it was not");
        assert_eq!(Arc::strong_count(&guard), 2, "the other one needs its layers");
        ours.forget(&[kept[1].id.clone()]);
        assert_eq!(Arc::strong_count(&guard), 1, "nobody needs the layers");
    }

    #[test]
    fn only_who_builds_on_an_untold_result_hears_of_it() {
        let results = Results::default();
        let untold = results.keep_untold().def.expect("named");
        let why = results.inputs(&HashMap::from([("0-base".to_owned(), untold)])).expect_err("not known");
        assert_eq!(why.kind, model::ErrorKind::NotFound);
        assert!(why.message.starts_with("what an input's build made is not known"), "{}", why.message);
    }
}
