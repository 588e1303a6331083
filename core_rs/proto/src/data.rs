//! The text after DATA: takes it line by line up to the one real final dot, CRLF `.` CRLF.
//!
//! Why so strict: a server that also ends a message at LF `.` LF, or hands a bare CR or LF on, lets
//! a sender hide a second message in the first (SMTP smuggling, CVE-2023-51764 and its kin). So a
//! bare CR or LF makes the message refused, and it is never taken for a line's end. A refused
//! message is read on to its real final dot before it is answered, because all that comes until
//! then is text and must not be parsed as commands.
//!
//! The happy path is one vectorised search per line and one copy per read; only a stuffed dot
//! breaks a copy in two.
//!
//! The chunks of BDAT (RFC 3030) come counted: no final dot and no stuffing, and all else as above.

use memchr::memchr3;

use crate::{Limits, Reply, reply};

/// Most that is reserved on the word of SIZE alone; a client that lies costs us no more.
const RESERVE_BYTES: usize = 64 * 1024;
/// Up to here what is kept grows by doubling. From here on by an eighth: a text of 25 MiB would else hold up to as much
/// again that it does not need.
const DOUBLED_BYTES: usize = 512 * 1024;

/// Why a message is refused at its final dot. The greatest one is told, so that the answer does not
/// depend on how the bytes were split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// RFC 5321 4.5.3.1.6.
    LineTooLong,
    /// RFC 5321 2.3.1 and RFC 6152: NUL is in neither 7bit nor 8bit.
    Nul,
    /// RFC 5321 2.3.8: LF without CR.
    BareLf,
    /// RFC 5321 2.3.8: CR without LF.
    BareCr,
    /// RFC 1870 6.3.
    TooLarge,
}

impl Defect {
    /// What the client is told after its final dot.
    #[must_use]
    pub fn reply(self) -> Reply {
        match self {
            Self::LineTooLong => reply::TEXT_LINE_TOO_LONG,
            Self::Nul => reply::TEXT_NUL,
            Self::BareLf => reply::TEXT_BARE_LF,
            Self::BareCr => reply::TEXT_BARE_CR,
            Self::TooLarge => reply::MESSAGE_TOO_LARGE,
        }
    }
}

/// Receives one message.
#[derive(Debug)]
pub struct Text {
    body: Vec<u8>,
    /// What the client says it will be; 0: nothing was said.
    announced_bytes: usize,
    /// Of the message so far, without the dots of transparency; goes on counting after a defect.
    size_bytes: usize,
    /// Of the current line so far.
    line_bytes: usize,
    line_start: bool,
    /// The last chunk so far ends with CR; the next one should begin with its LF.
    after_cr: bool,
    defect: Option<Defect>,
}

impl Text {
    /// `size_bytes`: what the client announced with SIZE; only a hint.
    #[must_use]
    pub fn new(size_bytes: Option<u64>) -> Self {
        Self {
            body: Vec::new(),
            announced_bytes: size_bytes
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or_default(),
            size_bytes: 0,
            line_bytes: 0,
            line_start: true,
            after_cr: false,
            defect: None,
        }
    }

    /// A chunk of BDAT is announced. One that would exceed the limit is not kept at all.
    pub fn expect_chunk(&mut self, size_bytes: u64, limits: &Limits) {
        let size_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        let until_then = self.size_bytes.saturating_add(size_bytes);
        self.announced_bytes = self.announced_bytes.max(until_then);
        if until_then > limits.message_bytes {
            self.refuse(Defect::TooLarge);
        }
    }

