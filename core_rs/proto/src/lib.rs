//! SMTP submission protocol, sans-IO: bytes in, replies and events out.
//!
//! What: one [`Session`] per connection parses commands, keeps the state, writes replies into the
//! caller's buffer and hands over a complete [`Envelope`] or a [`LoginRequest`] as an [`Event`].
//! Why apart: without a socket and a clock every behaviour can be replayed from a transcript, split
//! at any byte, and fuzzed. What not: no TLS, no time-outs, no storage. The caller reads, decrypts,
//! waits and answers.

#![forbid(unsafe_code)]

mod certificate;
mod envelope;
mod error;
mod lane;
mod limits;
mod secret;
mod senders;

pub mod address;
pub mod auth;
pub mod command;
pub mod data;
pub mod dsn;
pub mod header;
pub mod proxy;
pub mod reply;
pub mod session;
pub mod submission;
pub mod transmission;

pub use crate::auth::{LoginRequest, LoginVerdict, Mechanism, Proof};
pub use crate::certificate::ClientCertificate;
pub use crate::dsn::{Dsn, Notify, RecipientDsn, Ret};
pub use crate::envelope::{BodyType, Envelope, EnvelopeId, EnvelopeVerdict, Identity, Security};
pub use crate::error::Error;
pub use crate::lane::Lane;
pub use crate::limits::Limits;
pub use crate::reply::{Enhanced, Reply};
pub use crate::secret::Secret;
pub use crate::senders::{BadPattern, SenderPattern, Senders};
pub use crate::session::{Event, Gate, Phase, Session, SessionConfig};
pub use crate::submission::{Facts, Mended, Missing, Submission};
