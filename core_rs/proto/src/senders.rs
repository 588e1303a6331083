//! Which reverse-paths a credential may use (RFC 6409 6.1).
//!
//! A pattern is a mailbox, a domain (`example.com`, `@example.com` or `*@example.com`), all domains below one
//! (`*.example.com`), or `<>`. How they are compared:
//! * A quoted local part counts as what it quotes: `"user"@b` is `user@b` (RFC 5321 4.1.2), so quoting is no way round.
//! * ASCII letters have no case, in local parts neither: hosts that tell `User` from `user` are not met any more, and
//!   clients write either.
//! * Beyond ASCII a domain or local part must be written as in the pattern. U-labels and A-labels (`xn--…`) are not
//!   converted into each other: where clients use both, list both.
//! * The null reverse-path is a right of its own: whoever may send as one domain cannot send reports in nobody's name
//!   unless `<>` is listed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::address;

/// A pattern that is none. The operator's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// As it was given.
    pub pattern: String,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no sender pattern: write user@example.com, example.com (or @example.com) for a domain, *.example.com \
             for all domains below it, or <> for the null reverse-path; a domain of one label needs its @",
            self.pattern
        )
    }
}

impl std::error::Error for BadPattern {}

/// One pattern, in lower case; shown as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderPattern {
    /// `<>`.
    Null,
    /// The local part without quotes, and the domain.
    Mailbox(String, String),
    /// That domain.
    Domain(String),
    /// Every domain that ends so; the text begins with the dot.
    Below(String),
}

impl FromStr for SenderPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        parse(text).ok_or_else(|| BadPattern {
            pattern: text.to_owned(),
        })
    }
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(local_part, domain) => write!(f, "{}@{domain}", quoted(local_part)),
            Self::Domain(domain) if domain.contains('.') && !domain.starts_with('[') => {
                f.write_str(domain)
            }
            Self::Domain(domain) => write!(f, "@{domain}"),
            Self::Below(domain) => write!(f, "*{domain}"),
        }
    }
}

/// The patterns of one credential; none means any sender.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders {
    patterns: Vec<SenderPattern>,
}

impl Senders {
    /// Reads them all. Errors: the first that is none.
    pub fn read<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, BadPattern> {
        let patterns = patterns
            .into_iter()
            .map(|text| text.as_ref().parse())
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// May it be used? `reverse_path` as MAIL gave it, without brackets; empty is the null one.
    #[must_use]
    pub fn allow(&self, reverse_path: &str) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        // The domain holds no @ and the local part may.
        let sender = reverse_path
            .rsplit_once('@')
            .map(|(local_part, domain)| (unquoted(local_part), domain));
        self.patterns
            .iter()
            .any(|pattern| match (pattern, &sender) {
                (SenderPattern::Null, None) => reverse_path.is_empty(),
                (SenderPattern::Mailbox(local_part, wanted), Some((given, domain))) => {
                    wanted.eq_ignore_ascii_case(domain) && local_part.eq_ignore_ascii_case(given)
                }
                (SenderPattern::Domain(wanted), Some((_, domain))) => {
                    wanted.eq_ignore_ascii_case(domain)
                }
                (SenderPattern::Below(ending), Some((_, domain))) => is_below(domain, ending),
                _ => false,
            })
    }
}

fn is_below(domain: &str, ending: &str) -> bool {
    // Bytes, not characters: where the cut falls within one, the ending does not match anyway.
    let cut = domain.len().checked_sub(ending.len()).filter(|at| *at > 0);
    cut.and_then(|at| domain.as_bytes().get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
}

fn parse(text: &str) -> Option<SenderPattern> {
    if text == "<>" {
        return Some(SenderPattern::Null);
    }
    let lower = text.to_ascii_lowercase();
    let (domain, has_at) = match lower.strip_prefix('*').unwrap_or(&lower).strip_prefix('@') {
        Some(domain) => (domain, true),
        None => (lower.as_str(), false),
    };
    if let Some(below) = domain.strip_prefix("*.").filter(|below| is_domain(below)) {
        return Some(SenderPattern::Below(format!(".{below}")));
    }
    if is_domain(domain) && (has_at || domain.contains('.')) {
        return Some(SenderPattern::Domain(domain.to_owned()));
    }
    let mailbox = address::mailbox(&lower).ok()?;
    let (local_part, domain) = mailbox.rsplit_once('@')?;
    Some(SenderPattern::Mailbox(
        unquoted(local_part).into_owned(),
        domain.to_owned(),
    ))
}

fn is_domain(text: &str) -> bool {
    !text.contains('@') && address::mailbox(&format!("a@{text}")).is_ok()
}

/// RFC 5321 4.1.2: the quotes and backslashes of a quoted string are no part of what it says.
fn unquoted(local_part: &str) -> Cow<'_, str> {
    let Some(inner) = local_part
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return Cow::Borrowed(local_part);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    Cow::Owned(text)
}

