//! What holds for any bytes, however they are cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use smtp_proxy_proto::data::{Defect, Text};
use smtp_proxy_proto::{
    BodyType, Enhanced, Envelope, EnvelopeId, EnvelopeVerdict, Event, Gate, Identity, Limits,
    LoginVerdict, Reply, Secret, Security, Senders, Session, SessionConfig, Submission, address,
    auth, reply,
};

/// base64 of `\0user\0good`; what ends in `bad` is rejected.
const GOOD_LOGIN: &str = "AUTH PLAIN AHVzZXIAZ29vZA==\r\n";

fn config() -> Arc<SessionConfig> {
    let mut limits = Limits {
        errors_per_session: 0,
        auth_failures_per_session: 0,
        recipients: 3,
        ..Limits::default()
    };
    limits.message_bytes = 300;
    limits.text_line_bytes = 80;
    limits.command_line_bytes = 100;
    limits.auth_line_bytes = 120;
    Arc::new(SessionConfig {
        hostname: "mx.example.com".into(),
        software: "smtp-proxy".into(),
        limits,
        starttls: false,
        identity: None,
        allow_plaintext_submission: false,
        submission: Submission::default(),
    })
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: "user".into(),
        senders: Senders::default(),
    })
}

/// The caller's part: keeps what was not taken, gives verdicts.
struct Caller {
    session: Session,
    buffered: Vec<u8>,
    replies: Vec<u8>,
    envelopes: Vec<Envelope>,
    logins: Vec<(String, String)>,
    closed: bool,
}

