//! What legal Dockerfiles mean.

use dockerfile::{ArgDeclaration, Command, Copy, Dockerfile, Heredoc, Instruction, Kind, Run, Test};

fn parse(source: &str) -> Dockerfile {
    Dockerfile::parse(source).expect(source)
}

fn second(instruction: &str) -> Instruction {
    parse(&format!("FROM scratch\n{instruction}\n")).stages[0].instructions[0].clone()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn shell(text: &str) -> Command {
    Command::Shell(Some(text.to_owned()))
}

fn exec(words: &[&str]) -> Command {
    Command::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn the_tutorial() {
    let file = parse("FROM ubuntu\nMAINTAINER shilps\nRUN apt-get update\nCMD [\"echo\", \"Hello World\"]\n");
    let stage = &file.stages[0];
    assert_eq!((stage.base.as_str(), stage.original.as_str()), ("ubuntu", "FROM ubuntu"));
    assert_eq!(stage.instructions[0].kind, Kind::Maintainer("shilps".into()));
    assert_eq!(
        stage.instructions[1].kind,
        Kind::Run(Run {
            command: shell("apt-get update"),
            heredocs: vec![],
            network: None,
            security: None,
            mounts: vec![],
            devices: vec![]
        })
    );
    assert_eq!(stage.instructions[2].kind, Kind::Cmd(exec(&["echo", "Hello World"])));
    assert_eq!(file.step_count(), 4);
}

#[test]
fn stages_and_arguments_before_them() {
    let file = parse("ARG A=1 B\nfrom --platform=$A img as One\nLABEL a=b\nFROM one AS two-2\nEXPOSE 90 80\n");
    assert_eq!(
        file.meta_args[0].kind,
        Kind::Arg(vec![
            ArgDeclaration { name: "A".into(), default: Some("1".into()) },
            ArgDeclaration { name: "B".into(), default: None },
        ])
    );
    assert_eq!(file.stages[0].name.as_deref(), Some("one"));
    assert_eq!(file.stages[0].platform.as_deref(), Some("$A"));
    assert_eq!(file.stages[1].name.as_deref(), Some("two-2"));
    assert_eq!(file.stages[1].instructions[0].kind, Kind::Expose(vec!["80".into(), "90".into()]));
    assert_eq!(file.step_count(), 5);
}

#[test]
fn originals_as_docker_prints_them() {
    for (source, printed) in [
        ("   LABEL a=b   ", "LABEL a=b"),
        ("Label   c=d", "Label   c=d"),
        ("LABEL a=b\\ \n c=d", "LABEL a=b c=d"),
        ("LABEL a=b \\\r\n c=d\r", "LABEL a=b  c=d"),
        ("LABEL a=b \\\n# cmt\n\n  c=d", "LABEL a=b   c=d"),
        ("LABEL x=y \\", "LABEL x=y"),
        ("USER\ta", "USER\ta"),
        ("RUN cat <<EOF > /x\nhi\nEOF", "RUN cat <<EOF > /x"),
    ] {
        assert_eq!(second(source).original, printed, "{source:?}");
    }
}

#[test]
fn pairs_of_env_and_label() {
    for (source, expected) in [
        ("ENV a b   c ", vec![pair("a", "b   c")]),
        (
            "ENV d=\"x y\" e=x\\ y f='q' g=$d",
            vec![pair("d", "\"x y\""), pair("e", "x\\ y"), pair("f", "'q'"), pair("g", "$d")],
        ),
        ("ENV a=b=c", vec![pair("a", "b=c")]),
        ("ENV a=", vec![pair("a", "")]),
        ("ENV a='\\' b=c", vec![pair("a", "'\\'"), pair("b", "c")]),
    ] {
        assert_eq!(second(source).kind, Kind::Env(expected), "{source:?}");
    }
    assert_eq!(second("LABEL \"\"=b").kind, Kind::Label(vec![pair("\"\"", "b")]));
}

#[test]
fn exec_and_shell_form() {
    for (source, expected) in [
        ("CMD", Command::Shell(None)),
        ("CMD []", exec(&[])),
        ("CMD [ \"a\" ,\"b\" ]  ", exec(&["a", "b"])),
        ("CMD [\"a\"] trailing", exec(&["a"])),
        ("CMD [a]", shell("[a]")),
        ("CMD [\"a\"", shell("[\"a\"")),
        ("CMD [\"a\",]", shell("[\"a\",]")),
        ("CMD a  b", shell("a  b")),
    ] {
        assert_eq!(second(source).kind, Kind::Cmd(expected), "{source:?}");
    }
}

#[test]
fn directives() {
    let file = parse("# escape = `\n# syntax=a/b\n#check=skip=all\nFROM scratch\nENV a=b`\n c=C:\\x\n");
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.directives.syntax.as_deref(), Some("a/b"));
    assert_eq!(file.directives.check.as_deref(), Some("skip=all"));
    assert_eq!(file.stages[0].instructions[0].kind, Kind::Env(vec![pair("a", "b"), pair("c", "C:\\x")]));
    let late = parse("# comment\n# escape=`\nFROM scratch\nLABEL a=b`\nLABEL c=d\n");
    assert_eq!(late.directives.escape, '\\');
    assert_eq!(late.stages[0].instructions.len(), 2);
}

#[test]
fn healthchecks() {
    let Kind::Healthcheck(check) =
        second("HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=3 CMD a b").kind
    else {
        panic!("not a health check");
    };
    assert_eq!(check.test, Test::Command(shell("a b")));
    assert_eq!(
        (check.interval_ns, check.timeout_ns, check.start_period_ns, check.retries),
        (5_000_000_000, 3_000_000_000, 60_000_000_000, 3)
    );
    let Kind::Healthcheck(none) = second("HEALTHCHECK none").kind else {
        panic!("not a health check");
    };
    assert_eq!(none.test, Test::None);
}

#[test]
fn heredocs() {
    let Kind::Run(run) = second("RUN <<-EOF 3<<'X'\n\ta\n# kept\n\tEOF\n$b\nX").kind else {
        panic!("not a RUN");
    };
    let heredoc = |name: &str, content: &str, expand, strip_tabs, descriptor| Heredoc {
        name: name.into(),
        content: content.into(),
        expand,
        strip_tabs,
        descriptor,
    };
    assert_eq!(run.heredocs, [heredoc("EOF", "a\n# kept\n", true, true, 0), heredoc("X", "$b\n", false, false, 3)]);
    assert_eq!(
        second("COPY --chown=1 x <<EOF /d/\nhi\nEOF").kind,
        Kind::Copy(Copy {
            sources: vec!["x".into()],
            heredocs: vec![heredoc("EOF", "hi\n", true, false, 0)],
            destination: "/d/".into(),
            from: None,
            chown: Some("1".into()),
            chmod: None,
            link: false,
            parents: false,
            excludes: vec![],
            checksum: None,
            keep_git_dir: false,
            unpack: None,
        })
    );
    // None of these announces a heredoc.
    for source in ["RUN echo $((1<<2))", "RUN cat <<< x", "RUN echo '<<EOF'", "CMD cat <<EOF"] {
        assert_eq!(second(source).original, source);
    }
}

#[test]
fn warning_of_blank_lines() {
    let file = parse("FROM scratch\nLABEL a=b \\\n\n  c=d\n");
    assert_eq!(
        file.warnings,
        [
            "[WARNING]: Empty continuation line found in:\n    LABEL a=b   c=d",
            "[WARNING]: Empty continuation lines will become errors in a future release.",
        ]
    );
    assert!(parse("\u{feff}FROM scratch\n").warnings.is_empty());
}

#[test]
fn triggers_keep_their_text() {
    assert_eq!(second("ONBUILD\tCOPY   a    b").kind, Kind::Onbuild("COPY   a    b".into()));
    assert_eq!(second("ONBUILD RUN <<E\nx\nE").kind, Kind::Onbuild("RUN <<E\nx\nE".into()));
}
