use crate::directive::Directives;
use crate::heredoc::{self, Heredoc};

/// One instruction's text: continuation lines joined, comments gone, heredoc bodies taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub start: usize,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    /// A blank line stood inside the instruction; Docker warns of it.
    pub blank_inside: bool,
}

/// Joins physical lines into logical ones.
pub(crate) fn join(source: &str) -> Result<(Directives, Vec<Line>), String> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let physical: Vec<&str> = source.lines().collect();
    let directives = Directives::read(&physical)?;
    let mut reader = Reader { physical: &physical, next: 0, escape: directives.escape };
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        lines.push(line);
    }
    Ok((directives, lines))
}

struct Reader<'a> {
    physical: &'a [&'a str],
    next: usize,
    escape: char,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.physical.get(self.next).copied()?;
        self.next += 1;
        Some(line)
    }

    fn line(&mut self) -> Result<Option<Line>, String> {
        let first = loop {
            let Some(line) = self.take() else {
                return Ok(None);
            };
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                break line;
            }
        };
        let mut line = Line { start: self.next, text: String::new(), heredocs: Vec::new(), blank_inside: false };
        let mut open = append(&mut line.text, first, self.escape);
        while open {
            let Some(more) = self.take() else { break };
            let trimmed = more.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                line.blank_inside = true;
                continue;
            }
            open = append(&mut line.text, more, self.escape);
        }
        for mut heredoc in heredoc::announced(&line.text, self.escape) {
            self.body(&mut heredoc)?;
            line.heredocs.push(heredoc);
        }
        Ok(Some(line))
    }

    fn body(&mut self, heredoc: &mut Heredoc) -> Result<(), String> {
        while let Some(line) = self.take() {
            let line = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(line);
            heredoc.content.push('\n');
        }
        Err("unterminated heredoc".to_owned())
    }
}

/// Appends a physical line and says whether the next one continues it. An escape token that is
/// itself escaped does not continue.
fn append(text: &mut String, line: &str, escape: char) -> bool {
    let end = line.trim_end_matches([' ', '\t']);
    if let Some(kept) = end.strip_suffix(escape)
        && !kept.ends_with(escape)
    {
        text.push_str(kept);
        return true;
    }
    text.push_str(line);
    false
}
