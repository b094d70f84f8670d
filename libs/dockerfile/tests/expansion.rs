//! Docker's shell lexer.

use dockerfile::{Kind, Lexer, parse_instruction};

fn value(name: &str) -> Option<String> {
    Some(
        match name {
            "A" => "1",
            "P" => "/usr/lib/x.tar.gz",
            "E" => "",
            "S" => "two words",
            _ => return None,
        }
        .to_owned(),
    )
}

fn check(word: &str, expected: Result<&str, &str>) {
    let actual = Lexer::new('\\').expand(word, &value).map_err(|error| error.to_string());
    let expected = expected.map(str::to_owned).map_err(|message| format!("failed to process {word:?}: {message}"));
    assert_eq!(actual, expected, "{word:?}");
}

#[test]
fn substitutions() {
    for (word, expected) in [
        ("$A", "1"),
        ("${A}b", "1b"),
        ("$Ab", ""),
        ("$A-b", "1-b"),
        ("a$", "a$"),
        ("$.x", "$.x"),
        ("$$", ""),
        ("$1x", "x"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ("\"$A\"", "1"),
        ("\"\\$A \\x \\\\\"", "$A \\x \\"),
        ("a\\ b", "a b"),
        ("x\\", "x"),
        ("${A:-w}", "1"),
        ("${N:-w}", "w"),
        ("${E:-w}", "w"),
        ("${E-w}", ""),
        ("${N-w}", "w"),
        ("${N:-${A}x}", "1x"),
        ("${A:+w}", "w"),
        ("${E:+w}", ""),
        ("${E+w}", "w"),
        ("${N+w}", ""),
        ("${A:?no}", "1"),
        ("${P#*/}", "usr/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%.*}", "/usr/lib/x.tar"),
        ("${P%%.*}", "/usr/lib/x"),
        ("${P/lib/bin}", "/usr/bin/x.tar.gz"),
        ("${P//\\//_}", "_usr_lib_x.tar.gz"),
    ] {
        check(word, Ok(expected));
    }
}

#[test]
fn errors() {
    for (word, expected) in [
        ("\"b", "unexpected end of statement while looking for matching double-quote"),
        ("'b", "unexpected end of statement while looking for matching single-quote"),
        ("${x", "unsupported modifier (\u{fffd}) in substitution"),
        ("${x!no}", "unsupported modifier (!) in substitution"),
        ("${#x}", "unsupported modifier (x) in substitution"),
        ("${x:y}", "unsupported modifier (:y) in substitution"),
        ("${x#\\p}", "invalid pattern (\\p) in substitution: invalid escape '\\p'"),
        ("${x%\\.gz}", "invalid pattern (zg\\.) in substitution: invalid escape '\\.'"),
        ("${x//\\a/b}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("${x:?no}", "x: no"),
        ("${x?no}", "x: no"),
        ("${x:?}", "x: is not allowed to be empty"),
        ("${x?}", "x: is not allowed to be unset"),
        ("${}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${x:-a", "syntax error: missing '}'"),
        ("${x:=a}", "unsupported modifier (:=) in substitution"),
    ] {
        check(word, Err(expected));
    }
    let deep = format!("{}{}", "${x:-".repeat(5000), "}".repeat(5000));
    check(&deep, Err("syntax error: substitutions are nested too deeply"));
}

#[test]
fn word_splitting() {
    let words = |word| Lexer::new('\\').expand_words(word, &value).expect(word);
    assert_eq!(words("$S"), ["two", "words"]);
    assert_eq!(words("\"$S\""), ["two words"]);
    assert_eq!(words("a$S b"), ["atwo", "words", "b"]);
    assert_eq!(words("$N"), Vec::<String>::new());
}

#[test]
fn instructions() {
    let expand =
        |source: &str| parse_instruction(source).expect(source).kind.expanded(&Lexer::new('\\'), &value).expect(source);
    assert_eq!(
        expand("ENV X=$A \"$S\"=\"$S\""),
        Kind::Env(vec![("X".into(), "1".into()), ("two words".into(), "two words".into())])
    );
    assert_eq!(expand("RUN echo $A"), parse_instruction("RUN echo $A").expect("run").kind);
    assert_eq!(expand("WORKDIR /x/$A"), Kind::Workdir("/x/1".into()));
    assert_eq!(expand("EXPOSE $S $A"), Kind::Expose(vec!["1".into(), "two".into(), "words".into()]));
    let Kind::Copy(copy) = expand("COPY <<EOF /x\n'$A' \\$A \\n\nEOF") else {
        panic!("not a COPY");
    };
    assert_eq!(copy.heredocs[0].content, "'1' $A n\n", "escapes count as they do outside of quotes");
    let Kind::Copy(copy) = expand("COPY <<\"EOF\" /x\n$A\nEOF") else {
        panic!("not a COPY");
    };
    assert_eq!(copy.heredocs[0].content, "$A\n");
}