/// The other way, where it must be; `*@` without quotes would be a whole domain.
fn quoted(local_part: &str) -> Cow<'_, str> {
    let is_bare = local_part != "*" && !local_part.starts_with('"');
    if is_bare && address::mailbox(&format!("{local_part}@b")).is_ok() {
        return Cow::Borrowed(local_part);
    }
    Cow::Owned(format!(
        "\"{}\"",
        local_part.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn allow(patterns: &[&str], reverse_path: &str) -> bool {
        Senders::read(patterns).unwrap().allow(reverse_path)
    }

    #[test]
    fn no_pattern_is_any_sender() {
        assert!(allow(&[], "a@b") && allow(&[], ""));
    }

    #[test]
    fn a_mailbox_is_itself_however_it_is_written() {
        let patterns = &["user@example.com", "\"john doe\"@example.com"];
        for good in [
            "user@example.com",
            "USER@Example.COM",
            "\"user\"@example.com",
            "\"u\\ser\"@example.com",
            "\"john doe\"@example.com",
            "\"John\\ Doe\"@EXAMPLE.com",
        ] {
            assert!(allow(patterns, good), "{good}");
        }
        for bad in [
            "",
            "user2@example.com",
            "user@sub.example.com",
            "user@example.com.evil.example",
            "john.doe@example.com",
            "\"john  doe\"@example.com",
            "\"user@example.com\"@evil.example",
            "\"user@example.com\\\"\"@evil.example",
            "\"user \"@example.com",
        ] {
            assert!(!allow(patterns, bad), "{bad}");
        }
    }

    #[test]
    fn a_quoted_pattern_is_what_it_quotes() {
        assert!(allow(&["\"user\"@example.com"], "user@example.com"));
        assert!(allow(&["\"a@b\"@example.com"], "\"a\\@b\"@example.com"));
    }

    #[test]
    fn domains_and_what_lies_below() {
        for domain in ["example.com", "@Example.com", "*@example.com"] {
            assert!(allow(&[domain], "a@EXAMPLE.com") && allow(&[domain], "\"@\"@example.com"));
            for bad in [
                "",
                "a@sub.example.com",
                "a@notexample.com",
                "\"a@example.com\"@evil.example",
            ] {
                assert!(!allow(&[domain], bad), "{domain} {bad}");
            }
        }
        for below in ["*.example.com", "@*.example.com"] {
            assert!(allow(&[below], "a@x.example.com") && allow(&[below], "a@x.Y.EXAMPLE.com"));
            for bad in ["", "a@example.com", "a@xexample.com", "a@\u{fc}xample.com"] {
                assert!(!allow(&[below], bad), "{below} {bad}");
            }
        }
        assert!(allow(&["@localhost"], "root@localhost"));
        assert!(allow(&["[192.0.2.1]"], "a@[192.0.2.1]"));
    }

    #[test]
    fn the_null_reverse_path_must_be_listed() {
        assert!(allow(&["example.com", "<>"], ""));
        assert!(!allow(&["example.com"], "") && !allow(&["<>"], "a@example.com"));
    }

    #[test]
    fn beyond_ascii_it_is_as_written() {
        assert!(allow(
            &["b\u{fc}cher.example"],
            "j\u{fc}rgen@B\u{fc}CHER.example"
        ));
        assert!(!allow(&["b\u{fc}cher.example"], "a@xn--bcher-kva.example"));
        assert!(!allow(&["*.\u{fc}.example"], "a@\u{fc}.example"));
    }

    #[test]
    fn what_is_kept_is_in_one_spelling() {
        for (given, kept) in [
            ("User@Example.com", "user@example.com"),
            ("\"user\"@example.com", "user@example.com"),
            ("\"John Doe\"@example.com", "\"john doe\"@example.com"),
            ("\"a\\\"\\\\b\"@example.com", "\"a\\\"\\\\b\"@example.com"),
            ("\"\"@example.com", "\"\"@example.com"),
            ("@example.com", "example.com"),
            ("*@example.com", "example.com"),
            ("\"\\*\"@example.com", "\"*\"@example.com"), // Not the whole domain.
            ("*.u@example.com", "*.u@example.com"),       // An odd mailbox, but one.
            ("@localhost", "@localhost"),
            ("@*.Example.com", "*.example.com"),
            ("[192.0.2.1]", "@[192.0.2.1]"),
            ("<>", "<>"),
        ] {
            let pattern: SenderPattern = given.parse().unwrap();
            assert_eq!(pattern.to_string(), kept);
            assert_eq!(kept.parse(), Ok(pattern), "{kept}");
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for bad in [
            "",
            "*",
            "@",
            "user",
            "user@",
            "@@example.com",
            "<user@example.com>",
            "*.",
            "a b@example.com",
            "example.com ",
            "*.*.example.com",
            "user@*.example.com",
            "example..com",
            "a@b\r\n",
            "ex*ample.com",
            "**.example.com",
        ] {
            let error = Senders::read(["example.com", bad]).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{bad:?} is no sender pattern: write"))
            );
        }
    }
}
