//! Another parser of Dockerfiles (the crate parse-dockerfile) reads the same in what both read.
//!
//! Where the two differ by design nothing is compared: it does not split words, and knows no heredocs of variables.

use dockerfile::{Command, Copy, Dialect, Dockerfile, Kind};
use parse_dockerfile::{Command as TheirCommand, Instruction as Theirs, Source};
use proptest::prelude::*;

/// An instruction as name and arguments, for what both parsers tell.
type Seen = (&'static str, Vec<String>);

fn ours(text: &str) -> Vec<Seen> {
    let file = Dockerfile::parse_as(text, Dialect::BuildKit).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut seen = Vec::new();
    for stage in file.stages {
        let name = stage.name.map(|name| name.to_lowercase());
        seen.push(("FROM", [Some(stage.base), name].into_iter().flatten().collect()));
        for instruction in stage.instructions {
            let arguments = match &instruction.kind {
                Kind::Run(run) => command(&run.command, run.heredocs.iter().map(|heredoc| heredoc.content.clone())),
                Kind::Cmd(given) | Kind::Entrypoint(given) => command(given, std::iter::empty()),
                Kind::Copy(copy) | Kind::Add(copy) => copied(copy),
                Kind::Workdir(path) | Kind::User(path) | Kind::Stopsignal(path) => vec![path.clone()],
                Kind::Shell(words) | Kind::Volume(words) => words.clone(),
                _ => Vec::new(),
            };
            seen.push((instruction.name(), arguments));
        }
    }
    seen
}

fn command(command: &Command, heredocs: impl Iterator<Item = String>) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            // White space is no difference; the other parser takes the words of heredocs out of the line.
            let text = text.as_deref().unwrap_or_default();
            let is_word = |word: &&str| !word.starts_with("<<");
            text.split_whitespace().filter(is_word).map(str::to_owned).chain(heredocs).collect()
        }
    }
}

fn copied(copy: &Copy) -> Vec<String> {
    let heredocs = copy.heredocs.iter().map(|heredoc| heredoc.content.clone());
    copy.sources.iter().cloned().chain(heredocs).chain([copy.destination.clone()]).collect()
}

fn theirs(text: &str) -> Vec<Seen> {
    let file = parse_dockerfile::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut seen = Vec::new();
    for instruction in &file.instructions {
        seen.push(match instruction {
            Theirs::From(from) => {
                let name = from.as_.as_ref().map(|(_, name)| name.value.to_lowercase());
                ("FROM", [Some(from.image.value.clone().into_owned()), name].into_iter().flatten().collect())
            }
            Theirs::Run(run) => {
                let heredocs = run.here_docs.iter().map(|heredoc| heredoc.value.clone().into_owned());
                ("RUN", their_command(&run.arguments).into_iter().chain(heredocs).collect())
            }
            Theirs::Cmd(given) => ("CMD", their_command(&given.arguments)),
            Theirs::Entrypoint(given) => ("ENTRYPOINT", their_command(&given.arguments)),
            Theirs::Copy(copy) => ("COPY", sources(&copy.src, &copy.dest.value)),
            Theirs::Add(add) => ("ADD", sources(&add.src, &add.dest.value)),
            Theirs::Workdir(path) => ("WORKDIR", vec![path.arguments.value.clone().into_owned()]),
            Theirs::User(user) => ("USER", vec![user.arguments.value.clone().into_owned()]),
            Theirs::Stopsignal(signal) => ("STOPSIGNAL", vec![signal.arguments.value.clone().into_owned()]),
            Theirs::Shell(shell) => {
                ("SHELL", shell.arguments.iter().map(|word| word.value.clone().into_owned()).collect())
            }
            Theirs::Env(_) => ("ENV", Vec::new()),
            Theirs::Label(_) => ("LABEL", Vec::new()),
            Theirs::Arg(_) => ("ARG", Vec::new()),
            Theirs::Expose(_) => ("EXPOSE", Vec::new()),
            other => panic!("not among what is written here: {other:?}"),
        });
    }
    seen
}

