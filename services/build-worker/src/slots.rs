//! How much a worker does at once: builds that it has, and steps of builds that others have.

use tokio::sync::watch;

/// Counts what is under way. A clone counts the same.
#[derive(Clone)]
pub struct Slots {
    total: usize,
    busy: watch::Sender<usize>,
}

/// One slot in use, free again when this is dropped.
pub struct Slot(watch::Sender<usize>);

impl Slots {
    pub fn new(total: u32) -> Self {
        Self { total: usize::try_from(total.max(1)).unwrap_or(usize::MAX), busy: watch::Sender::default() }
    }

    pub fn total(&self) -> u32 {
        u32::try_from(self.total).unwrap_or(u32::MAX)
    }

    pub fn busy(&self) -> u32 {
        u32::try_from(*self.busy.borrow()).unwrap_or(u32::MAX)
    }

    /// Takes one, also where none is free: a build that was leased is not given back.
    pub fn take(&self) -> Slot {
        self.busy.send_modify(|busy| *busy += 1);
        Slot(self.busy.clone())
    }

    /// Takes one if one is free.
    pub fn try_take(&self) -> Option<Slot> {
        let taken = self.busy.send_if_modified(|busy| {
            let is_free = *busy < self.total;
            *busy += usize::from(is_free);
            is_free
        });
        taken.then(|| Slot(self.busy.clone()))
    }

    /// Returns when one is free.
    pub async fn free(&self) {
        // The sender lives as long as this.
        let _ = self.busy.subscribe().wait_for(|busy| *busy < self.total).await;
    }

    /// What is in use, each time that it changes.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.busy.subscribe()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slots_are_counted() {
        let slots = Slots::new(2);
        let (first, second, over) = (slots.take(), slots.take(), slots.take());
        assert_eq!((slots.busy(), slots.total()), (3, 2));
        assert!(slots.try_take().is_none());
        drop((over, second));
        let (waiting, dropping) = (slots.clone(), async { drop(first) });
        tokio::join!(waiting.free(), dropping);
        assert_eq!(slots.busy(), 0);
        let _one = slots.try_take().expect("free");
        assert_eq!(slots.busy(), 1);
    }
}
