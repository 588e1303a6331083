//! One command line: its verb, and the arguments of MAIL and RCPT.

use crate::address::{self, AddressError};
use crate::{Reply, reply};

/// The verbs that the transition table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are SMTP's own words.
pub enum Verb {
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
}

impl Verb {
    /// As it stands on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
        }
    }

    /// RFC 5321 2.4: verbs have no case.
    fn read(word: &str) -> Option<Self> {
        let Ok(mut four) = <[u8; 4]>::try_from(word.as_bytes()) else {
            return word
                .eq_ignore_ascii_case("STARTTLS")
                .then_some(Self::StartTls);
        };
        four.make_ascii_uppercase();
        Some(match &four {
            b"EHLO" => Self::Ehlo,
            b"HELO" => Self::Helo,
            b"AUTH" => Self::Auth,
            b"MAIL" => Self::Mail,
            b"RCPT" => Self::Rcpt,
            b"DATA" => Self::Data,
            b"BDAT" => Self::Bdat,
            b"RSET" => Self::Rset,
            b"NOOP" => Self::Noop,
            b"VRFY" => Self::Vrfy,
            b"EXPN" => Self::Expn,
            b"HELP" => Self::Help,
            b"QUIT" => Self::Quit,
            _ => return None,
        })
    }
}

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

/// RFC 6152 and RFC 3030: what BODY= may say here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// MAIL's arguments. DSN's RET and ENVID will join them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail<'a> {
    /// Empty for `<>`.
    pub reverse_path: &'a str,
    /// RFC 1870.
    pub size_bytes: Option<u64>,
    /// RFC 6152.
    pub body: Option<Body>,
    /// RFC 6531.
    pub smtputf8: bool,
}

/// Reads what follows `MAIL `. Errors are the reply to give.
pub fn mail(arguments: &str) -> Result<Mail<'_>, Reply> {
    let path = after_colon(arguments, "FROM:")
        .ok_or(reply::BAD_ARGUMENTS)
        .and_then(|text| address::reverse_path(text).map_err(sender_error))?;
    let mut mail = Mail {
        reverse_path: path.address,
        size_bytes: None,
        body: None,
        smtputf8: false,
    };
    let mut has_auth = false;
    for parameter in parameters(path.rest)? {
        let (keyword, value) = parameter?;
        let repeated = if keyword.eq_ignore_ascii_case("SIZE") {
            mail.size_bytes.replace(size(value)?).is_some()
        } else if keyword.eq_ignore_ascii_case("BODY") {
            mail.body.replace(body(value)?).is_some()
        } else if keyword.eq_ignore_ascii_case("SMTPUTF8") && value.is_none() {
            std::mem::replace(&mut mail.smtputf8, true)
        } else if keyword.eq_ignore_ascii_case("AUTH") && value.is_some() {
            // RFC 4954 5: read, and not trusted: whose mail it is was settled by the login.
            std::mem::replace(&mut has_auth, true)
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        };
        if repeated {
            return Err(reply::BAD_ARGUMENTS);
        }
    }
    if path.needs_smtputf8() && !mail.smtputf8 {
        return Err(reply::NON_ASCII_SENDER);
    }
    Ok(mail)
}

/// RCPT's arguments. DSN's NOTIFY and ORCPT will join them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// A mailbox, or `postmaster`.
    pub forward_path: &'a str,
}

/// Reads what follows `RCPT `; `smtputf8` is what MAIL declared. Errors are the reply to give.
pub fn rcpt(arguments: &str, smtputf8: bool) -> Result<Rcpt<'_>, Reply> {
    let path = after_colon(arguments, "TO:")
        .ok_or(reply::BAD_ARGUMENTS)
        .and_then(|text| address::forward_path(text).map_err(recipient_error))?;
    if let Some(parameter) = parameters(path.rest)?.next() {
        let _ = parameter?;
        return Err(reply::UNKNOWN_PARAMETER);
    }
    if path.needs_smtputf8() && !smtputf8 {
        return Err(reply::NON_ASCII_RECIPIENT);
    }
    Ok(Rcpt {
        forward_path: path.address,
    })
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

/// `FROM:` or `TO:`. Blanks behind the colon are wrong by RFC 5321 3.3, and common.
fn after_colon<'a>(arguments: &'a str, word: &str) -> Option<&'a str> {
    let (head, tail) = arguments.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word)
        .then(|| tail.trim_start_matches(' '))
}

fn sender_error(error: AddressError) -> Reply {
    if error == AddressError::Syntax {
        reply::BAD_SENDER
    } else {
        reply::SENDER_TOO_LONG
    }
}

