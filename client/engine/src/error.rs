//! What stops a whole run. What goes wrong with one message is a [`crate::report::Report`]'s `errors`.

use std::{fmt, io};

/// Why a run did not begin, or could not be written down.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operator's: an option is missing, impossible or contradicts another; says which.
    Plan(String),
    /// The operator's: a certificate file can not be read or used; names the file.
    Certificates(String),
    /// The machine's: no event loop, no thread, no memory.
    Runtime(io::Error),
    /// The machine's: the ledger can not be written.
    Ledger(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(what) | Self::Certificates(what) => f.write_str(what),
            Self::Runtime(error) => write!(f, "the event loop can not start: {error}"),
            Self::Ledger(error) => write!(f, "the ledger can not be written: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Plan(_) | Self::Certificates(_) => None,
            Self::Runtime(error) | Self::Ledger(error) => Some(error),
        }
    }
}
