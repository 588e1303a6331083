//! A PROXY header: no panic, never a byte too many asked for, and any cut gives the same.

use smtp_proxy_proto::proxy::{Header, Progress, V2_BYTES, read};

/// As a caller reads, at most `piece` bytes at a time; `None`: malformed, or it has no end.
fn read_piecewise(stream: &[u8], piece: usize) -> Option<(Header, usize)> {
    let mut taken = 0;
    loop {
        match read(&stream[..taken]).ok()? {
            Progress::Complete(header, bytes) => {
                assert_eq!(bytes, taken);
                return Some((header, bytes));
            }
            Progress::NeedMore(bytes) => {
                assert!((1..=V2_BYTES).contains(&bytes));
                let next = taken + bytes.min(piece);
                if next > stream.len() {
                    return None;
                }
                taken = next;
            }
        }
    }
}

/// See above.
pub fn run(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    let whole = read_piecewise(stream, V2_BYTES);
    assert_eq!(whole, read_piecewise(stream, 1));
    assert_eq!(whole, read_piecewise(stream, usize::from(*piece) + 1));
    if let Ok(Progress::Complete(header, bytes)) = read(stream) {
        assert_eq!(whole, Some((header, bytes)));
    }
    if let Some((Header::Announced { client, .. }, _)) = whole {
        assert_eq!(client.ip(), client.ip().to_canonical());
    }
}
