//! Base64 as AUTH uses it (RFC 4954 4).

use crate::Secret;

/// The text is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// RFC 4648 4 to the letter: padded, no blanks, no bits left over. Strict, because one secret
/// should have one spelling.
pub fn decode(text: &str) -> Result<Secret, NotBase64> {
    let bytes = text.as_bytes();
    if bytes.len() % 4 != 0 {
        return Err(NotBase64);
    }
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let mut quads = bytes.chunks_exact(4).peekable();
    while let Some(quad) = quads.next() {
        let last = quads.peek().is_none();
        if let Err(error) = decode_quad(quad, last, &mut decoded) {
            // What was decoded so far is wiped as well.
            drop(Secret::new(decoded));
            return Err(error);
        }
    }
    Ok(Secret::new(decoded))
}

fn decode_quad(quad: &[u8], last: bool, decoded: &mut Vec<u8>) -> Result<(), NotBase64> {
    let (a, b, c, d) = match quad {
        [a, b, b'=', b'='] if last => (a, b, None, None),
        [a, b, c, b'='] if last => (a, b, Some(c), None),
        [a, b, c, d] => (a, b, Some(c), Some(d)),
        _ => return Err(NotBase64),
    };
    let bits = |symbol: Option<&u8>| symbol.map_or(Ok(0), |symbol| sextet(*symbol));
    let value = sextet(*a)? << 18 | sextet(*b)? << 12 | bits(c)? << 6 | bits(d)?;
    let [_, first, second, third] = value.to_be_bytes();
    decoded.push(first);
    match (c, d) {
        (None, _) if second == 0 && third == 0 => {}
        (Some(_), None) if third == 0 => decoded.push(second),
        (Some(_), Some(_)) => decoded.extend_from_slice(&[second, third]),
        _ => return Err(NotBase64),
    }
    Ok(())
}

fn sextet(symbol: u8) -> Result<u32, NotBase64> {
    match symbol {
        b'A'..=b'Z' => Ok(u32::from(symbol - b'A')),
        b'a'..=b'z' => Ok(u32::from(symbol - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(symbol - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => Err(NotBase64),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Vec<u8>, NotBase64> {
        decode(text).map(|secret| secret.expose_bytes().to_vec())
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
    }

    #[test]
    fn strict_base64() {
        for bad in [
            "Z",
            "Zg",
            "Zg=",
            "Zg===",
            "Zh==",
            "Zm9=",
            "Zg==Zg==",
            "=",
            "====",
            "Z===",
            "Zm 9v",
            "Zm9v\n",
            "Zm-_",
            "Zm9vZg==Zm9v",
            "Zö==",
        ] {
            assert_eq!(decoded(bad), Err(NotBase64), "{bad:?}");
        }
    }
}
