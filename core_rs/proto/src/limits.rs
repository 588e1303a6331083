//! How much a client may send. Every figure says where it comes from, and every one is a setting.

use crate::Error;

/// The session's limits. Plain counts are per session, bytes include the line's CRLF unless said
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// RFC 5321 4.5.3.1.4 asks for 512, and extensions add to it (RFC 1870: 26, RFC 6531: 10, RFC
    /// 4954: 500, RFC 3461: 500 for RCPT), so one generous limit holds for every command but AUTH.
    pub command_line_bytes: usize,
    /// RFC 4954 4: AUTH and its continuation lines must be allowed 12,288 bytes.
    pub auth_line_bytes: usize,
    /// RFC 5321 4.5.3.1.6: a text line has at most 1,000 bytes, not counting a stuffed dot.
    pub text_line_bytes: usize,
    /// RFC 1870: what EHLO announces as SIZE: the message without the dots of transparency. 25 MiB
    /// as most providers have it.
    pub message_bytes: usize,
    /// RFC 5321 4.5.3.1.8 asks for at least 100; more get 452.
    pub recipients: u32,
    /// RFC 5321 4.2.5 leaves it to us: this many 5xx replies end the session with 421. 0 =
    /// unlimited.
    pub errors_per_session: u32,
    /// RFC 4954 4: a server may end a session after failed logins. 0 = unlimited.
    pub auth_failures_per_session: u32,
    /// Messages after which MAIL answers 421, so that long-lived clients are spread anew over a
    /// fleet. 0 = unlimited.
    pub messages_per_session: u32,
    /// RFC 5321 6.3: a message with more `Received` fields than this goes in circles. "Normally at least 100".
    pub hops: u32,
    /// NOOP, RSET, EHLO, VRFY, HELP and refused commands in a row without a message between them; then
    /// 421. Ours: an idle pool that says NOOP every 30 s lives on for 8 hours. 0 = unlimited.
    pub idle_commands_per_session: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line_bytes: 2048,
            auth_line_bytes: 12_288,
            text_line_bytes: 1000,
            message_bytes: 26_214_400,
            recipients: 1000,
            errors_per_session: 10,
            auth_failures_per_session: 3,
            messages_per_session: 0,
            hops: 100,
            idle_commands_per_session: 1000,
        }
    }
}

/// Name, smallest and largest allowed value. The smallest ones still let a minimal session work; the
/// largest ones are what the store can hold (a number of a recipient is 16 bits, a value 1 GB).
const RANGES: [(&str, u64, u64); 10] = [
    ("command_line_bytes", 64, 65_536),
    ("auth_line_bytes", 64, 65_536),
    ("text_line_bytes", 80, 1 << 24),
    ("message_bytes", 1, 1_000_000_000),
    ("recipients", 1, 32_767),
    ("errors_per_session", 0, u32::MAX as u64),
    ("auth_failures_per_session", 0, u32::MAX as u64),
    ("messages_per_session", 0, u32::MAX as u64),
    ("hops", 1, u32::MAX as u64),
    ("idle_commands_per_session", 0, u32::MAX as u64),
];

impl Limits {
    /// Every limit's name, as [`Limits::set`] takes it.
    pub fn names() -> impl Iterator<Item = &'static str> {
        RANGES.iter().map(|(name, _, _)| *name)
    }

    /// Sets one limit by its name. Errors: the name is unknown, or the value is out of its range.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), Error> {
        let Some(&(name, at_least, at_most)) = RANGES.iter().find(|(known, _, _)| *known == name)
        else {
            return Err(Error::UnknownLimit {
                name: name.to_owned(),
            });
        };
        let out_of_range = Error::LimitOutOfRange {
            name,
            value,
            at_least,
            at_most,
        };
        if !(at_least..=at_most).contains(&value) {
            return Err(out_of_range);
        }
        let (Ok(bytes), count) = (
            usize::try_from(value),
            u32::try_from(value).unwrap_or(u32::MAX),
        ) else {
            return Err(out_of_range);
        };
        match name {
            "command_line_bytes" => self.command_line_bytes = bytes,
            "auth_line_bytes" => self.auth_line_bytes = bytes,
            "text_line_bytes" => self.text_line_bytes = bytes,
            "message_bytes" => self.message_bytes = bytes,
            "recipients" => self.recipients = count,
            "errors_per_session" => self.errors_per_session = count,
            "auth_failures_per_session" => self.auth_failures_per_session = count,
            "messages_per_session" => self.messages_per_session = count,
            "hops" => self.hops = count,
            _ => self.idle_commands_per_session = count,
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_name_sets_its_own_field() {
        let mut limits = Limits::default();
        for (nth, name) in Limits::names().enumerate() {
            let before = limits.clone();
            limits.set(name, 100 + nth as u64).unwrap();
            assert_ne!(limits, before, "{name}");
        }
        assert_eq!(limits.command_line_bytes, 100);
        assert_eq!((limits.messages_per_session, limits.hops), (107, 108));
    }

    #[test]
    fn a_refusal_names_the_limit_and_what_would_do() {
        let mut limits = Limits::default();
        let error = limits.set("recipients", 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "limit recipients = 0 is out of range: set it between 1 and 32767"
        );
        assert!(
            limits
                .set("recipient", 5)
                .unwrap_err()
                .to_string()
                .contains("known are command_line_bytes, ")
        );
        assert_eq!(limits, Limits::default());
    }
}
