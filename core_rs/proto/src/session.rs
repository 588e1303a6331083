//! One connection's protocol state. Theory of operation:
//!
//! The caller reads bytes and calls [`Session::advance`], which takes whole lines (or, after DATA,
//! text), appends replies and stops with an [`Event`] when it needs something only the outside has:
//! more bytes, a TLS handshake, the truth about a login, a stored envelope. What was not taken
//! stays with the caller, so a session holds no input, and an idle one is small.
//!
//! Two things are kept apart:
//! * `State` says how far the dialogue is, and `TABLE` says what each verb may do in it. A verb
//!   without a row is 503. A verb's handler (in `verbs.rs`) may refuse and then nothing changes; if
//!   it succeeds, the session moves to the state in the cell.
//! * `Mode` says what the next bytes are: a command, a line of AUTH, the message's text, a chunk
//!   of it, or nothing yet, while a verdict is awaited.
//!
//! BDAT alone has no say over its own octets: they follow the command whether it is taken or not,
//! so they are counted off before it is answered, and a chunk that is refused ends its transaction
//! (`chunks.rs`).
//!
//! Every way out of a transaction (queued, deferred, refused, RSET, EHLO, TLS) goes through
//! `Session::enter`, which forgets it, so that no error leaves anything behind for the next
//! message.

mod chunks;
mod events;
mod input;
mod verbs;

use std::sync::Arc;

use self::chunks::Chunk;
pub use self::events::{Event, Gate, Phase, SessionConfig};

use crate::auth::{Exchange, Step};
use crate::command::Verb;
use crate::data::Text;
use crate::{
    BodyType, ClientCertificate, Dsn, EnvelopeVerdict, Identity, LoginRequest, LoginVerdict, Reply,
    Security, reply,
};

/// How far the dialogue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has said EHLO yet, or all was forgotten after STARTTLS.
    Fresh,
    /// EHLO or HELO was said, and nobody is logged in. With a preset identity it is passed over.
    Greeted,
    /// Logged in, no transaction.
    Ready,
    /// MAIL was accepted.
    Mail,
    /// At least one RCPT was accepted.
    Rcpt,
    /// A chunk of BDAT was accepted, the last one was not seen yet (RFC 3030 2).
    Chunks,
}

/// What a verb may do in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// 503 5.5.1.
    Out,
    /// 530 5.7.0: first log in, or in plaintext first STARTTLS (RFC 6409 4.3, RFC 4954 6, RFC 3207
    /// 4).
    Login,
    /// Its handler answers; the state stays.
    Stay,
    /// Its handler answers; on success the session moves there. AUTH moves when the login is
    /// accepted, DATA with whatever verdict; BDAT with LAST, or refused, as DATA does.
    To(State),
}

use Cell::{Login, Out, Stay, To};
use State::{Chunks, Fresh, Greeted, Mail, Rcpt, Ready};

/// The transition table: a verb's row, a state's column.
#[rustfmt::skip]
const TABLE: [(Verb, [Cell; 6]); 14] = [
    //                 Fresh        Greeted      Ready      Mail       Rcpt        Chunks
    (Verb::Ehlo,     [To(Greeted), To(Greeted), To(Ready), To(Ready), To(Ready),  To(Ready) ]),
    (Verb::Helo,     [To(Greeted), To(Greeted), To(Ready), To(Ready), To(Ready),  To(Ready) ]),
    (Verb::StartTls, [Out,         To(Fresh),   To(Fresh), Out,       Out,        Out       ]),
    (Verb::Auth,     [Out,         To(Ready),   Out,       Out,       Out,        Out       ]),
    (Verb::Mail,     [Out,         Login,       To(Mail),  Out,       Out,        Out       ]),
    (Verb::Rcpt,     [Out,         Login,       Out,       To(Rcpt),  To(Rcpt),   Out       ]),
    (Verb::Data,     [Out,         Login,       Out,       Out,       To(Ready),  Out       ]),
    (Verb::Bdat,     [Out,         Login,       Out,       Out,       To(Chunks), To(Chunks)]),
    (Verb::Rset,     [To(Fresh),   To(Greeted), To(Ready), To(Ready), To(Ready),  To(Ready) ]),
    (Verb::Noop,     [Stay,        Stay,        Stay,      Stay,      Stay,       Stay      ]),
    (Verb::Vrfy,     [Stay,        Stay,        Stay,      Stay,      Stay,       Stay      ]),
    (Verb::Expn,     [Stay,        Stay,        Stay,      Stay,      Stay,       Stay      ]),
    (Verb::Help,     [Stay,        Stay,        Stay,      Stay,      Stay,       Stay      ]),
    (Verb::Quit,     [Stay,        Stay,        Stay,      Stay,      Stay,       Stay      ]),
];