fn recipient_error(error: AddressError) -> Reply {
    if error == AddressError::Syntax {
        reply::BAD_RECIPIENT
    } else {
        reply::RECIPIENT_TOO_LONG
    }
}

type Parameter<'a> = (&'a str, Option<&'a str>);

/// RFC 5321 4.1.2 Mail-parameters and Rcpt-parameters: blank, then keyword, then perhaps `=value`.
fn parameters(rest: &str) -> Result<impl Iterator<Item = Result<Parameter<'_>, Reply>>, Reply> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(reply::BAD_ARGUMENTS);
    }
    Ok(rest
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(parameter))
}

fn parameter(word: &str) -> Result<Parameter<'_>, Reply> {
    let (keyword, value) = match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    };
    let keyword_is_good = keyword
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && keyword.starts_with(|c: char| c.is_ascii_alphanumeric());
    let value_is_good = value.is_none_or(|value| {
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
    });
    if keyword_is_good && value_is_good {
        Ok((keyword, value))
    } else {
        Err(reply::BAD_ARGUMENTS)
    }
}

/// RFC 1870 5: 1 to 20 digits.
fn size(value: Option<&str>) -> Result<u64, Reply> {
    let digits = value.unwrap_or_default();
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(reply::BAD_ARGUMENTS);
    }
    // 20 digits may exceed 64 bits; such a message is too large by any limit.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 3; RFC 3030 3 leaves BINARYMIME to servers that announce it.
fn body(value: Option<&str>) -> Result<Body, Reply> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(Body::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(Body::EightBitMime),
        Some(_) => Err(reply::UNKNOWN_PARAMETER),
        None => Err(reply::BAD_ARGUMENTS),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
    fn mail_with_its_parameters() {
        let all = mail("from: <a@b>  size=0099 body=8bitmime SMTPUTF8 AUTH=<>").unwrap();
        assert_eq!(
            all,
            Mail {
                reverse_path: "a@b",
                size_bytes: Some(99),
                body: Some(Body::EightBitMime),
                smtputf8: true
            }
        );
        assert_eq!(mail("FROM:<>").unwrap().reverse_path, "");
        assert_eq!(
            mail("FROM:<a@b> BODY=7BIT").unwrap().body,
            Some(Body::SevenBit)
        );
        assert_eq!(
            mail("FROM:<a@b> SIZE=99999999999999999999")
                .unwrap()
                .size_bytes,
            Some(u64::MAX)
        );
    }

    #[test]
    fn mail_refused() {
        for (arguments, wanted) in [
            ("", reply::BAD_ARGUMENTS),
            ("TO:<a@b>", reply::BAD_ARGUMENTS),
            ("FROM <a@b>", reply::BAD_ARGUMENTS),
            ("FROM:", reply::BAD_SENDER),
            ("FROM:a@b", reply::BAD_SENDER),
            ("FROM:<a@b>SIZE=1", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SIZE", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SIZE=", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SIZE=-1", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SIZE=1 SIZE=1", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SMTPUTF8 SMTPUTF8", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> SMTPUTF8=1", reply::UNKNOWN_PARAMETER),
            ("FROM:<a@b> BODY", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> BODY=BINARYMIME", reply::UNKNOWN_PARAMETER),
            ("FROM:<a@b> RET=FULL", reply::UNKNOWN_PARAMETER),
            ("FROM:<a@b> =x", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> X=y=z", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> X=\u{fc}", reply::BAD_ARGUMENTS),
            ("FROM:<\u{fc}@b>", reply::NON_ASCII_SENDER),
        ] {
            assert_eq!(mail(arguments), Err(wanted), "{arguments}");
        }
        assert_eq!(
            mail(&format!("FROM:<{}@b>", "a".repeat(65))),
            Err(reply::SENDER_TOO_LONG)
        );
    }

    #[test]
    fn rcpt_and_its_refusals() {
        assert_eq!(rcpt("TO:<a@b>", false).unwrap().forward_path, "a@b");
        assert_eq!(
            rcpt("to: <\u{fc}@b>", true).unwrap().forward_path,
            "\u{fc}@b"
        );
        assert_eq!(
            rcpt("TO:<\u{fc}@b>", false),
            Err(reply::NON_ASCII_RECIPIENT)
        );
        assert_eq!(rcpt("TO:<>", false), Err(reply::BAD_RECIPIENT));
        assert_eq!(
            rcpt("TO:<a@b> NOTIFY=NEVER", false),
            Err(reply::UNKNOWN_PARAMETER)
        );
        assert_eq!(rcpt("TO:<a@b> ?", false), Err(reply::BAD_ARGUMENTS));
        assert_eq!(
            rcpt(&format!("TO:<a@{}>", "b".repeat(64)), false),
            Err(reply::RECIPIENT_TOO_LONG)
        );
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
