//! Replays every `tests/dialogs/*.smtp` against the session: whole, and cut into pieces, since the cuts must not matter.
//! The format is described in `tests/dialogs/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smtp_proxy_proto::{
    BodyType, ClientCertificate, Dsn, Enhanced, Envelope, EnvelopeId, EnvelopeVerdict, Event,
    Facts, Gate, Identity, Limits, LoginVerdict, Notify, Phase, Proof, Reply, Ret, Security,
    Senders, Session, SessionConfig, Submission, reply,
};

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Send(Vec<u8>),
    Answer(Vec<String>),
    Tls,
    Closed,
    /// The value in pieces; between them any text may stand.
    Handed(String, Vec<Vec<u8>>),
}

#[derive(Debug)]
struct Dialog {
    name: String,
    options: BTreeMap<String, String>,
    steps: Vec<Step>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/dialogs")
}

fn dialogs() -> Vec<Dialog> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "smtp")
    });
    paths.sort();
    paths
        .iter()
        .map(|path| {
            parse(
                path.file_stem().unwrap().to_str().unwrap(),
                &fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

fn parse(name: &str, text: &str) -> Dialog {
    let mut dialog = Dialog {
        name: name.to_owned(),
        options: BTreeMap::new(),
        steps: Vec::new(),
    };
    assert!(
        text.starts_with("# "),
        "{name}: say in a comment what is shown"
    );
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(options) = line.strip_prefix("options: ") {
            dialog.options = options
                .split(' ')
                .map(|option| option.split_once('=').unwrap())
                .map(|(k, v)| (k.into(), v.into()))
                .collect();
        } else if let Some(text) = line.strip_prefix("C<< ") {
            dialog.send(&unescaped(&repeated(text)));
        } else if let Some(text) = line.strip_prefix("C:") {
            dialog.send(
                format!("{}\r\n", repeated(text.strip_prefix(' ').unwrap_or(text))).as_bytes(),
            );
        } else if let Some(text) = line.strip_prefix("S: ") {
            match dialog.steps.last_mut() {
                Some(Step::Answer(lines)) => lines.push(text.to_owned()),
                _ => dialog.steps.push(Step::Answer(vec![text.to_owned()])),
            }
        } else if let Some(text) = line.strip_prefix("E: ") {
            let (field, value) = text.split_once(' ').unwrap_or((text, ""));
            dialog
                .steps
                .push(Step::Handed(field.to_owned(), pieces(value)));
        } else {
            dialog.steps.push(match line {
                "TLS" => Step::Tls,
                "CLOSED" => Step::Closed,
                _ => panic!("{name}: what is {line:?}?"),
            });
        }
    }
    dialog
}

impl Dialog {
    fn send(&mut self, bytes: &[u8]) {
        match self.steps.last_mut() {
            Some(Step::Send(sent)) => sent.extend_from_slice(bytes),
            _ => self.steps.push(Step::Send(bytes.to_vec())),
        }
    }

    fn option(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }
}

fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else {
        return text.to_owned();
    };
    let Some((inner, after)) = rest.split_once("}*") else {
        return text.to_owned();
    };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let count: usize = after[..digits].parse().unwrap();
    format!(
        "{before}{}{}",
        inner.repeat(count),
        repeated(&after[digits..])
    )
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, taken) = match (first, tail.first()) {
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'0')) => (0, 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'x')) => (
                u8::from_str_radix(std::str::from_utf8(&rest[2..4]).unwrap(), 16).unwrap(),
                4,
            ),
            (b'\\', _) => panic!("unknown escape in {text:?}"),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

/// `\*` stands for any text.
fn pieces(value: &str) -> Vec<Vec<u8>> {
    value.split(r"\*").map(unescaped).collect()
}

fn holds(pieces: &[Vec<u8>], text: &[u8]) -> bool {
    match pieces {
        [] => text.is_empty(),
        [last] => text == last,
        [first, others @ ..] => text
            .strip_prefix(first.as_slice())
            .is_some_and(|rest| (0..=rest.len()).any(|at| holds(others, &rest[at..]))),
    }
}

fn matches(pattern: &str, line: &str) -> bool {
    let (pattern, line) = (pattern.trim_end(), line.trim_end());
    match pattern.split_once('*') {
        None => pattern == line,
        Some((head, tail)) => line.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| matches(tail, &rest[at..]))
        }),
    }
}

/// Plays the caller: it reads in pieces, keeps what was not taken, and gives the verdicts of the script.
struct Replay<'a> {
    dialog: &'a Dialog,
    piece: usize,
    session: Session,
    gate: Gate,
    buffered: Vec<u8>,
    replies: Vec<u8>,
    envelopes: Vec<Envelope>,
    awaits_tls: bool,
    closed: bool,
}

