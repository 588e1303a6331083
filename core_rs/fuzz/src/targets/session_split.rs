//! The same bytes in one read, one by one, and in pieces of a size that the first byte gives: the same replies and envelopes.

use crate::Caller;

/// See above.
pub fn run(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let mut whole = Caller::new(first % 3);
    whole.send(bytes);
    for size in [1, usize::from(first / 3) + 2] {
        let mut pieces = Caller::new(first % 3);
        bytes.chunks(size).for_each(|piece| pieces.send(piece));
        assert_eq!(whole.replies, pieces.replies);
        assert_eq!(whole.envelopes, pieces.envelopes);
        assert_eq!(
            (whole.closed, whole.is_tls()),
            (pieces.closed, pieces.is_tls())
        );
    }
}
