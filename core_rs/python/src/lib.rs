//! The door between Rust and Python: conversions only.
//!
//! What crosses are plain values; on the way in once per batch and never per message, on the way out once per message.
//! No thread of the runtime ever takes the GIL. The docstrings that users read are in `pyapp/smtp_proxy/_core.pyi`.

mod address;
mod batch;
mod config;
mod error;
mod logins;
mod server;
mod transmission;

use pyo3::prelude::*;

/// The extension module. Only `smtp_proxy.core` imports it.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::address::is_mailbox;
    #[pymodule_export]
    use crate::batch::{Batch, Pieces};
    #[pymodule_export]
    use crate::config::{ServerConfig, sender_pattern};
    #[pymodule_export]
    use crate::error::{CertificateError, ConfigError};
    #[pymodule_export]
    use crate::logins::LoginBatch;
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::transmission::transmission;
}
