//! How many files are remembered of the caches that lie here. What was forgotten is looked at again when a step leaves its
//! cache, and read from the layer store where it is needed before.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::scan::Index;
use super::{Caches, Slot};

/// Some 500 bytes each.
const MAX_FILES: usize = 200_000;

static CLOCK: AtomicU64 = AtomicU64::new(0);

/// What a slot's state remembers.
#[derive(Debug, Default)]
pub struct Known {
    files: AtomicUsize,
    /// The greater, the later.
    used: AtomicU64,
}

impl Known {
    /// The state has just come to remember so many files.
    pub fn note(&self, files: usize) {
        self.files.store(files, Ordering::Release);
        self.used.store(CLOCK.fetch_add(1, Ordering::AcqRel), Ordering::Release);
    }

    fn files(&self) -> usize {
        self.files.load(Ordering::Acquire)
    }
}

impl Caches {
    /// Forgets the files of those caches that were used longest ago, unless a step has them.
    pub fn bound_known(&self) {
        let mut slots: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        slots.sort_by_key(|slot| Reverse(slot.known.used.load(Ordering::Acquire)));
        let known: Vec<usize> = slots.iter().map(|slot| slot.known.files()).collect();
        for slot in &slots[fitting(&known)..] {
            // Whoever has the state, or has left what is not stored yet, needs it.
            if let Ok(mut state) = slot.state.try_lock()
                && state.inside == 0
                && !state.is_ahead
            {
                (state.base, state.index) = (None, Arc::<Index>::default());
                slot.known.files.store(0, Ordering::Release);
            }
        }
    }
}

/// How many of these fit, in their order.
fn fitting(known: &[usize]) -> usize {
    let mut left = MAX_FILES;
    let fits = known.iter().take_while(|files| left.checked_sub(**files).map(|rest| left = rest).is_some());
    // The one used last in any case: its next step is the likeliest.
    fits.count().max(1).min(known.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_used_last_are_remembered() {
        for (known, wanted) in [
            (&[][..], 0),
            (&[MAX_FILES], 1),
            (&[MAX_FILES + 1, 1], 1),
            (&[1, MAX_FILES - 1, 0, 1, 0], 3),
            (&[1, MAX_FILES, 1], 1),
        ] {
            assert_eq!(fitting(known), wanted, "{known:?}");
        }
    }
}
