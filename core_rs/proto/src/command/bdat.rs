//! BDAT's arguments (RFC 3030 2).

/// BDAT's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bdat {
    /// Octets that follow the command line.
    pub size_bytes: u64,
    /// LAST; `None`: what stands there is no end marker.
    pub last: Option<bool>,
}

/// Reads what follows `BDAT ` (RFC 3030 2). `None`: there is no size, so nobody knows how many
/// octets follow.
#[must_use]
pub fn bdat(arguments: &str) -> Option<Bdat> {
    let (size, marker) = arguments.split_once(' ').unwrap_or((arguments, ""));
    if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let last = match marker.trim_start_matches(' ') {
        "" => Some(false),
        marker => marker.eq_ignore_ascii_case("LAST").then_some(true),
    };
    let size_bytes = size.parse().ok()?;
    Some(Bdat { size_bytes, last })
}

/// True for a line that begins as BDAT does, whatever comes then: octets may follow it.
#[must_use]
pub fn begins_chunk(line: &[u8]) -> bool {
    line.get(..4)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks() {
        let read = |arguments| bdat(arguments).map(|bdat| (bdat.size_bytes, bdat.last));
        assert_eq!(read("0"), Some((0, Some(false))));
        assert_eq!(read("0099  last"), Some((99, Some(true))));
        assert_eq!(read("18446744073709551615"), Some((u64::MAX, Some(false))));
        assert_eq!(read("5 FIRST"), Some((5, None)));
        assert_eq!(read("5 LAST LAST"), Some((5, None)));
        for bad in ["", "LAST", "-1", "+1", "1x", "0x10", "18446744073709551616"] {
            assert_eq!(bdat(bad), None, "{bad:?}");
        }
    }
}