impl Caller {
    fn new() -> Self {
        let session = Session::new(config(), Security::Tls);
        Self {
            session,
            buffered: Vec::new(),
            replies: Vec::new(),
            envelopes: Vec::new(),
            logins: Vec::new(),
            closed: false,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
        while !self.closed {
            let (taken, event) =
                self.session
                    .advance(&self.buffered, Gate::Open, &mut self.replies);
            self.buffered.drain(..taken);
            let answered = match event {
                Event::NeedInput => break,
                Event::Flush => Event::NeedInput,
                Event::StartTls => unreachable!("not offered"),
                Event::Close => Event::Close,
                Event::Login(request) => {
                    let verdict = match request.password().map_or("", Secret::expose) {
                        "good" => LoginVerdict::Accepted(identity()),
                        "down" => LoginVerdict::Unavailable,
                        _ => LoginVerdict::Rejected,
                    };
                    self.logins.push((
                        request.username.clone(),
                        request.password().map_or("", Secret::expose).to_owned(),
                    ));
                    self.session.login_answered(verdict, &mut self.replies)
                }
                Event::FailedLogin(_) => self
                    .session
                    .login_answered(LoginVerdict::Accepted(identity()), &mut self.replies),
                Event::Envelope(envelope) => {
                    let verdict = match self.envelopes.len() % 3 {
                        0 => EnvelopeVerdict::Queued {
                            id: EnvelopeId([9; 16]),
                        },
                        1 => EnvelopeVerdict::Deferred,
                        _ => EnvelopeVerdict::Refused(Reply::new(550, Enhanced(5, 7, 1), "no")),
                    };
                    self.envelopes.push(envelope);
                    self.session.envelope_answered(verdict, &mut self.replies)
                }
            };
            self.closed = matches!(answered, Event::Close);
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.replies.clear();
        self.send(line.as_bytes());
        String::from_utf8(self.replies.clone()).unwrap()
    }
}

/// Words of a hostile or clumsy client; strung together they reach every state.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"EHLO x\r\n",
        b"HELO x\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<a@b> SIZE=100 BODY=8BITMIME\r\n",
        b"MAIL FROM:<>\r\n",
        b"MAIL FROM:<a@b> SIZE=999999\r\n",
        "MAIL FROM:<\u{fc}@b> SMTPUTF8\r\n".as_bytes(),
        b"MAIL FROM:<\xff@b>\r\n",
        b"MAIL FROM:a@b\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<>\r\n",
        "RCPT TO:<\u{fc}@b>\r\n".as_bytes(),
        b"RCPT TO:<@e,@f:c@d>\r\n",
        b"DATA\r\n",
        b"DATA x\r\n",
        b"text\r\n",
        b"text\n",
        b"text\r",
        b".\r\n",
        b"..\r\n",
        b".\n",
        b".\r",
        b"\r\n.\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"\0",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY \xc3\xbc\r\n",
        b"EXPN\r\n",
        b"BDAT 10 LAST\r\n",
        b"BDAT 6\r\ntext\r\n",
        b"BDAT 5 LAST\r\n.\r\n..",
        b"BDAT 4\r\n\xc3\xbc\r\n",
        b"BDAT 3\r\na\nb",
        b"BDAT 2 LAST\r\nx\r",
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 301\r\n",
        b"BDAT 7 FIRST\r\nRSET\r\n.",
        b"BDAT LAST\r\n",
        b"BDAT 9 LAST\n",
        b"MAIL FROM:<a@b> RET=FULL ENVID=a+2Bb\r\n",
        b"MAIL FROM:<a@b> ENVID=a+b\r\n",
        b"RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;c@d\r\n",
        b"RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY\r\n",
        b"RCPT TO:<c@d> NOTIFY=NEVER,DELAY\r\n",
        "RCPT TO:<c@d> ORCPT=utf-8;\u{fc}@b\r\n".as_bytes(),
        b"HELP\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN AHVzZXIAZ29vZA==\r\n",
        b"AUTH PLAIN AHVzZXIAYmFk\r\n",
        b"AUTH PLAIN AHVzZXIAZG93bg==\r\n",
        b"AUTH PLAIN\r\n",
        b"AHVzZXIAZ29vZA==\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH LOGIN dXNlcg==\r\n",
        b"dXNlcg==\r\n",
        b"Z29vZA==\r\n",
        b"*\r\n",
        b"AUTH EXTERNAL =\r\n",
        b"AUTH EXTERNAL\r\n",
        b"AUTH XYZ\r\n",
        b"AUTH PLAIN ?\r\n",
        b"\x16\x03\x01",
    ];
    prop_oneof![
        8 => select(words).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => (any::<u8>(), 90_usize..200).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    let opening = select(vec![
        "",
        "EHLO x\r\n",
        "EHLO x\r\nAUTH PLAIN AHVzZXIAZ29vZA==\r\n",
    ]);
    (opening, proptest::collection::vec(fragment(), 0..40))
        .prop_map(|(opening, fragments)| [opening.as_bytes(), &fragments.concat()].concat())
}

/// Text with all that matters in it, and lines around the limit of 80.
fn wire_text() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"\r",
        b"\n",
        b".",
        b"\0",
        b"\r\n",
        b"\r\n.",
        b"a",
        b"some text",
        b"\r\n.\r\n",
        &[b'x'; 70],
    ];
    proptest::collection::vec(select(words), 0..40).prop_map(|words| words.concat())
}

