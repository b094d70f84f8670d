//! What is told of a step besides its output: when, whether it was found, and what its key is made of. It goes into the
//! build's history; classic clients do not see it.

use model::Digest;
use proto::{BuildTrace, BuildVertex, KeyInput};

use super::stage::Stage;
use super::{Builder, Progress};
use crate::failure::Failure;
use crate::wording;

/// Instructions are cut to so many characters.
const NAME_CHARACTERS: usize = 1000;
/// Characters of a hash that tell two values apart.
const SHORT: usize = 16;

/// What [`Builder::begin_step`] knows of a step.
#[derive(Clone, Debug)]
pub struct Told {
    pub key: String,
    pub inputs: Vec<KeyInput>,
    pub cached: bool,
}

impl Told {
    /// Of a step with this line in the history, in a stage as it is before the step.
    pub fn of(stage: &mut Stage, command: &[String]) -> Result<Self, Failure> {
        let mut inputs = std::mem::take(&mut stage.read);
        inputs.extend(arguments(command).map(|(name, value)| input("arg", name, value)));
        for variable in &stage.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            inputs.push(input("env", name, value));
        }
        for (name, value) in [("user", &stage.config.user), ("working directory", &stage.config.working_dir)] {
            if !value.is_empty() {
                inputs.push(input("option", name, value));
            }
        }
        Ok(Self { key: stage.key(command)?, inputs, cached: false })
    }
}

/// RUN's build arguments stand before its command: `|2 A=1 B=2 /bin/sh -c ...`.
fn arguments(command: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let count = command.first().and_then(|first| first.strip_prefix('|')?.parse::<usize>().ok()).unwrap_or(0);
    command.iter().skip(1).take(count).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// An input by a hash of its value: what is remembered must not hold what may be a secret.
pub fn input(kind: &str, name: &str, value: &str) -> KeyInput {
    let digest = Digest::of(value.as_bytes()).hex()[..SHORT].to_owned();
    KeyInput { kind: kind.to_owned(), name: name.to_owned(), digest }
}

/// A step that goes on.
pub struct Telling {
    vertex: BuildVertex,
    parent: KeyInput,
}

impl Builder {
    /// An instruction, or a stage's FROM, begins. `after` is the step before it in the stage.
    pub(super) async fn tell_begin(
        &self,
        progress: &Progress,
        (line, original): (usize, &str),
        (after, stage): (Option<&BuildVertex>, &Stage),
    ) -> Result<Telling, Failure> {
        let text: String = original.chars().take(NAME_CHARACTERS).collect();
        let place = progress.place();
        let vertex = BuildVertex {
            digest: Digest::of(format!("{} {} {}", self.build_id, progress.number, progress.step).as_bytes())
                .to_string(),
            inputs: after.map(|after| after.digest.clone()).into_iter().collect(),
            name: format!("[{place}] {text}"),
            started_ns: now_ns(),
            worker: self.claims.worker_id().to_owned(),
            line: u32::try_from(line).unwrap_or(0),
            ..BuildVertex::default()
        };
        self.tell(&vertex).await?;
        let parent = input("parent", after.map_or("", |after| after.name.as_str()), &stage.image_id);
        Ok(Telling { vertex, parent })
    }

    /// It is over; `text` is the instruction as its key sees it.
    pub(super) async fn tell_end(
        &self,
        Telling { mut vertex, parent }: Telling,
        told: Option<Told>,
        done: &Result<(), Failure>,
    ) -> Result<BuildVertex, Failure> {
        vertex.completed_ns = now_ns();
        if let Some(Told { key, inputs, cached }) = told {
            let text = vertex.name.split_once("] ").map_or("", |(_, text)| text).to_owned();
            let instruction = KeyInput { kind: "instruction".to_owned(), name: String::new(), digest: text };
            vertex.key_inputs = [vec![instruction, parent], inputs].concat();
            (vertex.key, vertex.cached) = (key, cached);
        }
        if let Err(failure) = done {
            (vertex.error, vertex.code) = (failure.to_string(), failure.code());
        }
        if vertex.cached {
            vertex.worker.clear();
        }
        if self.options.no_cache && !vertex.key.is_empty() {
            vertex.reason = wording::CACHE_UNUSED.to_owned();
        }
        self.tell(&vertex).await?;
        vertex.key_inputs.clear();
        Ok(vertex)
    }

    async fn tell(&self, vertex: &BuildVertex) -> Result<(), Failure> {
        Ok(self.log.trace(BuildTrace { vertices: vec![vertex.clone()], ..BuildTrace::default() }).await?)
    }
}

fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_is_made_of_is_named_without_its_values() {
        let mut stage = Stage { read: vec![input("file", "a.c", "file:1")], ..Stage::default() };
        stage.config.env = vec!["PATH=/bin".to_owned()];
        stage.config.user = "me".to_owned();
        let command = ["|1", "TOKEN=secret", "/bin/sh", "-c", "make X=1"].map(str::to_owned);
        let told = Told::of(&mut stage, &command).expect("told");
        let named: Vec<_> = told.inputs.iter().map(|input| (input.kind.as_str(), input.name.as_str())).collect();
        assert_eq!(named, [("file", "a.c"), ("arg", "TOKEN"), ("env", "PATH"), ("option", "user")]);
        assert!(!format!("{told:?}").contains("secret"));
        assert!(stage.read.is_empty(), "the files are of one step");
        assert_ne!(input("arg", "A", "1"), input("arg", "A", "2"));
    }
}
