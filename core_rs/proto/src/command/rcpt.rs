//! RCPT: the forward-path and its parameters (RFC 3461).

use super::parameter::{after_colon, checked, parameters};
use crate::address::{self, AddressError};
use crate::dsn::{self, Notify};
use crate::{Reply, reply};

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

fn recipient_error(error: AddressError) -> Reply {
    if error == AddressError::Syntax {
        reply::BAD_RECIPIENT
    } else {
        reply::RECIPIENT_TOO_LONG
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
}
