//! A reply, and how it is written.

use std::borrow::Cow;

use super::Enhanced;

/// RFC 5321 4.5.3.1.5: a reply line incl. code and CRLF, bytes.
pub const REPLY_LINE_BYTES: usize = 512;

/// One reply of one line; the replies of several lines (EHLO, HELP) are written by [`write_lines`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced code, as RFC 2034 wants it on 2xx, 4xx and 5xx. Control characters
    /// in `text` become spaces, and it is cut so that the line keeps to 512 bytes.
    #[must_use]
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: tame(text.into()),
        }
    }

    /// A reply without an enhanced code: the greeting, EHLO, HELO and 3xx (RFC 2034 4).
    #[must_use]
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            enhanced: None,
            text: tame(text.into()),
        }
    }

    pub(super) const fn fixed(code: u16, enhanced: Option<Enhanced>, text: &'static str) -> Self {
        Self {
            code,
            enhanced,
            text: Cow::Borrowed(text),
        }
    }

    /// The basic code, such as 250.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, unless it is a reply that has none.
    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text without the codes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2xx or 3xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// 5xx: what the error budget counts. 4xx is not counted: it is our trouble or a limit, not the
    /// client's mistake.
    #[must_use]
    pub fn is_permanent_failure(&self) -> bool {
        self.code >= 500
    }

    /// Appends the line with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        push_code(out, self.code, b' ');
        if let Some(Enhanced(class, subject, detail)) = self.enhanced {
            push_number(out, class);
            out.push(b'.');
            push_number(out, subject);
            out.push(b'.');
            push_number(out, detail);
            out.push(b' ');
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a reply of several lines: `250-first`, `250-second`, `250 last`.
pub fn write_lines(out: &mut Vec<u8>, code: u16, lines: &[&str]) {
    for (nth, line) in lines.iter().enumerate() {
        push_code(out, code, if nth + 1 == lines.len() { b' ' } else { b'-' });
        out.extend_from_slice(tame(Cow::Borrowed(line)).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Longest text that fits beside `250 2.255.255 ` and CRLF.
const TEXT_BYTES: usize = REPLY_LINE_BYTES - 16;

fn tame(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= TEXT_BYTES && !text.contains(char::is_control) {
        return text;
    }
    let mut tamed = String::with_capacity(TEXT_BYTES);
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if tamed.len() + c.len_utf8() > TEXT_BYTES {
            break;
        }
        tamed.push(c);
    }
    Cow::Owned(tamed)
}

fn push_code(out: &mut Vec<u8>, code: u16, separator: u8) {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code), separator]);
}

fn push_number(out: &mut Vec<u8>, number: u8) {
    if number >= 100 {
        out.push(b'0' + number / 100);
    }
    if number >= 10 {
        out.push(b'0' + number / 10 % 10);
    }
    out.push(b'0' + number % 10);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{LOGIN_NEEDS_TLS, OK, SEND_TEXT};

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn lines_look_as_on_the_wire() {
        assert_eq!(written(&OK), "250 2.0.0 OK\r\n");
        assert_eq!(
            written(&SEND_TEXT),
            "354 End data with <CR><LF>.<CR><LF>\r\n"
        );
        assert_eq!(written(&LOGIN_NEEDS_TLS).get(..11), Some("538 5.7.11 "));
        let mut out = Vec::new();
        write_lines(&mut out, 250, &["one", "two"]);
        assert_eq!(out, b"250-one\r\n250 two\r\n");
    }

    #[test]
    fn a_reply_cannot_be_made_to_say_two() {
        let reply = Reply::new(550, Enhanced(5, 7, 255), "no\r\n250 2.0.0 yes\u{85}");
        assert_eq!(written(&reply), "550 5.7.255 no  250 2.0.0 yes \r\n");
    }

    #[test]
    fn a_reply_line_is_at_most_512_bytes() {
        let reply = Reply::new(550, Enhanced(5, 255, 255), "ü".repeat(400));
        assert!((510..=512).contains(&written(&reply).len()));
    }
}
