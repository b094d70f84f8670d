//! The person's terminal: raw mode, its size, the keys that detach.

use std::io::{IsTerminal, stdin};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::failure::{Failure, Outcome};

/// Raw mode for as long as it lives.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    pub fn enter() -> Outcome<Self> {
        let failed = |e: nix::Error| Failure::new(format!("the terminal cannot be set to raw mode: {e}"));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Runs with the terminal's echo off, and ends the line that was typed unseen.
pub fn without_echo<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let failed = |e: nix::Error| Failure::new(format!("the terminal's echo cannot be turned off: {e}"));
    let before = tcgetattr(stdin()).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_flags.remove(nix::sys::termios::LocalFlags::ECHO);
    tcsetattr(stdin(), SetArg::TCSANOW, &silent).map_err(failed)?;
    let done = work();
    let restored = tcsetattr(stdin(), SetArg::TCSANOW, &before).map_err(failed);
    println!();
    restored.and(done)
}

/// Rows and columns; `None` when nothing is a terminal.
pub fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size().map(|(width, height)| (height.0, width.0))
}

/// Docker's refusal of `-t` with a stdin that is no terminal.
pub fn check_tty(attach_stdin: bool, tty: bool) -> Outcome {
    if attach_stdin && tty && !stdin().is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

/// Watches typed bytes for the detach sequence.
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q` and the like.
    pub fn parse(text: Option<&str>) -> Outcome<Self> {
        let mut keys = Vec::new();
        for key in text.unwrap_or("ctrl-p,ctrl-q").split(',').filter(|k| !k.is_empty()) {
            let lower = key.to_ascii_lowercase();
            keys.push(match (lower.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(c), _) if c.len() == 1 => match c.as_bytes()[0] {
                    letter @ b'a'..=b'z' => letter - b'a' + 1,
                    other @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => other & 0x1f,
                    _ => return Err(Failure::new(format!("invalid detach keys ({key}) provided"))),
                },
                (_, [one]) => *one,
                _ => return Err(Failure::new(format!("Unknown character: '{key}'"))),
            });
        }
        Ok(Self { keys, matched: 0 })
    }

    /// What may be passed on of `typed`, and whether the sequence was completed. Keys of a
    /// sequence that has begun are held back until it is clear that it is not one.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(&byte) && self.matched > 0);
            if self.matched == 0 {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys() {
        let mut keys = DetachKeys::parse(None).expect("the default");
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        let mut keys = DetachKeys::parse(Some("ctrl-a,d")).expect("keys");
        assert_eq!(keys.filter(b"x\x01d"), (b"x".to_vec(), true));
        assert!(DetachKeys::parse(Some("ctrl-1")).is_err());
    }
}
