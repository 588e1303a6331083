//! Delivery status notifications: what MAIL and RCPT may ask for (RFC 3461 4, RFC 6533 3).
//!
//! Values are checked and then kept as they were written: a relay passes on the same esmtp-value
//! (RFC 3461 5.2.1), so nothing here decodes for good.

use crate::address;

/// RFC 3461 4.4: ENVID before its encoding as xtext, characters.
pub const ENVID_CHARS: usize = 100;
/// RFC 3461 4.2: the value of ORCPT incl. its type, characters.
pub const ORCPT_CHARS: usize = 500;

/// RFC 3461 4.3: how much of the message a report of failure returns. The numbers cross the border
/// and lie in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ret {
    /// `RET=FULL`: all of it.
    Full = 1,
    /// `RET=HDRS`: its header alone.
    Headers = 2,
}

/// RFC 3461 4.1: when the sender wants to hear of a recipient. A set of bits; `NEVER` is the empty
/// one. The bits cross the border and lie in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify(u8);

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self(0);
    /// The message was delivered.
    pub const SUCCESS: Self = Self(1);
    /// It could not be.
    pub const FAILURE: Self = Self(2);
    /// It takes longer than usual.
    pub const DELAY: Self = Self(4);

    /// Success 1, failure 2, delay 4.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    fn keyword(word: &str) -> Option<Self> {
        [
            ("SUCCESS", Self::SUCCESS),
            ("FAILURE", Self::FAILURE),
            ("DELAY", Self::DELAY),
        ]
        .into_iter()
        .find_map(|(name, bit)| word.eq_ignore_ascii_case(name).then_some(bit))
    }
}

/// What one RCPT asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientDsn {
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT as it was written: `rfc822;` and xtext, as a rule.
    pub orcpt: Option<String>,
}

/// What a transaction asked for, where it asked for anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dsn {
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as it was written: xtext.
    pub envid: Option<String>,
    /// One for each recipient, in the order of the envelope's.
    pub recipients: Vec<RecipientDsn>,
}

/// RFC 3461 4.3. `None`: neither FULL nor HDRS.
#[must_use]
pub fn ret(value: &str) -> Option<Ret> {
    match value {
        _ if value.eq_ignore_ascii_case("FULL") => Some(Ret::Full),
        _ if value.eq_ignore_ascii_case("HDRS") => Some(Ret::Headers),
        _ => None,
    }
}

/// RFC 3461 4.4: xtext of at most [`ENVID_CHARS`] printable characters. `None`: it is not.
#[must_use]
pub fn envid(value: &str) -> Option<&str> {
    let within = xtext_chars(value)? <= ENVID_CHARS;
    (!value.is_empty() && within).then_some(value)
}

/// RFC 3461 4.1: NEVER alone, or a list of the others, each once. `None`: it is not.
#[must_use]
pub fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut bits = 0;
    for word in value.split(',') {
        let Notify(bit) = Notify::keyword(word)?;
        if bits & bit != 0 {
            return None;
        }
        bits |= bit;
    }
    Some(Notify(bits))
}

/// RFC 3461 4.2: `addr-type;xtext`, and for the type `utf-8` RFC 6533 3; `smtputf8` is what MAIL
/// declared. `None`: it is not.
#[must_use]
pub fn orcpt(value: &str, smtputf8: bool) -> Option<&str> {
    let (kind, address) = value.split_once(';')?;
    let well_formed = if kind.eq_ignore_ascii_case("utf-8") {
        is_utf8_address(address, smtputf8)
    } else {
        is_atom(kind) && xtext_chars(address).is_some()
    };
    (well_formed && value.chars().count() <= ORCPT_CHARS).then_some(value)
}

/// How many characters the xtext stands for (RFC 3461 4). `None`: it is no xtext, or stands for
/// something that is not printable ASCII (4.2, 4.4: graphic and white space).
fn xtext_chars(text: &str) -> Option<usize> {
    let mut bytes = text.bytes();
    let mut chars = 0;
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'+' => upper_hex(bytes.next()?)? << 4 | upper_hex(bytes.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        };
        if !matches!(decoded, b'\t' | b' '..=b'~') {
            return None;
        }
        chars += 1;
    }
    Some(chars)
}

/// RFC 3461 4: "two upper case hexadecimal digits".
fn upper_hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// RFC 822 3.3, which RFC 3461 takes `addr-type` from: any characters but specials.
fn is_atom(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&b))
}

/// RFC 6533 3: utf-8-addr-xtext, and once SMTPUTF8 was declared utf-8-addr-unitext or a plain
/// mailbox. Whichever it is, it stands for a mailbox.
fn is_utf8_address(text: &str, smtputf8: bool) -> bool {
    if !smtputf8 && !text.is_ascii() {
        return false;
    }
    unitext(text).is_some_and(|mailbox| address::mailbox(&mailbox).is_ok())
        || smtputf8 && address::mailbox(text).is_ok()
}

