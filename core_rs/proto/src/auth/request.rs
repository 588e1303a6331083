//! A login to be verified, and what becomes of it.

use std::sync::Arc;

use crate::{ClientCertificate, Identity, Secret};

/// How the client logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: everything in one response.
    Plain,
    /// Two questions; never standardised, and what many clients still prefer.
    Login,
    /// RFC 4422 A: by the certificate of the TLS handshake.
    External,
}

impl Mechanism {
    /// RFC 4422 3.1: mechanism names have no case here, since clients write them as they like.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("PLAIN") => Some(Self::Plain),
            _ if name.eq_ignore_ascii_case("LOGIN") => Some(Self::Login),
            _ if name.eq_ignore_ascii_case("EXTERNAL") => Some(Self::External),
            _ => None,
        }
    }
}

/// A login to be verified; answered by [`crate::Session::login_answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// UTF-8 without control characters. Empty with a certificate alone: whoever it stands for.
    pub username: String,
    /// What shall prove it.
    pub proof: Proof,
    /// How it came.
    pub mechanism: Mechanism,
}

/// What the client has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// UTF-8 without NUL, not empty.
    Password(Secret),
    /// Verified in the handshake; what is left to ask is whose it is.
    Certificate(Arc<ClientCertificate>),
}

impl LoginRequest {
    /// The password, if that is the proof.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        match &self.proof {
            Proof::Password(password) => Some(password),
            Proof::Certificate(_) => None,
        }
    }
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
    /// 421 4.7.0, and closed: the login is good, and its tenant has as many sessions as it may.
    Crowded,
}
