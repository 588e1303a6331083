//! The only place where Rust's errors become Python's exceptions.

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use smtp_proxy_server::Error;

create_exception!(
    smtp_proxy._core,
    ConfigError,
    PyValueError,
    "A setting is missing or cannot be; the message names it and says what would do."
);
create_exception!(
    smtp_proxy._core,
    CertificateError,
    PyValueError,
    "A certificate or its key cannot be used; those in place stay."
);

pub(crate) fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Setting { .. } | Error::Listen { .. } => ConfigError::new_err(message),
        Error::Certificate { .. } => CertificateError::new_err(message),
        Error::System(source) => PyOSError::new_err((source.raw_os_error(), message)),
        _ => PyRuntimeError::new_err(message),
    }
}

/// A setting whose value never reached the server's own check.
pub(crate) fn bad_setting(name: &str, problem: &str) -> PyErr {
    ConfigError::new_err(format!("{name}: {problem}"))
}
