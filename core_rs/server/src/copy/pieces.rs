//! A batch's rows in pieces that are written, sent and forgotten one after the other: beside the mail itself, which waits
//! for its verdict, a commit holds a few hundred KiB of it in Postgres's encoding, however much it is.

use super::{HEADER, PART_BYTES, TRAILER, deliveries, envelope, is_long, length, part};
use crate::batch::Letter;

/// A piece is full with the row that takes it so far. Each is one message or several,
/// and the server holds a message whole, so not everything in one.
const PIECE_BYTES: usize = 256 * 1024;
/// What a letter takes here beyond its body, roughly: one guess saves growing.
const ROW_BYTES: usize = 512;

/// In this order: one COPY each.
#[derive(Debug, Clone, Copy)]
enum Table {
    Envelopes,
    Deliveries,
    ContentParts,
}

/// The rows of `envelopes` and `deliveries`, and of `content_parts` if a message is long, in this order, piece by piece:
/// much mail is not held twice.
#[derive(Debug)]
pub(crate) struct Encoding {
    /// Microseconds since 1970.
    sweep_at_us: i64,
    /// What is still to be written, roughly.
    left_bytes: usize,
    /// `None`: all is written.
    table: Option<Table>,
    /// Its letter that comes next, or whose parts are being written.
    letter: usize,
    /// Of that letter, the part that comes next.
    part: usize,
    has_parts: bool,
}

impl Encoding {
    pub(crate) fn new(letters: &[Letter], sweep_at_us: i64) -> Self {
        let bodies = letters.iter().map(|letter| letter.envelope.body.len());
        Self {
            sweep_at_us,
            left_bytes: bodies.sum::<usize>() + (letters.len() + 1) * ROW_BYTES,
            table: Some(Table::Envelopes),
            letter: 0,
            part: 0,
            has_parts: letters.iter().any(is_long),
        }
    }

    /// Whether there is a third table, of parts.
    pub(crate) fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// The next piece, whole messages; of the same letters each time. `None`: that was all.
    pub(crate) fn next(&mut self, letters: &[Letter]) -> Option<Vec<u8>> {
        self.table?;
        let mut rows = Vec::new();
        rows.reserve_exact(self.left_bytes.min(PIECE_BYTES + PART_BYTES) + ROW_BYTES);
        while rows.len() < PIECE_BYTES {
            let Some(table) = self.table else {
                break;
            };
            let begins_at = begin_message(&mut rows);
            if self.letter == 0 && self.part == 0 {
                rows.extend_from_slice(HEADER);
            }
            self.write_rows(&mut rows, table, letters);
            if self.letter < letters.len() {
                end_message(&mut rows, begins_at);
                break; // The piece is full.
            }
            end_table(&mut rows, begins_at);
            (self.table, self.letter) = (self.after(table), 0);
        }
        self.left_bytes = self.left_bytes.saturating_sub(rows.len());
        Some(rows)
    }

    fn after(&self, table: Table) -> Option<Table> {
        match table {
            Table::Envelopes => Some(Table::Deliveries),
            Table::Deliveries if self.has_parts => Some(Table::ContentParts),
            Table::Deliveries | Table::ContentParts => None,
        }
    }

    /// Of one table, until the piece is full or no letter is left.
    fn write_rows(&mut self, rows: &mut Vec<u8>, table: Table, letters: &[Letter]) {
        while let Some(letter) = letters.get(self.letter) {
            match table {
                Table::Envelopes => envelope(rows, letter),
                Table::Deliveries => deliveries(rows, letter, self.sweep_at_us),
                Table::ContentParts if is_long(letter) => {
                    while part(rows, letter, self.part) {
                        self.part += 1;
                        if rows.len() >= PIECE_BYTES {
                            return;
                        }
                    }
                    self.part = 0;
                }
                Table::ContentParts => {}
            }
            self.letter += 1;
            if rows.len() >= PIECE_BYTES {
                return;
            }
        }
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
        let letters: Vec<_> = (0..80)
            .map(|number| letter(number, 8_000, &["a@b"]))
            .collect();
        let pieces = encode(&letters, 0);
        assert!(pieces.iter().all(|piece| piece.len() < 280_000));
        assert_eq!(pieces.len(), 3);
        let found = streams(&pieces.concat());
        assert_eq!(found.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(rows(&found[0].0).len(), 80);
    }

    #[test]
    fn a_long_message_lies_in_parts() {
        for long in [
            PART_BYTES - 6,
            PART_BYTES + 1,
            2 * PART_BYTES - 7,
            2 * PART_BYTES,
            PIECE_BYTES,
            3 * PIECE_BYTES + 7,
        ] {
            let mut letters = [
                letter(1, PART_BYTES, &["a@b"]),
                letter(2, long, &["a@b"]),
                letter(3, 9, &["a@b"]),
                letter(4, long, &["a@b"]),
                letter(5, 9, &["a@b"]),
            ];
            letters[3].additions = b"-added-".to_vec();
            for (at, byte) in letters[3].envelope.body.iter_mut().enumerate() {
                *byte = u8::try_from(at % 251).unwrap();
            }
            let pieces = encode(&letters, 0);
            let most = PIECE_BYTES + PART_BYTES + ROW_BYTES;
            assert!(pieces.iter().all(|piece| piece.len() <= most));
            for piece in &pieces {
                streams_whole(piece);
            }
            let found = streams(&pieces.concat());
            let [envelopes, deliveries, parts] = &found[..] else {
                panic!("{} tables", found.len())
            };
            let (envelopes, parts) = (rows(&envelopes.0), rows(&parts.0));
            for (letter, row) in letters.iter().zip(&envelopes) {
                let whole = letter.envelope.pieces(&letter.additions).concat();
                let mine: Vec<_> = parts.iter().filter(|part| part[0] == letter.id.0).collect();
                let joined: Vec<u8> = mine.iter().flat_map(|part| part[2].clone()).collect();
                if whole.len() > PART_BYTES {
                    assert!(row[15].is_empty() && joined == whole, "{long}");
                    assert!(mine[0][2].len() == PART_BYTES, "{long}");
                    for (number, part) in (0_i32..).zip(&mine) {
                        assert_eq!(part[1], number.to_be_bytes());
                    }
                } else {
                    assert!(row[15] == whole && mine.is_empty(), "{long}");
                }
            }
            assert_eq!((envelopes.len(), rows(&deliveries.0).len()), (5, 5));
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
