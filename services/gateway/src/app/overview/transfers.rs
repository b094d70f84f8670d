use super::page::List;
use super::shape::Time;
use crate::app::App;
use crate::{shape, words};

words! {
    /// Which way layers move.
    pub enum Direction {
        Pull = "pull",
        Push = "push",
    }
}

shape! {
    /// A pull or a push that goes on.
    pub struct Transfer {
        /// Its number since the gateway was started.
        pub id: u64,
        /// Which way layers move.
        pub kind: Direction,
        /// Name of what is pulled or pushed.
        pub name: String,
        /// When it began.
        pub started_at: Option<Time>,
        /// Layers that are done, those that were there already among them.
        pub layers_done: u64,
        /// Layers that it has come to know of.
        pub layers: u64,
        /// Bytes that have moved, packed.
        pub bytes_done: u64,
        /// Bytes of the layers that have begun to move.
        pub bytes: u64,
    }
}

impl App {
    /// Pulls and pushes that this gateway has begun and that go on.
    pub fn transfer_list(&self) -> List<Transfer> {
        let shown = |transfer: crate::app::transfers::Transfer| {
            let ((layers_done, layers), (bytes_done, bytes)) = (transfer.layers(), transfer.bytes());
            Transfer {
                id: transfer.number,
                kind: Direction::of(transfer.kind).unwrap_or(Direction::Pull),
                name: transfer.name,
                started_at: Time::of_ms(transfer.started_ms),
                layers_done: layers_done as u64,
                layers: layers as u64,
                bytes_done,
                bytes,
            }
        };
        List::whole(self.transfers.list().into_iter().map(shown).collect())
    }
}