fn their_command(command: &TheirCommand) -> Vec<String> {
    match command {
        TheirCommand::Exec(words) => words.value.iter().map(|word| word.value.clone().into_owned()).collect(),
        TheirCommand::Shell(text) => {
            // It keeps the line as written; Docker joins lines and drops comments inside.
            let lines = text.value.lines().filter(|line| !line.trim_start().starts_with('#'));
            let joined: String = lines.map(|line| line.trim_end().trim_end_matches('\\')).collect();
            joined.split_whitespace().map(str::to_owned).collect()
        }
        other => panic!("a command of a new kind: {other:?}"),
    }
}

fn sources(sources: &[Source], destination: &str) -> Vec<String> {
    let source = |source: &Source| match source {
        Source::Path(path) => path.value.clone().into_owned(),
        Source::HereDoc(heredoc) => heredoc.value.clone().into_owned(),
        other => panic!("a source of a new kind: {other:?}"),
    };
    // Docker takes files that are written in the Dockerfile after the others.
    let is_path = |source: &&Source| matches!(source, Source::Path(_));
    let (paths, texts): (Vec<_>, Vec<_>) = sources.iter().partition(is_path);
    paths.into_iter().chain(texts).map(source).chain([destination.to_owned()]).collect()
}

/// One instruction that is well formed.
fn instruction() -> impl Strategy<Value = String> {
    let word = "[a-z0-9_./$][a-z0-9_./$-]{0,4}[a-z0-9]";
    let gap = proptest::sample::select(vec![" ", "  ", "\t", " \\\n", " \\\n# a comment\n  "]);
    let name = |name: &'static str| {
        let lower = name.to_lowercase();
        proptest::sample::select(vec![name.to_owned(), lower])
    };
    let json = proptest::collection::vec("[a-z0-9 /.]{0,6}", 1..4)
        .prop_map(|words| format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")));
    prop_oneof![
        (name("RUN"), gap.clone(), proptest::collection::vec(word, 1..4), gap.clone())
            .prop_map(|(name, gap, words, between)| format!("{name}{gap}{}", words.join(between))),
        (name("RUN"), json.clone()).prop_map(|(name, json)| format!("{name} {json}")),
        (name("CMD"), json.clone()).prop_map(|(name, json)| format!("{name} {json}")),
        (name("SHELL"), json).prop_map(|(name, json)| format!("{name} {json}")),
        (name("ENTRYPOINT"), word).prop_map(|(name, word)| format!("{name} {word}")),
        (name("COPY"), gap.clone(), proptest::collection::vec(word, 2..4), gap.clone())
            .prop_map(|(name, gap, words, between)| format!("{name}{gap}--from=x{between}{}", words.join(between))),
        (name("ADD"), word, word).prop_map(|(name, from, to)| format!("{name} --chown=1 {from} {to}")),
        (name("WORKDIR"), gap, word).prop_map(|(name, gap, word)| format!("{name}{gap}{word}")),
        (name("USER"), word).prop_map(|(name, word)| format!("{name} {word}")),
        (name("ENV"), word).prop_map(|(name, word)| format!("{name} A={word}")),
        (name("ARG"), word).prop_map(|(name, word)| format!("{name} A={word}")),
        (name("LABEL"), word).prop_map(|(name, word)| format!("{name} A={word}")),
        "[a-z ]{0,6}".prop_map(|text| format!("# {text}")),
        Just(String::new()),
        ("[A-Z]{1,3}", "[a-z $\n]{0,10}").prop_map(|(end, text)| format!("RUN <<{end}\n{text}\n{end}")),
        ("[A-Z]{1,3}", "[a-z $\n]{0,10}").prop_map(|(end, text)| format!("COPY <<'{end}' a /to/\n{text}\n{end}")),
        word.prop_map(|word| format!("FROM {word} AS STAGE")),
    ]
}

proptest! {
    #[test]
    fn both_read_the_same(instructions in proptest::collection::vec(instruction(), 0..12)) {
        // The other parser refuses a name that two stages have.
        let named = instructions.iter().enumerate().map(|(at, text)| text.replace("STAGE", &format!("s{at}")));
        let text = format!("FROM base\n{}\n", named.collect::<Vec<_>>().join("\n"));
        prop_assert_eq!(ours(&text), theirs(&text), "{}", text);
    }
}
