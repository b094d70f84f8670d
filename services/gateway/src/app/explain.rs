//! Why a step of a build ran: what its key is made of now, beside the last build of the same (`build_history::sameness`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::{BuildVertex, KeyInput};

use super::build_history::sameness;
use super::{App, Failure, Outcome};

/// What has become of an input since the last build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Changed,
    Added,
    Removed,
}

/// An input that differs from the last build's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As in [`KeyInput`].
    pub kind: String,
    pub name: String,
    pub change: Change,
}

/// Why a step was not found in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was found: there is nothing to explain.
    Cached,
    /// No earlier build of the same is remembered.
    FirstBuild,
    /// The last build had no such step.
    NewStep,
    /// These inputs differ, the most telling first.
    Inputs(Vec<Difference>),
    /// The last build's step had the same inputs and failed.
    FailedBefore,
    /// All inputs are the same: the result was removed since.
    ResultGone,
}

/// The order in which differences are told; other kinds come last.
const KINDS: [&str; 9] = ["instruction", "image", "arg", "env", "file", "mount", "option", "platform", "parent"];

/// A step of a build with the reason why it ran.
pub struct Explained {
    pub step: BuildVertex,
    pub why: Why,
}

/// A build's steps with their reasons.
pub struct Explanation {
    /// The build that it is compared with.
    pub last: Option<String>,
    pub steps: Vec<Explained>,
}

impl App {
    /// Explains each step of a build that has begun.
    ///
    /// # Errors
    /// `NotFound` for a build that is not remembered.
    pub async fn explain_build(self: &Arc<Self>, id: &str) -> Outcome<Explanation> {
        let build = self.db.build(id).await?.ok_or_else(|| Failure::not_found(format!("no such build: {id}")))?;
        let options: proto::BuildOptions = prost::Message::decode(build.options.as_slice()).unwrap_or_default();
        let last = self.db.last_of_same(&sameness(&options), build.created_ms).await?;
        // What has no key is never looked for in the cache: there is nothing to explain.
        let explained = |step: &BuildVertex| step.started_ns != 0 && (step.cached || !step.key.is_empty());
        let steps = self.steps_of_build(id).await?.into_iter().filter(explained);
        let before = match &last {
            Some(last) => Some(self.steps_of_build(last).await?),
            None => None,
        };
        let steps = steps.map(|step| Explained { why: why(&step, before.as_deref()), step }).collect();
        Ok(Explanation { last, steps })
    }
}

/// Why `step` ran, beside the steps of the last build of the same.
pub fn why(step: &BuildVertex, last: Option<&[BuildVertex]>) -> Why {
    if step.cached {
        return Why::Cached;
    }
    let Some(last) = last else { return Why::FirstBuild };
    let Some(before) = counterpart(step, last) else { return Why::NewStep };
    let differences = differences(&step.key_inputs, &before.key_inputs);
    match differences.is_empty() {
        false => Why::Inputs(differences),
        true if step.key == before.key && before.error.is_empty() => Why::ResultGone,
        true if step.key == before.key => Why::FailedBefore,
        // Its inputs are not known in full.
        true => Why::Inputs(vec![changed("parent", "")]),
    }
}

/// The step of the last build that stood for the same: in the same stage the one with the same text, else the one in the
/// same place.
fn counterpart<'a>(step: &BuildVertex, last: &'a [BuildVertex]) -> Option<&'a BuildVertex> {
    let (place, text) = split(&step.name);
    let stage = stage_of(place);
    let in_stage = || last.iter().filter(|other| stage_of(split(&other.name).0) == stage);
    in_stage().find(|other| split(&other.name).1 == text).or_else(|| {
        let in_place = |other: &&BuildVertex| !place.is_empty() && number_of(split(&other.name).0) == number_of(place);
        in_stage().find(in_place)
    })
}

/// `[build 2/5] RUN make` is `build 2/5` and `RUN make`.
fn split(name: &str) -> (&str, &str) {
    let parts = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    parts.unwrap_or(("", name))
}

/// `build 2/5` is of `build`; the only stage of a Dockerfile has no name.
fn stage_of(place: &str) -> &str {
    match place.rsplit_once(' ') {
        Some((stage, _)) => stage,
        None if place.contains('/') => "",
        None => place,
    }
}

