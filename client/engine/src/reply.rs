//! Replies (RFC 5321 4.2) out of bytes; no socket, no clock. `core_rs/fuzz` compiles this file in as a target of its own.

use memchr::memchr;

/// A server that sends more than this without ending its reply speaks something else, bytes.
pub(crate) const REPLY_BYTES: usize = 64 * 1024;

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) code: u16,
    /// The reply ends with it.
    pub(crate) last: bool,
    /// All of it, without CRLF.
    pub(crate) text: &'a [u8],
}

/// Why what comes is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    NoCode,
    Endless,
}

impl Trouble {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoCode => "a reply without a code",
            Self::Endless => "a reply without end",
        }
    }
}

/// What was read and not used yet.
#[derive(Default)]
pub(crate) struct Replies {
    buffer: Vec<u8>,
    used: usize,
    /// Of the unused bytes, so many hold no LF.
    searched: usize,
    /// Of the present reply, in lines that are used already.
    reply_bytes: usize,
}

impl Replies {
    /// Where the next bytes belong, at its end; it has room for so many.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// Nothing waits to be used.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == self.buffer.len()
    }

    /// The next line; none while it is not whole. After a trouble there is nothing left to be understood.
    pub(crate) fn next_line(&mut self) -> Result<Option<Line<'_>>, Trouble> {
        let unused = self.buffer.get(self.used..).unwrap_or_default();
        let found = memchr(b'\n', unused.get(self.searched..).unwrap_or_default());
        let end = found.map(|at| self.searched + at);
        let so_far = self.reply_bytes + end.map_or(unused.len(), |end| end + 1);
        if so_far > REPLY_BYTES {
            return Err(Trouble::Endless);
        }
        let Some(end) = end else {
            self.searched = unused.len();
            return Ok(None);
        };
        let line = unused.get(..end).unwrap_or_default();
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        self.searched = 0;
        self.used += end + 1;
        let code = code(text).ok_or(Trouble::NoCode)?;
        let last = text.get(3) != Some(&b'-');
        self.reply_bytes = if last { 0 } else { so_far };
        Ok(Some(Line { code, last, text }))
    }
}

/// Three digits and nothing else; `parse` alone would take `+25` as well.
fn code(text: &[u8]) -> Option<u16> {
    let digits = text.get(..3)?;
    digits.iter().try_fold(0, |code, digit| {
        digit
            .is_ascii_digit()
            .then(|| code * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<(u16, bool, Vec<u8>)>, Trouble> {
        let (mut replies, mut lines) = (Replies::default(), Vec::new());
        for piece in pieces {
            replies.room(piece.len()).extend_from_slice(piece);
            while let Some(Line { code, last, text }) = replies.next_line()? {
                lines.push((code, last, text.to_vec()));
            }
        }
        Ok(lines)
    }

    #[test]
    fn lines_are_read_however_they_are_cut() {
        let raw: &[u8] = b"250-one\r\n250 two\r\n354\n";
        let expected = [
            (250, false, b"250-one".to_vec()),
            (250, true, b"250 two".to_vec()),
            (354, true, b"354".to_vec()),
        ];
        for cut in 0..raw.len() {
            let (first, second) = raw.split_at(cut);
            assert_eq!(read(&[first, second]).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_code() {
        for raw in [
            &b"+25 x\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"25x\r\n",
            b"\xb2\xb2\xb2 x\r\n",
        ] {
            assert_eq!(read(&[raw]), Err(Trouble::NoCode), "{raw:?}");
        }
    }

    #[test]
    fn a_reply_without_end_is_bounded_in_one_line_and_in_many() {
        let line = vec![b'2'; REPLY_BYTES + 1];
        assert_eq!(read(&[&line]), Err(Trouble::Endless));
        let lines = b"250-and so on\r\n".repeat(REPLY_BYTES / 15 + 1);
        assert_eq!(read(&[&lines]), Err(Trouble::Endless));
        let pieces: Vec<&[u8]> = lines.chunks(7).collect();
        assert_eq!(read(&pieces), Err(Trouble::Endless));
        let replies = b"250 ok\r\n".repeat(REPLY_BYTES);
        assert_eq!(read(&[&replies]).unwrap().len(), REPLY_BYTES);
    }
}
