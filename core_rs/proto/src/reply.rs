//! Replies: every code and enhanced code that we speak has its name here, once.

use std::borrow::Cow;

use crate::EnvelopeId;

/// RFC 5321 4.5.3.1.5: a reply line incl. code and CRLF, bytes.
pub const REPLY_LINE_BYTES: usize = 512;

/// RFC 2034 and RFC 3463: class.subject.detail. The class always is the first digit of the basic
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u8, pub u8);

impl Enhanced {
    const OK: Self = Self(2, 0, 0);
    const SENDER_OK: Self = Self(2, 1, 0);
    const RECIPIENT_OK: Self = Self(2, 1, 5);
    const AUTHENTICATED: Self = Self(2, 7, 0);
    const SYSTEM: Self = Self(4, 3, 0);
    const NOT_ACCEPTING: Self = Self(4, 3, 2);
    const TOO_SLOW: Self = Self(4, 4, 2);
    const RECIPIENTS: Self = Self(4, 5, 3);
    const POLICY_FOR_NOW: Self = Self(4, 7, 0);
    const NOT_AUTHORIZED_NOW: Self = Self(4, 7, 1);
    const BAD_RECIPIENT: Self = Self(5, 1, 3);
    const BAD_SENDER: Self = Self(5, 1, 7);
    const TOO_LARGE: Self = Self(5, 3, 4);
    const LOOP: Self = Self(5, 4, 6);
    const INVALID_COMMAND: Self = Self(5, 5, 1);
    const SYNTAX: Self = Self(5, 5, 2);
    const ARGUMENTS: Self = Self(5, 5, 4);
    const AUTH_LINE: Self = Self(5, 5, 6);
    const CONTENT: Self = Self(5, 6, 0);
    const NON_ASCII: Self = Self(5, 6, 7);
    const POLICY: Self = Self(5, 7, 0);
    const NOT_AUTHORIZED: Self = Self(5, 7, 1);
    const CREDENTIALS: Self = Self(5, 7, 8);
    const ENCRYPTION: Self = Self(5, 7, 11);
}

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

    const fn fixed(code: u16, enhanced: Option<Enhanced>, text: &'static str) -> Self {
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

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $($enhanced:ident)? $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Reply = replies!(@one $code $($enhanced)? $text);)*
        /// Every fixed reply, for the test that holds them to the rules.
        #[cfg(test)]
        const ALL: &[Reply] = &[$($name),*];
    };
    (@one $code:literal $text:literal) => { Reply::fixed($code, None, $text) };
    (@one $code:literal $enhanced:ident $text:literal) => { Reply::fixed($code, Some(Enhanced::$enhanced), $text) };
}

