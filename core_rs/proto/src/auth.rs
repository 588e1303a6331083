//! AUTH.
use crate::{Identity, Secret};
use std::sync::Arc;

/// How the client logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old two-question mechanism that many clients still prefer.
    Login,
}

/// A login to be verified; answered by [`crate::Session::login_answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// UTF-8 without control characters, not empty.
    pub username: String,
    /// UTF-8 without NUL, not empty.
    pub password: Secret,
    /// How it came.
    pub mechanism: Mechanism,
}

/// What became of a [`LoginRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginVerdict {
    /// 235 2.7.0.
    Accepted(Arc<Identity>),
    /// 535 5.7.8: unknown user and wrong password are told alike.
    Rejected,
    /// 454 4.7.0: we could not find out.
    Unavailable,
}
