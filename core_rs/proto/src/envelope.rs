//! The letter once it is complete: sender, recipients, body and whose it is. It exists whole or not
//! at all.

use std::fmt;
use std::sync::Arc;

use crate::{Dsn, Lane, Missing, Reply, Senders};

/// Who is logged in. Cheap to hand on: a session and its envelopes share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant's UUID.
    pub tenant_id: [u8; 16],
    /// The credential's UUID.
    pub credential_id: [u8; 16],
    /// The name that was used to log in.
    pub username: String,
    /// The reverse-paths that it may use.
    pub senders: Senders,
}

/// What the connection is protected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Nothing yet: STARTTLS may follow.
    Plaintext,
    /// Implicit TLS (RFC 8314 3.3), or after STARTTLS (RFC 3207).
    Tls,
}

/// RFC 6152: what the body's bytes are. The numbers cross the border and lie in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum BodyType {
    /// ASCII only.
    #[default]
    SevenBit = 0,
    /// Declared by the client, or found: a body that has 8-bit bytes is never called `SevenBit`, so
    /// that the next hop is told.
    EightBitMime = 1,
}

/// A message that the client has sent to its final dot. Nothing in it is stored yet, and no 250 has
/// been spoken.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub identity: Arc<Identity>,
    /// The address of MAIL without its angle brackets; empty is the null reverse-path `<>`.
    pub reverse_path: String,
    /// The addresses of RCPT without angle brackets, in order, as often as they were given.
    /// `postmaster` may stand without a domain.
    pub recipients: Vec<String>,
    /// Dot-unstuffed; every CR is followed by LF and every LF follows a CR; no NUL. Ends with CRLF
    /// unless empty. As the client sent it, but for what [`Submission`](crate::Submission) takes out; what that
    /// adds is not in it yet, see [`Envelope::additions`].
    pub body: Vec<u8>,
    /// What the body's bytes are.
    pub body_type: BodyType,
    /// RFC 6531: the client declared SMTPUTF8, so addresses and header may be UTF-8.
    pub smtputf8: bool,
    /// The name that the client gave in EHLO or HELO.
    pub helo: Arc<str>,
    /// What the connection was protected by when the message came.
    pub security: Security,
    /// What the header lacks.
    pub missing: Missing,
    /// RFC 3461, if anything was asked for; most mail asks for nothing.
    pub dsn: Option<Box<Dsn>>,
    /// As its header asks; `None`: it does not.
    pub lane: Option<Lane>,
}

impl fmt::Debug for Envelope {
    /// The body's length instead of the body: other people's mail has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("identity", &self.identity)
            .field("reverse_path", &self.reverse_path)
            .field("recipients", &self.recipients)
            .field("body_bytes", &self.body.len())
            .field("body_type", &self.body_type)
            .field("smtputf8", &self.smtputf8)
            .field("helo", &self.helo)
            .field("security", &self.security)
            .field("missing", &self.missing)
            .field("dsn", &self.dsn)
            .field("lane", &self.lane)
            .finish()
    }
}

/// The envelope's UUID, shown with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnvelopeId(pub [u8; 16]);

impl EnvelopeId {
    /// The 36 characters. Written by hand because every 250 has one.
    #[must_use]
    pub fn hyphenated(self) -> String {
        let mut text = String::with_capacity(36);
        for (nth, byte) in self.0.into_iter().enumerate() {
            if matches!(nth, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 15));
        }
        text
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from(if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    })
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.hyphenated())
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What became of an [`Envelope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeVerdict {
    /// It is committed: 250 2.0.0.
    Queued {
        /// What the client is told, and what it can be looked up by.
        id: EnvelopeId,
    },
    /// It could not be stored: 451 4.3.0, the client tries again.
    Deferred,
    /// It was refused by a rule (a limit of the tenant's, for one). The reply should be 4xx or 5xx.
    Refused(Reply),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_a_uuid() {
        let id = EnvelopeId([
            0x01, 0x93, 0xa4, 0x5e, 0, 1, 0x70, 2, 0x80, 3, 4, 5, 6, 7, 8, 0xff,
        ]);
        assert_eq!(id.to_string(), "0193a45e-0001-7002-8003-0405060708ff");
    }
}