replies! {
    /// RSET, NOOP.
    OK = 250 OK "OK";
    /// MAIL.
    SENDER_OK = 250 SENDER_OK "Sender OK";
    /// RCPT.
    RECIPIENT_OK = 250 RECIPIENT_OK "Recipient OK";
    /// DATA.
    SEND_TEXT = 354 "End data with <CR><LF>.<CR><LF>";
    /// HELP.
    HELP = 214 OK "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; see RFC 5321 and RFC 6409";
    /// RFC 3207 4.
    START_TLS = 220 OK "Ready to start TLS";
    /// QUIT.
    BYE = 221 OK "Bye";
    /// RFC 5321 3.5.3: VRFY neither confirms nor denies.
    NOT_VERIFIED = 252 OK "Cannot verify, but will take mail and try to deliver it";
    /// RFC 4954 6.
    AUTHENTICATED = 235 AUTHENTICATED "Authentication succeeded";

    /// RFC 5321 3.8 and 4.2.3.
    NOT_ACCEPTING = 421 NOT_ACCEPTING "Not accepting mail at the moment, try again later";
    /// Nothing can be stored.
    STORE_DOWN_CLOSING = 421 SYSTEM "Mail cannot be stored at the moment, try again later";
    /// RFC 5321 4.5.3.2.7.
    TIMED_OUT = 421 TOO_SLOW "Nothing heard for too long, closing";
    /// The error budget is used up.
    TOO_MANY_ERRORS = 421 POLICY_FOR_NOW "Too many errors, closing";
    /// RFC 4954 4.
    TOO_MANY_LOGINS = 421 POLICY_FOR_NOW "Too many failed logins, closing";
    /// After a BDAT that nobody can count.
    OUT_OF_STEP = 421 POLICY_FOR_NOW "Where the next command begins is not known, closing";
    /// `messages_per_session` is reached.
    TOO_MANY_MESSAGES = 421 POLICY_FOR_NOW "Enough messages for one session, open another one";
    /// `idle_commands_per_session` is reached.
    TOO_MANY_IDLE = 421 POLICY_FOR_NOW "Too many commands without a message, closing";
    /// Of one address, at once or per minute.
    TOO_MANY_CONNECTIONS = 421 POLICY_FOR_NOW "Too many connections from your address, try again later";
    /// An address is banned for a while.
    BANNED = 421 POLICY_FOR_NOW "Too many failed logins from your address, try again later";
    /// A browser or proxy was pointed, or lured, here.
    NOT_HTTP = 421 POLICY_FOR_NOW "This is SMTP, not HTTP";
    /// A TLS handshake where plaintext is spoken first.
    NOT_TLS_YET = 421 POLICY_FOR_NOW "This port begins in plaintext and offers STARTTLS";
    /// The tenant has as many sessions as it may.
    TOO_MANY_SESSIONS = 421 POLICY_FOR_NOW "Too many sessions of this account at once, closing";
    /// The tenant is over its rate: at MAIL and at the final dot, to nobody else. RFC 3463 3.8 (X.7.1).
    OVER_RATE = 450 NOT_AUTHORIZED_NOW "This account has sent as much as it may for now, try again later";
    /// Nothing can be stored, told to the message alone.
    STORE_DOWN = 451 SYSTEM "Mail cannot be stored at the moment, try again later";
    /// RFC 5321 4.5.3.1.10.
    TOO_MANY_RECIPIENTS = 452 RECIPIENTS "Too many recipients, send to the others in another message";
    /// RFC 4954 6.
    LOGIN_UNAVAILABLE = 454 POLICY_FOR_NOW "Logins cannot be checked at the moment, try again later";

    /// RFC 5321 4.2.4.
    UNRECOGNIZED = 500 SYNTAX "Command unrecognized";
    /// RFC 5321 4.5.3.1.9.
    LINE_TOO_LONG = 500 SYNTAX "Line too long";
    /// RFC 5321 2.3.8.
    LINE_END = 500 SYNTAX "A line must end with <CR><LF>";
    /// RFC 5321 4.1.2: a command is printable text.
    CHARACTERS = 500 SYNTAX "Control characters or broken UTF-8 in a command";
    /// RFC 4954 4: "exceeds the maximum length of a line".
    AUTH_LINE_TOO_LONG = 500 AUTH_LINE "Authentication exchange line is too long";
    /// RFC 3030 2: how many octets follow is not known, so what comes next cannot be told apart.
    BAD_CHUNK_SIZE = 501 ARGUMENTS "Give the chunk's size in octets";
    /// Arguments where none belong, or none where some do.
    BAD_ARGUMENTS = 501 ARGUMENTS "Syntax error in arguments";
    /// EHLO, HELO.
    BAD_HELO = 501 ARGUMENTS "Give your domain name or address literal";
    /// AUTH with a mangled response.
    BAD_BASE64 = 501 SYNTAX "The response is not base64";
    /// AUTH with a well-encoded response that is none of the mechanism's.
    BAD_RESPONSE = 501 SYNTAX "The response is not what the mechanism asks for";
    /// RFC 4954 4: the client sent `*`.
    AUTH_CANCELLED = 501 POLICY "Authentication cancelled";
    /// MAIL.
    BAD_SENDER = 501 BAD_SENDER "Bad sender address, it must be <mailbox> or <>";
    /// RCPT.
    BAD_RECIPIENT = 501 BAD_RECIPIENT "Bad recipient address, it must be <mailbox>";
    /// MAIL: RFC 5321 4.5.3.1.
    SENDER_TOO_LONG = 501 BAD_SENDER "Sender address too long";
    /// RCPT: RFC 5321 4.5.3.1.
    RECIPIENT_TOO_LONG = 501 BAD_RECIPIENT "Recipient address too long";
    /// EXPN, and STARTTLS where it is not offered.
    NOT_IMPLEMENTED = 502 INVALID_COMMAND "Command not implemented";
    /// The transition table has no row for it.
    BAD_SEQUENCE = 503 INVALID_COMMAND "Bad sequence of commands";
    /// RFC 3207 4.
    ALREADY_TLS = 503 INVALID_COMMAND "TLS is active already";
    /// RFC 4954 4.
    UNKNOWN_MECHANISM = 504 ARGUMENTS "Authentication mechanism not supported";
    /// RFC 4954 6.
    LOGIN_NEEDED = 530 POLICY "Authentication required";
    /// RFC 3207 4.
    TLS_NEEDED = 530 POLICY "Must issue a STARTTLS command first";
    /// RFC 4954 6. Unknown user and wrong password are told alike.
    LOGIN_REJECTED = 535 CREDENTIALS "Authentication credentials invalid";
    /// RFC 4954 4: PLAIN and LOGIN only under TLS.
    LOGIN_NEEDS_TLS = 538 ENCRYPTION "Encryption required for the requested authentication mechanism";
    /// RFC 1870 6.
    MESSAGE_TOO_LARGE = 552 TOO_LARGE "Message is larger than this server takes";
    /// RFC 6531 3.5.
    NON_ASCII_SENDER = 553 NON_ASCII "Non-ASCII sender address needs SMTPUTF8";
    /// RFC 6531 3.5.
    NON_ASCII_RECIPIENT = 553 NON_ASCII "Non-ASCII recipient address needs SMTPUTF8";
    /// DATA: RFC 5321 4.5.3.1.6.
    TEXT_LINE_TOO_LONG = 554 CONTENT "A line of the message is too long, encode it";
    /// DATA: RFC 5321 2.3.1.
    TEXT_NUL = 554 CONTENT "The message has a NUL in it";
    /// DATA: RFC 5321 2.3.8.
    TEXT_BARE_LF = 554 CONTENT "The message has an LF without CR in it";
    /// DATA: RFC 5321 2.3.8.
    TEXT_BARE_CR = 554 CONTENT "The message has a CR without LF in it";
    /// DATA: RFC 5321 6.3.
    TOO_MANY_HOPS = 554 LOOP "Too many hops, the message goes in circles";
    /// RFC 5321 4.1.1.11.
    UNKNOWN_PARAMETER = 555 ARGUMENTS "Parameter not recognized or not implemented";
}

