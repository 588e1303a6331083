//! Messages: the body is made once and shared, the header is a few copies per message.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Error, plan::Plan};

/// RFC 5322 2.1.1: a line should not be longer than this, bytes without CRLF.
const LINE_BYTES: usize = 76;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// All messages of a run.
#[derive(Debug)]
pub(crate) struct Messages {
    from: Vec<String>,
    to: Vec<String>,
    run: String,
    date: String,
    /// Body and final dot.
    tail: Arc<[u8]>,
}

impl Messages {
    /// Fails when `size_bytes` does not hold the header.
    pub(crate) fn new(plan: &Plan, now: SystemTime) -> Result<Self, Error> {
        let date = rfc5322_date(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut messages = Self {
            from: plan.from.clone(),
            to: plan.to.clone(),
            run: plan.run.clone(),
            date,
            tail: Arc::default(),
        };
        let mut head = Vec::new();
        messages.write_head(0, &mut head);
        let body = plan
            .size_bytes
            .checked_sub(head.len())
            .filter(|&length| length >= 4)
            .ok_or_else(|| {
                Error::Plan(format!(
                    "--size must be at least {} bytes, which the header takes",
                    head.len() + 4
                ))
            })?;
        messages.tail = tail(body).into();
        Ok(messages)
    }

    pub(crate) fn from(&self, sequence: u64) -> &str {
        turn(&self.from, sequence)
    }

    pub(crate) fn to(&self, sequence: u64) -> &str {
        turn(&self.to, sequence)
    }

    /// The body and the final dot's line.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Header of a message and the empty line, appended. Always of one length for one pair of addresses.
    pub(crate) fn write_head(&self, sequence: u64, out: &mut Vec<u8>) {
        let (from, to, run, date) = (
            self.from(sequence),
            self.to(sequence),
            &self.run,
            &self.date,
        );
        // Writing into a Vec does not fail.
        let _ = write!(
            out,
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: load {run} {sequence:012}\r\nDate: {date}\r\n\
             Message-ID: <{sequence:012}.{run}@load.invalid>\r\nMIME-Version: 1.0\r\n\
             X-Load-Run: {run}\r\nX-Load-Sequence: {sequence:012}\r\n\r\n"
        );
    }
}

fn turn(addresses: &[String], sequence: u64) -> &str {
    let count = addresses.len().max(1) as u64;
    usize::try_from(sequence % count)
        .ok()
        .and_then(|n| addresses.get(n))
        .map_or("", String::as_str)
}

/// A body of `length` bytes (at least 4) and `.` CRLF.
///
/// Random base64 text, from a fixed seed: a server that compresses what it stores gains nothing, as with most
/// attachments, and no line begins with a dot, so that nothing is stuffed.
fn tail(length: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(length + 3);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while body.len() < length {
        let left = length - body.len();
        // What is left over after a full line must still hold a line of its own.
        let line = if left > LINE_BYTES + 2 + 3 {
            LINE_BYTES
        } else {
            left.saturating_sub(2).min(LINE_BYTES)
        };
        let line = if left - line - 2 == 0 || left - line - 2 >= 3 {
            line
        } else {
            line - 3
        };
        body.extend(std::iter::repeat_with(|| random_letter(&mut state)).take(line));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".\r\n");
    body
}

fn random_letter(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    BASE64
        .get(usize::from((*state >> 58) as u8))
        .copied()
        .unwrap_or(b'A')
}

/// RFC 5322 3.3, in UTC. Days to date by Howard Hinnant's `civil_from_days`.
fn rfc5322_date(since_1970: Duration) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = since_1970.as_secs();
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name = usize::try_from(month)
        .ok()
        .and_then(|n| MONTHS.get(n))
        .unwrap_or(&"Jan");
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{day:02} {name} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Amount;

    fn messages(size_bytes: usize) -> Result<Messages, Error> {
        let plan = Plan {
            size_bytes,
            run: "r1".into(),
            ..Plan::new("h:1", Amount::Messages(1))
        };
        Messages::new(&plan, UNIX_EPOCH)
    }

    #[test]
    fn a_message_has_the_size_asked_for_and_only_short_whole_lines() {
        for size in (400..1200).chain([4096, 65536]) {
            let messages = messages(size).unwrap();
            let mut whole = Vec::new();
            messages.write_head(7, &mut whole);
            whole.extend_from_slice(messages.tail());
            assert_eq!(whole.len(), size + 3, "and the final dot");
            let text = String::from_utf8(whole).unwrap();
            let mut lines: Vec<&str> = text.split("\r\n").collect();
            assert_eq!((lines.pop(), lines.pop()), (Some(""), Some(".")));
            assert!(lines.iter().all(|line| line.len() <= 100
                && !line.starts_with('.')
                && !line.contains(['\r', '\n'])));
        }
    }

    #[test]
    fn the_header_carries_run_and_sequence() {
        let mut head = Vec::new();
        messages(1000).unwrap().write_head(42, &mut head);
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("Message-ID: <000000000042.r1@load.invalid>\r\n"),
            "{head}"
        );
        assert!(head.contains("X-Load-Sequence: 000000000042\r\n"));
    }

    #[test]
    fn too_small_a_size_is_refused_with_the_least_one() {
        let error = messages(10).unwrap_err().to_string();
        let least: usize = error.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(messages(least).is_ok() && messages(least - 1).is_err());
    }

    #[test]
    fn addresses_take_turns() {
        let plan = Plan {
            from: vec!["a@x".into(), "b@x".into()],
            ..Plan::new("h:1", Amount::Messages(1))
        };
        let messages = Messages::new(&plan, UNIX_EPOCH).unwrap();
        assert_eq!(
            [messages.from(0), messages.from(1), messages.from(2)],
            ["a@x", "b@x", "a@x"]
        );
    }

    #[test]
    fn dates_are_as_in_rfc_5322() {
        let at = |seconds| rfc5322_date(Duration::from_secs(seconds));
        assert_eq!(at(0), "01 Jan 1970 00:00:00 +0000");
        assert_eq!(at(951_782_400), "29 Feb 2000 00:00:00 +0000");
        assert_eq!(at(1_767_225_599), "31 Dec 2025 23:59:59 +0000");
    }
}