fn cell(state: State, verb: Verb) -> Cell {
    let row = TABLE.iter().find(|(known, _)| *known == verb);
    row.and_then(|(_, cells)| cells.get(state as usize))
        .copied()
        .unwrap_or(Out)
}

/// The transition table as Markdown, for docs/FLOW.md.
#[must_use]
pub fn transition_table() -> String {
    let mut text = String::from(
        "| verb | Fresh | Greeted | Ready | Mail | Rcpt | Chunks |\n|---|---|---|---|---|---|---|\n",
    );
    for (verb, cells) in TABLE {
        let shown = cells.map(|cell| match cell {
            Out => "503".to_owned(),
            Login => "530".to_owned(),
            Stay => "stays".to_owned(),
            To(state) => format!("→ {state:?}"),
        });
        text.extend(["| ", verb.name(), " | ", &shown.join(" | "), " |\n"]);
    }
    text
}

/// Replies that may wait to be written, bytes; at most one command's replies more. One TLS record (RFC
/// 8446 5.1), so that a client that pipelines honestly is still answered in few writes.
pub const OUT_BYTES: usize = 16 * 1024;

/// What the next bytes are.
#[derive(Debug)]
enum Mode {
    Command,
    /// The rest of a line that was too long and has been answered.
    Skip,
    Auth(Exchange),
    Text,
    Chunk(Chunk),
    AwaitLogin,
    /// A login has failed, and its answer is not due yet.
    AwaitFailure,
    AwaitEnvelope,
    AwaitTls,
    Closed,
}

/// From MAIL to the final dot or the last chunk.
#[derive(Debug)]
struct Transaction {
    reverse_path: String,
    recipients: Vec<String>,
    /// What sender and recipients hold, kept along so that asking costs nothing.
    address_bytes: usize,
    body_type: BodyType,
    smtputf8: bool,
    text: Text,
    dsn: Option<Box<Dsn>>,
}

/// One connection's protocol state. See the module's theory of operation.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    identity: Option<Arc<Identity>>,
    /// Of the TLS handshake; what EXTERNAL logs in by.
    certificate: Option<Arc<ClientCertificate>>,
    helo: Option<Arc<str>>,
    transaction: Option<Box<Transaction>>,
    mode: Mode,
    state: State,
    security: Security,
    /// A first command was read; what only makes sense as the first is no longer looked for.
    spoken: bool,
    errors: u32,
    auth_failures: u32,
    messages: u32,
    /// Commands in a row that brought no message.
    idle_commands: u32,
}

/// How a handler answered.
enum Answer {
    /// With one line.
    Say(Reply),
    /// It wrote its own lines, and succeeded.
    Said,
    /// With one line, and what comes next; the state waits for the outcome.
    Go(Reply, Mode),
    /// With a login to be verified.
    Verify(LoginRequest),
    /// With one of this user's that has failed already.
    Fail(String),
}

impl Session {
    /// A session that has not spoken yet; [`Session::greet`] is next.
    #[must_use]
    pub fn new(config: Arc<SessionConfig>, security: Security) -> Self {
        Self {
            identity: config.identity.clone(),
            config,
            certificate: None,
            helo: None,
            transaction: None,
            mode: Mode::Command,
            state: Fresh,
            security,
            spoken: false,
            errors: 0,
            auth_failures: 0,
            messages: 0,
            idle_commands: 0,
        }
    }

    /// 220, or 421 and `Close` while the gate is not open.
    pub fn greet(&mut self, gate: Gate, out: &mut Vec<u8>) -> Event {
        let refusal = match gate {
            Gate::Open | Gate::OverRate => {
                let greeting = format!("{} ESMTP {}", self.config.hostname, self.config.software);
                Reply::plain(220, greeting).write(out);
                return Event::NeedInput;
            }
            Gate::Busy | Gate::Draining => reply::NOT_ACCEPTING,
            Gate::StoreDown => reply::STORE_DOWN_CLOSING,
        };
        self.part(&refusal, out)
    }