/// The 250 that is spoken only after the commit.
#[must_use]
pub fn queued(id: EnvelopeId) -> Reply {
    Reply::new(250, Enhanced::OK, ["queued as ", &id.hyphenated()].concat())
}

/// MAIL: RFC 6409 6.1.
#[must_use]
pub fn not_allowed_sender(reverse_path: &str) -> Reply {
    let text = ["Not allowed to send as <", reverse_path, ">"].concat();
    Reply::new(550, Enhanced::NOT_AUTHORIZED, text)
}

/// BDAT: a chunk is in, and more are to come (RFC 3030 2).
#[must_use]
pub fn octets_received(size_bytes: u64) -> Reply {
    Reply::new(250, Enhanced::OK, format!("{size_bytes} octets received"))
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

    /// Subject and detail of the IANA registry "Simple Mail Transfer Protocol (SMTP) Enhanced Status
    /// Codes", which RFC 5248 made, and where each is defined. The classes are 2, 4 and 5 (RFC 3463
    /// 3.1).
    const REGISTERED: [(&str, &[(u8, u8)]); 12] = [
        (
            "RFC 3463",
            &[
                (0, 0),
                (1, 0),
                (1, 1),
                (1, 2),
                (1, 3),
                (1, 4),
                (1, 5),
                (1, 6),
                (1, 7),
                (1, 8),
                (2, 0),
                (2, 1),
                (2, 2),
                (2, 3),
                (2, 4),
                (3, 0),
                (3, 1),
                (3, 2),
                (3, 3),
                (3, 4),
                (3, 5),
                (4, 0),
                (4, 1),
                (4, 2),
                (4, 3),
                (4, 4),
                (4, 5),
                (4, 6),
                (4, 7),
                (5, 0),
                (5, 1),
                (5, 2),
                (5, 3),
                (5, 4),
                (5, 5),
                (6, 0),
                (6, 1),
                (6, 2),
                (6, 3),
                (6, 4),
                (6, 5),
                (7, 0),
                (7, 1),
                (7, 2),
                (7, 3),
                (7, 4),
                (7, 5),
                (7, 6),
                (7, 7),
            ],
        ),
        ("RFC 3886", &[(1, 9)]),
        ("RFC 7505", &[(1, 10), (7, 27)]),
        ("RFC 6710", &[(3, 6), (7, 15), (7, 16)]),
        ("RFC 4954", &[(5, 6), (7, 8), (7, 9), (7, 11), (7, 12)]),
        ("RFC 4468", &[(6, 6)]),
        ("RFC 6531", &[(6, 7), (6, 8), (6, 9)]),
        ("RFC 5248", &[(7, 10), (7, 13), (7, 14)]),
        ("RFC 7293", &[(7, 17), (7, 18), (7, 19)]),
        (
            "RFC 7372",
            &[
                (7, 20),
                (7, 21),
                (7, 22),
                (7, 23),
                (7, 24),
                (7, 25),
                (7, 26),
            ],
        ),
        ("RFC 8617", &[(7, 29)]),
        ("RFC 8689", &[(7, 30)]),
    ];

    #[test]
    fn every_enhanced_code_is_registered() {
        let known = |enhanced: Enhanced| {
            let Enhanced(class, subject, detail) = enhanced;
            matches!(class, 2 | 4 | 5)
                && REGISTERED
                    .iter()
                    .any(|(_, codes)| codes.contains(&(subject, detail)))
        };
        let made = [queued(EnvelopeId([0; 16])), octets_received(1)];
        for reply in ALL.iter().chain(&made) {
            assert!(reply.enhanced().is_none_or(known), "{reply:?}");
            let class = reply
                .enhanced()
                .map_or(3, |Enhanced(class, _, _)| u16::from(class));
            assert_eq!(class, reply.code() / 100, "{reply:?}");
        }
        assert!(!known(Enhanced(5, 7, 255)) && !known(Enhanced(3, 0, 0)));
    }

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn every_fixed_reply_keeps_to_rfc_2034() {
        for reply in ALL {
            let class = reply
                .enhanced()
                .map(|Enhanced(class, _, _)| u16::from(class));
            let wanted = (reply.code() / 100 != 3).then_some(reply.code() / 100);
            assert_eq!(class, wanted, "{reply:?}");
            assert!(
                reply.text().is_ascii() && reply.text().len() <= 100,
                "{reply:?}"
            );
        }
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
