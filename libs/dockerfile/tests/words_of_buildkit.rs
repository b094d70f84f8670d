//! What BuildKit answers to wrong Dockerfiles, and the line that it marks.

use dockerfile::{Dialect, Dockerfile, Kind, Lexer, last_line, parse_instruction_as};

fn check(source: &str, line: usize, expected: &str) {
    let error = Dockerfile::parse_as(source, Dialect::BuildKit).expect_err(source);
    assert_eq!((error.line(), error.to_string().as_str()), (line, expected), "{source:?}");
}

fn on_line_2(instruction: &str, message: &str) {
    check(&format!("FROM scratch\n{instruction}\n"), 2, &format!("dockerfile parse error on line 2: {message}"));
}

#[test]
fn whole_file() {
    check("", 0, "the Dockerfile cannot be empty");
    check("# c\n", 1, "file with no instructions");
    check(
        &format!("FROM x\nENV A={}\n", "y".repeat(65_530)),
        1,
        "dockerfile line greater than max allowed size of 65535",
    );
    check("FRM x\n", 1, "dockerfile parse error on line 1: unknown instruction: FRM (did you mean FROM?)");
    check("FROM x\n\ncpy\n", 3, "dockerfile parse error on line 3: unknown instruction: cpy (did you mean copy?)");
    check("FROM x\n\napt-get\n", 3, "dockerfile parse error on line 3: unknown instruction: apt-get");
    check("RUN x\n", 1, "no build stage in current context");
    check("ARG A\n", 0, "dockerfile contains no stages to build");
    check("FROM x\nRUN <<E\ny\n", 2, "unterminated heredoc");
    check("FROM x\n\nENV a=b c\n", 3, "Syntax error - can't find = in \"c\". Must be of the form: name=value");
    check("# escape=x\nFROM x\n", 0, "invalid escape token 'x' does not match ` or \\");
    check("# escape=`\n# escape=`\nFROM x\n", 1, "only one escape parser directive can be used");
}

#[test]
fn flags() {
    on_line_2("COPY --form=x a b", "unknown flag: --form (did you mean from?)");
    on_line_2("RUN --foo=1 y", "unknown flag: --foo");
    on_line_2("COPY --from a b", "missing a value on flag: --from");
    on_line_2("COPY --link= a b", "missing a value on flag: --link");
    on_line_2("COPY --from=x --from=y a b", "duplicate flag specified: --from");
    on_line_2("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe");
    on_line_2("RUN --network=bridge x", "invalid network mode \"bridge\"");
    on_line_2("RUN --security=none x", "security \"none\" is not valid");
    on_line_2(
        "RUN --mount=from=$A,target=/x y",
        "'from' doesn't support variable expansion, define alias stage instead",
    );
}

/// A mount's mistakes are told where its variables are known.
#[test]
fn mounts() {
    on_line_2("RUN --mount='\"target=/x' y", "failed to parse csv mounts: extraneous or missing \" in quoted-field");
    for (mount, expected) in [
        ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
        ("type=cache,sharing=all,target=/x", "unsupported sharing value \"all\""),
        ("tpe=bind", "unexpected key 'tpe' in 'tpe=bind' (did you mean type?)"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("target=/x,bare", "invalid field 'bare' must be a key=value pair"),
        ("type=cache", "invalid mount target \"/\""),
        ("target=$NOTHING", "invalid mount target \"/\""),
    ] {
        let source = format!("RUN --mount={mount} y");
        let Kind::Run(run) = parse_instruction_as(&source, Dialect::BuildKit).expect(mount).kind else {
            panic!("not a RUN");
        };
        let error = run.mounts[0].expanded(&Lexer::new('\\'), &|_| None, "/").expect_err(mount);
        assert_eq!(error.to_string(), expected, "{mount}");
    }
}

#[test]
fn where_instructions_end() {
    let source = "# escape=`\nFROM x\nRUN a `\n\n b\nCOPY <<A <<B /\na\nA\nb\nB\nNOPE `\n x\nRUN <<C\nc\n";
    for (line, end) in [(2, 2), (3, 5), (6, 10), (11, 12), (13, 14), (4, 4), (99, 99)] {
        assert_eq!(last_line(source, line), end, "{line}");
    }
}

#[test]
fn heredocs_apart_from_their_word() {
    let heredocs = |source: &str| match parse_instruction_as(source, Dialect::BuildKit).map(|one| one.kind) {
        Ok(Kind::Run(run)) => run.heredocs.into_iter().map(|heredoc| heredoc.content).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(heredocs("RUN cat << EOF > /x\ny\nEOF\n"), ["y\n"]);
    assert_eq!(heredocs("RUN cat <<EOF > /x\r\ny\r\nEOF\r\n"), ["y\r\n"]);
    assert!(parse_instruction_as("RUN cat <<- EOF\ny\nEOF\n", Dialect::BuildKit).is_err());
}

#[test]
fn flags_of_copies() {
    let parse = |source: &str| parse_instruction_as(source, Dialect::BuildKit).expect(source).kind;
    let Kind::Copy(copy) = parse("COPY --link --parents --exclude=*.md --exclude=\"a b\" --chmod=u=rwX,go=rX a b /c/")
    else {
        panic!("not a COPY");
    };
    assert!(copy.link && copy.parents);
    assert_eq!(
        (copy.excludes, copy.chmod.as_deref()),
        (vec!["*.md".to_owned(), "a b".to_owned()], Some("u=rwX,go=rX"))
    );
    let add = parse("ADD --checksum=$SUM --keep-git-dir=true --unpack=false --link=false https://x/y /z");
    let lookup = |name: &str| (name == "SUM").then(|| "sha256:00".to_owned());
    let Kind::Add(add) = add.expanded(&Lexer::new('\\'), &lookup).expect("expanded") else { panic!("not an ADD") };
    assert_eq!(
        (add.checksum.as_deref(), add.keep_git_dir, add.unpack, add.link),
        (Some("sha256:00"), true, Some(false), false)
    );
}

#[test]
fn shown_as_progress_shows_it() {
    let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
    for (text, shown) in [
        ("RUN echo $A $B", "RUN echo 1 $B"),
        ("RUN echo \"$A\" '$A'", "RUN echo \"1\" '$A'"),
        ("RUN x ${A:-y} ${B:-y}", "RUN x 1 ${B:-y}"),
        ("RUN x ${", "RUN x ${"),
    ] {
        assert_eq!(Lexer::new('\\').describe(text, &lookup), shown);
    }
}
