//! BDAT (RFC 3030): a message in counted chunks.
//!
//! A chunk's octets follow its command line whatever we think of it, so they are always counted off
//! first, kept or not, and never read as commands; then it is answered. A chunk that is refused ends
//! its transaction: else those pipelined behind it would make a message with a hole. What is wrong
//! with the text is told with the last chunk, as with the final dot; only a message that is too
//! large is refused at once, before its client sends the rest.
//!
//! Where the number of octets cannot be known, what follows might be anything. Then the connection
//! is closed.

use super::Cell::{Login, Out, Stay, To};
use super::{Event, Mode, Session, State, cell};
use crate::command::{self, Verb};
use crate::{Reply, reply};

/// A chunk that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    size_bytes: u64,
    left_bytes: u64,
    fate: Fate,
}

/// What becomes of a chunk's octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The message goes on with them.
    Kept,
    /// And ends with them.
    Last,
    /// The transition table does not let BDAT in.
    OutOfOrder,
    /// What stands behind the size is no end marker.
    NoMarker,
}

impl Chunk {
    /// It is part of a message.
    pub(super) fn is_kept(self) -> bool {
        matches!(self.fate, Fate::Kept | Fate::Last)
    }
}

impl Session {
    pub(super) fn begin_chunk(&mut self, arguments: &str, out: &mut Vec<u8>) -> Event {
        let Some(bdat) = command::bdat(arguments) else {
            return self.out_of_step(&reply::BAD_CHUNK_SIZE, out);
        };
        let fate = match (cell(self.state, Verb::Bdat), bdat.last) {
            (Out | Login, _) => Fate::OutOfOrder,
            (_, None) => Fate::NoMarker,
            (_, Some(false)) => Fate::Kept,
            (_, Some(true)) => Fate::Last,
        };
        let chunk = Chunk {
            size_bytes: bdat.size_bytes,
            left_bytes: bdat.size_bytes,
            fate,
        };
        if let Some(transaction) = self.transaction.as_mut().filter(|_| chunk.is_kept()) {
            let limits = &self.config.limits;
            transaction.text.expect_chunk(bdat.size_bytes, limits);
        }
        if chunk.left_bytes == 0 {
            return self.end_chunk(chunk, out);
        }
        self.mode = Mode::Chunk(chunk);
        Event::NeedInput
    }

    pub(super) fn take_chunk(
        &mut self,
        mut chunk: Chunk,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Event) {
        let most = usize::try_from(chunk.left_bytes).unwrap_or(usize::MAX);
        let piece = input.get(..most).unwrap_or(input);
        if let Some(transaction) = self.transaction.as_mut().filter(|_| chunk.is_kept()) {
            let limits = &self.config.limits;
            transaction.text.receive_chunk(piece, limits);
        }
        chunk.left_bytes = chunk.left_bytes.saturating_sub(piece.len() as u64);
        if chunk.left_bytes > 0 {
            self.mode = Mode::Chunk(chunk);
            return (piece.len(), Event::NeedInput);
        }
        self.mode = Mode::Command;
        (piece.len(), self.end_chunk(chunk, out))
    }

    fn end_chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) -> Event {
        match chunk.fate {
            Fate::OutOfOrder => {
                let refusal = match cell(self.state, Verb::Bdat) {
                    Login => self.login_needed(),
                    Out | Stay | To(_) => reply::BAD_SEQUENCE,
                };
                self.refuse_chunk(&refusal, out)
            }
            Fate::NoMarker => self.refuse_chunk(&reply::BAD_ARGUMENTS, out),
            Fate::Kept => self.go_on_after(chunk, out),
            Fate::Last => {
                let limits = &self.config.limits;
                if let Some(transaction) = self.transaction.as_mut() {
                    transaction.text.end_chunks(limits);
                }
                self.hand_over(out)
            }
        }
    }

    fn go_on_after(&mut self, chunk: Chunk, out: &mut Vec<u8>) -> Event {
        let transaction = self.transaction.as_ref();
        if transaction.is_none_or(|transaction| transaction.text.is_too_large()) {
            return self.refuse_chunk(&reply::MESSAGE_TOO_LARGE, out);
        }
        if chunk.size_bytes == 0 {
            self.count_as_idle(); // It brought nothing.
        }
        self.succeed(Verb::Bdat);
        self.say(&reply::octets_received(chunk.size_bytes), out)
    }

    /// RFC 3030 2: "the transaction should be considered failed".
    fn refuse_chunk(&mut self, refusal: &Reply, out: &mut Vec<u8>) -> Event {
        if self.transaction.is_some() {
            self.enter(State::Ready);
        }
        self.count_as_idle();
        self.say(refusal, out)
    }

    /// A BDAT of which nobody knows how many octets follow: said, and closed (RFC 5321 3.8).
    pub(super) fn out_of_step(&mut self, refusal: &Reply, out: &mut Vec<u8>) -> Event {
        match self.say(refusal, out) {
            Event::NeedInput => self.part(&reply::OUT_OF_STEP, out),
            event => event,
        }
    }
}