/// What goes wrong, each from a session that is logged in and has no transaction, and each with a refusal but the last
/// three. None is followed by RSET.
fn troubles() -> Vec<String> {
    let opened = "MAIL FROM:<evil@b> RET=FULL\r\nRCPT TO:<evil@d> NOTIFY=NEVER\r\n";
    let utf8 = "MAIL FROM:<\u{fc}@b> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<\u{fc}@d>\r\n";
    vec![
        format!("{opened}DATA\r\na\nb\r\n.\r\n"),
        format!("{utf8}DATA\r\n\u{fc}\0\r\n.\r\n"),
        format!("{opened}DATA\r\n{}\r\n.\r\n", "x".repeat(90)),
        format!("{opened}DATA\r\n{}.\r\n", "x\r\n".repeat(101)),
        format!("{opened}BDAT 3\r\na\r\nBDAT 3 LAST\r\na\nb"),
        format!("{utf8}BDAT 3 LAST\r\na\r\r"),
        format!("{opened}BDAT 301\r\n{}", "x".repeat(301)),
        format!("{opened}BDAT 6 FIRST\r\nQUIT\r\n"),
        "MAIL FROM:<evil@b>\r\nBDAT 6\r\nQUIT\r\n".into(),
        "BDAT 6 LAST\r\nQUIT\r\n".into(),
        "VRFY\r\nVRFY \u{fc}\r\n".into(),
        "AUTH PLAIN AHVzZXIAYmFk\r\n".into(),
        format!("MAIL FROM:<{}@b>\r\n", "a".repeat(100)),
        "MAIL FROM:<evil@b> NOTIFY=NEVER\r\n".into(),
        "MAIL FROM:<evil@b> ENVID=a=b\r\n".into(),
        "MAIL FROM:<evil@b> SIZE=301\r\n".into(),
        "MAIL FROM:<\u{fc}@b>\r\n".into(),
        "RCPT TO:<evil@d>\r\nDATA\r\n".into(),
        "STARTTLS\r\nXYZZY\r\n\r\n".into(),
        format!("{opened}RSET\r\n"),
        format!("{utf8}EHLO again.example\r\n"),
        format!("{opened}BDAT 4\r\na\r\nbRSET\r\n"),
    ]
}

/// The slow and obvious reading of chunks that were put together: RFC 3030 2, RFC 5321 2.3.8.
fn joined(text: &[u8], limits: &Limits) -> Result<Vec<u8>, Defect> {
    let is = |at: Option<usize>, byte: u8| at.and_then(|at| text.get(at)) == Some(&byte);
    let mut defects = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\r' if !is(Some(at + 1), b'\n') => defects.push(Defect::BareCr),
            b'\n' if !is(at.checked_sub(1), b'\r') => defects.push(Defect::BareLf),
            0 => defects.push(Defect::Nul),
            _ => {}
        }
    }
    if text.len() > limits.message_bytes {
        defects.push(Defect::TooLarge);
    }
    let mut body = text.to_vec();
    if !body.is_empty() && !body.ends_with(b"\r\n") {
        body.extend_from_slice(b"\r\n");
    }
    let mut line = 0;
    for (at, byte) in body.iter().enumerate() {
        line += 1;
        if *byte == b'\n' && at > 0 && body[at - 1] == b'\r' {
            if line > limits.text_line_bytes {
                defects.push(Defect::LineTooLong);
            }
            line = 0;
        }
    }
    defects.into_iter().max().map_or(Ok(body), Err)
}

/// The text in BDAT commands, cut at `cuts`.
fn in_chunks(text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut wire, mut from) = (Vec::new(), 0);
    for until in cuts.iter().copied().filter(|cut| *cut < text.len()) {
        let chunk = &text[from..until.max(from)];
        wire.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        from = until.max(from);
    }
    wire.extend_from_slice(format!("BDAT {} LAST\r\n", text.len() - from).as_bytes());
    wire.extend_from_slice(&text[from..]);
    wire
}

/// The slow and obvious reading of RFC 5321 4.1.1.4 and 4.5.2: where the message ends, what it is, what is wrong with it.
fn reference(wire: &[u8], limits: &Limits) -> Option<(usize, Result<Vec<u8>, Defect>)> {
    let framed = [b"\r\n", wire].concat();
    let end = framed
        .windows(5)
        .position(|window| window == b"\r\n.\r\n")?;
    let text = &framed[2..(end + 2).max(2)];
    let mut defects = Vec::new();
    let mut body = Vec::new();
    let mut line = 0;
    for (at, byte) in text.iter().enumerate() {
        let (before, after) = (
            if at == 0 { None } else { text.get(at - 1) },
            text.get(at + 1),
        );
        let line_start = at == 0 || (before == Some(&b'\n') && at >= 2 && text[at - 2] == b'\r');
        if *byte == b'.' && line_start {
            continue;
        }
        match byte {
            b'\r' if after != Some(&b'\n') => defects.push(Defect::BareCr),
            b'\n' if before != Some(&b'\r') => defects.push(Defect::BareLf),
            0 => defects.push(Defect::Nul),
            _ => {}
        }
        body.push(*byte);
        line += 1;
        if *byte == b'\n' && before == Some(&b'\r') {
            if line > limits.text_line_bytes {
                defects.push(Defect::LineTooLong);
            }
            line = 0;
        }
    }
    if body.len() > limits.message_bytes {
        defects.push(Defect::TooLarge);
    }
    Some((end + 3, defects.into_iter().max().map_or(Ok(body), Err)))
}

