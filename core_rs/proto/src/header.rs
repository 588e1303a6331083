//! The header section of a message (RFC 5322 2.1, 2.2): where it ends, and the few fields that submission looks at. Of
//! the body no byte is read.
//!
//! A field's name is matched in any case of letters, and blanks before the colon are let pass (RFC 5322 4.5 obs-optional).
//! A line that is neither a field nor the continuation of one ends nothing: most readers skip it, so what follows, up to
//! the empty line, still counts as header, and no Bcc is safe behind it. But a message that *begins* with such a line
//! has no header at all, and where no empty line ever comes, the text begins with the first such line.

use memchr::memchr;

use crate::Lane;

/// A field by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// `Bcc` and `Resent-Bcc`.
    Bcc,
    Date,
    MessageId,
    Received,
    /// `X-Priority-Lane`.
    Lane,
    Precedence,
    Other,
}

/// What a line of the header section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Field(Field),
    /// RFC 5322 2.2.3: it begins with a blank.
    Continuation,
    /// Nothing that RFC 5322 knows.
    Odd,
    /// The end.
    Empty,
}

/// What was found in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // Facts, each by itself; no states.
pub struct Header {
    /// RFC 5321 4.4: how many servers have handed it on.
    pub received: u32,
    /// RFC 5322 3.6.1.
    pub has_date: bool,
    /// RFC 5322 3.6.4.
    pub has_message_id: bool,
    /// `Bcc` or `Resent-Bcc`, at least once.
    pub has_bcc: bool,
    /// A `Date` or a `Message-ID` that says nothing, at least once. It does not count as one.
    pub has_blank: bool,
    /// `X-Priority-Lane`, at least once, whatever it says.
    pub has_lane: bool,
    /// What the first `X-Priority-Lane` says that says something.
    lane: Option<Lane>,
    /// What a `Precedence` says.
    precedence: Option<Lane>,
    /// Behind the last field that stands before anything odd, bytes: where a field can be added so that everybody sees it.
    pub fields_end: usize,
    /// Text follows there without an empty line before it.
    pub is_open: bool,
}

impl Header {
    /// Reads up to the empty line.
    #[must_use]
    pub fn read(message: &[u8]) -> Self {
        let mut header = Self::default();
        let mut at = mbox_line(message);
        header.fields_end = at;
        let (mut is_first, mut sound) = (true, None);
        while let Some((end, line)) = line_at(message, at) {
            match line {
                Line::Empty => return header,
                Line::Odd | Line::Continuation if is_first => {
                    header.is_open = true;
                    return header;
                }
                Line::Odd => sound = sound.or(Some(header)),
                Line::Field(field) => header.count(field, || value(message, at, end)),
                Line::Continuation => {}
            }
            is_first = false;
            at = end;
            if sound.is_none() {
                header.fields_end = at;
            }
        }
        header.or_text(sound)
    }

    /// No empty line came: from the first odd line on, where `sound` was what had been found, it is text. Its hops and
    /// its Bcc count all the same, to be on the safe side.
    fn or_text(self, sound: Option<Self>) -> Self {
        sound.map_or(self, |sound| Self {
            has_date: sound.has_date,
            has_message_id: sound.has_message_id,
            has_blank: sound.has_blank,
            is_open: true,
            ..self
        })
    }

    /// Which lane it asks for: our own field has the last word.
    #[must_use]
    pub fn lane(&self) -> Option<Lane> {
        self.lane.or(self.precedence)
    }

    /// Where the text begins, if that is not told by an empty line, bytes; else beyond all.
    fn text_at(&self) -> usize {
        if self.is_open {
            self.fields_end
        } else {
            usize::MAX
        }
    }

    fn count<'a>(&mut self, field: Field, value: impl Fn() -> &'a [u8]) {
        match field {
            Field::Bcc => self.has_bcc = true,
            Field::Date | Field::MessageId if value().is_empty() => self.has_blank = true,
            Field::Date => self.has_date = true,
            Field::MessageId => self.has_message_id = true,
            Field::Received => self.received = self.received.saturating_add(1),
            Field::Lane => {
                self.has_lane = true;
                self.lane = self.lane.or_else(|| Lane::from_field(value()));
            }
            Field::Precedence => {
                self.precedence = self.precedence.or_else(|| Lane::from_precedence(value()));
            }
            Field::Other => {}
        }
    }
}

/// Which fields are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwanted {
    /// `Bcc` and `Resent-Bcc`.
    pub bcc: bool,
    /// [`Header::has_blank`].
    pub blank: bool,
    /// `X-Priority-Lane`.
    pub lane: bool,
}

