//! The session.
use std::sync::Arc;

use crate::{
    Enhanced, Envelope, EnvelopeVerdict, Identity, Limits, LoginRequest, LoginVerdict, Reply,
    Security,
};

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
    /// Everyone who connects is this identity, and AUTH is not offered: the loopback listener for benchmarks.
    pub identity: Option<Arc<Identity>>,
    /// MAIL is taken over plaintext. Only sensible with a preset identity.
    pub allow_plaintext_submission: bool,
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
}

/// Why [`Session::advance`] stopped. Whatever is in the reply buffer is to be sent before the event is acted on.
#[derive(Debug)]
pub enum Event {
    /// Read more, append it to what was not taken, and call again.
    NeedInput,
    /// Send the replies, **discard every byte that was read but not taken** (RFC 3207 4.2, CVE-2011-0411), shake hands, then call [`Session::tls_established`].
    StartTls,
    /// Verify, then call [`Session::login_answered`].
    Login(LoginRequest),
    /// Store, then call [`Session::envelope_answered`].
    Envelope(Envelope),
    /// Send the replies and close.
    Close,
}

/// What the session waits for; the caller maps it to deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A command, or the rest of one (also an AUTH continuation).
    Command,
    /// The message's text.
    Data,
    /// A verdict on a login or an envelope: ours to give, not the client's to hurry.
    Waiting,
    /// The TLS handshake after STARTTLS.
    Tls,
    /// Nothing more.
    Closed,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    phase: Phase,
    security: Security,
}

impl Session {
    /// A session that has not spoken yet; [`Session::greet`] is next.
    #[must_use]
    pub fn new(config: Arc<SessionConfig>, security: Security) -> Self {
        Self {
            config,
            phase: Phase::Command,
            security,
        }
    }
    /// 220, or 421 and `Close` while the gate is not open.
    pub fn greet(&mut self, gate: Gate, out: &mut Vec<u8>) -> Event {
        let _ = gate;
        Reply::plain(
            220,
            format!("{} ESMTP {}", self.config.hostname, self.config.software),
        )
        .write(out);
        Event::NeedInput
    }
    /// Takes what it can of `input`, appends replies to `out`; returns how many bytes it took and why it stopped.
    pub fn advance(&mut self, input: &[u8], gate: Gate, out: &mut Vec<u8>) -> (usize, Event) {
        let _ = gate;
        if input.is_empty() {
            return (0, Event::NeedInput);
        }
        Reply::new(221, Enhanced(2, 0, 0), "Bye").write(out);
        self.phase = Phase::Closed;
        (input.len(), Event::Close)
    }
    /// Answers a [`LoginRequest`].
    pub fn login_answered(&mut self, verdict: LoginVerdict, out: &mut Vec<u8>) -> Event {
        let _ = (verdict, out);
        Event::NeedInput
    }
    /// Answers an [`Envelope`].
    pub fn envelope_answered(&mut self, verdict: EnvelopeVerdict, out: &mut Vec<u8>) -> Event {
        let _ = (verdict, out);
        Event::NeedInput
    }
    /// The handshake after STARTTLS succeeded: everything said in plaintext is forgotten (RFC 3207 4.2).
    pub fn tls_established(&mut self) {
        self.security = Security::Tls;
        self.phase = Phase::Command;
    }
    /// 421 4.4.2, and closed.
    pub fn timed_out(&mut self, out: &mut Vec<u8>) {
        let _ = out;
        self.phase = Phase::Closed;
    }
    /// 421 4.3.2, and closed.
    pub fn shut_down(&mut self, out: &mut Vec<u8>) {
        let _ = out;
        self.phase = Phase::Closed;
    }
    /// What it waits for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Bytes held for the message that is being received.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        0
    }
    /// Between DATA's 354 and its reply: what a drain waits for.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        false
    }
}
