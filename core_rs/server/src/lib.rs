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
//! envelopes (`copy` writes them as Postgres takes them), `mailbox` brings the verdict back, `shutdown`
//! sees all of them off. `proxy` learns who a client behind a load balancer is, and `guard` knows of
//! each address what it may still do.

#![forbid(unsafe_code)]

mod batch;
mod budget;
mod config;
mod connection;
mod copy;
mod deadline;
mod error;
mod fairness;
mod gate;
mod guard;
mod id;
mod known;
mod listener;
mod logins;
mod mailbox;
mod metrics;
mod protection;
mod proxy;
mod server;
mod shutdown;
mod stream;
mod table;
mod tenants;
mod tls;
mod wakeup;

pub use crate::batch::{Answer, Batch, Encoding, Letter, Outline};
pub use crate::config::{CertificatePem, ClientAuth, ClientTrust, Config, Timeouts, TlsOptions};
pub use crate::error::Error;
pub use crate::known::Keep;
pub use crate::logins::{Login, LoginBatch};
pub use crate::protection::{Network, Protection};
pub use crate::server::{Addresses, Server};
pub use crate::wakeup::Interest;
pub use smtp_proxy_proto::{Gate, Lane};
