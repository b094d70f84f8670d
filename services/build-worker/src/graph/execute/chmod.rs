//! `--chmod`: octal, or as chmod(1) has it (`u=rwX,go-w`). Pure.

/// What becomes of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    Exactly(u32),
    Clauses(Vec<Clause>),
}

/// One change, such as `go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Which of the nine bits and the special ones it is about.
    mask: u32,
    change: Change,
    /// `rwxst` as bits of all three classes.
    bits: u32,
    /// `X`: to be run only by whom it is run already, and folders.
    run_if: bool,
    /// A class whose bits are taken as well (`g=u`): how far they lie to the left.
    like: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Take,
    Set,
}

impl Chmod {
    /// # Errors
    /// In BuildKit's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Exactly).ok_or_else(wrong);
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        clauses.map(|all| Self::Clauses(all.concat())).ok_or_else(|| "invalid syntax".to_owned())
    }

    /// What folders have that are made on the way: an octal mode counts for them, changes do not.
    pub fn of_made_folders(&self) -> Option<u32> {
        match self {
            Self::Exactly(mode) => Some(*mode),
            Self::Clauses(_) => None,
        }
    }

    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Exactly(mode) => *mode,
            Self::Clauses(clauses) => clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let run = if self.run_if && (is_dir || mode & 0o111 != 0) { 0o111 } else { 0 };
        let like = self.like.map_or(0, |shift| (mode >> shift & 0o7) * 0o111);
        let bits = (self.bits | run | like) & self.mask;
        match self.change {
            Change::Add => mode | bits,
            Change::Take => mode & !bits,
            Change::Set => (mode & !self.mask) | bits,
        }
    }
}

/// `ug+rw-x` is two changes to the same classes.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let classes = text.len() - text.trim_start_matches(['u', 'g', 'o', 'a']).len();
    let (classes, mut rest) = text.split_at(classes);
    let mut mask = 0;
    for class in classes.chars() {
        mask |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => 0o7777,
        };
    }
    if classes.is_empty() {
        mask = 0o7777;
    }
    let mut all = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let change = match operator {
            '+' => Change::Add,
            '-' => Change::Take,
            '=' => Change::Set,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (mut bits, mut run_if, mut like) = (0, false, None);
        for letter in rest[..end].chars() {
            match letter {
                'u' => like = Some(6),
                'g' => like = Some(3),
                'o' => like = Some(0),
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                'X' => run_if = true,
                _ => return None,
            }
        }
        all.push(Clause { mask, change, bits, run_if, like });
        rest = &rest[end..];
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, before, is_dir, after) in [
            ("0644", 0o777, false, 0o644),
            ("4755", 0, false, 0o4755),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("+x", 0o644, false, 0o755),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, true, 0o555),
            ("u+s", 0o755, false, 0o4755),
            ("ug+w-x", 0o555, false, 0o665),
            ("o=", 0o777, false, 0o770),
            ("g=u", 0o600, false, 0o660),
            ("ug+s,o+t", 0o600, false, 0o6600),
            ("+t", 0o644, false, 0o1644),
            ("u=g", 0o644, false, 0o444),
            ("ug=o+w,o=", 0o644, false, 0o660),
        ] {
            assert_eq!(Chmod::parse(text).expect(text).apply(before, is_dir), after, "{text}");
        }
        for wrong in ["99", "17777", "", "u", "u+q", "x+r", "0x1"] {
            assert!(Chmod::parse(wrong).is_err(), "{wrong}");
        }
    }
}
