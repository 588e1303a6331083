//! A batch's rows in pieces that are written, sent and forgotten one after the other: beside the mail itself, which waits
//! for its verdict, a commit holds a few hundred KiB of it in Postgres's encoding, however much it is.

use super::{HEADER, Rows, TABLES, TRAILER, WHOLE_BODY_BYTES, length};
use crate::batch::Letter;

/// A piece is full with the row, or the part of a long body, that takes it so far. Each is one message or several,
/// and the server holds a message whole, so not everything in one.
const PIECE_BYTES: usize = 256 * 1024;
/// What a letter takes here beyond its body, roughly: one guess saves growing.
const ROW_BYTES: usize = 512;

/// The rows of `envelopes` and `deliveries`, in this order, piece by piece: much mail is not held twice.
#[derive(Debug)]
pub(crate) struct Encoding {
    /// Microseconds since 1970.
    sweep_at_us: i64,
    /// What is still to be written, roughly.
    left_bytes: usize,
    table: usize,
    /// Its letter that comes next, or whose body is being written.
    letter: usize,
    body: Option<LongBody>,
}

/// One that is being written.
#[derive(Debug)]
struct LongBody {
    written_bytes: usize,
    /// What follows it in its row.
    rest: Vec<u8>,
}

impl Encoding {
    pub(crate) fn new(letters: &[Letter], sweep_at_us: i64) -> Self {
        let bodies = letters.iter().map(|letter| letter.envelope.body.len());
        Self {
            sweep_at_us,
            left_bytes: bodies.sum::<usize>() + (letters.len() + 1) * ROW_BYTES,
            table: 0,
            letter: 0,
            body: None,
        }
    }

    /// The next piece, whole messages; of the same letters each time. `None`: that was all.
    pub(crate) fn next(&mut self, letters: &[Letter]) -> Option<Vec<u8>> {
        TABLES.get(self.table)?;
        let mut rows = Rows::default();
        rows.bytes
            .reserve_exact(self.left_bytes.min(PIECE_BYTES + WHOLE_BODY_BYTES) + ROW_BYTES);
        while rows.bytes.len() < PIECE_BYTES {
            let Some(row) = TABLES.get(self.table) else {
                break;
            };
            let begins_at = begin_message(&mut rows.bytes);
            if self.letter == 0 && self.body.is_none() {
                rows.bytes.extend_from_slice(HEADER);
            }
            self.write_rows(&mut rows, *row, letters);
            if self.letter < letters.len() {
                end_message(&mut rows.bytes, begins_at);
                break; // The piece is full.
            }
            end_table(&mut rows.bytes, begins_at);
            (self.table, self.letter) = (self.table + 1, 0);
        }
        self.left_bytes = self.left_bytes.saturating_sub(rows.bytes.len());
        Some(rows.bytes)
    }

    /// Of one table, until the piece is full or no letter is left.
    fn write_rows(
        &mut self,
        rows: &mut Rows,
        row: fn(&mut Rows, &Letter, i64),
        letters: &[Letter],
    ) {
        while let Some(letter) = letters.get(self.letter) {
            if self.body.is_none() {
                row(rows, letter, self.sweep_at_us);
                self.body = rows.long_body_at.take().map(|at| LongBody {
                    written_bytes: 0,
                    rest: rows.bytes.split_off(at),
                });
            }
            if let Some(body) = &mut self.body {
                if !body.write(rows, letter) {
                    return;
                }
                self.body = None;
            }
            self.letter += 1;
            if rows.bytes.len() >= PIECE_BYTES {
                return;
            }
        }
    }
}

impl LongBody {
    /// As much as the piece has room for; true once its row is complete.
    fn write(&mut self, rows: &mut Rows, letter: &Letter) -> bool {
        let mut skipped = self.written_bytes;
        for piece in letter.envelope.pieces(&letter.additions) {
            let rest = piece.get(skipped..).unwrap_or_default();
            skipped = skipped.saturating_sub(piece.len());
            let room = PIECE_BYTES.saturating_sub(rows.bytes.len());
            let part = rest.get(..room).unwrap_or(rest);
            rows.bytes.extend_from_slice(part);
            self.written_bytes += part.len();
            if part.len() < rest.len() {
                return false;
            }
        }
        rows.bytes.extend_from_slice(&self.rest);
        true
    }
}

/// `CopyData`; its length is not known yet.
fn begin_message(bytes: &mut Vec<u8>) -> usize {
    bytes.extend_from_slice(b"d\0\0\0\0");
    bytes.len() - 4
}

fn end_message(bytes: &mut [u8], begins_at: usize) {
    let length = length(bytes.len() - begins_at);
    if let Some(place) = bytes.get_mut(begins_at..begins_at + 4) {
        place.copy_from_slice(&length);
    }
}

fn end_table(bytes: &mut Vec<u8>, begins_at: usize) {
    bytes.extend_from_slice(&TRAILER);
    end_message(bytes, begins_at);
    bytes.extend_from_slice(b"c\0\0\0\x04"); // CopyDone
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::tests::{encode, letter, rows, streams};
    use super::*;

    #[test]
    fn much_goes_in_several_pieces_of_whole_messages() {
        let letters: Vec<_> = (0..13)
            .map(|number| letter(number, 50_000, &["a@b"]))
            .collect();
        let pieces = encode(&letters, 0);
        assert!(pieces.iter().all(|piece| piece.len() < 320_000));
        assert_eq!(pieces.len(), 3);
        let found = streams(&pieces.concat());
        assert_eq!(found.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(rows(&found[0].0).len(), 13);
    }

    #[test]
    fn a_long_body_is_cut_wherever_a_piece_is_full() {
        for long in [
            WHOLE_BODY_BYTES,
            WHOLE_BODY_BYTES + 1,
            PIECE_BYTES - 100,
            PIECE_BYTES,
            3 * PIECE_BYTES + 7,
        ] {
            let mut letters = [
                letter(1, 9, &["a@b"]),
                letter(2, long, &["a@b"]),
                letter(3, 9, &["a@b"]),
                letter(4, long, &["a@b"]),
            ];
            letters[3].additions = b"-added-".to_vec();
            for (at, byte) in letters[1].envelope.body.iter_mut().enumerate() {
                *byte = u8::try_from(at % 251).unwrap();
            }
            let pieces = encode(&letters, 0);
            let most = PIECE_BYTES + WHOLE_BODY_BYTES + 2 * ROW_BYTES;
            assert!(pieces.iter().all(|piece| piece.len() <= most));
            assert!(pieces.len() >= 2 * long / most, "{long}: {}", pieces.len());
            for piece in &pieces {
                streams_whole(piece);
            }
            let found = streams(&pieces.concat());
            let envelopes = rows(&found[0].0);
            for (letter, row) in letters.iter().zip(&envelopes) {
                let whole = letter.envelope.pieces(&letter.additions).concat();
                assert!(row[0] == letter.id.0 && row[15] == whole, "{long}");
            }
            assert_eq!((envelopes.len(), rows(&found[1].0).len()), (4, 4));
        }
    }

    /// It is a number of messages, the last one to its end.
    fn streams_whole(mut piece: &[u8]) {
        while let [_, a, b, c, d, ..] = *piece {
            piece = &piece[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
        }
        assert!(piece.is_empty());
    }
}
