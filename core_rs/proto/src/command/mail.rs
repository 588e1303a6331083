//! MAIL: the reverse-path and its parameters (RFC 1870, 3461, 4954, 6152, 6531).

use super::parameter::{after_colon, checked, parameters};
use crate::address::{self, AddressError};
use crate::dsn::{self, Ret};
use crate::{Reply, reply};

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

fn sender_error(error: AddressError) -> Reply {
    if error == AddressError::Syntax {
        reply::BAD_SENDER
    } else {
        reply::SENDER_TOO_LONG
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
}
