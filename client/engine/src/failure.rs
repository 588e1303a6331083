//! What goes wrong with one message or one connection; counted, never the end of a run.

use std::io;

/// Where in a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connect,
    Greeting,
    Ehlo,
    StartTls,
    Handshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    FinalDot,
    Transaction,
    Reset,
    Quit,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Handshake => "TLS handshake",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::FinalDot => "final dot",
            Self::Transaction => "transaction",
            Self::Reset => "RSET",
            Self::Quit => "QUIT",
        }
    }
}

/// One failure: its text as it is counted, and whether the connection outlives it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) connection_is_usable: bool,
}

impl Failure {
    /// A refusing reply. 421 announces the end of the connection (RFC 5321 3.8).
    pub(crate) fn reply(phase: Phase, code: u16, line: &[u8]) -> Self {
        let text = format!("{}: {}", phase.name(), String::from_utf8_lossy(line));
        Self {
            text,
            connection_is_usable: code != 421,
        }
    }

    pub(crate) fn io(phase: Phase, error: &io::Error) -> Self {
        Self::fatal(phase, &error.to_string())
    }

    /// The connection is of no more use.
    pub(crate) fn fatal(phase: Phase, what: &str) -> Self {
        Self {
            text: format!("{}: {what}", phase.name()),
            connection_is_usable: false,
        }
    }

    pub(crate) fn timed_out(phase: Phase) -> Self {
        Self::fatal(phase, "timed out")
    }
}
