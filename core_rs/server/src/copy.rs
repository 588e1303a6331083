//! A batch as Postgres takes it fastest: the rows of two tables in its binary COPY format, framed as the messages
//! that follow a `COPY … FROM STDIN`; and of a third for messages that no page of Postgres holds.
//!
//! Why here: encoding is done for every message, and in Python it costs more than all the rest of accepting one. Which
//! statement these rows belong to is the store's to say (`copy_accepted` in `store/queries.sql`); the two change
//! together, and a test on a real Postgres compares what they write with what the store's slower way writes.
//!
//! Source: the manual of Postgres, "COPY, Binary Format" and "Message Formats" (`CopyData`, `CopyDone`).

mod pieces;

use smtp_proxy_proto::{Notify, Security};

pub(crate) use self::pieces::Encoding;
use crate::batch::Letter;

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Instead of a number of fields: no more rows.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// Instead of a field's length: it has no value.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// 2000-01-01 in microseconds since 1970: where a timestamptz begins.
const EPOCH_US: i64 = 946_684_800_000_000;
/// A longer message lies in parts of this size, each as much as fills a page of Postgres beside its key: 8,192 less 24 for
/// the page, 4 and 24 for the row, 24 for key and lengths, in eights (docs/decisions/0028-long-messages-in-parts.md).
const PART_BYTES: usize = 8096;

fn envelope(rows: &mut Vec<u8>, letter: &Letter) {
    fields_before_body(rows, letter);
    if is_long(letter) {
        rows.extend_from_slice(&NULL);
    } else {
        rows.extend_from_slice(&length(size_bytes(letter)));
        for piece in letter.envelope.pieces(&letter.additions) {
            rows.extend_from_slice(piece);
        }
    }
}

fn size_bytes(letter: &Letter) -> usize {
    letter.envelope.body.len() + letter.additions.len()
}

/// Its content is in parts.
fn is_long(letter: &Letter) -> bool {
    size_bytes(letter) > PART_BYTES
}

/// Whether there is a part of that number, which is then written.
fn part(rows: &mut Vec<u8>, letter: &Letter, number: usize) -> bool {
    let begins_at = number * PART_BYTES;
    let Some(left_bytes @ 1..) = size_bytes(letter).checked_sub(begins_at) else {
        return false;
    };
    let part_bytes = left_bytes.min(PART_BYTES);
    rows.extend_from_slice(&3_i16.to_be_bytes());
    field(rows, &letter.id.0);
    field(rows, &length(number));
    rows.extend_from_slice(&length(part_bytes));
    let mut skipped = begins_at;
    let mut wanted = part_bytes;
    for piece in letter.envelope.pieces(&letter.additions) {
        let rest = piece.get(skipped..).unwrap_or_default();
        skipped = skipped.saturating_sub(piece.len());
        let taken = rest.get(..wanted).unwrap_or(rest);
        rows.extend_from_slice(taken);
        wanted -= taken.len();
    }
    true
}

fn fields_before_body(rows: &mut Vec<u8>, letter: &Letter) {
    let Letter {
        id,
        envelope,
        client_address,
        tls_suite,
        received_at_us,
        ..
    } = letter;
    rows.extend_from_slice(&16_i16.to_be_bytes());
    field(rows, &id.0);
    field(rows, &envelope.identity.tenant_id);
    field(rows, &envelope.identity.credential_id);
    field(rows, envelope.reverse_path.as_bytes());
    field(rows, &length(envelope.recipients.len()));
    field(rows, &length(size_bytes(letter)));
    field(rows, &i16::from(envelope.body_type as u8).to_be_bytes());
    field(rows, &[u8::from(envelope.smtputf8)]);
    field(rows, envelope.helo.as_bytes());
    field(rows, client_address.as_bytes());
    field(rows, &[u8::from(envelope.security == Security::Tls)]);
    field(rows, &timestamp(*received_at_us));
    let dsn = envelope.dsn.as_deref();
    number(rows, dsn.and_then(|dsn| dsn.ret).map(|ret| ret as u8));
    text(rows, dsn.and_then(|dsn| dsn.envid.as_deref()));
    match tls_suite {
        Some(suite) => field(rows, &i32::from(*suite).to_be_bytes()),
        None => rows.extend_from_slice(&NULL),
    }
}

fn deliveries(rows: &mut Vec<u8>, letter: &Letter, sweep_at_us: i64) {
    let sweep_at = timestamp(sweep_at_us);
    let dsn = letter.envelope.dsn.as_deref();
    for (nth, recipient) in letter.envelope.recipients.iter().enumerate() {
        let asked = dsn.and_then(|dsn| dsn.recipients.get(nth));
        rows.extend_from_slice(&7_i16.to_be_bytes());
        field(rows, &letter.id.0);
        field(rows, &i16::try_from(nth).unwrap_or(i16::MAX).to_be_bytes());
        field(rows, recipient.as_bytes());
        field(rows, &sweep_at);
        number(rows, asked.and_then(|asked| asked.notify).map(Notify::bits));
        text(rows, asked.and_then(|asked| asked.orcpt.as_deref()));
        number(rows, Some(letter.lane as u8));
    }
}

fn field(rows: &mut Vec<u8>, value: &[u8]) {
    rows.extend_from_slice(&length(value.len()));
    rows.extend_from_slice(value);
}

fn number(rows: &mut Vec<u8>, value: Option<u8>) {
    match value {
        Some(value) => field(rows, &i16::from(value).to_be_bytes()),
        None => rows.extend_from_slice(&NULL),
    }
}

fn text(rows: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => field(rows, value.as_bytes()),
        None => rows.extend_from_slice(&NULL),
    }
}

