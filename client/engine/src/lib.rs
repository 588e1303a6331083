//! The load engine: an SMTP client that outruns the servers it measures.
//!
//! A [`Plan`] says what to send, [`run()`] sends it and returns a [`Report`]. Two models: *closed*, in which a number of
//! connections send as fast as they are answered (what can it do?), and *open*, in which messages are due at a rate
//! whether or not the server keeps up (how does it feel?), with latency counted from when each was due.
//!
//! Not here: a server, or anything of one. It learns the server from the wire alone.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that panics fails, which is what it is for"
    )
)]

mod error;
mod failure;
mod message;
mod plan;
mod reply;
mod report;
mod run;
mod schedule;
mod session;
mod tally;
mod tls;
mod wire;

pub use error::Error;
pub use plan::{Amount, Encryption, Password, Plan, Trust};
pub use report::{Latencies, Latency, Report};
pub use run::run;