impl Unwanted {
    fn has(self, field: Field, is_blank: impl Fn() -> bool) -> bool {
        match field {
            Field::Bcc => self.bcc,
            Field::Date | Field::MessageId => self.blank && is_blank(),
            Field::Lane => self.lane,
            Field::Received | Field::Precedence | Field::Other => false,
        }
    }
}

/// Takes fields out, with their continuations; `header` is what was read of the message. What is kept is moved once.
pub fn strip(message: &mut Vec<u8>, header: &Header, unwanted: Unwanted) {
    let text_at = header.text_at();
    let mut at = mbox_line(message);
    let (mut kept, mut kept_from) = (0, 0);
    let (mut is_first, mut removing) = (true, false);
    while let Some((end, line)) = line_at(message, at) {
        let is_unwanted = match line {
            Line::Empty => break,
            Line::Odd | Line::Continuation if is_first => break,
            Line::Continuation => removing,
            Line::Odd => false,
            Line::Field(field) => {
                unwanted.has(field, || at < text_at && is_blank(message, at, end))
            }
        };
        is_first = false;
        if is_unwanted && !removing {
            message.copy_within(kept_from..at, kept);
            kept += at - kept_from;
        }
        if is_unwanted {
            kept_from = end;
        }
        removing = is_unwanted;
        at = end;
    }
    if kept_from > 0 {
        message.copy_within(kept_from.., kept);
        message.truncate(kept + message.len() - kept_from);
    }
}

/// How long the line is that a mailbox file puts in front of a header (`From a@b Mon Jan  1 …`), which clients that send
/// from such files forget to take off. It only counts if a field follows: a text may begin with that word, too.
fn mbox_line(message: &[u8]) -> usize {
    if !message.starts_with(b"From ") {
        return 0;
    }
    let end = memchr(b'\n', message).map_or(message.len(), |newline| newline + 1);
    match line_at(message, end) {
        Some((_, Line::Field(_))) => end,
        _ => 0,
    }
}

/// The field between `at` and `end` has nothing behind its colon, nor in its continuations (RFC 5322 2.2.3).
fn is_blank(message: &[u8], at: usize, end: usize) -> bool {
    value(message, at, end).is_empty()
}

/// What is behind the colon of the field between `at` and `end`, and in its continuations, without the blanks and line
/// ends around it.
fn value(message: &[u8], at: usize, end: usize) -> &[u8] {
    let mut until = end;
    while let Some((end, Line::Continuation)) = line_at(message, until) {
        until = end;
    }
    let field = message.get(at..until).unwrap_or_default();
    let value = memchr(b':', field).and_then(|colon| field.get(colon + 1..));
    value.unwrap_or_default().trim_ascii()
}

/// The line that begins at `at`: where it ends, and what it is. `None`: there is no more.
fn line_at(message: &[u8], at: usize) -> Option<(usize, Line)> {
    let rest = message.get(at..).filter(|rest| !rest.is_empty())?;
    let length = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
    let line = match rest {
        [b'\r', b'\n', ..] | [b'\n', ..] => Line::Empty,
        [b' ' | b'\t', ..] => Line::Continuation,
        _ => rest
            .get(..length)
            .and_then(name)
            .map_or(Line::Odd, |name| Line::Field(field(name))),
    };
    Some((at + length, line))
}

/// The name of the field that a line begins: RFC 5322 3.6.8 ftext, then perhaps blanks, then the colon.
fn name(line: &[u8]) -> Option<&[u8]> {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_graphic() || *byte == b':')?;
    let (name, rest) = line.split_at_checked(end)?;
    let colon = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'))?;
    (!name.is_empty() && *colon == b':').then_some(name)
}

