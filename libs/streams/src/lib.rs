//! Byte streams by ticket: one process asks over the bus, the other dials back and the bytes flow between the two.
//!
//! Nodes, workers and registry-syncs have no inbound port. The gateway [`Tickets::issue`]s a secret, names it and its own
//! address in a call, and the called process [`dial`]s there. A secret is 256 random bits, is used once, is kept hashed,
//! and dies after ten seconds.
//!
//! On the wire: the secret as 64 hex digits, a byte `+` back, then frames in both directions:
//! `[kind u8][length u32 big endian][bytes]`, kind 0 data, 1 clean end of this direction, 2 failure with its words.
//! A connection that closes without 1 or 2 was broken off, so that a truncated stream is never taken for a whole one.
//!
//! Between machines an address is `tls:host:port`: the one who dials verifies the gateway by what its process trusts. A
//! machine that sees the gateway under another name than others do says so once, by [`dial_at`].

mod duplex;
mod tickets;

pub use duplex::{Duplex, Error, Reader, Writer};
pub use tickets::{Options, Pending, Ticket, Tickets, dial, dial_at};