/// `build 2/5` is the second.
fn number_of(place: &str) -> Option<u32> {
    let count = place.rsplit(' ').next()?;
    count.split_once('/')?.0.parse().ok()
}

fn differences(now: &[KeyInput], before: &[KeyInput]) -> Vec<Difference> {
    let index = |inputs: &[KeyInput]| -> BTreeMap<(String, String), String> {
        inputs.iter().map(|input| ((input.kind.clone(), input.name.clone()), input.digest.clone())).collect()
    };
    let (now, before) = (index(now), index(before));
    let mut found = Vec::new();
    for ((kind, name), digest) in &now {
        match before.get(&(kind.clone(), name.clone())) {
            Some(other) if other == digest => {}
            Some(_) => found.push(changed(kind, name)),
            None => found.push(Difference { change: Change::Added, ..changed(kind, name) }),
        }
    }
    for (kind, name) in before.keys().filter(|key| !now.contains_key(*key)) {
        found.push(Difference { change: Change::Removed, ..changed(kind, name) });
    }
    renamed_parents(&mut found);
    let order: HashMap<&str, usize> = KINDS.iter().zip(0..).map(|(kind, place)| (*kind, place)).collect();
    found.sort_by_key(|difference| order.get(difference.kind.as_str()).copied().unwrap_or(KINDS.len()));
    found
}

/// There is one parent: that it is called otherwise now is one change.
fn renamed_parents(found: &mut Vec<Difference>) {
    let is = |change: Change| move |difference: &Difference| difference.kind == "parent" && difference.change == change;
    if found.iter().any(is(Change::Added))
        && let Some(place) = found.iter().position(is(Change::Removed))
    {
        found.remove(place);
        for difference in found.iter_mut().filter(|difference| difference.kind == "parent") {
            difference.change = Change::Changed;
        }
    }
}

fn changed(kind: &str, name: &str) -> Difference {
    Difference { kind: kind.to_owned(), name: name.to_owned(), change: Change::Changed }
}

/// A difference in words: "file src/main.c changed".
pub fn words(difference: &Difference) -> String {
    let Difference { kind, name, change } = difference;
    let what = match (kind.as_str(), name.as_str()) {
        ("arg", name) => format!("build argument {name}"),
        ("env", name) => format!("environment variable {name}"),
        ("mount", name) => format!("mount at {name}"),
        ("parent", "") => "the parent".to_owned(),
        ("parent", name) => format!("parent {name}"),
        ("instruction", _) => "the instruction".to_owned(),
        ("platform", _) => "the platform".to_owned(),
        (kind, "") => format!("the {kind}"),
        (kind, name) => format!("{kind} {name}"),
    };
    match change {
        Change::Changed => format!("{what} changed"),
        Change::Added => format!("{what} is new"),
        Change::Removed => format!("{what} is gone"),
    }
}

