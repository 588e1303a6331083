//! What a transcript cannot show: size, misuse by the caller, deadlines, memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use smtp_proxy_proto::session::OUT_BYTES;
use smtp_proxy_proto::{
    Enhanced, EnvelopeId, EnvelopeVerdict, Event, Gate, Identity, Limits, LoginRequest,
    LoginVerdict, Mechanism, Phase, Proof, Reply, Secret, Security, Senders, Session,
    SessionConfig, Submission,
};

fn config(limits: Limits) -> Arc<SessionConfig> {
    let identity = Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: "preset@example.com".into(),
        senders: Senders::default(),
    };
    Arc::new(SessionConfig {
        hostname: "mx.example.com".into(),
        software: "smtp-proxy".into(),
        limits,
        starttls: false,
        identity: Some(Arc::new(identity)),
        allow_plaintext_submission: true,
        submission: Submission::default(),
    })
}

fn session() -> Session {
    Session::new(config(Limits::default()), Security::Plaintext)
}

fn advance(session: &mut Session, input: &str) -> (usize, Event, String) {
    let mut out = Vec::new();
    let (taken, event) = session.advance(input.as_bytes(), Gate::Open, &mut out);
    (taken, event, String::from_utf8(out).unwrap())
}

fn in_text(session: &mut Session) {
    let (_, _, out) = advance(
        session,
        "EHLO x\r\nMAIL FROM:<a@b> SIZE=100\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    );
    assert!(
        out.ends_with("354 End data with <CR><LF>.<CR><LF>\r\n"),
        "{out}"
    );
}

#[test]
fn an_idle_session_is_small() {
    assert!(
        size_of::<Session>() <= 128,
        "{} bytes",
        size_of::<Session>()
    );
}

#[test]
fn an_unfinished_line_stays_with_the_caller() {
    let mut session = session();
    assert!(
        matches!(advance(&mut session, "NOOP\r\nNOO"), (6, Event::NeedInput, out) if out == "250 2.0.0 OK\r\n")
    );
    assert!(matches!(advance(&mut session, "NOO"), (0, Event::NeedInput, out) if out.is_empty()));
    assert!(matches!(
        advance(&mut session, ""),
        (0, Event::NeedInput, _)
    ));
}

#[test]
fn the_longest_line_allowed_fits_the_documented_buffer() {
    let mut session = session();
    let limit = Limits::default().command_line_bytes;
    let fits = format!("NOOP {}\r\n", "x".repeat(limit - 7));
    assert!(
        matches!(advance(&mut session, &fits), (taken, Event::NeedInput, out) if taken == limit && out.starts_with("250"))
    );
    let unfinished = "x".repeat(limit);
    assert!(
        matches!(advance(&mut session, &unfinished), (taken, _, out) if taken == limit && out.starts_with("500"))
    );
    assert!(
        matches!(advance(&mut session, "rest\r\nNOOP\r\n"), (12, _, out) if out == "250 2.0.0 OK\r\n")
    );
}

#[test]
fn phases_as_the_caller_sees_them() {
    let mut session = session();
    let mut out = Vec::new();
    assert!(matches!(
        session.greet(Gate::Open, &mut out),
        Event::NeedInput
    ));
    assert_eq!(
        (
            session.phase(),
            session.in_transaction(),
            session.body_bytes()
        ),
        (Phase::Command, false, 0)
    );
    in_text(&mut session);
    assert_eq!(
        (
            session.phase(),
            session.in_transaction(),
            session.body_bytes()
        ),
        (Phase::Data, true, 0)
    );
    let _ = advance(&mut session, "text\r\n");
    assert_eq!(session.body_bytes(), 100, "as SIZE announced");
    let (taken, event, _) = advance(&mut session, ".\r\nNOOP\r\n");
    assert!(matches!(event, Event::Envelope(_)));
    assert_eq!(
        (
            taken,
            session.phase(),
            session.in_transaction(),
            session.body_bytes()
        ),
        (3, Phase::Waiting, true, 0)
    );
    assert!(
        matches!(advance(&mut session, "NOOP\r\n"), (0, Event::NeedInput, out) if out.is_empty()),
        "nothing is read while a verdict is due"
    );
    out.clear();
    let verdict = EnvelopeVerdict::Queued {
        id: EnvelopeId([0xab; 16]),
    };
    assert!(matches!(
        session.envelope_answered(verdict, &mut out),
        Event::NeedInput
    ));
    assert_eq!(
        out,
        b"250 2.0.0 queued as abababab-abab-abab-abab-abababababab\r\n"
    );
    assert!(matches!(
        advance(&mut session, "QUIT\r\nNOOP\r\n"),
        (6, Event::Close, _)
    ));
    assert!(matches!(advance(&mut session, "NOOP\r\n"), (6, Event::Close, out) if out.is_empty()));
    assert_eq!(session.phase(), Phase::Closed);
}

fn seen(session: &Session) -> (Phase, bool, usize) {
    (
        session.phase(),
        session.in_transaction(),
        session.body_bytes(),
    )
}

#[test]
fn a_message_in_chunks_counts_as_one_from_its_first_to_its_last() {
    let mut session = session();
    let _ = advance(
        &mut session,
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
    );
    assert_eq!(seen(&session), (Phase::Command, false, 0));
    let (taken, _, out) = advance(&mut session, "BDAT 8\r\ntext");
    assert_eq!((taken, out.as_str()), (12, ""));
    assert_eq!(seen(&session), (Phase::Data, true, 8), "as BDAT announced");
    let (_, _, out) = advance(&mut session, "\r\nte");
    assert_eq!(out, "250 2.0.0 8 octets received\r\n");
    assert_eq!(seen(&session), (Phase::Data, true, 8), "between two chunks");
    let _ = advance(&mut session, "NOOP\r\n");
    assert_eq!(seen(&session), (Phase::Data, true, 8), "and NOOP is none");
    let (_, event, _) = advance(&mut session, "BDAT 4 LAST\r\nxt\r\n");
    assert!(matches!(event, Event::Envelope(envelope) if envelope.body == b"text\r\ntext\r\n"));
    assert_eq!(seen(&session), (Phase::Waiting, true, 0));
}

#[test]
fn a_chunk_that_nobody_wants_is_only_read_off() {
    let mut session = session();
    let absurd = format!("EHLO x\r\nBDAT 99999999999\r\n{}", "x".repeat(100_000));
    let (taken, event, _) = advance(&mut session, &absurd);
    assert!(matches!(event, Event::NeedInput));
    assert_eq!(taken, absurd.len());
    assert_eq!(seen(&session), (Phase::Command, false, 0));
    let mut out = Vec::new();
    session.shut_down(&mut out);
    assert!(out.starts_with(b"421 4.3.2"));
}

#[test]
fn rset_between_chunks_frees_their_memory() {
    let mut session = session();
    let _ = advance(
        &mut session,
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6\r\ntext\r\n",
    );
    assert_eq!(seen(&session), (Phase::Data, true, 6));
    let _ = advance(&mut session, "RSET\r\n");
    assert_eq!(seen(&session), (Phase::Command, false, 0));
}

#[test]
fn deadlines_and_drains_say_421_once() {
    let chunk = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6\r\ntext\r\n";
    for (say, chunks) in [
        (Session::timed_out as fn(&mut Session, &mut Vec<u8>), true),
        (Session::timed_out, false),
        (Session::shut_down, true),
        (Session::shut_down, false),
    ] {
        let mut session = session();
        if chunks {
            let _ = advance(&mut session, chunk);
        } else {
            in_text(&mut session);
            let _ = advance(&mut session, "text\r\n");
        }
        let mut out = Vec::new();
        say(&mut session, &mut out);
        assert!(out.starts_with(b"421 4.") && out.ends_with(b"\r\n"));
        assert_eq!(
            (
                session.phase(),
                session.body_bytes(),
                session.in_transaction()
            ),
            (Phase::Closed, 0, false)
        );
        let length = out.len();
        say(&mut session, &mut out);
        assert_eq!(out.len(), length);
        assert!(matches!(
            session.envelope_answered(EnvelopeVerdict::Deferred, &mut out),
            Event::Close
        ));
        assert!(matches!(
            session.login_answered(LoginVerdict::Rejected, &mut out),
            Event::Close
        ));
        assert_eq!(out.len(), length);
    }
}

#[test]
fn verdicts_that_nobody_awaits_change_nothing() {
    let mut session = session();
    let mut out = Vec::new();
    assert!(matches!(
        session.envelope_answered(EnvelopeVerdict::Deferred, &mut out),
        Event::NeedInput
    ));
    assert!(matches!(
        session.login_answered(LoginVerdict::Unavailable, &mut out),
        Event::NeedInput
    ));
    assert!(out.is_empty());
    in_text(&mut session);
    assert!(matches!(
        session.envelope_answered(EnvelopeVerdict::Deferred, &mut out),
        Event::NeedInput
    ));
    assert!(out.is_empty() && session.phase() == Phase::Data);
}

#[test]
fn a_verdict_of_421_closes() {
    let mut session = session();
    in_text(&mut session);
    let _ = advance(&mut session, ".\r\n");
    let mut out = Vec::new();
    let refusal = Reply::new(421, Enhanced(4, 3, 2), "leaving");
    assert!(matches!(
        session.envelope_answered(EnvelopeVerdict::Refused(refusal), &mut out),
        Event::Close
    ));
    assert_eq!(
        (out.as_slice(), session.phase()),
        (&b"421 4.3.2 leaving\r\n"[..], Phase::Closed)
    );
}

#[test]
fn a_starttls_that_awaits_its_handshake_takes_nothing() {
    let mut config = Arc::unwrap_or_clone(config(Limits::default()));
    config.starttls = true;
    config.identity = None;
    let mut session = Session::new(Arc::new(config), Security::Plaintext);
    let (taken, event, _) = advance(&mut session, "EHLO x\r\nSTARTTLS\r\nNOOP\r\n");
    assert!(matches!(event, Event::StartTls));
    assert_eq!((taken, session.phase()), (18, Phase::Tls));
    assert!(
        matches!(advance(&mut session, "NOOP\r\n"), (0, Event::NeedInput, out) if out.is_empty())
    );
    session.tls_established();
    assert!(
        matches!(advance(&mut session, "EHLO x\r\n"), (8, Event::NeedInput, out) if out.contains("AUTH PLAIN LOGIN"))
    );
}

#[test]
fn no_limit_means_no_limit() {
    let limits = Limits {
        errors_per_session: 0,
        messages_per_session: 0,
        ..Limits::default()
    };
    let mut session = Session::new(config(limits), Security::Plaintext);
    let (_, event, out) = advance(&mut session, &"XYZZY\r\n".repeat(500));
    assert!(matches!(event, Event::NeedInput));
    assert_eq!(out.matches("500 5.5.2").count(), 500);
}

#[test]
fn debug_shows_neither_mail_nor_password() {
    let mut session = session();
    in_text(&mut session);
    let (_, event, _) = advance(&mut session, "very private\r\n.\r\n");
    assert!(!format!("{event:?}").contains("private"));
    let request = LoginRequest {
        username: "u".into(),
        proof: Proof::Password(Secret::new("hunter2")),
        mechanism: Mechanism::Plain,
    };
    assert!(!format!("{request:?}").contains("hunter2"));
}

/// Feeds a flood to a session as a caller does; the longest that replies ever waited, and all of them.
fn flooded(session: &mut Session, flood: &[u8]) -> (usize, Vec<u8>) {
    let (mut at, mut longest, mut said) = (0, 0, Vec::new());
    while at < flood.len() {
        let mut out = Vec::new();
        let (taken, event) = session.advance(&flood[at..], Gate::Open, &mut out);
        at += taken;
        longest = longest.max(out.len());
        said.extend(out);
        if !matches!(event, Event::Flush) {
            break;
        }
    }
    (longest, said)
}

#[test]
fn a_flood_of_tiny_commands_is_answered_in_bounded_pieces() {
    const PIECE: usize = 64 * 1024;
    for tiny in [
        "EHLO x\r\n",
        "HELP\r\n",
        "NOOP\r\n",
        "VRFY a\r\n",
        "RSET\r\n",
    ] {
        let limits = Limits {
            idle_commands_per_session: 0,
            ..Limits::default()
        };
        let count = PIECE / tiny.len();
        let mut session = Session::new(config(limits), Security::Plaintext);
        let (longest, said) = flooded(&mut session, tiny.repeat(count).as_bytes());
        assert!(longest < OUT_BYTES + 512, "{tiny:?}: {longest} bytes");
        let last_lines = |line: &&[u8]| line.get(3) == Some(&b' ');
        let answers = said.split(|byte| *byte == b'\n').filter(last_lines);
        assert_eq!(answers.count(), count, "{tiny:?}");
    }
}

#[test]
fn commands_that_bring_no_message_are_counted_in_a_row() {
    let limits = Limits {
        idle_commands_per_session: 4,
        ..Limits::default()
    };
    let mut session = Session::new(config(limits), Security::Plaintext);
    let message = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";
    let (_, _, out) = advance(&mut session, "EHLO x\r\nNOOP\r\nRSET\r\n");
    assert!(!out.contains("421"));
    let _ = advance(&mut session, message);
    let (_, event, _) = advance(&mut session, "x\r\n.\r\n");
    assert!(matches!(event, Event::Envelope(_)));
    let mut out = Vec::new();
    let _ = session.envelope_answered(EnvelopeVerdict::Deferred, &mut out);
    let (_, event, out) = advance(&mut session, &"NOOP\r\n".repeat(4));
    assert!(matches!(event, Event::NeedInput) && !out.contains("421"));
    let (_, event, out) = advance(&mut session, "NOOP\r\n");
    assert!(matches!(event, Event::Close));
    assert!(
        out.starts_with("421 4.7.0 Too many commands without"),
        "{out}"
    );
}

#[test]
fn what_addresses_hold_is_known() {
    let mut session = session();
    let _ = advance(&mut session, "EHLO x\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(session.address_bytes(), 3);
    let _ = advance(&mut session, "RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n");
    assert_eq!(session.address_bytes(), 3 + 2 * (3 + size_of::<String>()));
    let _ = advance(&mut session, "RSET\r\n");
    assert_eq!(session.address_bytes(), 0);
}
