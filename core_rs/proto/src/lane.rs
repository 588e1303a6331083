//! Which mail goes first: what somebody waits for, before what goes to many.
//!
//! A message says so in a field of our own, `X-Priority-Lane`, which is taken out and is nobody else's business. Else a
//! `Precedence` of `bulk`, `list` or `junk` (in use since sendmail, named in RFC 2076 3.9) says that it is bulk; that
//! field stays. Neither is a promise of anything to the next hop.

/// The numbers cross the border and lie in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Lane {
    /// A login code, a receipt: somebody waits for it.
    #[default]
    Transactional = 0,
    /// A newsletter: it takes what the others leave, and a minimum.
    Bulk = 1,
}

impl Lane {
    /// By its number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Transactional),
            1 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// The value of `X-Priority-Lane`, in any case of letters. Another word says nothing.
    #[must_use]
    pub fn from_field(value: &[u8]) -> Option<Self> {
        if value.eq_ignore_ascii_case(b"transactional") {
            Some(Self::Transactional)
        } else if value.eq_ignore_ascii_case(b"bulk") {
            Some(Self::Bulk)
        } else {
            None
        }
    }

    /// The value of `Precedence`. It can only put a message behind others.
    #[must_use]
    pub fn from_precedence(value: &[u8]) -> Option<Self> {
        let is_bulk = [&b"bulk"[..], b"list", b"junk"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word));
        is_bulk.then_some(Self::Bulk)
    }
}
