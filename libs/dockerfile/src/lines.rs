use crate::directive::Directives;
use crate::heredoc::{self, Heredoc};

/// One instruction's text: continuation lines joined, comments gone, heredoc bodies taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub start: usize,
    /// The last one, with heredoc bodies.
    pub end: usize,
    /// The last one before any heredoc body.
    pub head_end: usize,
    /// The comments right above, without their `#`.
    pub comments: Vec<String>,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    /// A blank line stood inside the instruction; Docker warns of it.
    pub blank_inside: bool,
}

/// Joins physical lines into logical ones.
pub(crate) fn join(source: &str) -> Result<(Directives, Vec<Line>), Misread> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let physical: Vec<&str> = source.lines().collect();
    let directives = Directives::read(&physical)?;
    let mut reader = Reader { physical: &physical, next: 0, escape: directives.escape, directives: directives.lines };
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        lines.push(line);
    }
    Ok((directives, lines))
}

/// What could not be split, and the line (counted from 1) where.
#[derive(Debug)]
pub(crate) struct Misread {
    pub line: usize,
    pub message: String,
}

struct Reader<'a> {
    physical: &'a [&'a str],
    next: usize,
    escape: char,
    /// How many lines at the top are directives, and so no comments.
    directives: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.physical.get(self.next).copied()?;
        self.next += 1;
        Some(line)
    }

    fn line(&mut self) -> Result<Option<Line>, Misread> {
        let mut comments = Vec::new();
        let first = loop {
            let Some(line) = self.take() else {
                return Ok(None);
            };
            let line = line.trim_start();
            match line.strip_prefix('#') {
                Some(comment) if self.next > self.directives => comments.push(comment.trim().to_owned()),
                Some(_) => {}
                None if line.is_empty() => comments.clear(),
                None => break line,
            }
        };
        let mut line = Line {
            start: self.next,
            end: 0,
            head_end: 0,
            comments,
            text: String::new(),
            heredocs: Vec::new(),
            blank_inside: false,
        };
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
        line.head_end = self.next;
        for mut heredoc in heredoc::announced(&line.text, self.escape) {
            self.body(&mut heredoc).map_err(|message| Misread { line: line.start, message })?;
            line.heredocs.push(heredoc);
        }
        line.end = self.next;
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
