//! What MAIL and RCPT have in common: the word before the path, the parameters behind it.

use crate::{Reply, reply};

/// `FROM:` or `TO:`. Blanks behind the colon are wrong by RFC 5321 3.3, and common.
pub(super) fn after_colon<'a>(arguments: &'a str, word: &str) -> Option<&'a str> {
    let (head, tail) = arguments.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word)
        .then(|| tail.trim_start_matches(' '))
}

pub(super) type Parameter<'a> = (&'a str, Option<&'a str>);

/// RFC 5321 4.1.2 Mail-parameters and Rcpt-parameters: blank, then keyword, then perhaps `=value`.
pub(super) fn parameters(
    rest: &str,
) -> Result<impl Iterator<Item = Result<Parameter<'_>, Reply>>, Reply> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(reply::BAD_ARGUMENTS);
    }
    Ok(rest
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(parameter))
}

/// The value as `read` understands it; what it does not understand is 501 5.5.4.
pub(super) fn checked<'a, T>(
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
