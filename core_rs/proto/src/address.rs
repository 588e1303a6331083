//! The paths of MAIL and RCPT: RFC 5321 4.1.2 and 4.1.3, with the UTF-8 of RFC 6531 3.3.
//!
//! Source routes are read and dropped (RFC 5321 appendix C and F.2). An address is kept as it was
//! written: no case is folded and no quoting is changed, since only the domain's own host may read
//! its local parts.

use std::net::{Ipv4Addr, Ipv6Addr};

/// RFC 5321 4.5.3.1.1: local part, octets.
pub const LOCAL_PART_BYTES: usize = 64;
/// RFC 5321 4.5.3.1.2: domain, octets.
pub const DOMAIN_BYTES: usize = 255;
/// RFC 5321 4.5.3.1.3: path incl. its punctuation, octets.
pub const PATH_BYTES: usize = 256;
/// RFC 1035 2.3.4: one label of a domain, octets.
pub const LABEL_BYTES: usize = 63;

/// What is wrong with a path. The client's fault, permanent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// It does not follow the grammar.
    Syntax,
    /// Over [`LOCAL_PART_BYTES`].
    LocalPartTooLong,
    /// Over [`DOMAIN_BYTES`], or a label over [`LABEL_BYTES`].
    DomainTooLong,
    /// Over [`PATH_BYTES`].
    PathTooLong,
}

/// An address out of its path, and what stood behind the closing bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    /// Without angle brackets and source route; empty for the null reverse-path.
    pub address: &'a str,
    /// The rest of the line.
    pub rest: &'a str,
}

impl Path<'_> {
    /// True if it needs SMTPUTF8 (RFC 6531 3.4).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.address.is_ascii()
    }
}

/// MAIL's path: a mailbox in angle brackets, or `<>`.
pub fn reverse_path(text: &str) -> Result<Path<'_>, AddressError> {
    match text.strip_prefix("<>") {
        Some(rest) => Ok(Path { address: "", rest }),
        None => path(text, false),
    }
}

/// RCPT's path: a mailbox in angle brackets, or `<postmaster>` (RFC 5321 4.5.1), in any case of
/// letters.
pub fn forward_path(text: &str) -> Result<Path<'_>, AddressError> {
    path(text, true)
}

/// A mailbox alone, such as a setting or a header field holds it: no brackets, nothing behind it.
pub fn mailbox(text: &str) -> Result<&str, AddressError> {
    match mailbox_prefix(text)? {
        (address, "") => Ok(address),
        _ => Err(AddressError::Syntax),
    }
}

fn path(text: &str, postmaster: bool) -> Result<Path<'_>, AddressError> {
    let inner = text.strip_prefix('<').ok_or(AddressError::Syntax)?;
    let inner = without_route(inner)?;
    let (address, rest) = match bare_postmaster(inner) {
        Some(found) if postmaster => found,
        _ => mailbox_prefix(inner)?,
    };
    let rest = rest.strip_prefix('>').ok_or(AddressError::Syntax)?;
    if text.len() - rest.len() > PATH_BYTES {
        return Err(AddressError::PathTooLong);
    }
    Ok(Path { address, rest })
}

fn bare_postmaster(inner: &str) -> Option<(&str, &str)> {
    let (word, rest) = inner.split_at_checked("postmaster".len())?;
    (word.eq_ignore_ascii_case("postmaster") && rest.starts_with('>')).then_some((word, rest))
}

/// `@one.example,@two.example:` in front of a mailbox.
fn without_route(inner: &str) -> Result<&str, AddressError> {
    let mut text = inner;
    while let Some(domain) = text.strip_prefix('@') {
        let (_, rest) = domain_prefix(domain)?;
        if let Some(mailbox) = rest.strip_prefix(':') {
            return if mailbox.starts_with('@') {
                Err(AddressError::Syntax)
            } else {
                Ok(mailbox)
            };
        }
        text = rest
            .strip_prefix(',')
            .filter(|next| next.starts_with('@'))
            .ok_or(AddressError::Syntax)?;
    }
    Ok(text)
}