/// RFC 6533 3: decodes `\x{HEXPOINT}`. `None`: it is no unitext.
fn unitext(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\\' {
            let (point, after) = rest.strip_prefix("\\x{")?.split_once('}')?;
            decoded.push(hexpoint(point)?);
            rest = after;
        } else {
            // QUCHAR: no "+", "=", blank or control.
            if matches!(first, '+' | '=' | '\0'..=' ' | '\u{7f}') {
                return None;
            }
            decoded.push(first);
            rest = rest.get(first.len_utf8()..)?;
        }
    }
    Some(decoded)
}

/// Upper case, no leading zeros, and nothing that needs no encoding.
fn hexpoint(digits: &str) -> Option<char> {
    if !(2..=6).contains(&digits.len()) || !digits.bytes().all(|b| upper_hex(b).is_some()) {
        return None;
    }
    let point = u32::from_str_radix(digits, 16).ok()?;
    let shortest = format!("{point:02X}") == digits;
    let special = matches!(point, 0x01..=0x20 | 0x2B | 0x3D | 0x5C | 0x7F..);
    char::from_u32(point).filter(|_| shortest && special)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rets() {
        assert_eq!(ret("FULL"), Some(Ret::Full));
        assert_eq!(ret("hdrs"), Some(Ret::Headers));
        for bad in ["", "BODY", "FULL,HDRS", "HDR"] {
            assert_eq!(ret(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn envids() {
        for good in ["QQ314159", "a+20b+2Bc+3D", "+09", "!~"] {
            assert_eq!(envid(good), Some(good));
        }
        for bad in [
            "", "a=b", "a+b", "+2b", "+2", "+", "+0A", "+00", "+7F", "+E4", "a b", "\u{fc}",
        ] {
            assert_eq!(envid(bad), None, "{bad:?}");
        }
        assert!(envid(&"a".repeat(100)).is_some() && envid(&"+20".repeat(100)).is_some());
        assert!(envid(&"a".repeat(101)).is_none() && envid(&"+20".repeat(101)).is_none());
    }

    #[test]
    fn notifies() {
        assert_eq!(notify("never"), Some(Notify::NEVER));
        for (value, bits) in [
            ("SUCCESS", 1),
            ("failure", 2),
            ("Delay,Success", 5),
            ("DELAY,FAILURE,SUCCESS", 7),
        ] {
            assert_eq!(notify(value).unwrap().bits(), bits, "{value}");
        }
        for bad in [
            "",
            "NEVER,SUCCESS",
            "SUCCESS,NEVER",
            "NEVER,NEVER",
            "SUCCESS,",
            ",SUCCESS",
            "SUCCESS,SUCCESS",
            "SUCCESS;DELAY",
            "ALWAYS",
        ] {
            assert_eq!(notify(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn original_recipients() {
        for good in [
            "rfc822;bob@example.com",
            "RFC822;Bob+2Bspam@Example.COM",
            "x400;/C=US".trim_end_matches("=US"),
            "X-local;any+20thing",
            "rfc822;",
            "utf-8;bob@example.com",
            "utf-8;bob\\x{2B}spam@example.com",
            "UTF-8;\\x{7528}\\x{6237}@\\x{4F8B}.example",
            "utf-8;\\x{1F4E7}@example.com",
        ] {
            assert_eq!(orcpt(good, false), Some(good));
            assert_eq!(orcpt(good, true), Some(good));
        }
        for utf8 in [
            "utf-8;j\u{fc}rgen@b\u{fc}cher.example",
            "utf-8;a+b@example.com",
        ] {
            assert_eq!(orcpt(utf8, true), Some(utf8));
            assert_eq!(orcpt(utf8, false), None, "{utf8}");
        }
    }

    #[test]
    fn not_original_recipients() {
        for bad in [
            "",
            "rfc822",
            ";a@b",
            "rfc 822;a@b",
            "rfc.822;a@b",
            "rfc822;a=b@c",
            "rfc822;a+b@c",
            "rfc822;a+2b@c",
            "rfc822;a+0Db@c",
            "rfc822;j\u{fc}rgen@b",
            "utf-8;",
            "utf-8;nobody",
            "utf-8;a\\x{61}@b",
            "utf-8;\\x{00FC}@b",
            "utf-8;\\x{fc}@b",
            "utf-8;\\x{D800}@b",
            "utf-8;\\x{110000}@b",
            "utf-8;\\x{0A}@b",
            "utf-8;\\x{0D}\\x{0A}@b",
            "utf-8;\\x{FC@b",
            "utf-8;\\u{FC}@b",
            "utf-8;\\x{85}@b",
            "utf-8;a\\x{20}b@c",
        ] {
            assert_eq!(orcpt(bad, true), None, "{bad:?}");
        }
        let long = |chars: usize| format!("rfc822;{}", "a".repeat(chars - 7));
        assert!(orcpt(&long(500), false).is_some());
        assert!(orcpt(&long(501), false).is_none());
    }
}
