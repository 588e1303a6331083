//! Replies: every code and enhanced code that we speak has its name here, once.

mod enhanced;
mod line;

pub use self::enhanced::Enhanced;
pub use self::line::{REPLY_LINE_BYTES, Reply, write_lines};

use crate::EnvelopeId;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
