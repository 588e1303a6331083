//! Replies as the load client reads them: bounded, nothing taken for a code that is none, and any cuts make no
//! difference. The client's own file is compiled in, because the client depends on nothing here and the other way round.

#[allow(dead_code)]
#[path = "../../../../client/engine/src/reply.rs"]
mod reply;

use reply::{Line, Replies, Trouble};

/// The first byte gives the size of the pieces.
pub fn run(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    for (code, text) in whole.0.iter().flatten() {
        assert!(text.starts_with(format!("{code:03}").as_bytes()));
        assert!(!text.contains(&b'\n'));
    }
    assert_eq!(whole, read(bytes, 1));
    assert_eq!(whole, read(bytes, usize::from(*size) + 2));
}

type Read = (Vec<Vec<(u16, Vec<u8>)>>, Option<Trouble>);

/// The replies, each with its lines, and why it ended if it did before the bytes.
fn read(bytes: &[u8], size: usize) -> Read {
    let (mut replies, mut found, mut lines) = (Replies::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        replies.room(piece.len()).extend_from_slice(piece);
        loop {
            match replies.next_line() {
                Ok(Some(Line { code, last, text })) => {
                    lines.push((code, text.to_vec()));
                    if last {
                        found.push(std::mem::take(&mut lines));
                    }
                }
                Ok(None) => break,
                Err(trouble) => return (found, Some(trouble)),
            }
        }
    }
    (found, None)
}