const ID: EnvelopeId = EnvelopeId([7; 16]);

/// As the server keeps it.
fn message(envelope: &Envelope) -> Vec<u8> {
    let facts = Facts {
        id: ID,
        hostname: "mx.example.com",
        received_at: Duration::from_secs(1_777_863_721),
    };
    envelope.pieces(&envelope.additions(&facts)).concat()
}

fn identity(username: &str, dialog: &Dialog) -> Arc<Identity> {
    let senders = dialog
        .option("senders")
        .split(',')
        .filter(|pattern| !pattern.is_empty());
    Arc::new(Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: username.to_owned(),
        senders: Senders::read(senders).unwrap(),
    })
}

fn gate(name: &str) -> Gate {
    match name {
        "" => Gate::Open,
        "busy" => Gate::Busy,
        "store_down" => Gate::StoreDown,
        "over_rate" => Gate::OverRate,
        _ => panic!("unknown gate {name}"),
    }
}

fn config(dialog: &Dialog) -> (Arc<SessionConfig>, Security) {
    let mut limits = Limits::default();
    for (name, value) in &dialog.options {
        if let Some(name) = name.strip_prefix("limits.") {
            limits.set(name, value.parse().unwrap()).unwrap();
        }
    }
    let plaintext = dialog.option("listener") == "plaintext";
    let config = SessionConfig {
        hostname: "mx.example.com".into(),
        software: "smtp-proxy".into(),
        limits,
        starttls: dialog.option("listener") == "starttls",
        identity: plaintext.then(|| identity("preset@example.com", dialog)),
        allow_plaintext_submission: plaintext,
        submission: Submission {
            add_missing_headers: dialog.option("headers") == "complete",
            strip_bcc: dialog.option("bcc") != "keep",
        },
    };
    let security = if dialog.option("listener") == "tls" {
        Security::Tls
    } else {
        Security::Plaintext
    };
    (Arc::new(config), security)
}

impl<'a> Replay<'a> {
    fn new(dialog: &'a Dialog, piece: usize) -> Self {
        let (config, security) = config(dialog);
        let mut replay = Self {
            dialog,
            piece,
            session: Session::new(config, security),
            gate: gate(dialog.option("gate")),
            buffered: Vec::new(),
            replies: Vec::new(),
            envelopes: Vec::new(),
            awaits_tls: false,
            closed: false,
        };
        if dialog.option("listener") == "tls" {
            replay.show_certificate();
        }
        let event = replay.session.greet(replay.gate, &mut replay.replies);
        replay.act_on(event);
        if !dialog.option("gate_after_greeting").is_empty() {
            replay.gate = gate(dialog.option("gate_after_greeting"));
        }
        replay
    }

    fn show_certificate(&mut self) {
        let shown = (self.dialog.option("certificate") == "client").then(|| {
            Arc::new(ClientCertificate {
                fingerprint: [3; 32],
                names: vec!["cn:client".to_owned()],
            })
        });
        self.session.certificate_shown(shown);
    }

