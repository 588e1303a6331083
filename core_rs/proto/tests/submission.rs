//! What holds for the mending of any message, and for any sender.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use smtp_proxy_proto::header::Header;
use smtp_proxy_proto::{
    EnvelopeId, Facts, Mended, Missing, SenderPattern, Senders, Submission, address,
};

/// Lines that matter, well-formed and odd ones; strung together they make headers and texts of every shape.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&'static [u8]> = vec![
        b"\r\n",
        b" \r\n",
        b"\tBcc: folded\r\n",
        b" more\r\n",
        b"Bcc: a@b\r\n",
        b"bCc \t:\r\n",
        b"Resent-Bcc:x\r\n",
        b"Bcc\r\n",
        b"X-Bcc: x\r\n",
        b"Date: x\r\n",
        b"date :\r\n",
        b"Message-ID: \t\r\n",
        b"Message-ID: <a@b>\r\n",
        b"Received: x\r\n",
        b"Subject: x\r\n",
        b"From a@b Mon\r\n",
        b"odd\r\n",
        b": x\r\n",
        b"\xc3\xbc: x\r\n",
        b"Two words: x\r\n",
        b".\r\n",
        b"Subject: no end",
    ];
    let line = prop_oneof![
        9 => select(lines).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(line, 0..16).prop_map(|lines| lines.concat())
}

fn lines(message: &[u8]) -> Vec<&[u8]> {
    message.split_inclusive(|byte| *byte == b'\n').collect()
}

/// The name of the field that a line begins, in lower case; the slow and obvious way.
fn name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(line[..colon].to_vec()).ok()?;
    let name = name.trim_end_matches([' ', '\t']);
    let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| name.to_ascii_lowercase())
}

fn is_empty_line(line: &[u8]) -> bool {
    matches!(line, b"\r\n" | b"\n")
}

/// How many lines the header section has, without the empty one. A message that begins with text has none.
fn section(lines: &[&[u8]]) -> usize {
    let mbox = lines.first().is_some_and(|line| line.starts_with(b"From "));
    let first = lines.get(usize::from(mbox));
    if first.and_then(|line| name(line)).is_none() {
        return 0;
    }
    let end = lines.iter().position(|line| is_empty_line(line));
    end.unwrap_or(lines.len())
}

/// A field with its continuations: it is a Date or a Message-ID, and nothing stands behind the colon.
fn is_blank(field: &[&[u8]]) -> bool {
    let text = String::from_utf8_lossy(&field.concat()).into_owned();
    let known = name(field[0]).is_some_and(|name| name == "date" || name == "message-id");
    let blank = |value: &str| value.trim_matches([' ', '\t', '\r', '\n']).is_empty();
    known && text.split_once(':').is_some_and(|(_, value)| blank(value))
}

fn without_blank(message: &[u8]) -> Vec<u8> {
    let lines = lines(message);
    let section = section(&lines);
    let folded = |line: &[u8]| line.starts_with(b" ") || line.starts_with(b"\t");
    let ends = section < lines.len();
    let mbox = usize::from(lines.first().is_some_and(|line| line.starts_with(b"From ")));
    let odd = |at: &usize| name(lines[*at]).is_none() && !folded(lines[*at]);
    let text = (mbox..section)
        .find(odd)
        .filter(|_| !ends)
        .unwrap_or(section);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < text {
        let more = lines[at + 1..text]
            .iter()
            .take_while(|line| folded(line))
            .count();
        let field = &lines[at..=at + more];
        if !is_blank(field) {
            kept.extend_from_slice(&field.concat());
        }
        at += field.len();
    }
    kept.extend_from_slice(&lines[text..].concat());
    kept
}

