//! A message's text: it ends at the first CRLF `.` CRLF and nowhere else, and what is kept, stuffed again, is what came.

use crate::check_body;
use smtp_proxy_proto::Limits;
use smtp_proxy_proto::data::Text;

/// See above.
pub fn run(wire: &[u8]) {
    let limits = Limits {
        message_bytes: 3000,
        text_line_bytes: 100,
        ..Limits::default()
    };
    let mut text = Text::new(Some(wire.len() as u64));
    let (taken, done) = text.receive(wire, &limits);
    let framed = [b"\r\n", wire].concat();
    let end = framed
        .windows(5)
        .position(|window| window == b"\r\n.\r\n")
        .map(|at| at + 3);
    assert_eq!(done.then_some(taken), end);
    let Ok(body) = text.finish() else { return };
    if !done {
        return;
    }
    check_body(&body);
    let mut stuffed = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed.extend_from_slice(b".\r\n");
    let mut again = Text::new(None);
    assert_eq!(again.receive(&stuffed, &limits), (stuffed.len(), true));
    assert_eq!(again.finish(), Ok(body));
}
