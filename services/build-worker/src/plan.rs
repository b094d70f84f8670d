use dockerfile::{Dockerfile, Instruction, Stage, parse_instruction, quote};

use crate::failure::Failure;

/// What a build is to do, in the order in which it is done.
#[derive(Debug)]
pub struct Plan {
    pub escape: char,
    pub meta_args: Vec<Instruction>,
    /// Up to the target.
    pub stages: Vec<Stage>,
    pub warnings: Vec<String>,
}

impl Plan {
    /// Reads a Dockerfile; `--target` cuts it, `--label` adds to its last stage.
    pub fn new(source: &str, options: &proto::BuildOptions) -> Result<Self, Failure> {
        let Dockerfile { directives, meta_args, mut stages, warnings, blank_lines: _ } = Dockerfile::parse(source)?;
        if !options.target.is_empty() {
            let target = options.target.to_lowercase();
            let at = stages
                .iter()
                .position(|stage| stage.name.as_deref() == Some(&target))
                .ok_or_else(|| Failure::user(format!("target stage {} could not be found", quote(&options.target))))?;
            stages.truncate(at + 1);
        }
        let mut labels: Vec<_> = options.labels.iter().collect();
        labels.sort();
        if let Some(last) = stages.last_mut() {
            for (name, value) in labels {
                let mut label = parse_instruction("LABEL a=b")?;
                label.original = format!("LABEL {name}={value}");
                label.kind = dockerfile::Kind::Label(vec![(literal(name), literal(value))]);
                last.instructions.push(label);
            }
        }
        Ok(Self { escape: directives.escape, meta_args, stages, warnings })
    }

    pub fn step_count(&self) -> usize {
        self.meta_args.len() + self.stages.iter().map(|stage| 1 + stage.instructions.len()).sum::<usize>()
    }
}

/// A word that expansion leaves as it is.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(source: &str, target: &str, labels: &[(&str, &str)]) -> Result<Plan, Failure> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Plan::new(source, &proto::BuildOptions { target: target.to_owned(), labels, ..Default::default() })
    }

    #[test]
    fn targets_and_labels() {
        let source = "ARG A\nFROM a AS one\nRUN x\nFROM b AS Two\nRUN y\n";
        assert_eq!(plan(source, "", &[]).expect("plan").step_count(), 5);
        let cut = plan(source, "ONE", &[("b", "2"), ("a", "it's $x")]).expect("plan");
        assert_eq!(cut.step_count(), 5);
        assert_eq!(cut.stages[0].instructions[1].original, "LABEL a=it's $x");
        let expanded =
            cut.stages[0].instructions[1].kind.expanded(&dockerfile::Lexer::new('\\'), &|_| None).expect("expanded");
        assert_eq!(expanded, dockerfile::Kind::Label(vec![("a".into(), "it's $x".into())]));
        for (target, quoted) in [("0", r#""0""#), ("a\u{7}\u{200b}", r#""a\a\u200b""#)] {
            let error = plan(source, target, &[]).expect_err("no such stage");
            assert_eq!(error.to_string(), format!("target stage {quoted} could not be found"));
        }
    }
}