/// `Limits` keep every length and number far below; one beyond would be refused by the server, not cut.
fn length(value: usize) -> [u8; 4] {
    i32::try_from(value).unwrap_or(i32::MAX).to_be_bytes()
}

fn timestamp(us_since_1970: i64) -> [u8; 8] {
    us_since_1970.saturating_sub(EPOCH_US).to_be_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(in crate::copy) mod tests {
    use std::sync::Arc;

    use smtp_proxy_proto::{
        BodyType, Dsn, Envelope, EnvelopeId, Identity, Lane, Missing, RecipientDsn, Ret, Senders,
        dsn,
    };

    use super::*;

    pub(in crate::copy) fn letter(number: u8, body_bytes: usize, recipients: &[&str]) -> Letter {
        Letter {
            id: EnvelopeId([number; 16]),
            envelope: Envelope {
                identity: Arc::new(Identity {
                    tenant_id: [1; 16],
                    credential_id: [2; 16],
                    username: "user".to_owned(),
                    senders: Senders::default(),
                }),
                reverse_path: "jürgen@example.com".to_owned(),
                recipients: recipients.iter().map(|&text| text.to_owned()).collect(),
                body: vec![b'x'; body_bytes],
                body_type: BodyType::EightBitMime,
                smtputf8: true,
                helo: Arc::from("client.example"),
                security: Security::Tls,
                missing: Missing {
                    at: body_bytes / 2,
                    ..Missing::default()
                },
                dsn: None,
                lane: None,
            },
            client_address: Arc::from("192.0.2.1"),
            tls_suite: Some(0xc02f),
            received_at_us: EPOCH_US + 7,
            additions: Vec::new(),
            lane: Lane::Transactional,
        }
    }

    pub(in crate::copy) fn encode(letters: &[Letter], sweep_at_us: i64) -> Vec<Vec<u8>> {
        let mut encoding = Encoding::new(letters, sweep_at_us);
        std::iter::from_fn(|| encoding.next(letters)).collect()
    }

    /// The COPY streams in it, and how many messages each came in.
    pub(in crate::copy) fn streams(mut bytes: &[u8]) -> Vec<(Vec<u8>, usize)> {
        let (mut found, mut current, mut messages) = (Vec::new(), Vec::new(), 0);
        while let [kind, a, b, c, d, ..] = *bytes {
            let end = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
            match kind {
                b'd' => {
                    current.extend_from_slice(&bytes[5..end]);
                    messages += 1;
                }
                b'c' => found.push((std::mem::take(&mut current), std::mem::take(&mut messages))),
                other => panic!("message {other}"),
            }
            bytes = &bytes[end..];
        }
        assert!(bytes.is_empty() && current.is_empty());
        found
    }

    /// The fields of each row.
    pub(in crate::copy) fn rows(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut rest = stream.strip_prefix(HEADER).unwrap();
        let mut rows = Vec::new();
        loop {
            let count = i16::from_be_bytes(rest[..2].try_into().unwrap());
            rest = &rest[2..];
            if count < 0 {
                assert!(rest.is_empty());
                return rows;
            }
            let mut row = Vec::new();
            for _ in 0..count {
                let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
                let length = usize::try_from(length).unwrap_or_default(); // what has no value is shown as empty
                row.push(rest[4..4 + length].to_vec());
                rest = &rest[4 + length..];
            }
            rows.push(row);
        }
    }

    #[test]
    fn two_tables() {
        let mut letters = [letter(8, 4, &["a@b", "c@d"]), letter(9, 0, &["e@f"])];
        letters[1].tls_suite = None;
        letters[1].lane = Lane::Bulk;
        letters[0].additions = b"-".to_vec();
        letters[0].envelope.dsn = Some(Box::new(Dsn {
            ret: Some(Ret::Headers),
            envid: Some("id".to_owned()),
            recipients: [("SUCCESS,FAILURE", Some("rfc822;a")), ("NEVER", None)]
                .map(|(notify, orcpt)| RecipientDsn {
                    notify: dsn::notify(notify),
                    orcpt: orcpt.map(str::to_owned),
                })
                .to_vec(),
        }));
        let found = streams(&encode(&letters, EPOCH_US - 1).concat());
        let [envelopes, deliveries] = &found[..] else {
            panic!("{} tables", found.len())
        };
        let envelopes = rows(&envelopes.0);
        assert_eq!(envelopes.len(), 2);
        assert_eq!(envelopes[0][0], [8; 16]);
        assert_eq!(envelopes[0][3], "jürgen@example.com".as_bytes());
        assert_eq!(envelopes[0][4], [0, 0, 0, 2]);
        assert_eq!(envelopes[0][5], [0, 0, 0, 5]);
        assert_eq!(envelopes[0][6], [0, 1]);
        assert_eq!(envelopes[0][7], [1]);
        assert_eq!(envelopes[0][11], [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(envelopes[0][15], b"xx-xx");
        let deliveries = rows(&deliveries.0);
        assert_eq!(deliveries.len(), 3);
        assert_eq!(deliveries[1][1..3], [vec![0, 1], b"c@d".to_vec()]);
        assert_eq!(deliveries[2][3], [0xff; 8]);
        assert_eq!(deliveries[0][4..6], [vec![0, 3], b"rfc822;a".to_vec()]);
        assert_eq!(deliveries[1][4..6], [vec![0, 0], Vec::new()]);
        assert_eq!([0, 1, 2].map(|nth| deliveries[nth][6][1]), [0, 0, 1]);
        assert_eq!(envelopes[0][12..14], [vec![0, 2], b"id".to_vec()]);
        assert_eq!(envelopes[0][14], [0, 0, 0xc0, 0x2f]);
        assert_eq!(
            envelopes[1][12..],
            [Vec::new(), Vec::new(), Vec::new(), Vec::new()]
        );
    }
}
