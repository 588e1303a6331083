//! One command line: its verb, and the arguments of MAIL and RCPT.

use crate::address::{self, AddressError};
use crate::dsn::{self, Notify, Ret};
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

/// MAIL's arguments.
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
    /// RFC 3461 4.3.
    pub ret: Option<Ret>,
    /// RFC 3461 4.4, as it was written.
    pub envid: Option<&'a str>,
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
        ret: None,
        envid: None,
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
        } else if keyword.eq_ignore_ascii_case("RET") {
            mail.ret.replace(checked(value, dsn::ret)?).is_some()
        } else if keyword.eq_ignore_ascii_case("ENVID") {
            mail.envid.replace(checked(value, dsn::envid)?).is_some()
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

/// RCPT's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// A mailbox, or `postmaster`.
    pub forward_path: &'a str,
    /// RFC 3461 4.1.
    pub notify: Option<Notify>,
    /// RFC 3461 4.2, as it was written.
    pub orcpt: Option<&'a str>,
}

/// Reads what follows `RCPT `; `smtputf8` is what MAIL declared. Errors are the reply to give.
pub fn rcpt(arguments: &str, smtputf8: bool) -> Result<Rcpt<'_>, Reply> {
    let path = after_colon(arguments, "TO:")
        .ok_or(reply::BAD_ARGUMENTS)
        .and_then(|text| address::forward_path(text).map_err(recipient_error))?;
    let mut rcpt = Rcpt {
        forward_path: path.address,
        notify: None,
        orcpt: None,
    };
    for parameter in parameters(path.rest)? {
        let (keyword, value) = parameter?;
        let repeated = if keyword.eq_ignore_ascii_case("NOTIFY") {
            rcpt.notify.replace(checked(value, dsn::notify)?).is_some()
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let read = |value| dsn::orcpt(value, smtputf8);
            rcpt.orcpt.replace(checked(value, read)?).is_some()
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        };
        if repeated {
            return Err(reply::BAD_ARGUMENTS);
        }
    }
    if path.needs_smtputf8() && !smtputf8 {
        return Err(reply::NON_ASCII_RECIPIENT);
    }
    Ok(rcpt)
}

/// BDAT's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bdat {
    /// Octets that follow the command line.
    pub size_bytes: u64,
    /// LAST; `None`: what stands there is no end marker.
    pub last: Option<bool>,
}

/// Reads what follows `BDAT ` (RFC 3030 2). `None`: there is no size, so nobody knows how many
/// octets follow.
#[must_use]
pub fn bdat(arguments: &str) -> Option<Bdat> {
    let (size, marker) = arguments.split_once(' ').unwrap_or((arguments, ""));
    if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let last = match marker.trim_start_matches(' ') {
        "" => Some(false),
        marker => marker.eq_ignore_ascii_case("LAST").then_some(true),
    };
    let size_bytes = size.parse().ok()?;
    Some(Bdat { size_bytes, last })
}

/// True for a line that begins as BDAT does, whatever comes then: octets may follow it.
#[must_use]
pub fn begins_chunk(line: &[u8]) -> bool {
    line.get(..4)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"))
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

/// The value as `read` understands it; what it does not understand is 501 5.5.4.
fn checked<'a, T>(
    value: Option<&'a str>,
    read: impl FnOnce(&'a str) -> Option<T>,
) -> Result<T, Reply> {
    value.and_then(read).ok_or(reply::BAD_ARGUMENTS)
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
    // RFC 6531 3.3 lets UTF-8 into values; of those read here, RFC 6533 3 alone makes use of it.
    let utf8 = keyword.eq_ignore_ascii_case("ORCPT");
    let value_is_good = value.is_none_or(|value| {
        !value.is_empty()
            && value
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'=' || utf8 && !b.is_ascii())
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
        let all =
            mail("from: <a@b>  size=0099 body=8bitmime SMTPUTF8 AUTH=<> RET=full envid=Q+2B1")
                .unwrap();
        assert_eq!(
            all,
            Mail {
                reverse_path: "a@b",
                size_bytes: Some(99),
                body: Some(Body::EightBitMime),
                smtputf8: true,
                ret: Some(Ret::Full),
                envid: Some("Q+2B1"),
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
            ("FROM:<a@b> RET", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> RET=ALL", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> RET=FULL RET=FULL", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> ENVID", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> ENVID=", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> ENVID=a+2b", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> ENVID=a ENVID=a", reply::BAD_ARGUMENTS),
            ("FROM:<a@b> NOTIFY=NEVER", reply::UNKNOWN_PARAMETER),
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
        let all = rcpt("TO:<a@b> notify=Delay,SUCCESS ORCPT=rfc822;c+40d", false).unwrap();
        assert_eq!(all.notify.map(Notify::bits), Some(5));
        assert_eq!(all.orcpt, Some("rfc822;c+40d"));
        let utf8 = "TO:<a@b> ORCPT=utf-8;\u{fc}@b";
        assert_eq!(rcpt(utf8, true).unwrap().orcpt, Some("utf-8;\u{fc}@b"));
        for bad in [
            "NOTIFY",
            "NOTIFY=",
            "NOTIFY=NEVER,DELAY",
            "NOTIFY=NEVER NOTIFY=NEVER",
            "ORCPT",
            "ORCPT=a@b",
            "ORCPT=rfc822;a ORCPT=rfc822;a",
            "ORCPT=utf-8;\u{fc}@b",
        ] {
            let arguments = format!("TO:<a@b> {bad}");
            assert_eq!(rcpt(&arguments, false), Err(reply::BAD_ARGUMENTS), "{bad}");
        }
        assert_eq!(
            rcpt("TO:<a@b> RET=FULL", false),
            Err(reply::UNKNOWN_PARAMETER)
        );
        assert_eq!(rcpt("TO:<a@b> ?", false), Err(reply::BAD_ARGUMENTS));
        assert_eq!(
            rcpt(&format!("TO:<a@{}>", "b".repeat(64)), false),
            Err(reply::RECIPIENT_TOO_LONG)
        );
    }

    #[test]
    fn chunks() {
        let read = |arguments| bdat(arguments).map(|bdat| (bdat.size_bytes, bdat.last));
        assert_eq!(read("0"), Some((0, Some(false))));
        assert_eq!(read("0099  last"), Some((99, Some(true))));
        assert_eq!(read("18446744073709551615"), Some((u64::MAX, Some(false))));
        assert_eq!(read("5 FIRST"), Some((5, None)));
        assert_eq!(read("5 LAST LAST"), Some((5, None)));
        for bad in ["", "LAST", "-1", "+1", "1x", "0x10", "18446744073709551616"] {
            assert_eq!(bdat(bad), None, "{bad:?}");
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
