//! The crate's one error: a setting that cannot be. What a client does wrong is not an error here,
//! it is a [`crate::Reply`].

use std::fmt;

/// A setting of the operator's that was refused. The message names it and says what would do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No limit has this name.
    UnknownLimit {
        /// The name as it was given.
        name: String,
    },
    /// The value lies outside what the protocol can work with.
    LimitOutOfRange {
        /// The limit's name.
        name: &'static str,
        /// The value as it was given.
        value: u64,
        /// Smallest allowed value.
        at_least: u64,
        /// Largest allowed value.
        at_most: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLimit { name } => {
                write!(
                    f,
                    "unknown limit '{name}': known are {}",
                    crate::Limits::names().collect::<Vec<_>>().join(", ")
                )
            }
            Self::LimitOutOfRange {
                name,
                value,
                at_least,
                at_most,
            } => {
                write!(
                    f,
                    "limit {name} = {value} is out of range: set it between {at_least} and {at_most}"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
