//! A stored message made ready to be sent: looked through once more, dots doubled, its end added (RFC 5321 4.5.2).
//!
//! Only clean text is stored. It is looked at again because a slip would become someone else's trouble: a bare LF that
//! another server takes for a line's end smuggles a second message, and so does a NUL before a dot where NULs are dropped.

use memchr::memchr3_iter;

use crate::data::Defect;

const END_OF_DATA: &[u8] = b".\r\n";
const LINE_END: &[u8] = b"\r\n";

/// What is written after DATA, as its parts: `trace`, the body with its dots doubled, the final dot.
#[derive(Debug)]
pub struct Transmission<'a> {
    trace: &'a [u8],
    body: &'a [u8],
    /// Where a dot is doubled, ascending.
    dots: Vec<usize>,
    is_ascii: bool,
}

impl<'a> Transmission<'a> {
    /// `trace`: whole header fields, put in front as they are.
    ///
    /// # Errors
    /// The first of `Nul`, `BareLf` and `BareCr` that the body holds.
    pub fn new(trace: &'a [u8], body: &'a [u8]) -> Result<Self, Defect> {
        let mut dots = Vec::new();
        if body.first() == Some(&b'.') {
            dots.push(0);
        }
        // Whether a CR came just before, whose LF is due here.
        let mut due = None;
        for at in memchr3_iter(b'\r', b'\n', 0, body) {
            let next = body.get(at + 1);
            match body.get(at) {
                Some(b'\r') if next != Some(&b'\n') => return Err(Defect::BareCr),
                Some(b'\r') => due = Some(at + 1),
                Some(b'\n') if due != Some(at) => return Err(Defect::BareLf),
                Some(b'\n') if next == Some(&b'.') => dots.push(at + 1),
                Some(b'\n') => {}
                _ => return Err(Defect::Nul),
            }
        }
        Ok(Self {
            trace,
            body,
            dots,
            is_ascii: body.is_ascii(),
        })
    }

    /// Whether the body, without the trace, is ASCII.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    fn line_end(&self) -> &'static [u8] {
        if self.body.is_empty() || self.body.ends_with(LINE_END) {
            b""
        } else {
            LINE_END
        }
    }

    /// Bytes in all.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it always has its final dot")]
    pub fn len(&self) -> usize {
        self.trace.len()
            + self.body.len()
            + self.dots.len()
            + self.line_end().len()
            + END_OF_DATA.len()
    }

    /// Write all of it.
    ///
    /// # Panics
    /// Where `out` has another length than `len` says.
    pub fn write(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.len());
        let mut out = put(out, self.trace);
        let (mut rest, mut from) = (self.body, 0);
        for &dot in &self.dots {
            let (before, after) = rest.split_at(dot - from);
            out = put(out, before);
            out = put(out, b".");
            (rest, from) = (after, dot);
        }
        out = put(out, rest);
        out = put(out, self.line_end());
        put(out, END_OF_DATA);
    }
}

/// Returns what is left of `out`.
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> &'o mut [u8] {
    let (here, rest) = out.split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: &[u8]) -> Result<Vec<u8>, Defect> {
        let made = Transmission::new(b"T: x\r\n", body)?;
        let mut out = vec![0; made.len()];
        made.write(&mut out);
        Ok(out)
    }

    #[test]
    fn dots_are_doubled_at_line_starts_alone() {
        assert_eq!(
            written(b".a\r\n..\r\na.\r\n.\r\n"),
            Ok(b"T: x\r\n..a\r\n...\r\na.\r\n..\r\n.\r\n".to_vec())
        );
        assert_eq!(written(b""), Ok(b"T: x\r\n.\r\n".to_vec()));
        assert_eq!(written(b"no end"), Ok(b"T: x\r\nno end\r\n.\r\n".to_vec()));
        assert_eq!(written(b"."), Ok(b"T: x\r\n..\r\n.\r\n".to_vec()));
    }

    #[test]
    fn what_smuggles_does_not_leave() {
        let bare_lf: [&[u8]; 4] = [b"\n", b"a\n.\r\n", b"a\r\n.\n", b"a\r\n\n.\r\n"];
        for body in bare_lf {
            assert_eq!(written(body), Err(Defect::BareLf), "{body:?}");
        }
        let bare_cr: [&[u8]; 4] = [b"\r", b"a\r.\r", b"a\r\r\n.\r\n", b"a\r"];
        for body in bare_cr {
            assert_eq!(written(body), Err(Defect::BareCr), "{body:?}");
        }
        assert_eq!(written(b"a\r\n\0.\r\n"), Err(Defect::Nul));
    }

    #[test]
    fn ascii_is_told_of_the_body() {
        let is_ascii = |body| Transmission::new("ü".as_bytes(), body).map(|made| made.is_ascii());
        assert_eq!(is_ascii(b"a\r\n"), Ok(true));
        assert_eq!(is_ascii("ü\r\n".as_bytes()), Ok(false));
    }
}