    fn run(mut self) -> Vec<Envelope> {
        for step in &self.dialog.steps {
            self.step(step);
        }
        assert!(
            self.replies.is_empty(),
            "unexpected at the end: {:?}",
            String::from_utf8_lossy(&self.replies)
        );
        let queued = self.dialog.steps.iter().filter_map(|step| match step {
            Step::Answer(lines) => Some(
                lines
                    .iter()
                    .filter(|line| line.contains("queued as"))
                    .count(),
            ),
            _ => None,
        });
        if self.dialog.option("envelope").is_empty() {
            assert_eq!(
                self.envelopes.len(),
                queued.sum::<usize>(),
                "one envelope for each 'queued as'"
            );
        }
        self.envelopes
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(bytes) => bytes
                .chunks(self.piece)
                .for_each(|piece| self.receive(piece)),
            Step::Answer(lines) => self.check_answer(lines),
            Step::Closed => assert!(self.closed, "the session should have closed"),
            Step::Tls => {
                assert!(self.awaits_tls, "no STARTTLS before the handshake");
                self.awaits_tls = false;
                self.session.tls_established();
                self.show_certificate();
            }
            Step::Handed(field, value) if field == "none" => {
                assert_eq!(value.concat(), b"");
                assert!(
                    self.envelopes.is_empty(),
                    "handed over: {:?}",
                    self.envelopes
                );
            }
            Step::Handed(field, value) => self.check_envelope(field, value),
        }
    }

    fn receive(&mut self, piece: &[u8]) {
        if self.awaits_tls || self.closed {
            return; // What comes with STARTTLS is discarded.
        }
        self.buffered.extend_from_slice(piece);
        loop {
            let (taken, event) = self
                .session
                .advance(&self.buffered, self.gate, &mut self.replies);
            self.buffered.drain(..taken);
            if self.act_on(event) {
                return;
            }
        }
    }

    /// True when the session waits for more bytes, or for none.
    fn act_on(&mut self, event: Event) -> bool {
        let next = match event {
            Event::NeedInput => return true,
            Event::Flush => return false,
            Event::StartTls => {
                self.awaits_tls = true;
                self.buffered.clear();
                return true;
            }
            Event::Close => {
                self.closed = true;
                return true;
            }
            Event::Login(request) => {
                assert_eq!(self.session.phase(), Phase::Waiting);
                // The client's certificate stands for tenant1@example.com.
                let asked = match (&request.proof, request.username.as_str()) {
                    (Proof::Certificate(_), "") => "tenant1@example.com",
                    (_, username) => username,
                };
                let known = asked == "tenant1@example.com"
                    && request
                        .password()
                        .is_none_or(|password| password.expose() == "secret");
                let verdict = match self.dialog.option("login") {
                    "unavailable" => LoginVerdict::Unavailable,
                    "crowded" => LoginVerdict::Crowded,
                    _ if known => LoginVerdict::Accepted(identity(asked, self.dialog)),
                    _ => LoginVerdict::Rejected,
                };
                self.session.login_answered(verdict, &mut self.replies)
            }
            Event::FailedLogin(_) => {
                assert_eq!(self.session.phase(), Phase::Waiting);
                self.session
                    .login_answered(LoginVerdict::Unavailable, &mut self.replies)
            }
            Event::Envelope(envelope) => {
                assert_eq!(self.session.phase(), Phase::Waiting);
                self.envelopes.push(envelope);
                let verdict = match self.dialog.option("envelope") {
                    "deferred" => EnvelopeVerdict::Deferred,
                    // As ingress does: from then on the gate says it, at MAIL.
                    "over_rate" => {
                        self.gate = Gate::OverRate;
                        EnvelopeVerdict::Refused(reply::OVER_RATE)
                    }
                    "refused" => EnvelopeVerdict::Refused(Reply::new(
                        550,
                        Enhanced(5, 7, 1),
                        "refused by the script",
                    )),
                    _ => EnvelopeVerdict::Queued { id: ID },
                };
                self.session.envelope_answered(verdict, &mut self.replies)
            }
        };
        !matches!(next, Event::NeedInput) && self.act_on(next)
    }

    fn check_answer(&mut self, patterns: &[String]) {
        let replies = String::from_utf8(std::mem::take(&mut self.replies)).unwrap();
        let lines: Vec<&str> = replies.split_inclusive("\r\n").collect();
        let good = lines.len() == patterns.len()
            && lines
                .iter()
                .zip(patterns)
                .all(|(line, pattern)| matches(pattern, line));
        assert!(good, "expected {patterns:#?}\ngot {lines:#?}");
    }

    fn check_envelope(&self, field: &str, value: &[Vec<u8>]) {
        let envelope = self.envelopes.last().expect("no envelope was handed over");
        let body_type = if envelope.body_type == BodyType::SevenBit {
            "7bit"
        } else {
            "8bitmime"
        };
        let recipients = envelope
            .recipients
            .iter()
            .map(|recipient| format!("<{recipient}>"))
            .collect::<Vec<_>>()
            .join(" ");
        let body = message(envelope);
        let dsn = shown_dsn(envelope.dsn.as_deref());
        let found = match field {
            "dsn" => dsn.as_bytes(),
            "reverse-path" => envelope.reverse_path.as_bytes(),
            "recipients" => recipients.as_bytes(),
            "body" => &body,
            "body-type" => body_type.as_bytes(),
            "smtputf8" if envelope.smtputf8 => b"yes",
            "smtputf8" => b"no",
            "helo" => envelope.helo.as_bytes(),
            "username" => envelope.identity.username.as_bytes(),
            _ => panic!("unknown field {field}"),
        };
        assert!(
            holds(value, found),
            "{field}: got {:?}",
            String::from_utf8_lossy(found)
        );
    }
}

