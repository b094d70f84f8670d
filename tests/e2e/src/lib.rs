//! End-to-end flows over real processes and real containers; they are in `tests/`, one subject a file.
//!
//! Flows of Docker's own behaviour run on a Boxyard and on a dockerd (`kit::on_both!`). What only a Boxyard
//! has (killed services, a full disk, two of them side by side) runs on a Boxyard alone.

pub mod session;