fn without_bcc(message: &[u8]) -> Vec<u8> {
    let lines = lines(message);
    let section = section(&lines);
    let mut kept = Vec::new();
    let mut in_bcc = false;
    for line in &lines[..section] {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            in_bcc = name(line).is_some_and(|name| name == "bcc" || name == "resent-bcc");
        }
        if !in_bcc {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(&lines[section..].concat());
    kept
}

/// As the server puts it together.
fn completed(message: &[u8], missing: Missing) -> Vec<u8> {
    let facts = Facts {
        id: EnvelopeId([7; 16]),
        hostname: "mx.example.com",
        received_at: Duration::ZERO,
    };
    let additions = missing.additions(message, &facts);
    missing.pieces(message, &additions).concat()
}

/// Local parts as they may be quoted, and what they say.
fn local_part() -> impl Strategy<Value = String> {
    "[ -~]{1,12}"
}

fn quoted(local_part: &str, escape_all: bool) -> String {
    let mut text = String::from("\"");
    for c in local_part.chars() {
        if escape_all || matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bcc_is_taken_out_as_the_reference_does_it(message in message()) {
        let mut stripped = message.clone();
        let only_strip = Submission { add_missing_headers: false, strip_bcc: true };
        prop_assert_eq!(only_strip.mend(&mut stripped, u32::MAX), Ok(Mended::default()));
        let wanted = without_bcc(&message);
        prop_assert_eq!(String::from_utf8_lossy(&stripped), String::from_utf8_lossy(&wanted));
    }

    #[test]
    fn fields_that_say_nothing_are_taken_out_as_the_reference_does_it(message in message()) {
        let mut mended = message.clone();
        let only_complete = Submission { add_missing_headers: true, strip_bcc: false };
        only_complete.mend(&mut mended, u32::MAX).unwrap();
        // Twice: the first may uncover the line of a mailbox file.
        let wanted = without_blank(&without_blank(&message));
        prop_assert_eq!(String::from_utf8_lossy(&mended), String::from_utf8_lossy(&wanted));
    }

    #[test]
    fn a_mended_message_has_all_and_is_not_mended_again(message in message()) {
        let mut body = message.clone();
        let missing = Submission::default().mend(&mut body, u32::MAX).unwrap().missing;
        let whole = completed(&body, missing);
        let header = Header::read(&whole);
        prop_assert!(header.has_date && header.has_message_id && !header.has_blank && !header.has_bcc && !header.is_open, "{}", String::from_utf8_lossy(&whole));
        let mut again = whole.clone();
        prop_assert!(Submission::default().mend(&mut again, u32::MAX).unwrap().missing.is_nothing());
        prop_assert_eq!(again, whole);
    }

    #[test]
    fn even_who_stops_at_an_odd_line_sees_what_was_added(message in message()) {
        let mut body = message.clone();
        let missing = Submission::default().mend(&mut body, u32::MAX).unwrap().missing;
        let whole = completed(&body, missing);
        let lines = lines(&whole);
        let odd = |line: &&[u8]| name(line).is_none() && !line.starts_with(b" ") && !line.starts_with(b"\t") && !line.starts_with(b"From ");
        let before_odd = lines.iter().position(odd).unwrap_or(lines.len());
        let sees = |wanted: &str| lines[..before_odd].iter().filter_map(|line| name(line)).any(|name| name == wanted);
        prop_assert!(!missing.date || sees("date"), "{}", String::from_utf8_lossy(&whole));
        prop_assert!(!missing.message_id || sees("message-id"), "{}", String::from_utf8_lossy(&whole));
    }

    #[test]
    fn the_text_is_not_touched(message in message(), text in message()) {
        let mut body = [b"A: b\r\n", without_empty(&message).as_slice(), b"\r\n", &text].concat();
        let missing = Submission::default().mend(&mut body, u32::MAX).unwrap().missing;
        prop_assert!(body.ends_with(&[b"\r\n", text.as_slice()].concat()));
        prop_assert!(missing.at <= body.len() - text.len() - 2 && !missing.empty_line);
    }

    #[test]
    fn hops_are_counted_in_the_header_only(message in message()) {
        let lines = lines(&message);
        let hops = lines[..section(&lines)].iter().filter(|line| name(line).is_some_and(|name| name == "received")).count();
        prop_assert_eq!(Header::read(&message).received as usize, hops);
    }

    #[test]
    fn quoting_gets_nobody_past_a_pattern(local_part in local_part(), other in local_part(), escape in any::<bool>(), upper in any::<bool>()) {
        let sender = format!("{}@example.com", quoted(&local_part, escape));
        let sender = if upper { sender.to_ascii_uppercase() } else { sender };
        prop_assert_eq!(address::mailbox(&sender), Ok(sender.as_str()));
        let pattern = |local: &str| format!("{}@example.com", quoted(local, false));
        prop_assert!(Senders::read([pattern(&local_part)]).unwrap().allow(&sender), "{}", sender);
        let same = local_part.eq_ignore_ascii_case(&other);
        prop_assert_eq!(Senders::read([pattern(&other)]).unwrap().allow(&sender), same);
        let elsewhere = Senders::read([&pattern(&local_part).replace(".com", ".net"), "<>", "*.example.com", "com"].iter().take(3)).unwrap();
        prop_assert!(!elsewhere.allow(&sender));
    }

    #[test]
    fn a_pattern_is_kept_as_it_is_read(text in "[*@]{0,2}[a-zA-Z\"\\\\ \u{fc}.@*\\[\\]0-9<>-]{0,20}(@[a-c.]{1,8})?") {
        if let Ok(pattern) = text.parse::<SenderPattern>() {
            let kept = pattern.to_string();
            prop_assert_eq!(kept.parse(), Ok(pattern), "{:?} {:?}", text, kept);
        }
    }
}

/// So that all of it belongs to the header.
fn without_empty(message: &[u8]) -> Vec<u8> {
    let mut kept: Vec<u8> = lines(message)
        .into_iter()
        .filter(|line| !is_empty_line(line))
        .collect::<Vec<_>>()
        .concat();
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        kept.extend_from_slice(b"\r\n");
    }
    kept
}

/// Quadratic, this would take minutes.
#[test]
fn a_header_of_megabytes_is_read_in_linear_time() {
    let shapes: [&[u8]; 6] = [
        b"Bcc: a\r\n",
        b"X: y\r\nBcc: a\r\n b\r\n",
        b"odd\r\n",
        b" \r\n",
        b"Received: x\r\n",
        b"a",
    ];
    for shape in shapes {
        let mut message = b"A: b\r\n".to_vec();
        message.extend(shape.repeat((4 << 20) / shape.len()));
        let missing = Submission::default()
            .mend(&mut message, u32::MAX)
            .unwrap()
            .missing;
        assert!(missing.date && !Header::read(&message).has_bcc);
    }
}
