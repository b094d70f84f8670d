//! Whatever the text, the answer is a value or an error.

use dockerfile::{Dockerfile, Glob, Ignore, Lexer, parse_changes};
use proptest::prelude::*;

/// Text that is likely to reach deep into the parser.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "FROM",
            "RUN",
            "COPY",
            "ADD",
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

proptest! {
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
    fn ignore(rules in "([!#/*?a\\[\\]\\\\ .\n-]|\\*\\*/){0,30}", path in "[ab/.]{0,12}") {
        let ignore = Ignore::parse(&rules);
        let skipped = ignore.excludes(&path, true);
        prop_assert!(!skipped || ignore.excludes(&path, false));
        let _ = Glob::new(&rules).map(|glob| glob.matches(&path));
    }
}