/// The whole reason in words, one line for each; of many files the first few are named.
pub fn reasons(why: &Why) -> Vec<String> {
    const FILES: usize = 10;
    match why {
        Why::Cached => Vec::new(),
        Why::FirstBuild => vec!["no earlier build of the same is remembered".to_owned()],
        Why::NewStep => vec!["the last build had no such step".to_owned()],
        Why::FailedBefore => vec!["it failed in the last build too".to_owned()],
        Why::ResultGone => {
            vec!["nothing changed: its result was removed from the cache since the last build".to_owned()]
        }
        Why::Inputs(differences) => {
            let (files, others): (Vec<_>, Vec<_>) = differences.iter().partition(|other| other.kind == "file");
            let mut lines: Vec<String> = files.iter().take(FILES).map(|file| words(file)).collect();
            if files.len() > FILES {
                lines.push(format!("and {} more files", files.len() - FILES));
            }
            // What lies above a step has changed with what it is made of: the parent is told last.
            let (parents, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|other| other.kind == "parent");
            let mut all: Vec<String> = others.iter().map(|other| words(other)).collect();
            all.append(&mut lines);
            all.extend(parents.iter().map(|parent| words(parent)));
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, key: &str, inputs: &[(&str, &str, &str)]) -> BuildVertex {
        let key_inputs = inputs
            .iter()
            .map(|(kind, name, digest)| KeyInput {
                kind: (*kind).to_owned(),
                name: (*name).to_owned(),
                digest: (*digest).to_owned(),
            })
            .collect();
        BuildVertex { name: name.to_owned(), key: key.to_owned(), key_inputs, started_ns: 1, ..Default::default() }
    }

    fn check(now: &BuildVertex, last: &[BuildVertex], wanted: &[&str]) {
        assert_eq!(reasons(&why(now, Some(last))), wanted, "{now:?}");
    }

    #[test]
    fn the_input_that_changed_is_named() {
        let make = |key: &str, inputs: &[(&str, &str, &str)]| step("[build 2/3] RUN make", key, inputs);
        let last = [
            step("[build 1/3] FROM busybox", "a", &[("image", "busybox", "1")]),
            make(
                "b",
                &[
                    ("instruction", "", "RUN make"),
                    ("arg", "V", "1"),
                    ("env", "E", "1"),
                    ("parent", "[build 1/3] FROM busybox", "p"),
                ],
            ),
            step(
                "[build 3/3] COPY . /src",
                "c",
                &[("file", "a.c", "1"), ("file", "b.c", "1"), ("parent", "[build 2/3] RUN make", "q")],
            ),
        ];
        check(
            &make(
                "x",
                &[
                    ("instruction", "", "RUN make"),
                    ("arg", "V", "2"),
                    ("env", "E", "1"),
                    ("parent", "[build 1/3] FROM busybox", "p"),
                ],
            ),
            &last,
            &["build argument V changed"],
        );
        check(
            &make(
                "x",
                &[
                    ("instruction", "", "RUN make"),
                    ("env", "E", "2"),
                    ("env", "F", "1"),
                    ("parent", "[build 1/3] FROM busybox", "p"),
                ],
            ),
            &last,
            &["build argument V is gone", "environment variable E changed", "environment variable F is new"],
        );
        check(
            &step(
                "[build 3/3] COPY . /src",
                "x",
                &[("file", "a.c", "2"), ("file", "c.c", "1"), ("parent", "[build 2/3] RUN make", "r")],
            ),
            &last,
            &["file a.c changed", "file c.c is new", "file b.c is gone", "parent [build 2/3] RUN make changed"],
        );
        check(
            &step(
                "[build 2/3] RUN make all",
                "x",
                &[
                    ("instruction", "", "RUN make all"),
                    ("arg", "V", "1"),
                    ("env", "E", "1"),
                    ("parent", "[build 1/3] FROM busybox", "p"),
                ],
            ),
            &last,
            &["the instruction changed"],
        );
        check(&step("[build 1/3] FROM busybox", "x", &[("image", "busybox", "2")]), &last, &["image busybox changed"]);
        check(&step("[other 1/1] RUN x", "x", &[]), &last, &["the last build had no such step"]);
        let moved = [
            ("instruction", "", "RUN make"),
            ("arg", "V", "1"),
            ("env", "E", "1"),
            ("parent", "[build 2/4] RUN first", "z"),
        ];
        check(&step("[build 3/4] RUN make", "x", &moved), &last, &["parent [build 2/4] RUN first changed"]);
    }

    #[test]
    fn where_no_input_changed_it_is_said_why() {
        let make = step("[2/2] RUN make", "k", &[("arg", "V", "1")]);
        let failed = BuildVertex { error: "exit code: 1".to_owned(), ..make.clone() };
        let cached = BuildVertex { cached: true, ..make.clone() };
        let last = [make.clone()];
        for (now, last, wanted) in [
            (&make, None, Why::FirstBuild),
            (&make, Some(&last[..]), Why::ResultGone),
            (&make, Some(&[failed][..]), Why::FailedBefore),
            (&cached, None, Why::Cached),
        ] {
            assert_eq!(why(now, last), wanted, "{now:?}");
        }
    }

    #[test]
    fn of_many_files_a_few_are_named() {
        let files = |digest: &str| -> Vec<KeyInput> {
            let file =
                |number| KeyInput { kind: "file".to_owned(), name: format!("f{number:02}"), digest: digest.to_owned() };
            (0..15).map(file).collect()
        };
        let copy = |digest: &str| BuildVertex { key_inputs: files(digest), ..step("[2/2] COPY . /", digest, &[]) };
        let lines = reasons(&why(&copy("1"), Some(&[copy("2")])));
        assert_eq!(lines.len(), 11);
        assert_eq!((lines[0].as_str(), lines[10].as_str()), ("file f00 changed", "and 5 more files"));
    }
}