fn mailbox_prefix(text: &str) -> Result<(&str, &str), AddressError> {
    let (local_part, rest) = local_part_prefix(text)?;
    let domain = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
    if local_part.len() > LOCAL_PART_BYTES {
        return Err(AddressError::LocalPartTooLong);
    }
    let (_, rest) = if domain.starts_with('[') {
        literal_prefix(domain)?
    } else {
        domain_prefix(domain)?
    };
    let (address, rest) = split(text, text.len() - rest.len());
    if !address.is_ascii() && address.contains(breaks_lines) {
        return Err(AddressError::Syntax);
    }
    Ok((address, rest))
}

/// RFC 6531 lets any UTF-8 in. These are no letters, and some software takes them for a line's end.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn local_part_prefix(text: &str) -> Result<(&str, &str), AddressError> {
    if text.starts_with('"') {
        return quoted_prefix(text);
    }
    let (atoms, rest) = split_where(text, |b| !(is_atext(b) || b == b'.'));
    let well_formed = !atoms.is_empty()
        && !atoms.starts_with('.')
        && !atoms.ends_with('.')
        && !atoms.contains("..");
    if well_formed {
        Ok((atoms, rest))
    } else {
        Err(AddressError::Syntax)
    }
}

/// RFC 5321 4.1.2: Quoted-string, with its quotes.
fn quoted_prefix(text: &str) -> Result<(&str, &str), AddressError> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(split(text, at + 1)),
            '\\' => match chars.next() {
                Some((_, ' '..='~')) => {}
                _ => return Err(AddressError::Syntax),
            },
            c if c.is_ascii_control() => return Err(AddressError::Syntax),
            _ => {}
        }
    }
    Err(AddressError::Syntax)
}

fn domain_prefix(text: &str) -> Result<(&str, &str), AddressError> {
    let (domain, rest) = split_where(text, |b| !(is_label(b) || b == b'.'));
    if domain.len() > DOMAIN_BYTES {
        return Err(AddressError::DomainTooLong);
    }
    domain.split('.').try_for_each(label)?;
    Ok((domain, rest))
}

/// RFC 5321 4.1.2: sub-domain. An underscore is let pass: containers and old Windows hosts put it
/// into real sender addresses.
fn label(label: &str) -> Result<(), AddressError> {
    if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
        return Err(AddressError::Syntax);
    }
    // A label in UTF-8 is measured in its ASCII form (RFC 5890 2.3.2.1), which is the resolver's to
    // make.
    if label.len() > LABEL_BYTES && label.is_ascii() {
        return Err(AddressError::DomainTooLong);
    }
    Ok(())
}

/// RFC 5321 4.1.3: `[192.0.2.1]` and `[IPv6:2001:db8::1]`. No other tag was ever registered.
fn literal_prefix(text: &str) -> Result<(&str, &str), AddressError> {
    let (literal, rest) = split_where(text, |b| b == b']');
    let inner = literal.strip_prefix('[').ok_or(AddressError::Syntax)?;
    let valid = match inner.split_at_checked("IPv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    if valid && rest.starts_with(']') {
        Ok(split(text, literal.len() + 1))
    } else {
        Err(AddressError::Syntax)
    }
}

/// RFC 5322 3.2.3 atext; RFC 6531 3.3 adds everything beyond ASCII.
fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

fn is_label(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || b == b'-' || b == b'_'
}

/// Splits before the first byte that `ends`. All bytes beyond ASCII must count alike, so that no
/// character is cut.
fn split_where(text: &str, ends: impl Fn(u8) -> bool) -> (&str, &str) {
    split(text, text.bytes().position(ends).unwrap_or(text.len()))
}

