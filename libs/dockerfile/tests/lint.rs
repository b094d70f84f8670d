//! BuildKit's rules: each with a file that breaks it and, where it is close, one that does not.

use std::collections::BTreeMap;

use dockerfile::{
    BaseImage, Checks, Dialect, Dockerfile, Findings, Globals, GraphInput, Ignore, Lexer, LintInput, StageGraph,
    Warning, automatic_args, lint, outline, targets,
};

struct Read {
    file: Dockerfile,
    globals: Globals,
    graph: StageGraph,
}

fn read(source: &str, given: &[(&str, &str)], target: &str) -> Read {
    let file = Dockerfile::parse_as(source, Dialect::BuildKit).expect(source);
    let lexer = Lexer::new(file.directives.escape);
    let given: BTreeMap<String, String> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let automatic = automatic_args("linux/amd64", "linux/amd64", target);
    let globals = Globals::new(&file.meta_args, &lexer, automatic, &given).expect(source);
    let input = GraphInput { stages: &file.stages, globals: &globals, lexer: &lexer, target, context: &|_: &str| None };
    let graph = StageGraph::new(input).expect(source);
    Read { file, globals, graph }
}

fn warnings(source: &str) -> Vec<Warning> {
    findings(source).warnings
}

fn findings(source: &str) -> Findings {
    let Read { file, globals, graph } = read(source, &[], "");
    let checks = Checks::of(&file, &globals).expect(source);
    let image = |_: usize| {
        Some(BaseImage {
            environment: vec!["HOME=/root".to_owned()],
            has_shell: false,
            platform: "linux/arm64/v8".to_owned(),
            wanted_platform: if source.contains("386") { "linux/386" } else { "linux/arm64" }.to_owned(),
        })
    };
    lint(LintInput {
        file: &file,
        globals: &globals,
        lexer: &Lexer::new('\\'),
        graph: Some(&graph),
        checks: &checks,
        all_stages: true,
        image: &image,
        ignore: Some(&Ignore::parse("secret\nbuild\n!build/keep\n")),
    })
}

fn check(source: &str, expected: &[&str]) {
    let told: Vec<String> = warnings(source).iter().map(Warning::short).collect();
    assert_eq!(told, expected, "{source}");
}

#[test]
fn words_of_the_file() {
    check("FROM a AS One\n", &["StageNameCasing: Stage name 'One' should be lowercase (line 1)"]);
    check("FROM a as one\n", &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]);
    check("from a as one\n", &[]);
    check("FROM a\nCOPY x \\\n\n y\n", &["NoEmptyContinuation: Empty continuation line (line 4)"]);
    check(
        "FROM a\nRUN x\nrun y\nCopy a b\n",
        &[
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
            "ConsistentInstructionCasing: Command 'Copy' should match the case of the command majority (uppercase) (line 4)",
        ],
    );
    check(
        "FROM a AS x\nFROM b AS x\nFROM c AS context\n",
        &[
            "DuplicateStageName: Duplicate stage name \"x\", stage names should be unique (line 2)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 3)",
        ],
    );
    check(
        "FROM a\nMAINTAINER me\n",
        &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    );
    check(
        "FROM a\nENV a b\nLABEL c d\nENV e=f\n",
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 3)",
        ],
    );
}

#[test]
fn from_and_platforms() {
    check(
        "ARG VERSION=1\nFROM a:$VERSON\n",
        &[
            "InvalidDefaultArgInFrom: Default value for ARG a:$VERSON results in empty or invalid base image name (line 2)",
            "UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?) (line 2)",
        ],
    );
    check("ARG V\nFROM a:${V:-1}\n", &[]);
    check(
        "FROM --platform=$TARGETPLATFORM a\n",
        &[
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ],
    );
    check(
        "FROM --platform=linux/amd64 a\nFROM --platform=linux/amd64 b AS build_amd64\n",
        &[
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ],
    );
    check(
        "FROM --platform=linux/386 a AS on_386\n",
        &[
            "InvalidBaseImagePlatform: Base image a was pulled with platform \"linux/arm64/v8\", expected \"linux/386\" for current build (line 1)",
        ],
    );
}

