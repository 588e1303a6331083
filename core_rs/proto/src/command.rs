//! One command line: its verb, and what the arguments of MAIL, RCPT and BDAT say.

mod bdat;
mod mail;
mod parameter;
mod rcpt;
mod verb;

pub use self::bdat::{Bdat, bdat, begins_chunk};
pub use self::mail::{Body, Mail, mail};
pub use self::rcpt::{Rcpt, rcpt};
pub use self::verb::Verb;

use crate::address;
use crate::{Reply, reply};

/// A line without its CRLF and without trailing blanks (RFC 5321 4.1.1 asks for that tolerance).
/// Errors: the line's end is not CRLF, or it holds control characters or broken UTF-8.
pub fn line(bytes: &[u8]) -> Result<&str, Reply> {
    let bytes = bytes.strip_suffix(b"\r\n").ok_or(reply::LINE_END)?;
    let text = std::str::from_utf8(bytes).map_err(|_| reply::CHARACTERS)?;
    let text = text.trim_end_matches([' ', '\t']);
    if text.bytes().any(|b| b.is_ascii_control()) {
        return Err(reply::CHARACTERS);
    }
    Ok(text)
}

/// The verb, unless it is unknown, and its arguments without the blanks around them.
#[must_use]
pub fn split(line: &str) -> (Option<Verb>, &str) {
    let (word, arguments) = line.split_once(' ').unwrap_or((line, ""));
    (Verb::read(word), arguments.trim_start_matches(' '))
}

/// The first words of HTTP: nobody who means mail begins with them.
#[must_use]
pub fn is_http(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or_default();
    [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "PRI",
    ]
    .contains(&word)
}

/// True for what EHLO and HELO may give: a domain or an address literal (RFC 5321 4.1.4). Clients
/// in networks without proper names send many a thing, so only its length and characters are
/// checked.
#[must_use]
pub fn is_helo_name(arguments: &str) -> bool {
    !arguments.is_empty()
        && arguments.len() <= address::DOMAIN_BYTES
        && arguments.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(b"NOOP \t \r\n"), Ok("NOOP"));
        assert_eq!(line(b"NOOP\n"), Err(reply::LINE_END));
        for bad in [
            &b"NO\rOP\r\n"[..],
            b"NO\0OP\r\n",
            b"NO\tOP\r\n",
            b"NOOP\x7f\r\n",
            b"NOOP \xff\r\n",
            b"NOOP\r\r\n",
        ] {
            assert_eq!(line(bad), Err(reply::CHARACTERS), "{bad:?}");
        }
    }

    #[test]
    fn verbs_have_no_case() {
        assert_eq!(split("mAiL FROM:<>"), (Some(Verb::Mail), "FROM:<>"));
        assert_eq!(split("starttls"), (Some(Verb::StartTls), ""));
        assert_eq!(split("NOOP  a  b"), (Some(Verb::Noop), "a  b"));
        for unknown in ["", " NOOP", "MAILFROM:<>", "ÄHLO x", "XXXX"] {
            assert_eq!(split(unknown).0, None, "{unknown:?}");
        }
        for verb in [
            Verb::Ehlo,
            Verb::Helo,
            Verb::StartTls,
            Verb::Auth,
            Verb::Mail,
            Verb::Rcpt,
            Verb::Data,
            Verb::Bdat,
        ] {
            assert_eq!(Verb::read(verb.name()), Some(verb));
        }
        for verb in [
            Verb::Rset,
            Verb::Noop,
            Verb::Vrfy,
            Verb::Expn,
            Verb::Help,
            Verb::Quit,
        ] {
            assert_eq!(Verb::read(verb.name()), Some(verb));
        }
    }

    #[test]
    fn helo_names() {
        assert!(
            is_helo_name("client.example")
                && is_helo_name("[192.0.2.1]")
                && is_helo_name("my_laptop")
        );
        assert!(
            !is_helo_name("")
                && !is_helo_name("a b")
                && !is_helo_name("\u{fc}")
                && !is_helo_name(&"a".repeat(256))
        );
    }
}
