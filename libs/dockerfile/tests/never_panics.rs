//! Whatever the text, the answer is a value or an error.

use std::collections::BTreeMap;

use dockerfile::{
    BaseImage, Checks, Dialect, Dockerfile, Glob, Globals, GraphInput, Ignore, Kind, Lexer, LintInput, StageGraph,
    automatic_args, follow_paths, lint, outline, parse_changes, targets,
};
use proptest::prelude::*;

/// Text that is likely to reach deep into the parser.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "FROM",
            "RUN",
            "COPY",
            "ADD",
            "ADD https://example.com/x.tar /",
            "ADD --checksum=",
            "FROM a AS b\n",
            "FROM b\n",
            "FROM $A\n",
            "COPY --from=b x /\n",
            "COPY --link --parents --exclude=x --chmod=u+x a /\n",
            "RUN --mount=type=",
            "RUN --mount=type=cache,target=/x,from=b true\n",
            "RUN --mount=type=secret,id=s,env=E,",
            "RUN --network=none ",
            "ARG A=${B:?}\n",
            "ARG TARGETARCH\n",
            "# check=skip=all;error=true\n",
            "# syntax=x\n",
            "ONBUILD COPY --from=b",
            "ENV",
            "ARG",
            "LABEL",
            "ONBUILD",
            "HEALTHCHECK",
            "CMD",
            "SHELL",
            "EXPOSE",
            "VOLUME",
            "--from=",
            ",source=",
            "--interval=",
            "[\"a\"",
            "]",
            "<<EOF",
            "EOF",
            "<<-'X'",
            "\n",
            "\n",
            " ",
            "\t",
            "\\\n",
            "`",
            "#",
            "# escape=`\n",
            "=",
            "\"",
            "'",
            "$",
            "${",
            "}",
            ":-",
            "##",
            "//",
            "as",
            "scratch",
            "é",
            "\u{feff}",
            "\r\n",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Everything that is asked of a BuildKit Dockerfile before it is built.
fn plan(text: &str, target: &str) -> Option<()> {
    let file = Dockerfile::parse_as(text, Dialect::BuildKit).ok()?;
    let _ = targets(&file);
    let given = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
    let automatic = automatic_args("linux/amd64", "linux/arm64/v8", target);
    let lexer = Lexer::new(file.directives.escape);
    let globals = Globals::new(&file.meta_args, &lexer, automatic, &given).ok()?;
    let input = GraphInput { stages: &file.stages, globals: &globals, lexer: &lexer, target, context: &|_| None };
    let graph = StageGraph::new(input).ok()?;
    assert!(graph.needed.contains(&graph.target) && graph.needed.iter().all(|stage| *stage < graph.nodes.len()));
    let _ = outline(&file, &graph, &globals, &lexer).json();
    let ignore = Ignore::parse("x");
    let warnings = lint(LintInput {
        file: &file,
        globals: &globals,
        lexer: &lexer,
        graph: Some(&graph),
        checks: &Checks::of(&file, &globals).ok()?,
        all_stages: true,
        image: &|_| Some(BaseImage::default()),
        ignore: Some(&ignore),
    })
    .warnings;
    let lines = text.lines().count();
    assert!(warnings.iter().all(|warning| warning.line <= warning.end_line && warning.end_line <= lines));
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        if let Ok(Kind::Copy(copy)) = instruction.kind.expanded(&lexer, &|name| globals.value(name)) {
            let paths = follow_paths(copy.sources.iter().map(String::as_str));
            assert!(paths.iter().all(|path| !path.starts_with('/') && path.split('/').all(|part| part != "..")));
        }
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn plans_of_the_graph_builder(text in dockerfile_like(), target in "[ab0-2]?") {
        plan(&format!("FROM a\n{text}"), &target);
        plan(&text, &target);
    }

    #[test]
    fn parser(text in dockerfile_like()) {
        let _ = Dockerfile::parse(&text);
        let _ = parse_changes(&[text]);
    }

    #[test]
    fn parsed_instructions_parse_again(text in dockerfile_like()) {
        if let Ok(file) = Dockerfile::parse(&format!("FROM a\n{text}")) {
            prop_assert!(!file.stages.is_empty());
            prop_assert!(file.stages.iter().all(|stage| !stage.original.is_empty()));
        }
    }

    #[test]
    fn expansion(text in dockerfile_like(), value in ".{0,8}") {
        let lookup = |name: &str| name.len().is_multiple_of(2).then(|| value.clone());
        for escape in ['\\', '`'] {
            let _ = Lexer::new(escape).expand(&text, &lookup);
            let _ = Lexer::new(escape).expand_words(&text, &lookup);
        }
    }

    #[test]
    fn plain_words_stay(text in "[a-zA-Z0-9_./-]{0,20}") {
        prop_assert_eq!(Lexer::new('\\').expand(&text, &|_| None), Ok(text));
    }

    #[test]
    fn ignore(rules in "([!#/*?aé\0\\[\\]\\\\ .\n-]|\\*\\*/){0,30}", path in "[abé/.]{0,12}") {
        let ignore = Ignore::parse(&rules);
        let skipped = ignore.excludes(&path, true);
        prop_assert!(!skipped || ignore.excludes(&path, false));
        let _ = Glob::new(&rules).map(|glob| glob.matches(&path));
    }
}