fn split(text: &str, at: usize) -> (&str, &str) {
    text.split_at_checked(at).unwrap_or((text, ""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<&str, AddressError> {
        forward_path(text).map(|path| path.address)
    }

    #[test]
    fn mailboxes() {
        for good in [
            "a@b",
            "first.last+tag@sub.example.com",
            "!#$%&'*+-/=?^_`{|}~@example.com",
            "\"quoted local\"@example.com",
            "\"a\\\"b\\\\c>@\"@example.com",
            "\"\"@example.com",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@[ipv6:::ffff:192.0.2.1]",
            "a@1.2.3.4",
            "a@xn--bcher-kva.example",
            "root@my_container",
            "jürgen@bücher.example",
            "\"jür gen\"@example.com",
        ] {
            assert_eq!(address(&format!("<{good}>")), Ok(good));
            assert_eq!(mailbox(good), Ok(good));
            assert_eq!(
                reverse_path(&format!("<{good}> SIZE=1")).unwrap().rest,
                " SIZE=1"
            );
        }
    }

    #[test]
    fn not_mailboxes() {
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@b@c",
            ".a@b",
            "a.@b",
            "a..c@b",
            "a b@c",
            "a@b c",
            "a@.b",
            "a@b.",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@b-.c",
            "a@[1.2.3]",
            "a@[1.2.3.4",
            "a@[1.2.3.4]x",
            "a@[IPv6:1]",
            "a@[IPv6:2001:db8::1",
            "a@[x-tag:y]",
            "a@[]",
            "\"a@b",
            "\"a\"b@c",
            "\"a\\",
            "\"a\tb\"@c",
            "a,b@c",
            "a@b,c",
            "(c)a@b",
            "a\u{7f}@b",
            "a\u{85}b@c",
            "a@b\u{2028}c",
            "\"a\u{1}\"@b",
            "\"a\\\u{7f}\"@b",
        ] {
            assert_eq!(
                address(&format!("<{bad}>")),
                Err(AddressError::Syntax),
                "{bad:?}"
            );
        }
        for bad in [
            "a@b", "<a@b", "a@b>", "<<a@b>>", " <a@b>", "< a@b>", "<a@b >",
        ] {
            assert_eq!(address(bad), Err(AddressError::Syntax), "{bad:?}");
        }
    }

    #[test]
    fn null_and_postmaster() {
        assert_eq!(
            reverse_path("<>"),
            Ok(Path {
                address: "",
                rest: ""
            })
        );
        assert_eq!(forward_path("<>"), Err(AddressError::Syntax));
        assert_eq!(address("<PostMaster>"), Ok("PostMaster"));
        assert_eq!(address("<postmaster@b>"), Ok("postmaster@b"));
        assert_eq!(reverse_path("<postmaster>"), Err(AddressError::Syntax));
        assert_eq!(address("<postmasters>"), Err(AddressError::Syntax));
    }

    #[test]
    fn source_routes_are_dropped() {
        assert_eq!(address("<@one.example,@two.example:a@b>"), Ok("a@b"));
        assert_eq!(address("<@one.example:a@[192.0.2.1]>"), Ok("a@[192.0.2.1]"));
        for bad in [
            "<@one.example>",
            "<@one.example,a@b>",
            "<@one.example,:a@b>",
            "<@:a@b>",
            "<@one.example:@two.example:a@b>",
        ] {
            assert_eq!(address(bad), Err(AddressError::Syntax), "{bad}");
        }
    }

    #[test]
    fn lengths() {
        let local = |n: usize| format!("<{}@b>", "a".repeat(n));
        assert!(address(&local(64)).is_ok());
        assert_eq!(address(&local(65)), Err(AddressError::LocalPartTooLong));
        assert_eq!(
            address(&format!("<\"{}\"@b>", "a".repeat(63))),
            Err(AddressError::LocalPartTooLong)
        );
        assert_eq!(
            address(&format!("<{}@b>", "ü".repeat(33))),
            Err(AddressError::LocalPartTooLong)
        );
        assert_eq!(
            address(&format!("<a@{}>", "b".repeat(64))),
            Err(AddressError::DomainTooLong)
        );
        let domain = |odd: usize| format!("{}b", "b.".repeat(odd / 2));
        assert!(address(&format!("<a@{}>", domain(251))).is_ok());
        assert_eq!(
            address(&format!("<aaa@{}>", domain(251))),
            Err(AddressError::PathTooLong)
        );
        assert_eq!(
            mailbox(&format!("a@{}", domain(257))),
            Err(AddressError::DomainTooLong)
        );
    }
}
