//! The words that commands begin with (RFC 5321 4.1.1 and the extensions).

/// The verbs that the transition table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are SMTP's own words.
pub enum Verb {
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
}

impl Verb {
    /// As it stands on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
        }
    }

    /// RFC 5321 2.4: verbs have no case.
    pub(super) fn read(word: &str) -> Option<Self> {
        let Ok(mut four) = <[u8; 4]>::try_from(word.as_bytes()) else {
            return word
                .eq_ignore_ascii_case("STARTTLS")
                .then_some(Self::StartTls);
        };
        four.make_ascii_uppercase();
        Some(match &four {
            b"EHLO" => Self::Ehlo,
            b"HELO" => Self::Helo,
            b"AUTH" => Self::Auth,
            b"MAIL" => Self::Mail,
            b"RCPT" => Self::Rcpt,
            b"DATA" => Self::Data,
            b"BDAT" => Self::Bdat,
            b"RSET" => Self::Rset,
            b"NOOP" => Self::Noop,
            b"VRFY" => Self::Vrfy,
            b"EXPN" => Self::Expn,
            b"HELP" => Self::Help,
            b"QUIT" => Self::Quit,
            _ => return None,
        })
    }
}
