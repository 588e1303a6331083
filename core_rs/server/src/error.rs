//! The crate's one error. All of them are the operator's to mend; what a client does wrong is a
//! reply, and what the network does is counted.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why the server cannot be made, started or reloaded. The message names the setting and the next
/// step, and never holds key material.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing or cannot be.
    Setting {
        /// The setting's name.
        name: &'static str,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// A certificate or its key cannot be used; the ones in place stay.
    Certificate {
        /// Position in the list, from 0.
        number: usize,
        /// What the caller calls it; may be empty.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An address cannot be listened on.
    Listen {
        /// The setting that asked for it.
        name: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused what the server lives on: threads, or a descriptor for the wake-up.
    System(io::Error),
    /// `start` was called twice.
    AlreadyStarted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, problem } => write!(f, "{name}: {problem}"),
            Self::Certificate {
                number,
                name,
                problem,
            } if name.is_empty() => write!(f, "certificate {number}: {problem}"),
            Self::Certificate { name, problem, .. } => write!(f, "{name}: {problem}"),
            Self::Listen {
                name,
                address,
                source,
            } => write!(
                f,
                "{name}: cannot listen on {address}: {source}; free the port, or choose another address"
            ),
            Self::System(source) => {
                write!(f, "the system refused threads or descriptors: {source}")
            }
            Self::AlreadyStarted => f.write_str("the server was started already; make another one"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::System(source) => Some(source),
            _ => None,
        }
    }
}