/// `FULL id | SUCCESS,DELAY rfc822;a | - -`; `-` is what was not given.
fn shown_dsn(dsn: Option<&Dsn>) -> String {
    let Some(dsn) = dsn else { return "-".into() };
    let ret = dsn.ret.map_or("-", |ret| match ret {
        Ret::Full => "FULL",
        Ret::Headers => "HDRS",
    });
    let envid = dsn.envid.as_deref().unwrap_or("-");
    let recipients = dsn.recipients.iter().map(|recipient| {
        let notify = recipient.notify.map_or("-".into(), shown_notify);
        format!(" | {notify} {}", recipient.orcpt.as_deref().unwrap_or("-"))
    });
    format!("{ret} {envid}{}", recipients.collect::<String>())
}

fn shown_notify(notify: Notify) -> String {
    let words = [(1, "SUCCESS"), (2, "FAILURE"), (4, "DELAY")];
    let given = words
        .into_iter()
        .filter(|(bit, _)| notify.bits() & bit != 0)
        .map(|(_, word)| word)
        .collect::<Vec<_>>();
    if given.is_empty() {
        "NEVER".into()
    } else {
        given.join(",")
    }
}

#[test]
fn every_dialog_goes_as_written() {
    let dialogs = dialogs();
    assert!(dialogs.len() >= 100, "only {} dialogs", dialogs.len());
    for dialog in &dialogs {
        for piece in [usize::MAX, 1, 2, 3, 5, 7, 64] {
            eprintln!("dialog {} in pieces of {piece}", dialog.name);
            Replay::new(dialog, piece).run();
        }
    }
}

#[test]
fn every_dialog_names_a_listener_and_known_options() {
    for dialog in dialogs() {
        assert!(
            ["starttls", "tls", "plaintext"].contains(&dialog.option("listener")),
            "{}",
            dialog.name
        );
        for name in dialog.options.keys() {
            let known = [
                "listener",
                "login",
                "envelope",
                "gate",
                "gate_after_greeting",
                "headers",
                "bcc",
                "senders",
                "certificate",
            ]
            .contains(&name.as_str());
            assert!(
                known || name.starts_with("limits."),
                "{}: {name}",
                dialog.name
            );
        }
    }
}

#[test]
fn the_replay_itself_can_fail() {
    let wrong = parse(
        "wrong",
        "# wrong\noptions: listener=tls\nS: 220 *\nC: NOOP\nS: 251 *\n",
    );
    assert!(std::panic::catch_unwind(|| Replay::new(&wrong, 1).run()).is_err());
    assert!(
        matches("250 2.0.0 queued as *", "250 2.0.0 queued as x\r\n")
            && matches("*a*c", "bac")
            && !matches("a*c", "ab")
    );
    assert!(holds(&pieces(r"a\*c\r\n"), b"abbc\r\n") && !holds(&pieces(r"a\*c"), b"abcd"));
    assert_eq!(repeated("a{bc}*3d{e}*2"), "abcbcbcdee");
    assert_eq!(unescaped(r"a\r\n\0\\\xff"), b"a\r\n\0\\\xff");
}

/// `UPDATE_CORPUS=1 cargo test -p smtp-proxy-proto --test dialogs` writes the seeds of the fuzz targets anew.
#[test]
fn seeds_for_the_fuzzer() {
    if std::env::var_os("UPDATE_CORPUS").is_none() {
        return;
    }
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for dialog in dialogs() {
        let listener = match dialog.option("listener") {
            "starttls" => 0,
            "tls" => 1,
            _ => 2,
        };
        let mut seed = vec![listener];
        let mut text = None;
        for step in &dialog.steps {
            let Step::Send(bytes) = step else { continue };
            if seed.len() + bytes.len() < 4096 {
                seed.extend_from_slice(bytes);
            }
            if text.is_none() && bytes.ends_with(b"\r\n.\r\n") && bytes.len() < 1024 {
                text = Some(bytes);
            }
        }
        write(&corpus.join("session"), &dialog.name, &seed);
        if let Some(text) = text {
            write(&corpus.join("data"), &dialog.name, text);
        }
        let about_headers = ["headers", "bcc", "too_many_hops"];
        if about_headers
            .iter()
            .any(|word| dialog.name.starts_with(word))
        {
            for (nth, text) in texts(&dialog).enumerate() {
                write(
                    &corpus.join("header"),
                    &format!("{}_{nth}", dialog.name),
                    text,
                );
            }
        }
    }
}

/// What is sent after each DATA, without the final dot.
fn texts(dialog: &Dialog) -> impl Iterator<Item = &[u8]> {
    dialog.steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => bytes.strip_suffix(b".\r\n"),
        _ => None,
    })
}

fn write(folder: &std::path::Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}
