//! What a submission server may do to a message (RFC 6409 8), and when it must not pass one on (RFC 5321 6.3).
//!
//! The session judges and takes out; what it adds needs an id and a clock, so it only says what is missing. Whoever has
//! both makes the additions, and they are put in their place while the message is copied anyway ([`Envelope::pieces`]):
//! no body is moved for them.

use std::time::Duration;

use crate::header::{self, Header, Unwanted};
use crate::{Envelope, EnvelopeId, Lane, Reply, reply};

/// Which mistakes of a message are mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submission {
    /// RFC 6409 8.2 and 8.3: Date and Message-ID are added where they are missing, in place of one that says nothing, too;
    /// and an empty line where text stands without a header.
    pub add_missing_headers: bool,
    /// RFC 5322 3.6.3: nobody is to read whom else it went to. `Resent-Bcc` has that same meaning (3.6.6).
    pub strip_bcc: bool,
}

impl Default for Submission {
    fn default() -> Self {
        Self {
            add_missing_headers: true,
            strip_bcc: true,
        }
    }
}

impl Submission {
    /// Takes out what must go, and says what is missing and asked for. Errors: the reply after the final dot, when more than `hops`
    /// servers have had it.
    pub fn mend(self, message: &mut Vec<u8>, hops: u32) -> Result<Mended, Reply> {
        let mut header = Header::read(message);
        if header.received > hops {
            return Err(reply::TOO_MANY_HOPS);
        }
        let mut lane = header.lane();
        // Twice at the most: what is taken out may uncover a mailbox file's line, behind which a header goes on.
        for _ in 0..2 {
            let unwanted = Unwanted {
                bcc: header.has_bcc && self.strip_bcc,
                blank: header.has_blank && self.add_missing_headers,
                lane: header.has_lane,
            };
            if !(unwanted.bcc || unwanted.blank || unwanted.lane) {
                break;
            }
            header::strip(message, &header, unwanted);
            header = Header::read(message);
            lane = lane.or(header.lane());
        }
        let missing = if self.add_missing_headers {
            Missing {
                at: header.fields_end,
                date: !header.has_date,
                message_id: !header.has_message_id,
                empty_line: header.is_open,
            }
        } else {
            Missing::default()
        };
        Ok(Mended { missing, lane })
    }
}

/// What was found while a message was mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// What it lacks.
    pub missing: Missing,
    /// As it asks; `None`: it does not.
    pub lane: Option<Lane>,
}

/// What a message lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// Where it belongs, bytes from the beginning.
    pub at: usize,
    /// RFC 5322 3.6.1.
    pub date: bool,
    /// RFC 5322 3.6.4.
    pub message_id: bool,
    /// RFC 5322 2.1: between header and text.
    pub empty_line: bool,
}

impl Missing {
    /// Nothing is to be added.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        !(self.date || self.message_id || self.empty_line)
    }

    /// What is to be added to `message` at [`Missing::at`]; empty for most messages.
    #[must_use]
    pub fn additions(self, message: &[u8], facts: &Facts<'_>) -> Vec<u8> {
        if self.is_nothing() {
            return Vec::new();
        }
        let mut text = String::with_capacity(128 + facts.hostname.len());
        let before = message.get(..self.at).unwrap_or_default();
        if !(before.is_empty() || before.ends_with(b"\n")) {
            text.push_str("\r\n");
        }
        if self.date {
            text.extend(["Date: ", &date(facts.received_at), "\r\n"]);
        }
        if self.message_id {
            let id = facts.id.hyphenated();
            text.extend([
                "Message-ID: <",
                &id,
                "@",
                &id_right(facts.hostname),
                ">\r\n",
            ]);
        }
        if self.empty_line {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }

    /// The message as it is kept: what came, with the additions between.
    #[must_use]
    pub fn pieces<'a>(self, message: &'a [u8], additions: &'a [u8]) -> [&'a [u8]; 3] {
        let (before, behind) = message.split_at_checked(self.at).unwrap_or((message, &[]));
        [before, additions, behind]
    }
}

/// What only the outside knows of a message.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// It makes the Message-ID, so that a message can be looked up by it.
    pub id: EnvelopeId,
    /// Our name: a domain, or an address in brackets or without.
    pub hostname: &'a str,
    /// Since 1970: when the final dot came.
    pub received_at: Duration,
}

