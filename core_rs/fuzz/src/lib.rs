//! What is fuzzed, in `targets`, and the caller's part of a session, as the targets of the session play it.

pub mod targets;

use std::sync::Arc;

use smtp_proxy_proto::{
    ClientCertificate, Dsn, Enhanced, Envelope, EnvelopeId, EnvelopeVerdict, Event, Gate, Identity,
    Limits, LoginRequest, LoginVerdict, Phase, Reply, Secret, Security, Senders, Session,
    SessionConfig, Submission, reply, session,
};

/// Keeps what was not taken, gives verdicts, and checks what must always hold.
pub struct Caller {
    session: Session,
    buffered: Vec<u8>,
    shaking_hands: bool,
    /// All that was answered.
    pub replies: Vec<u8>,
    /// All that was handed over.
    pub envelopes: Vec<Envelope>,
    /// The session ended.
    pub closed: bool,
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: "tenant1@example.com".into(),
        senders: Senders::default(),
    })
}

fn config(preset: bool) -> Arc<SessionConfig> {
    let limits = Limits {
        message_bytes: 2000,
        text_line_bytes: 200,
        command_line_bytes: 300,
        auth_line_bytes: 500,
        recipients: 3,
        errors_per_session: 30,
        auth_failures_per_session: 5,
        messages_per_session: 20,
        hops: 5,
        idle_commands_per_session: 60,
    };
    Arc::new(SessionConfig {
        hostname: "mx.example.com".into(),
        software: "smtp-proxy".into(),
        limits,
        starttls: !preset,
        identity: preset.then(identity),
        allow_plaintext_submission: preset,
        submission: Submission::default(),
    })
}

impl Caller {
    /// `listener`: 0 = STARTTLS, 1 = TLS, 2 = plaintext with a preset identity.
    #[must_use]
    pub fn new(listener: u8) -> Self {
        let security = if listener % 3 == 1 {
            Security::Tls
        } else {
            Security::Plaintext
        };
        let mut session = Session::new(config(listener % 3 == 2), security);
        // Under implicit TLS the client has shown a certificate, after STARTTLS it has not.
        let certificate = ClientCertificate {
            fingerprint: [3; 32],
            names: Vec::new(),
        };
        session.certificate_shown((listener % 3 == 1).then(|| Arc::new(certificate)));
        let (buffered, replies, envelopes) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            session,
            buffered,
            shaking_hands: false,
            replies,
            envelopes,
            closed: false,
        }
    }

    /// One read of the caller's.
    pub fn send(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
        while !self.closed {
            let before = self.replies.len();
            let (taken, event) =
                self.session
                    .advance(&self.buffered, Gate::Open, &mut self.replies);
            assert!(taken <= self.buffered.len());
            self.buffered.drain(..taken);
            check_replies(&self.replies[before..]);
            let held = self.replies.len() - before;
            // The caller keeps the replies, so the session may already see the bound reached.
            assert!(
                held < session::OUT_BYTES + 1024,
                "{held} bytes of replies wait"
            );
            let answered = match event {
                Event::NeedInput => break,
                Event::Flush => Event::NeedInput,
                Event::Close => Event::Close,
                // A real caller discards what is buffered. Here it is kept, so that cuts make no difference.
                Event::StartTls => {
                    self.shaking_hands = true;
                    self.session.tls_established();
                    Event::NeedInput
                }
                Event::Login(request) => self
                    .session
                    .login_answered(login(&request), &mut self.replies),
                Event::FailedLogin(username) => {
                    assert!(!username.is_empty() && !username.contains(char::is_control));
                    self.session
                        .login_answered(LoginVerdict::Unavailable, &mut self.replies)
                }
                Event::Envelope(envelope) => self.take(envelope),
            };
            self.closed = matches!(answered, Event::Close);
        }
        assert!(self.closed || self.session.phase() != Phase::Tls);
        assert!(
            self.session.body_bytes() <= 64 * 1024,
            "a body far over the limit is held"
        );
        assert!(
            self.closed || self.buffered.len() < 500,
            "a line over the limit is left with the caller"
        );
    }

    /// True once STARTTLS was taken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.shaking_hands
    }

    fn take(&mut self, envelope: Envelope) -> Event {
        check_envelope(&envelope);
        let verdict = match envelope.body.len() % 3 {
            0 => EnvelopeVerdict::Deferred,
            1 => EnvelopeVerdict::Refused(Reply::new(550, Enhanced(5, 7, 1), "no")),
            _ => EnvelopeVerdict::Queued {
                id: EnvelopeId([7; 16]),
            },
        };
        self.envelopes.push(envelope);
        self.session.envelope_answered(verdict, &mut self.replies)
    }
}

fn login(request: &LoginRequest) -> LoginVerdict {
    // The certificate stands for whoever asks for nobody else.
    let own = if request.username.is_empty() {
        "secret"
    } else {
        ""
    };
    match request.password().map_or(own, Secret::expose) {
        "secret" => LoginVerdict::Accepted(identity()),
        "down" => LoginVerdict::Unavailable,
        _ => LoginVerdict::Rejected,
    }
}

/// Whole lines of at most 512 bytes that begin with a code.
pub fn check_replies(replies: &[u8]) {
    let text = std::str::from_utf8(replies).expect("replies are UTF-8");
    assert!(text.is_empty() || text.ends_with("\r\n"));
    for line in text.split_terminator("\r\n") {
        assert!(line.len() + 2 <= reply::REPLY_LINE_BYTES);
        assert!(!line.contains(['\r', '\n', '\0']));
        let (code, rest) = line.split_at(3);
        assert!(
            code.parse::<u16>()
                .is_ok_and(|code| (200..600).contains(&code))
        );
        assert!(rest.starts_with([' ', '-']));
    }
}

/// Nothing in it can be mistaken further on.
pub fn check_envelope(envelope: &Envelope) {
    assert!(!envelope.recipients.is_empty() && envelope.recipients.len() <= 3);
    for address in envelope.recipients.iter().chain([&envelope.reverse_path]) {
        assert!(!address.contains(char::is_control));
        assert!(envelope.smtputf8 || address.is_ascii());
    }
    check_body(&envelope.body);
    // The last chunk of BDAT gets a line's end where it has none.
    assert!(envelope.body.len() <= 2000 + 2);
    if let Some(dsn) = &envelope.dsn {
        check_dsn(envelope, dsn);
    }
}

/// Each is one parameter's value, and there is one of each recipient.
fn check_dsn(envelope: &Envelope, dsn: &Dsn) {
    assert_eq!(dsn.recipients.len(), envelope.recipients.len());
    let orcpts = dsn
        .recipients
        .iter()
        .filter_map(|asked| asked.orcpt.as_ref());
    for value in orcpts.chain(&dsn.envid) {
        assert!(!value.is_empty() && value.chars().count() <= 500);
        assert!(!value.contains(|c: char| c.is_control() || c == ' ' || c == '='));
        assert!(envelope.smtputf8 || value.is_ascii());
    }
}

/// CRLF only, no NUL, a whole last line.
pub fn check_body(body: &[u8]) {
    assert!(body.is_empty() || body.ends_with(b"\r\n"));
    let crlf = body.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(crlf, body.iter().filter(|byte| **byte == b'\r').count());
    assert_eq!(crlf, body.iter().filter(|byte| **byte == b'\n').count());
    assert!(!body.contains(&0));
}
