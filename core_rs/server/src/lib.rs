//! The SMTP server without Python: listeners, TLS, connections, batches, drain.
//!
//! What: tokio and rustls around [`smtp_proxy_proto::Session`]. Complete envelopes wait in one queue
//! until [`Server::next_batch`] takes them together; the 250 is spoken only when the batch is
//! committed. Why apart: the border knows nothing of sockets, and this crate nothing of Python, so
//! each is tested alone. What not: no storage, no logins' truth, no queue depth; those come in from
//! outside as verdicts and as a [`Gate`].
//!
//! A letter's way through the files: `listener` accepts, `connection` reads and writes (`stream`
//! and `tls` carry its bytes, `deadline` hurries it, `budget` holds it back), `batch` keeps complete
//! envelopes, `mailbox` brings the verdict back, `shutdown` sees all of them off.

#![forbid(unsafe_code)]

mod batch;
mod budget;
mod config;
mod connection;
mod deadline;
mod error;
mod fairness;
mod gate;
mod id;
mod listener;
mod logins;
mod mailbox;
mod metrics;
mod server;
mod shutdown;
mod stream;
mod tenants;
mod tls;
mod wakeup;

pub use crate::batch::{Answer, Batch, Letter};
pub use crate::config::{CertificatePem, Config, Timeouts};
pub use crate::error::Error;
pub use crate::logins::{Login, LoginBatch};
pub use crate::server::{Addresses, Server};
pub use crate::wakeup::Interest;
pub use smtp_proxy_proto::Gate;
