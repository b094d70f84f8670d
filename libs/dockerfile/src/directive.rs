use crate::lines::Misread;

/// Parser directives: the `# key=value` comments that may open a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// Continues a line and escapes a character: `\` or a backtick.
    pub escape: char,
    pub syntax: Option<String>,
    pub check: Option<String>,
    /// How many lines at the top they take.
    pub(crate) lines: usize,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None, lines: 0 }
    }
}

impl Directives {
    /// Reads directives until the first line that is none; later look-alikes are plain comments.
    pub(crate) fn read(lines: &[&str]) -> Result<Self, Misread> {
        let mut directives = Self::default();
        let mut seen = Vec::new();
        for (key, value) in lines.iter().map_while(|line| split(line)) {
            if seen.contains(&key) {
                let message = format!("only one {key} parser directive can be used");
                return Err(Misread { line: seen.len(), message });
            }
            match key.as_str() {
                "escape" => {
                    directives.escape = escape_token(value).map_err(|message| Misread { line: 0, message })?;
                }
                "syntax" => directives.syntax = Some(value.to_owned()),
                "check" => directives.check = Some(value.to_owned()),
                _ => break,
            }
            seen.push(key);
            directives.lines = seen.len();
        }
        Ok(directives)
    }
}

fn split(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

fn escape_token(value: &str) -> Result<char, String> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => Err(format!("invalid escape token '{other}' does not match ` or \\")),
    }
}