fn receive(
    wire: &[u8],
    cuts: &[usize],
    limits: &Limits,
) -> Option<(usize, Result<Vec<u8>, Defect>)> {
    let mut text = Text::new(None);
    let mut from = 0;
    for until in cuts
        .iter()
        .map(|cut| cut % (wire.len() + 1))
        .chain([wire.len()])
    {
        if until < from {
            continue;
        }
        let (taken, done) = text.receive(&wire[from..until], limits);
        assert!(
            done || until - from - taken <= 2,
            "more than 2 bytes were left"
        );
        from += taken;
        if done {
            return Some((from, text.finish()));
        }
    }
    None
}

fn sorted_cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..2000, 0..30).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(script in script(), cuts in sorted_cuts()) {
        let mut whole = Caller::new();
        whole.send(&script);
        let mut split = Caller::new();
        let mut from = 0;
        for until in cuts.into_iter().filter(|cut| *cut < script.len()).chain([script.len()]) {
            split.send(&script[from..until]);
            from = until;
        }
        prop_assert_eq!(String::from_utf8_lossy(&whole.replies), String::from_utf8_lossy(&split.replies));
        prop_assert_eq!(whole.envelopes, split.envelopes);
        prop_assert_eq!(whole.logins, split.logins);
        prop_assert_eq!(whole.buffered, split.buffered);
    }

    #[test]
    fn random_bytes_get_well_formed_replies(bytes in proptest::collection::vec(any::<u8>(), 0..600), script in script()) {
        let mut caller = Caller::new();
        caller.send(&script);
        caller.send(&bytes);
        let replies = String::from_utf8(caller.replies).unwrap();
        prop_assert!(replies.is_empty() || replies.ends_with("\r\n"));
        for line in replies.split_terminator("\r\n") {
            prop_assert!(line.len() + 2 <= reply::REPLY_LINE_BYTES);
            let (code, rest) = line.split_at_checked(3).unwrap();
            prop_assert!(matches!(code.as_bytes()[0], b'2'..=b'5') && code.parse::<u16>().is_ok(), "{}", line);
            prop_assert!(rest.starts_with([' ', '-']), "{}", line);
            prop_assert!(!line.contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn after_any_trouble_a_clean_transaction_succeeds(script in script()) {
        let mut caller = Caller::new();
        caller.send(&script);
        // Whatever was begun is ended: an unfinished line, an exchange, a chunk, a text.
        caller.send(&b"\r\n".repeat(160));
        caller.send(b"\r\n.\r\n");
        prop_assume!(!caller.closed);
        prop_assert!(caller.buffered.is_empty());
        prop_assert!(caller.ask("RSET\r\n").starts_with("250 2.0.0"));
        prop_assert!(caller.ask("EHLO clean.example\r\n").starts_with("250-"));
        prop_assert!(caller.ask("RCPT TO:<c@d>\r\n").starts_with('5'), "an incorrect one is still refused");
        prop_assert!(caller.ask("DATA\r\n").starts_with('5'), "an incorrect one is still refused");
        let login = caller.ask(GOOD_LOGIN);
        prop_assert!(login.starts_with("235") || login.starts_with("503"), "{}", login);
        let before = caller.envelopes.len();
        let opened = caller.ask("MAIL FROM:<clean@example.com>\r\nRCPT TO:<rcpt@example.org>\r\nDATA\r\n");
        prop_assert!(opened.starts_with("250 2.1.0") && opened.contains("\r\n250 2.1.5") && opened.contains("\r\n354 "), "{}", opened);
        caller.send(b"..clean\r\n.\r\n");
        prop_assert_eq!(caller.envelopes.len(), before + 1);
        let envelope = caller.envelopes.pop().unwrap();
        prop_assert_eq!(&envelope.body, b".clean\r\n");
        prop_assert_eq!(envelope.recipients, ["rcpt@example.org"]);
        prop_assert_eq!((envelope.reverse_path.as_str(), &*envelope.helo), ("clean@example.com", "clean.example"));
        prop_assert_eq!((envelope.smtputf8, envelope.body_type, envelope.dsn), (false, BodyType::SevenBit, None));
    }

    #[test]
    fn every_refusal_leaves_a_clean_state(
        bad_logins in 0_usize..3,
        troubles in proptest::collection::vec(select(troubles()), 1..6),
        cuts in proptest::option::of(sorted_cuts()),
    ) {
        let mut caller = Caller::new();
        caller.send(b"EHLO clean.example\r\n");
        for _ in 0..bad_logins {
            prop_assert!(caller.ask("AUTH PLAIN AHVzZXIAYmFk\r\n").starts_with("535"));
            prop_assert!(caller.ask("MAIL FROM:<a@b>\r\n").starts_with("530"));
        }
        prop_assert!(caller.ask(GOOD_LOGIN).starts_with("235"));
        for trouble in &troubles {
            let replies = caller.ask(trouble);
            let forgotten = trouble.ends_with("RSET\r\n") || trouble.contains("EHLO");
            prop_assert_eq!(replies.lines().any(|line| line.starts_with('5')), !forgotten, "{} to {}", replies, trouble);
            prop_assert!(caller.buffered.is_empty() && caller.session.body_bytes() == 0 && !caller.session.in_transaction());
        }
        prop_assert!(caller.envelopes.is_empty());
        for incorrect in ["RCPT TO:<c@d>\r\n", "DATA\r\n", "BDAT 6 LAST\r\nQUIT\r\n"] {
            prop_assert!(caller.ask(incorrect).starts_with("503"), "{}", incorrect);
        }
        let opened = caller.ask("MAIL FROM:<clean@example.com>\r\nRCPT TO:<rcpt@example.org>\r\n");
        prop_assert_eq!(opened.lines().filter(|line| line.starts_with("250 2.1.")).count(), 2);
        match cuts {
            Some(cuts) => caller.send(&in_chunks(b".clean\r\n", &cuts.iter().map(|cut| cut % 9).collect::<Vec<_>>())),
            None => caller.send(b"DATA\r\n..clean\r\n.\r\n"),
        }
        prop_assert_eq!(caller.envelopes.len(), 1);
        let envelope = caller.envelopes.pop().unwrap();
        prop_assert_eq!(&envelope.body, b".clean\r\n");
        prop_assert_eq!(envelope.recipients, ["rcpt@example.org"]);
        prop_assert_eq!(envelope.reverse_path.as_str(), "clean@example.com");
        prop_assert_eq!((envelope.smtputf8, envelope.body_type, envelope.dsn), (false, BodyType::SevenBit, None));
    }

    #[test]
    fn chunks_make_the_same_message_however_they_are_cut(text in wire_text(), chunks in sorted_cuts(), reads in sorted_cuts()) {
        let mut caller = Caller::new();
        caller.send(b"EHLO x\r\n");
        caller.send(GOOD_LOGIN.as_bytes());
        caller.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        caller.replies.clear();
        let wire = in_chunks(&text, &chunks);
        let mut from = 0;
        for until in reads.into_iter().filter(|cut| *cut < wire.len()).chain([wire.len()]) {
            caller.send(&wire[from..until]);
            from = until;
        }
        let count = 1 + chunks.iter().filter(|cut| **cut < text.len()).count();
        let replies = String::from_utf8(caller.replies.clone()).unwrap();
        prop_assert_eq!(replies.lines().count(), count, "a reply to each chunk");
        let wanted = joined(&text, &config().limits);
        // All chunks but the last were taken, or the message was too large.
        prop_assert_eq!(replies.contains("552 5.3.4"), wanted == Err(Defect::TooLarge), "{}", replies);
        prop_assert_eq!(caller.envelopes.pop().map(|envelope| envelope.body), wanted.ok());
        prop_assert!(caller.ask("MAIL FROM:<a@b>\r\n").starts_with("250"));
    }

    #[test]
    fn nothing_is_handed_over_without_the_real_final_dot(text in wire_text(), cuts in sorted_cuts()) {
        let limits = &config().limits;
        let found = receive(&text, &cuts, limits);
        prop_assert_eq!(found, reference(&text, limits));
    }

    #[test]
    fn a_session_takes_exactly_what_the_reference_takes(text in wire_text()) {
        let mut caller = Caller::new();
        caller.send(b"EHLO x\r\n");
        caller.send(GOOD_LOGIN.as_bytes());
        caller.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        caller.replies.clear();
        match reference(&text, &config().limits) {
            None => {
                caller.send(&text);
                prop_assert!(caller.replies.is_empty() && caller.envelopes.is_empty());
            }
            Some((end, wanted)) => {
                caller.send(&text[..end]);
                prop_assert_eq!(String::from_utf8_lossy(&caller.replies).lines().count(), 1);
                prop_assert_eq!(caller.envelopes.pop().map(|envelope| envelope.body), wanted.ok());
            }
        }
    }

    #[test]
    fn dot_stuffing_then_receiving_is_identity(lines in proptest::collection::vec("[.]{0,3}[^\r\n\0]{0,60}", 0..20), cuts in sorted_cuts()) {
        let mut text = lines.join("\r\n");
        let stuffed: Vec<String> = lines.iter().map(|line| line.strip_prefix('.').map_or(line.clone(), |rest| format!("..{rest}"))).collect();
        let mut wire = stuffed.join("\r\n");
        if !lines.is_empty() {
            text.push_str("\r\n");
            wire.push_str("\r\n");
        }
        wire.push_str(".\r\n");
        let received = receive(wire.as_bytes(), &cuts, &Limits::default());
        prop_assert_eq!(received, Some((wire.len(), Ok(text.into_bytes()))));
    }

    #[test]
    fn an_address_that_is_taken_is_harmless(text in "<?[-a-z0-9.@\"\\\\<>:, \\[\\]\u{fc}\u{85}\u{2028}\t\0;|`$]{0,40}>?") {
        for path in [address::forward_path(&text), address::reverse_path(&text)].into_iter().flatten() {
            let address = path.address;
            prop_assert!(!address.contains(|c: char| c.is_control() || c == '\u{2028}'), "{:?}", address);
            prop_assert!(address.len() <= address::PATH_BYTES);
            let parsed = address::mailbox(address);
            prop_assert!(address.is_empty() || address.eq_ignore_ascii_case("postmaster") || parsed == Ok(address));
        }
    }

    #[test]
    fn base64_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..100), flip in any::<(usize, u8)>()) {
        let text = encode(&bytes);
        prop_assert_eq!(auth::decode(&text).map(|secret| secret.expose_bytes().to_vec()), Ok(bytes.clone()));
        let mut other = text.clone().into_bytes();
        if let Some(symbol) = (!other.is_empty()).then(|| flip.0 % other.len()).and_then(|at| other.get_mut(at)) {
            *symbol = flip.1 & 0x7f;
        }
        let other = String::from_utf8(other).unwrap();
        if other != text {
            prop_assert_ne!(auth::decode(&other).map(|secret| secret.expose_bytes().to_vec()), Ok(bytes));
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value = chunk
            .iter()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            let symbol = ALPHABET[(value >> (18 - 6 * nth) & 63) as usize];
            text.push(if nth <= chunk.len() {
                symbol as char
            } else {
                '='
            });
        }
    }
    text
}