impl Envelope {
    /// See [`Missing::additions`].
    #[must_use]
    pub fn additions(&self, facts: &Facts<'_>) -> Vec<u8> {
        self.missing.additions(&self.body, facts)
    }

    /// See [`Missing::pieces`].
    #[must_use]
    pub fn pieces<'a>(&'a self, additions: &'a [u8]) -> [&'a [u8]; 3] {
        self.missing.pieces(&self.body, additions)
    }
}

/// RFC 5322 3.6.4: a domain, or something in brackets.
fn id_right(hostname: &str) -> String {
    if hostname.contains(':') && !hostname.starts_with('[') {
        format!("[IPv6:{hostname}]")
    } else {
        hostname.to_owned()
    }
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // 1970 began with a Thursday.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY_SECONDS: u64 = 86_400;
const ERA_DAYS: u64 = 146_097; // 400 years, after which the calendar repeats itself.

/// RFC 5322 3.3, in UTC: `Mon, 04 May 2026 03:02:01 +0000`.
fn date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = civil(days);
    let named = |names: &[&'static str], nth: u64| {
        let nth = usize::try_from(nth).unwrap_or_default();
        names.get(nth).copied().unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} +0000",
        named(&DAYS, days % 7),
        named(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of so many days after 1 January 1970. Counted in eras that begin on 1 March 0000, so that the leap
/// day is a year's last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{BodyType, Identity, Security, Senders};

    /// What becomes of a message.
    fn mended(message: &str, submission: Submission) -> String {
        let mut body = message.as_bytes().to_vec();
        let Mended { missing, lane } = submission.mend(&mut body, 100).unwrap_or_default();
        let envelope = Envelope {
            identity: Arc::new(Identity {
                tenant_id: [1; 16],
                credential_id: [2; 16],
                username: "user".to_owned(),
                senders: Senders::default(),
            }),
            reverse_path: String::new(),
            recipients: Vec::new(),
            body,
            body_type: BodyType::SevenBit,
            smtputf8: false,
            helo: Arc::from("x"),
            security: Security::Tls,
            missing,
            dsn: None,
            lane,
        };
        let facts = Facts {
            id: EnvelopeId([7; 16]),
            hostname: "mx.example.com",
            received_at: Duration::from_secs(1_777_863_721),
        };
        let additions = envelope.additions(&facts);
        String::from_utf8_lossy(&envelope.pieces(&additions).concat()).into_owned()
    }

    const DATE: &str = "Date: Mon, 04 May 2026 03:02:01 +0000\r\n";
    const ID: &str = "Message-ID: <07070707-0707-0707-0707-070707070707@mx.example.com>\r\n";

    #[test]
    fn what_is_missing_is_added_behind_the_fields() {
        for (message, wanted) in [
            ("", format!("{DATE}{ID}")),
            ("\r\ntext\r\n", format!("{DATE}{ID}\r\ntext\r\n")),
            (
                "A: b\r\n\r\ntext\r\n",
                format!("A: b\r\n{DATE}{ID}\r\ntext\r\n"),
            ),
            (
                "date: x\r\n\r\ntext\r\n",
                format!("date: x\r\n{ID}\r\ntext\r\n"),
            ),
            (
                "Message-Id: x\r\nA: b\r\n",
                format!("Message-Id: x\r\nA: b\r\n{DATE}"),
            ),
            ("A: b", format!("A: b\r\n{DATE}{ID}")),
            (
                "Message-ID:\r\nA: b\r\nDate: \r\n \r\n\r\ntext\r\n",
                format!("A: b\r\n{DATE}{ID}\r\ntext\r\n"),
            ),
            (
                "A: b\r\nodd\r\nB: c\r\n\r\ntext\r\n",
                format!("A: b\r\n{DATE}{ID}odd\r\nB: c\r\n\r\ntext\r\n"),
            ),
        ] {
            assert_eq!(
                mended(message, Submission::default()),
                wanted,
                "{message:?}"
            );
        }
    }

    #[test]
    fn text_stays_text() {
        for (message, wanted) in [
            (
                "Hello.\r\n\r\nB: c\r\n",
                format!("{DATE}{ID}\r\nHello.\r\n\r\nB: c\r\n"),
            ),
            (" A: b\r\n", format!("{DATE}{ID}\r\n A: b\r\n")),
            (
                "A: b\r\nHello\r\nyou\r\n",
                format!("A: b\r\n{DATE}{ID}\r\nHello\r\nyou\r\n"),
            ),
            ("Bcc: b\r\nHello\r\n", format!("{DATE}{ID}\r\nHello\r\n")),
            (
                "Bcc: b\r\nFrom a@b\r\nDate:\r\nA: b\r\n",
                format!("From a@b\r\nA: b\r\n{DATE}{ID}"),
            ),
        ] {
            assert_eq!(
                mended(message, Submission::default()),
                wanted,
                "{message:?}"
            );
        }
    }

    #[test]
    fn each_mending_can_be_left_out() {
        let message = "Bcc: a@b\r\nA: b\r\n\r\n";
        let keep_bcc = Submission {
            strip_bcc: false,
            ..Submission::default()
        };
        assert_eq!(
            mended(message, keep_bcc),
            format!("Bcc: a@b\r\nA: b\r\n{DATE}{ID}\r\n")
        );
        let add_nothing = Submission {
            add_missing_headers: false,
            ..Submission::default()
        };
        assert_eq!(mended(message, add_nothing), "A: b\r\n\r\n");
        assert_eq!(mended("Date:\r\n\r\n", add_nothing), "Date:\r\n\r\n");
        assert_eq!(mended("text\r\n", add_nothing), "text\r\n");
    }

    #[test]
    fn a_lane_is_asked_for_and_our_own_field_goes() {
        for (message, wanted, lane) in [
            ("A: b\r\n\r\n", "A: b\r\n\r\n", None),
            (
                "X-Priority-Lane: bulk\r\nA: b\r\n\r\n",
                "A: b\r\n\r\n",
                Some(Lane::Bulk),
            ),
            (
                "A: b\r\nx-priority-lane :\r\n\tBULK \r\n\r\n",
                "A: b\r\n\r\n",
                Some(Lane::Bulk),
            ),
            (
                "Precedence: list\r\nX-Priority-Lane: Transactional\r\nX-Priority-Lane: bulk\r\n\r\n",
                "Precedence: list\r\n\r\n",
                Some(Lane::Transactional),
            ),
            (
                "X-Priority-Lane: now!\r\nA: b\r\n\r\n",
                "A: b\r\n\r\n",
                None,
            ),
            (
                "Precedence: Junk\r\n\r\n",
                "Precedence: Junk\r\n\r\n",
                Some(Lane::Bulk),
            ),
            (
                "Precedence: first-class\r\n\r\n",
                "Precedence: first-class\r\n\r\n",
                None,
            ),
            (
                "A: b\r\n\r\nX-Priority-Lane: bulk\r\n",
                "A: b\r\n\r\nX-Priority-Lane: bulk\r\n",
                None,
            ),
        ] {
            let as_it_is = Submission {
                add_missing_headers: false,
                ..Submission::default()
            };
            let mut body = message.as_bytes().to_vec();
            let found = as_it_is.mend(&mut body, 100).unwrap_or_default();
            assert_eq!((body, found.lane), (wanted.into(), lane), "{message:?}");
        }
    }

    #[test]
    fn a_loop_ends() {
        let submission = Submission::default();
        let hops = |count: usize| "rEceived : x\r\n y\r\n".repeat(count).into_bytes();
        assert!(submission.mend(&mut hops(100), 100).is_ok());
        assert_eq!(
            submission.mend(&mut hops(101), 100),
            Err(reply::TOO_MANY_HOPS)
        );
        let mut quoted = b"A: b\r\n\r\n".to_vec();
        quoted.extend_from_slice(&hops(200));
        assert!(
            submission.mend(&mut quoted, 100).is_ok(),
            "what a report quotes is no hop"
        );
    }

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 +0000"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 +0000"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), wanted);
        }
    }

    #[test]
    fn an_address_as_our_name_is_written_as_rfc_5322_wants_it() {
        assert_eq!(id_right("mx.example.com"), "mx.example.com");
        assert_eq!(id_right("[192.0.2.1]"), "[192.0.2.1]");
        assert_eq!(id_right("::1"), "[IPv6:::1]");
    }
}