    /// Takes all of `input`, a piece of a chunk. A line's end may lie across chunks.
    pub fn receive_chunk(&mut self, input: &[u8], limits: &Limits) {
        let Some(first) = input.first() else { return };
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) {
            if *first == b'\n' {
                at = 1;
                self.end_line(limits);
            } else {
                self.line_bytes += 1;
                self.refuse(Defect::BareCr);
            }
        }
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
                self.line_bytes += rest.len();
                break;
            };
            self.line_bytes += found;
            at += found + 1;
            match rest.get(found..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    at += 1;
                    self.end_line(limits);
                }
                [b'\r'] => self.after_cr = true,
                [odd, ..] => self.refuse_octet(*odd),
                [] => {}
            }
        }
        self.keep(Some(input), limits);
    }

    /// The last chunk is in. A last line without its end gets one, since the next hop and the final
    /// dot need it.
    pub fn end_chunks(&mut self, limits: &Limits) {
        if std::mem::take(&mut self.after_cr) {
            self.refuse(Defect::BareCr);
        } else if self.line_bytes > 0 {
            self.end_line(limits);
            if self.defect.is_none() {
                self.body.reserve_exact(2);
                self.body.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Nothing that comes can make it small enough.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.defect == Some(Defect::TooLarge)
    }

    /// Takes what it can of `input`: returns how many bytes, and whether the final dot was among
    /// them. What may be the start of a line's end or of the final dot is left until more is there:
    /// at most 2 bytes.
    pub fn receive(&mut self, input: &[u8], limits: &Limits) -> (usize, bool) {
        let mut at = 0;
        let mut kept = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            if self.line_start {
                match rest {
                    [] | [b'.'] | [b'.', b'\r'] => break,
                    [b'.', b'\r', b'\n', ..] => {
                        self.keep(input.get(kept..at), limits);
                        return (at + 3, true);
                    }
                    [b'.', ..] => {
                        self.keep(input.get(kept..at), limits);
                        at += 1;
                        kept = at;
                    }
                    _ => {}
                }
                self.line_start = false;
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
                self.line_bytes += rest.len();
                at = input.len();
                break;
            };
            self.line_bytes += found;
            at += found;
            match input.get(at..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    at += 2;
                    self.end_line(limits);
                }
                [] | [b'\r'] => break,
                [odd, ..] => {
                    at += 1;
                    self.refuse_octet(*odd);
                }
            }
        }
        self.keep(input.get(kept..at), limits);
        (at, false)
    }

    /// The message after its final dot, dot-unstuffed, or why it is refused.
    pub fn finish(mut self) -> Result<Vec<u8>, Defect> {
        if self.body.capacity() > DOUBLED_BYTES {
            self.body.shrink_to_fit(); // It may wait long for its verdict.
        }
        self.defect.map_or(Ok(self.body), Err)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.body.capacity()
    }

    fn end_line(&mut self, limits: &Limits) {
        if self.line_bytes + 2 > limits.text_line_bytes {
            self.refuse(Defect::LineTooLong);
        }
        self.line_bytes = 0;
        self.line_start = true;
    }

    fn refuse_octet(&mut self, odd: u8) {
        self.line_bytes += 1;
        self.refuse(match odd {
            b'\r' => Defect::BareCr,
            b'\n' => Defect::BareLf,
            _ => Defect::Nul,
        });
    }

    fn keep(&mut self, text: Option<&[u8]>, limits: &Limits) {
        let text = text.unwrap_or_default();
        self.size_bytes = self.size_bytes.saturating_add(text.len());
        if self.size_bytes > limits.message_bytes {
            self.refuse(Defect::TooLarge);
        }
        if self.defect.is_none() && !text.is_empty() {
            if self.body.capacity() - self.body.len() < text.len() {
                self.grow(text.len());
            }
            self.body.extend_from_slice(text);
        }
    }

    /// Makes room for so many more bytes, at least.
    fn grow(&mut self, needed_bytes: usize) {
        let now = self.body.capacity();
        let step = match now {
            0 => self.announced_bytes.min(RESERVE_BYTES),
            1..DOUBLED_BYTES => now,
            _ => (now / 8).max(RESERVE_BYTES * 4),
        };
        // Whoever announced the size and keeps to it does not get more than that.
        let left = self.announced_bytes.saturating_sub(self.body.len());
        let step = if left >= needed_bytes {
            step.min(left)
        } else {
            step
        };
        self.body.reserve_exact(step.max(needed_bytes));
    }

    /// A message with a defect is read on, but no longer kept.
    fn refuse(&mut self, defect: Defect) {
        self.defect = self.defect.max(Some(defect));
        self.body = Vec::new();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `piece` bytes the way a caller does, keeping what was not taken.
    fn receive(wire: &[u8], piece: usize, limits: &Limits) -> (Result<Vec<u8>, Defect>, usize) {
        let mut text = Text::new(None);
        let (mut from, mut until) = (0, 0);
        loop {
            until = (until + piece).min(wire.len());
            let (taken, done) = text.receive(&wire[from..until], limits);
            from += taken;
            if done {
                return (text.finish(), from);
            }
            assert!(until < wire.len(), "no final dot in {wire:?}");
        }
    }

    fn both(wire: &[u8]) -> Result<Vec<u8>, Defect> {
        let limits = Limits {
            message_bytes: 60,
            text_line_bytes: 20,
            ..Limits::default()
        };
        let (whole, end) = receive(wire, wire.len(), &limits);
        assert_eq!(end, wire.len());
        for piece in 1..5 {
            assert_eq!(
                receive(wire, piece, &limits),
                (whole.clone(), end),
                "pieces of {piece}"
            );
        }
        whole
    }

    #[test]
    fn text_is_kept_and_dots_are_unstuffed() {
        assert_eq!(both(b".\r\n").unwrap(), b"");
        assert_eq!(both(b"a\r\n.\r\n").unwrap(), b"a\r\n");
        assert_eq!(
            both(b"..\r\n...\r\n.x\r\na.b\r\n\r\n.\r\n").unwrap(),
            b".\r\n..\r\nx\r\na.b\r\n\r\n"
        );
    }

    #[test]
    fn only_crlf_dot_crlf_ends_it() {
        for false_end in [
            "\n.\n",
            "\r.\r",
            "\n.\r\n",
            "\r.\r\n",
            "\r\n.\n",
            "\r\n.\r",
            "\r\r\n.\r\r\n",
        ] {
            let wire = format!("a{false_end}b\r\n.\r\n");
            assert!(
                matches!(both(wire.as_bytes()), Err(Defect::BareLf | Defect::BareCr)),
                "{false_end:?}"
            );
        }
    }

    #[test]
    fn limits_are_told_after_the_final_dot() {
        assert_eq!(both(b"123456789012345678\r\n.\r\n").unwrap().len(), 20);
        assert_eq!(both(b".123456789012345678\r\n.\r\n").unwrap().len(), 20);
        assert_eq!(
            both(b"1234567890123456789\r\n.\r\n"),
            Err(Defect::LineTooLong)
        );
        assert_eq!(both(b"a\0b\r\n.\r\n"), Err(Defect::Nul));
        assert_eq!(
            both(&[b"12345678\r\n".repeat(6).as_slice(), b".\r\n"].concat())
                .unwrap()
                .len(),
            60
        );
        assert_eq!(
            both(&[b"12345678\r\n".repeat(7).as_slice(), b".\r\n"].concat()),
            Err(Defect::TooLarge)
        );
    }

    /// The chunks as they are, and each in pieces of every small size.
    fn chunks(chunks: &[&[u8]]) -> Result<Vec<u8>, Defect> {
        let limits = Limits {
            message_bytes: 60,
            text_line_bytes: 20,
            ..Limits::default()
        };
        let received = |piece: usize| {
            let mut text = Text::new(None);
            for chunk in chunks {
                text.expect_chunk(chunk.len() as u64, &limits);
                for part in chunk.chunks(piece) {
                    text.receive_chunk(part, &limits);
                }
            }
            text.end_chunks(&limits);
            text.finish()
        };
        let whole = received(usize::MAX);
        for piece in 1..5 {
            assert_eq!(received(piece), whole, "pieces of {piece}");
        }
        whole
    }

    #[test]
    fn chunks_are_joined_and_dots_stay() {
        assert_eq!(chunks(&[b""]).unwrap(), b"");
        assert_eq!(chunks(&[b".\r\n"]).unwrap(), b".\r\n");
        assert_eq!(chunks(&[b"a\r\n.", b"\r\nb"]).unwrap(), b"a\r\n.\r\nb\r\n");
        assert_eq!(
            chunks(&[b"a\r", b"\nb\r", b"", b"\n"]).unwrap(),
            b"a\r\nb\r\n"
        );
    }

    #[test]
    fn chunks_have_the_same_defects() {
        for (bad, defect) in [
            (&[&b"a\nb"[..]][..], Defect::BareLf),
            (&[b"a", b"\nb"], Defect::BareLf),
            (&[b"a\rb"], Defect::BareCr),
            (&[b"a\r", b"b"], Defect::BareCr),
            (&[b"a\r", b"\r\n"], Defect::BareCr),
            (&[b"a\r"], Defect::BareCr),
            (&[b"a\r", b""], Defect::BareCr),
            (&[b"\r\n", b"\0"], Defect::Nul),
            (&[b"1234567890", b"123456789\r\n"], Defect::LineTooLong),
            (&[b"1234567890", b"123456789"], Defect::LineTooLong),
            (&[b"1234567890", b"123456789\r", b"\n"], Defect::LineTooLong),
            (&[&b"12345678\r\n"[..]; 7], Defect::TooLarge),
        ] {
            assert_eq!(chunks(bad), Err(defect), "{bad:?}");
        }
        assert_eq!(chunks(&[b"123456789012345678"]).unwrap().len(), 20);
        assert_eq!(chunks(&[&b"12345678\r\n"[..]; 6]).unwrap().len(), 60);
    }

    #[test]
    fn an_absurd_chunk_is_not_kept() {
        let limits = Limits::default();
        let mut text = Text::new(None);
        text.receive_chunk(b"some text\r\n", &limits);
        text.expect_chunk(u64::MAX, &limits);
        text.receive_chunk(b"some text\r\n", &limits);
        assert!(text.is_too_large() && text.held_bytes() == 0);
    }

    #[test]
    fn a_refused_message_holds_no_memory() {
        let mut text = Text::new(Some(1 << 40));
        let _ = text.receive(b"some text\r\n", &Limits::default());
        assert_eq!(text.held_bytes(), RESERVE_BYTES);
        let _ = text.receive(b"some \n text\r\n", &Limits::default());
        assert_eq!(text.held_bytes(), 0);
    }
}