fn field(name: &[u8]) -> Field {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        3 if is(b"Bcc") => Field::Bcc,
        4 if is(b"Date") => Field::Date,
        8 if is(b"Received") => Field::Received,
        10 if is(b"Message-ID") => Field::MessageId,
        10 if is(b"Precedence") => Field::Precedence,
        10 if is(b"Resent-Bcc") => Field::Bcc,
        15 if is(b"X-Priority-Lane") => Field::Lane,
        _ => Field::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(message: &str) -> String {
        let mut bytes = message.as_bytes().to_vec();
        let header = Header::read(&bytes);
        strip(
            &mut bytes,
            &header,
            Unwanted {
                bcc: true,
                blank: true,
                lane: true,
            },
        );
        String::from_utf8(bytes).unwrap_or_default()
    }

    #[test]
    fn fields_are_found_in_any_spelling_and_only_in_the_header() {
        let message = b"DATE: x\r\nmessage-id\t :\r\n\t\r\n <a@b>\r\nReceived: a\r\nreceived: b\r\n\r\nBcc: body\r\n";
        assert_eq!(
            Header::read(message),
            Header {
                received: 2,
                has_date: true,
                has_message_id: true,
                fields_end: message.len() - 13,
                ..Header::default()
            }
        );
        let without =
            b"X-Date: a\r\nDat: b\r\nDate x: c\r\nSubject: Date: d\r\n Date: e\r\n\r\nDate: f\r\n";
        assert!(!Header::read(without).has_date);
    }

    #[test]
    fn text_without_a_header_is_text() {
        for text in [
            "hello\r\n",
            " Subject: x\r\n\r\n",
            ": x\r\n",
            "Hi John: x\r\n",
            "\u{fc}: x\r\n",
            "a",
            "From here on\r\nhello\r\n",
        ] {
            let header = Header::read(text.as_bytes());
            assert_eq!((header.fields_end, header.is_open), (0, true), "{text:?}");
        }
        for empty in ["", "\r\nhello\r\n"] {
            assert_eq!(Header::read(empty.as_bytes()), Header::default());
        }
    }

    #[test]
    fn an_odd_line_ends_nothing_but_where_fields_are_added() {
        let header = Header::read(b"A: b\r\nodd\r\nDate: x\r\nBcc: y\r\n\r\ntext\r\n");
        assert_eq!((header.fields_end, header.is_open), (6, false));
        assert!(header.has_date && header.has_bcc);
        let header = Header::read(b"A: b\r\nodd\r\nmore\r\n");
        assert_eq!((header.fields_end, header.is_open), (6, true));
        let header = Header::read(b"A: b\r\nodd\r\nDate: x\r\nBcc: y\r\n");
        assert!(!header.has_date && header.has_bcc && header.is_open);
        assert_eq!(Header::read(b"A: b\r\n c").fields_end, 8);
    }

    #[test]
    fn a_line_of_a_mailbox_file_is_no_text() {
        let header = Header::read(b"From a@b Mon Jan  1\r\nDate: x\r\n\r\n");
        assert_eq!(
            (header.fields_end, header.is_open, header.has_date),
            (30, false, true)
        );
        assert_eq!(
            stripped("From a@b Mon\r\nBcc: x\r\nA: b\r\n\r\n"),
            "From a@b Mon\r\nA: b\r\n\r\n"
        );
    }

    #[test]
    fn a_field_that_says_nothing_is_none() {
        for (message, wanted) in [
            ("Date:\r\nA: 1\r\n\r\nx", "A: 1\r\n\r\nx"),
            ("A: 1\r\nmessage-id \t: \r\n \r\n\t\r\n", "A: 1\r\n"),
            ("Date: \r\nDate: x\r\nDate:\r\n\r\n", "Date: x\r\n\r\n"),
            ("Message-ID:", ""),
            ("A: 1\r\nodd\r\nDate:\r\n\r\n", "A: 1\r\nodd\r\n\r\n"),
        ] {
            assert!(Header::read(message.as_bytes()).has_blank, "{message:?}");
            assert_eq!(stripped(message), wanted, "{message:?}");
        }
        for full in [
            "Date::\r\n",
            "Message-ID:\r\n \r\n <a@b>\r\n",
            "A:\r\nSubject:\r\n\r\nDate:\r\n",
            "A: 1\r\nThe text's\r\nDate:\r\n",
            "Date",
        ] {
            assert!(!Header::read(full.as_bytes()).has_blank, "{full:?}");
            assert_eq!(stripped(full), full, "{full:?}");
        }
    }

    #[test]
    fn bcc_goes_with_all_its_lines() {
        for (message, wanted) in [
            ("Bcc: a@b\r\n\r\ntext\r\n", "\r\ntext\r\n"),
            (
                "A: 1\r\nbCC \t: a@b,\r\n\tc@d\r\n \r\n e@f\r\nB: 2\r\n\r\nx\r\n",
                "A: 1\r\nB: 2\r\n\r\nx\r\n",
            ),
            (
                "Bcc:\r\nBcc: a\r\nA: 1\r\nRESENT-BCC: c\r\n d\r\n",
                "A: 1\r\n",
            ),
            (
                "A: 1\r\nodd\r\nBcc: a\r\n\r\nBcc: b\r\n",
                "A: 1\r\nodd\r\n\r\nBcc: b\r\n",
            ),
            ("Bcc: a", ""),
            ("A: 1\r\nBcc", "A: 1\r\nBcc"),
            ("text\r\nBcc: a\r\n", "text\r\nBcc: a\r\n"),
            (
                "X-Bcc: a\r\nBcc-X: b\r\nA: 1\r\n Bcc: c\r\n\r\n",
                "X-Bcc: a\r\nBcc-X: b\r\nA: 1\r\n Bcc: c\r\n\r\n",
            ),
        ] {
            assert_eq!(stripped(message), wanted, "{message:?}");
        }
    }
}