    /// Takes what it can of `input` and appends replies to `out`; returns how many bytes it took,
    /// and why it stopped. The caller keeps the rest: an unfinished line, or in a message's text up
    /// to 3 bytes that may become its end. A line that exceeds its limit is answered once and then
    /// discarded up to its LF, so a caller's buffer of the longest line always suffices.
    ///
    /// Stops with [`Event::Flush`] when [`OUT_BYTES`] of replies wait in `out`: a flood of tiny
    /// commands must not become a buffer many times its size.
    pub fn advance(&mut self, input: &[u8], gate: Gate, out: &mut Vec<u8>) -> (usize, Event) {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let (bytes, event) = match self.mode {
                Mode::Command | Mode::Auth(_) => self.take_line(rest, gate, out),
                Mode::Skip => self.skip_line(rest),
                Mode::Text => self.take_text(rest, out),
                Mode::Chunk(chunk) => self.take_chunk(chunk, rest, out),
                Mode::AwaitLogin | Mode::AwaitFailure | Mode::AwaitEnvelope | Mode::AwaitTls => {
                    (0, Event::NeedInput)
                }
                Mode::Closed => return (input.len(), Event::Close),
            };
            taken += bytes;
            match event {
                Event::NeedInput if bytes > 0 && taken < input.len() => {
                    if out.len() >= OUT_BYTES {
                        return (taken, Event::Flush);
                    }
                }
                event => return (taken, event),
            }
        }
    }

    /// Ends it with a 421 of the caller's.
    pub fn end_with(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Event {
        self.part(reply, out)
    }

    /// Answers the [`LoginRequest`] that is awaited, or the failure; without either, nothing happens. Then call
    /// [`Session::advance`] with what is buffered.
    pub fn login_answered(&mut self, verdict: LoginVerdict, out: &mut Vec<u8>) -> Event {
        if !matches!(self.mode, Mode::AwaitLogin | Mode::AwaitFailure) {
            return self.idle_event();
        }
        if let Mode::AwaitFailure = std::mem::replace(&mut self.mode, Mode::Command) {
            return self.login_failed(out);
        }
        match verdict {
            LoginVerdict::Accepted(identity) => {
                self.identity = Some(identity);
                self.succeed(Verb::Auth);
                self.say(&reply::AUTHENTICATED, out)
            }
            LoginVerdict::Rejected => self.login_failed(out),
            LoginVerdict::Unavailable => self.say(&reply::LOGIN_UNAVAILABLE, out),
            LoginVerdict::Crowded => self.say(&reply::TOO_MANY_SESSIONS, out),
        }
    }

    /// Answers the [`Envelope`](crate::Envelope) that is awaited; without one, nothing happens. Then call
    /// [`Session::advance`] with what is buffered.
    pub fn envelope_answered(&mut self, verdict: EnvelopeVerdict, out: &mut Vec<u8>) -> Event {
        if !matches!(self.mode, Mode::AwaitEnvelope) {
            return self.idle_event();
        }
        self.mode = Mode::Command;
        self.messages = self.messages.saturating_add(1);
        match verdict {
            EnvelopeVerdict::Queued { id } => self.say(&reply::queued(id), out),
            EnvelopeVerdict::Deferred => self.say(&reply::STORE_DOWN, out),
            EnvelopeVerdict::Refused(reply) => self.say(&reply, out),
        }
    }

    /// The handshake after STARTTLS succeeded: whatever was said in plaintext is forgotten (RFC
    /// 3207 4.2).
    pub fn tls_established(&mut self) {
        self.security = Security::Tls;
        self.identity = self.config.identity.clone();
        self.certificate = None;
        self.helo = None;
        self.mode = Mode::Command;
        self.enter(Fresh);
    }

    /// The client's certificate, verified in the handshake that was just made. Without this call
    /// there is none.
    pub fn certificate_shown(&mut self, certificate: Option<Arc<ClientCertificate>>) {
        self.certificate = certificate;
    }

    /// 421 4.4.2, and closed.
    pub fn timed_out(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.mode, Mode::Closed) {
            let _ = self.part(&reply::TIMED_OUT, out);
        }
    }

    /// 421 4.3.2, and closed.
    pub fn shut_down(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.mode, Mode::Closed) {
            let _ = self.part(&reply::NOT_ACCEPTING, out);
        }
    }

    /// What it waits for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.mode {
            // A message that is received in chunks is in memory between them too.
            Mode::Command | Mode::Skip if self.state == Chunks => Phase::Data,
            Mode::Text => Phase::Data,
            Mode::Chunk(chunk) if chunk.is_kept() => Phase::Data,
            Mode::Command | Mode::Skip | Mode::Auth(_) | Mode::Chunk(_) => Phase::Command,
            Mode::AwaitLogin | Mode::AwaitFailure | Mode::AwaitEnvelope => Phase::Waiting,
            Mode::AwaitTls => Phase::Tls,
            Mode::Closed => Phase::Closed,
        }
    }

    /// Bytes held for the message that is being received.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.transaction
            .as_ref()
            .map_or(0, |transaction| transaction.text.held_bytes())
    }

    /// Bytes held for the sender and the recipients of the message that is being received.
    #[must_use]
    pub fn address_bytes(&self) -> usize {
        self.transaction
            .as_ref()
            .map_or(0, |transaction| transaction.address_bytes)
    }

    /// Somebody is logged in, or preset.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.identity.is_some()
    }

    /// Between DATA's 354 and its reply, or from the first chunk of BDAT to the reply to the last:
    /// what a drain waits for.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        match self.mode {
            Mode::Text | Mode::AwaitEnvelope => true,
            Mode::Chunk(chunk) => chunk.is_kept(),
            _ => self.state == Chunks,
        }
    }

    fn login_needed(&self) -> Reply {
        if self.security == Security::Plaintext && self.config.starttls {
            reply::TLS_NEEDED
        } else {
            reply::LOGIN_NEEDED
        }
    }

    fn succeed(&mut self, verb: Verb) {
        if let To(state) = cell(self.state, verb) {
            self.enter(state);
        }
    }

    fn enter(&mut self, state: State) {
        if !matches!(state, Mail | Rcpt | Chunks) {
            self.transaction = None;
        }
        self.state = if state == Greeted && self.identity.is_some() {
            Ready
        } else {
            state
        };
    }

    /// Writes a reply; a 5xx draws on the error budget, and a 421 ends the session.
    fn say(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Event {
        if reply.code() == 421 {
            return self.part(reply, out);
        }
        reply.write(out);
        if reply.is_permanent_failure() {
            self.errors = self.errors.saturating_add(1);
            if is_used_up(self.errors, self.config.limits.errors_per_session) {
                return self.part(&reply::TOO_MANY_ERRORS, out);
            }
        }
        Event::NeedInput
    }

    fn login_failed(&mut self, out: &mut Vec<u8>) -> Event {
        self.auth_failures = self.auth_failures.saturating_add(1);
        let event = self.say(&reply::LOGIN_REJECTED, out);
        let last = is_used_up(
            self.auth_failures,
            self.config.limits.auth_failures_per_session,
        );
        match event {
            Event::NeedInput if last => self.part(&reply::TOO_MANY_LOGINS, out),
            event => event,
        }
    }

    /// The last words.
    fn part(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Event {
        reply.write(out);
        self.mode = Mode::Closed;
        self.enter(Fresh);
        Event::Close
    }

    /// What the mode alone asks for.
    fn idle_event(&self) -> Event {
        match self.mode {
            Mode::AwaitTls => Event::StartTls,
            Mode::Closed => Event::Close,
            _ => Event::NeedInput,
        }
    }
}

fn is_used_up(count: u32, limit: u32) -> bool {
    limit != 0 && count >= limit
}

fn auth_answer(step: Step) -> Answer {
    match step {
        Step::Ask(challenge, exchange) => {
            Answer::Go(Reply::plain(334, challenge), Mode::Auth(exchange))
        }
        Step::Login(request) => Answer::Verify(request),
        Step::Fail { username } => Answer::Fail(username),
        Step::Refuse(reply) => Answer::Say(reply),
    }
}
