//! What a session and its caller say to each other.

use std::sync::Arc;

use crate::{Envelope, Identity, Limits, LoginRequest, Submission};

/// What every session of a listener shares.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Our name in the greeting, EHLO and 421.
    pub hostname: String,
    /// The greeting's text after the name.
    pub software: String,
    /// How much a client may send.
    pub limits: Limits,
    /// STARTTLS is offered while the connection is plaintext.
    pub starttls: bool,
    /// Everyone who connects is this identity, and AUTH is not offered: the loopback listener for
    /// benchmarks.
    pub identity: Option<Arc<Identity>>,
    /// MAIL is taken over plaintext. Only sensible with a preset identity.
    pub allow_plaintext_submission: bool,
    /// What is mended of a message.
    pub submission: Submission,
}

/// May mail come in? Decided outside, passed in with every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// Yes.
    #[default]
    Open,
    /// The queue is too deep: 421 4.3.2 at connect and at MAIL.
    Busy,
    /// Nothing can be stored: 421 4.3.0 at connect, 451 4.3.0 at MAIL.
    StoreDown,
    /// The server is leaving: 421 4.3.2 at connect and at MAIL.
    Draining,
    /// The session's own tenant is over its rate: 450 4.7.1 at MAIL, nothing at connect, where nobody
    /// is known yet.
    OverRate,
}

/// Why [`Session::advance`](crate::Session::advance) stopped. The replies are to be sent before the
/// event is acted on.
#[derive(Debug)]
pub enum Event {
    /// Read more, append it to what was not taken, and call again.
    NeedInput,
    /// Send the replies, which are as many as may wait, then call again with what was not taken; do not
    /// wait for more.
    Flush,
    /// Send the replies, **discard every byte that was read but not taken** (RFC 3207 4.2,
    /// CVE-2011-0411), shake hands, then call
    /// [`Session::tls_established`](crate::Session::tls_established). Until then the session takes
    /// nothing.
    StartTls,
    /// Verify, then call [`Session::login_answered`](crate::Session::login_answered).
    Login(LoginRequest),
    /// A login of this user's has failed, and there is nothing to verify: count it, let the client wait
    /// as after any other, then call [`Session::login_answered`](crate::Session::login_answered); it is
    /// 535 whatever the verdict.
    FailedLogin(String),
    /// Store, then call [`Session::envelope_answered`](crate::Session::envelope_answered).
    Envelope(Envelope),
    /// Send the replies and close.
    Close,
}

/// What the session waits for; the caller maps it to deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A command, or the rest of one, or a line of AUTH, or octets that are only read off.
    Command,
    /// The message's text, or the next chunk of it.
    Data,
    /// A verdict on a login or an envelope: ours to give, not the client's to hurry.
    Waiting,
    /// The TLS handshake after STARTTLS.
    Tls,
    /// Nothing more.
    Closed,
}
