//! What is told after a build: output of steps that failed, the lines of the Dockerfile, warnings.

use super::status::{Solve, Vertex};

/// Lines of the Dockerfile around the one that failed.
const AROUND: usize = 2;
/// The last lines of a failed step's output.
const OUTPUT_LINES: usize = 20;

fn failed(solve: &Solve) -> impl Iterator<Item = &Vertex> {
    solve.vertices.iter().filter(|v| !v.error.is_empty() && !v.error.ends_with("context canceled"))
}

pub fn logs(solve: &Solve) {
    for vertex in failed(solve).filter(|vertex| !vertex.kept.is_empty()) {
        let from = vertex.kept.len().saturating_sub(OUTPUT_LINES);
        eprintln!("------\n > {}:\n{}\n------", vertex.name, vertex.kept[from..].join("\n"));
    }
}

pub fn warnings(solve: &Solve) {
    let all: Vec<&String> = solve.vertices.iter().flat_map(|vertex| &vertex.warnings).collect();
    if all.is_empty() {
        return;
    }
    let noun = if all.len() == 1 { "warning" } else { "warnings" };
    eprintln!("\n {} {noun} found:", all.len());
    all.iter().for_each(|warning| eprintln!(" - {warning}"));
}

/// The Dockerfile as the client has it.
#[derive(Debug, Default)]
pub struct Excerpt {
    /// As the person named it.
    pub name: String,
    pub text: String,
}

impl Excerpt {
    /// Shows the instruction at a line; 0: nothing.
    pub(super) fn print(&self, line: usize) {
        eprint!("{}", self.at(line));
    }

    /// The lines around an instruction, which may go on over several.
    pub fn at(&self, line: usize) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        if line == 0 || line > lines.len() {
            return String::new();
        }
        let last = dockerfile::last_line(&self.text, line);
        let (from, to) = (line.saturating_sub(AROUND).max(1), (last + AROUND).min(lines.len()));
        let rule = "-".repeat(20);
        let shown = lines[from - 1..to].iter().enumerate().map(|(at, text)| {
            let number = from + at;
            let mark = if (line..=last).contains(&number) { ">>>" } else { "   " };
            format!("{number:4} | {mark} {text}\n")
        });
        format!("{}:{line}\n{rule}\n{}{rule}\n", self.name, shown.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_failed() {
        let text = "FROM a\n\nRUN one\nRUN two \\\n  more\nCMD x\n".to_owned();
        let excerpt = Excerpt { name: "Dockerfile".into(), text };
        let rule = "-".repeat(20);
        assert_eq!(
            excerpt.at(4),
            format!(
                "Dockerfile:4\n{rule}\n   2 |     \n   3 |     RUN one\n   4 | >>> RUN two \\\n   5 | >>>   more\n   6 |     CMD x\n{rule}\n"
            )
        );
        assert_eq!(excerpt.at(9), "");
    }
}
