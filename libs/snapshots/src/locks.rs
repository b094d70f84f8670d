//! Locks between the processes of one machine. One of them may be stopped while it has a lock: nobody waits for it without
//! end.

use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits so long for a file's lock; says whether it has come. It is given back when the file is closed. Blocks.
///
/// # Errors
/// What the file system says.
pub fn lock_within(file: &File, patience: Duration) -> io::Result<bool> {
    within(patience, || file.try_lock())
}

/// The same of a lock that others may have too.
///
/// # Errors
/// What the file system says.
pub fn lock_shared_within(file: &File, patience: Duration) -> io::Result<bool> {
    within(patience, || file.try_lock_shared())
}

fn within(patience: Duration, attempt: impl Fn() -> Result<(), TryLockError>) -> io::Result<bool> {
    let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begin.elapsed() >= patience => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_not_without_end() {
        let temp = tempfile::tempdir().expect("a folder");
        let open = || File::create(temp.path().join("lock")).expect("made");
        let (first, second) = (open(), open());
        assert!(lock_within(&first, Duration::ZERO).expect("asked"));
        assert!(!lock_within(&second, Duration::from_millis(5)).expect("asked"));
        assert!(!lock_shared_within(&second, Duration::ZERO).expect("asked"));
        let waiting = std::thread::spawn(move || lock_shared_within(&second, Duration::from_secs(20)));
        drop(first);
        assert!(waiting.join().expect("it ends").expect("asked"));
    }
}