#[test]
fn instructions_of_a_stage() {
    check(
        "FROM a\nCMD x\nCMD [\"y\"]\nENTRYPOINT z\n",
        &[
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
            "JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 4)",
        ],
    );
    check("FROM a\nSHELL [\"x\"]\nCMD y\n", &[]);
    check(
        "FROM a AS one\nWORKDIR sub\nWORKDIR other\nFROM one\nWORKDIR z\n",
        &[
            "WorkdirRelativePath: Relative workdir \"sub\" can have unexpected results if the base image changes (line 2)",
        ],
    );
    check(
        "FROM a\nARG N\nWORKDIR /$HOME/$N/$HOMER\nCOPY --chown=$U x /\nRUN --mount=target=/$T echo $X\n",
        &[
            "UndefinedVar: Usage of undefined variable '$HOMER' (did you mean $HOME?) (line 3)",
            "UndefinedVar: Usage of undefined variable '$U' (line 4)",
            "UndefinedVar: Usage of undefined variable '$T' (line 5)",
        ],
    );
    // What fails the build there tells of its variables only where they could be looked up; nothing behind it is told.
    let findings = findings("FROM a\nENV A=1 B=$A$X\nRUN --mount=target=$T true\nCOPY $Y /\n");
    let lines: Vec<usize> = findings.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!((lines, findings.error.map(|error| error.line())), (vec![2, 2, 3], Some(3)));
    check("FROM a\nARG A=1 B=$A\nENV C=${X^}\nENV D=$Y\n", &[]);
    check("FROM a\nLABEL \"a b\"=c\n", &[]);
    check(
        "FROM a\nARG API_KEY\nENV GITHUB_TOKEN=x PUBLIC_KEY=y KEYS=z\n",
        &[
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\") (line 2)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"GITHUB_TOKEN\") (line 3)",
        ],
    );
    check(
        "FROM a\nEXPOSE 80/TCP\nEXPOSE 127.0.0.1:80:80\n",
        &[
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 3)",
        ],
    );
}

#[test]
fn experimental_rules_are_asked_for() {
    check("FROM a\nCOPY secret /\n", &[]);
    check(
        "# check=experimental=CopyIgnoredFile\nFROM a\nCOPY ./secret build ok /\nADD secret/x /\n",
        &[
            "CopyIgnoredFile: Attempting to Copy file \"secret\" that is excluded by .dockerignore (line 3)",
            "CopyIgnoredFile: Attempting to Add file \"secret/x\" that is excluded by .dockerignore (line 4)",
        ],
    );
    check(
        "# check=experimental=all\n# A the argument\nARG A\n# something\nARG B\n# unrelated\n\n# base what it is\nFROM a AS base\n",
        &["InvalidDefinitionDescription: Comment for ARG should follow the format: `# B <description>` (line 5)"],
    );
}

#[test]
fn checks() {
    check("# check=skip=StageNameCasing, FromAsCasing\nFROM a as One\n", &[]);
    check("# check=skip=all\nFROM a as One\n", &[]);
    let warnings = warnings("FROM a as One\n");
    let failing = Checks::parse("skip=X;error=true").expect("legal");
    assert_eq!(
        failing.failure(&warnings).as_deref(),
        Some("lint violation found for rules: StageNameCasing, FromAsCasing")
    );
    assert_eq!((failing.failure(&[]), Checks::default().failure(&warnings)), (None, None));
    let told = |text: &str| Checks::parse(text).expect_err(text);
    assert_eq!(told("x"), "invalid check option \"x\"");
    assert_eq!(told("x=y"), "invalid check option \"x\"");
    assert!(told("error=maybe").starts_with("failed to parse check option \"error=maybe\""));
    let Read { file, globals, .. } = read("# check=skip=all\nFROM a\n", &[("BUILDKIT_DOCKERFILE_CHECK", "skip=")], "");
    assert_ne!(Checks::of(&file, &globals), Checks::parse("skip=all"), "the build argument wins");
}

#[test]
fn what_a_target_takes() {
    let source = "# VERSION of the base\nARG VERSION=1\nARG UNUSED=x\nARG TAG=v$VERSION\n# build makes it\n\
                  FROM a:$TAG AS build\nARG MODE=fast\nRUN --mount=type=secret,id=token,required --mount=type=ssh x\n\
                  FROM b AS other\nARG NOT=here\nFROM build AS last\nARG VERSION\n";
    let Read { file, globals, graph } = read(source, &[("MODE", "slow")], "");
    let told = outline(&file, &graph, &globals, &Lexer::new('\\'));
    let args: Vec<_> =
        told.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_str(), arg.description.as_str())).collect();
    assert_eq!(args, [("VERSION", "1", "of the base"), ("TAG", "v1", ""), ("MODE", "slow", "")]);
    assert_eq!(
        (told.secrets[0].name.as_str(), told.secrets[0].required, told.ssh[0].name.as_str()),
        ("token", true, "default")
    );
    assert_eq!(told.json()["args"][0]["location"]["ranges"][0]["start"]["line"], 2);
    let listed: Vec<_> = targets(&file).into_iter().map(|t| (t.name, t.default, t.description)).collect();
    assert_eq!(listed[0], ("build".to_owned(), false, "makes it".to_owned()));
    assert_eq!(listed[2], ("last".to_owned(), true, String::new()));
}
