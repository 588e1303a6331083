//! SMTP submission protocol, sans-IO: bytes in, replies and events out.
//!
//! What: one [`Session`] per connection parses commands, keeps the state, writes replies into the
//! caller's buffer and hands over a complete [`Envelope`] or a [`LoginRequest`] as an [`Event`].
//! Why apart: without a socket and a clock every behaviour can be replayed from a transcript, split
//! at any byte, and fuzzed. What not: no TLS, no time-outs, no storage. The caller reads, decrypts,
//! waits and answers.

#![forbid(unsafe_code)]

mod envelope;
mod error;
mod limits;
mod secret;

pub mod address;
pub mod auth;
pub mod command;
pub mod data;
pub mod proxy;
pub mod reply;
pub mod session;

pub use crate::auth::{LoginRequest, LoginVerdict, Mechanism};
pub use crate::envelope::{BodyType, Envelope, EnvelopeId, EnvelopeVerdict, Identity, Security};
pub use crate::error::Error;
pub use crate::limits::Limits;
pub use crate::reply::{Enhanced, Reply};
pub use crate::secret::Secret;
pub use crate::session::{Event, Gate, Phase, Session, SessionConfig};
