//! What Docker's classic builder (28.5) answers to wrong Dockerfiles, recorded from a dockerd.

use dockerfile::{Dockerfile, parse_changes, parse_instruction};

fn check(source: &str, expected: &str) {
    let error = Dockerfile::parse(source).expect_err(source);
    assert_eq!(error.to_string(), expected, "{source:?}");
}

/// The message of an instruction that stands on line 2, after a FROM.
fn on_line_2(instruction: &str, message: &str) {
    check(&format!("FROM scratch\n{instruction}\n"), &format!("dockerfile parse error on line 2: {message}"));
}

fn syntax(instruction: &str, message: &str) {
    check(&format!("FROM scratch\n{instruction}\n"), &format!("failed to parse Dockerfile: {message}"));
}

#[test]
fn whole_file() {
    check("# c\n", "failed to parse Dockerfile: file with no instructions");
    check("FRM x\n", "dockerfile parse error on line 1: unknown instruction: FRM (did you mean FROM?)");
    check("RUN x\n", "no build stage in current context");
    check("ENV a=b\nFROM scratch\n", "no build stage in current context");
    check("ARG A\n", "no build stage in current context");
    check(
        "FROM scratch\n\n\nLABEL a=b \\\n c=d\n\nFOO x\n",
        "dockerfile parse error on line 7: unknown instruction: FOO (did you mean FROM?)",
    );
    check("# escape=x\nFROM scratch\n", "failed to parse Dockerfile: invalid escape token 'x' does not match ` or \\");
    check(
        "# escape=\\\n# escape=`\nFROM scratch\n",
        "failed to parse Dockerfile: only one escape parser directive can be used",
    );
}

#[test]
fn from() {
    let arguments = "dockerfile parse error on line 1: FROM requires either one or three arguments";
    for source in ["FROM\n", "FROM a b\n", "FROM a AS\n", "FROM a b c\n"] {
        check(source, arguments);
    }
    for name in ["1x", "$x", "a/b"] {
        check(
            &format!("FROM scratch AS {name}\n"),
            &format!(
                "dockerfile parse error on line 1: invalid name for build stage: \"{name}\", name can't start with a number or contain symbols"
            ),
        );
    }
    check("FROM --platform scratch\n", "dockerfile parse error on line 1: missing a value on flag: --platform");
    check("FROM --foo=x scratch\n", "dockerfile parse error on line 1: unknown flag: --foo");
}

#[test]
fn arguments() {
    for name in ["COPY", "ADD"] {
        for rest in ["", " a", " [\"a\"]"] {
            on_line_2(
                &format!("{name}{rest}"),
                &format!(
                    "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
                ),
            );
        }
    }
    for name in ["ENV", "LABEL", "EXPOSE", "VOLUME", "ONBUILD", "HEALTHCHECK", "SHELL", "ARG"] {
        on_line_2(name, &format!("{name} requires at least one argument"));
    }
    for name in ["MAINTAINER", "USER", "WORKDIR", "STOPSIGNAL"] {
        on_line_2(name, &format!("{name} requires exactly one argument"));
    }
    on_line_2("SHELL []", "SHELL requires at least one argument");
    on_line_2("SHELL a", "SHELL requires the arguments to be in JSON form");
    on_line_2("VOLUME [\"\"]", "VOLUME specified can not be an empty string");
    on_line_2("ENV =b", "ENV names can not be blank");
    on_line_2("ARG =1", "ARG names can not be blank");
    on_line_2("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger");
    on_line_2("onbuild from x", "FROM isn't allowed as an ONBUILD trigger");
    on_line_2("ONBUILD MAINTAINER x", "MAINTAINER isn't allowed as an ONBUILD trigger");
    on_line_2("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
}

#[test]
fn splitting() {
    syntax("ENV a", "ENV must have two arguments");
    syntax("LABEL a", "LABEL must have two arguments");
    syntax("ONBUILD ENV a", "ENV must have two arguments");
    syntax("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value");
    syntax(
        "LABEL a=b \\\n# cmt\n\n  c=d \\\n\n\nLABEL x=y",
        "Syntax error - can't find = in \"LABEL\". Must be of the form: name=value",
    );
    for name in ["CMD", "VOLUME", "SHELL"] {
        syntax(&format!("{name} [\"a\", 1]"), "when using JSON array syntax, arrays must be comprised of strings only");
    }
    syntax("RUN <<EOF\nx", "unterminated heredoc");
}

#[test]
fn flags() {
    on_line_2("RUN --foo=1 y", "unknown flag: --foo");
    on_line_2("COPY --foo a b", "unknown flag: --foo (did you mean from?)");
    on_line_2("COPY --from a b", "missing a value on flag: --from");
    on_line_2("COPY --from=x --from=y a b", "duplicate flag specified: --from");
    on_line_2("ADD --from=x a b", "unknown flag: --from");
    on_line_2("USER --x=1 a", "unknown flag: --x");
    on_line_2("ENV --x=1", "unknown flag: --x");
    on_line_2("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe");
}

#[test]
fn healthcheck() {
    for (rest, message) in [
        ("NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("CMD", "Missing command after HEALTHCHECK CMD"),
        ("FOO a", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("--foo=1 CMD a", "unknown flag: --foo"),
        ("--interval=x CMD a", "time: invalid duration \"x\""),
        ("--interval=5 CMD a", "time: missing unit in duration \"5\""),
        ("--interval=5d CMD a", "time: unknown unit \"d\" in duration \"5d\""),
        ("--interval=1ns CMD a", "Interval \"interval\" cannot be less than 1ms"),
        ("--timeout=-1s CMD a", "Interval \"timeout\" cannot be less than 1ms"),
        ("--retries=0 CMD a", "--retries must be at least 1 (not 0)"),
        ("--retries=x CMD a", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        on_line_2(&format!("HEALTHCHECK {rest}"), message);
    }
}

#[test]
fn changes() {
    for (change, expected) in [
        ("FOO x", "FOO is not a valid change command"),
        ("RUN x", "RUN is not a valid change command"),
        ("SHELL [\"a\"]", "SHELL is not a valid change command"),
        ("USER", "USER requires exactly one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("USER --foo=x a", "unknown flag: --foo"),
        ("", "file with no instructions"),
    ] {
        let error = parse_changes(&[change.to_owned()]).expect_err(change);
        assert_eq!(error.to_string(), expected, "{change:?}");
    }
    let changes = ["CMD a\nENV x=y".to_owned(), " user q".to_owned()];
    let names: Vec<_> = parse_changes(&changes).expect("legal").iter().map(|change| change.name()).collect();
    assert_eq!(names, ["CMD", "ENV", "USER"]);
    assert_eq!(parse_changes(&[]), Ok(Vec::new()));
}

#[test]
fn triggers() {
    assert_eq!(
        parse_instruction("FOO x").expect_err("unknown").to_string(),
        "dockerfile parse error on line 1: unknown instruction: FOO (did you mean FROM?)"
    );
    assert!(parse_instruction("RUN a\nRUN b").is_err());
    assert_eq!(parse_instruction("COPY a b").expect("legal").name(), "COPY");
}
