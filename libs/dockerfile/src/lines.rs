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
    /// The comments above, without their `#`; empty lines between do not part them from the instruction.
    pub comments: Vec<String>,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    /// A blank line stood inside the instruction; Docker warns of it.
    pub blank_inside: bool,
}

/// The longest physical line that Docker reads.
const LONGEST_LINE_BYTES: usize = 65_535;

/// Where the instruction ends that begins at a line, both counted from 1; of what is no instruction the line itself.
pub fn last_line(source: &str, line: usize) -> usize {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let physical: Vec<&str> = source.lines().collect();
    let escape = Directives::read(&physical).map_or('\\', |directives| directives.escape);
    let mut reader = Reader { physical: &physical, next: line.saturating_sub(1), escape, directives: 0 };
    match reader.line() {
        Ok(Some(read)) if read.start == line => read.end,
        // A text that does not end goes on to the file's end.
        Err(misread) if misread.line == line => physical.len(),
        _ => line,
    }
}

/// Joins physical lines into logical ones.
pub(crate) fn join(source: &str) -> Result<(Directives, Vec<Line>), Misread> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let physical: Vec<&str> =
        source.split_inclusive('\n').map(|line| line.strip_suffix('\n').unwrap_or(line)).collect();
    if let Some(line) = physical.iter().position(|line| line.len() > LONGEST_LINE_BYTES) {
        let message = format!("dockerfile line greater than max allowed size of {LONGEST_LINE_BYTES}");
        return Err(Misread { line, message });
    }
    let directives = Directives::read(&physical)?;
    let mut reader = Reader { physical: &physical, next: 0, escape: directives.escape, directives: directives.lines };
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        lines.push(line);
    }
    Ok((directives, lines))
}

/// What could not be split, and the line (counted from 1) where; 0: none.
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
        self.take_whole().map(without_return)
    }

    /// The next line with its carriage return.
    fn take_whole(&mut self) -> Option<&'a str> {
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
                None if line.is_empty() => {}
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
        while let Some(line) = self.take_whole() {
            let line = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
            if without_return(line) == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(line);
            heredoc.content.push('\n');
        }
        Err("unterminated heredoc".to_owned())
    }
}

fn without_return(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
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
