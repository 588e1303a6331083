//! Any message: mending it never panics, keeps its text, and once mended there is nothing more to mend.

use smtp_proxy_proto::Submission;
use smtp_proxy_proto::header::Header;

/// See above.
pub fn run(input: &[u8]) {
    let found = Header::read(input);
    assert!(found.fields_end <= input.len());
    let mut body = input.to_vec();
    let Ok(missing) = Submission::default().mend(&mut body, 100) else {
        assert!(found.received > 100);
        return;
    };
    assert!(missing.at <= body.len() && body.len() <= input.len());
    assert!(found.has_bcc || body == input);
    let text = input.windows(4).position(|four| four == b"\r\n\r\n");
    if let Some(text) = text.and_then(|at| input.get(at + 4..)) {
        assert!(body.ends_with(text));
    }
    let (before, behind) = body.split_at(missing.at);
    let mut whole = before.to_vec();
    if !missing.is_nothing() {
        if !whole.is_empty() && !whole.ends_with(b"\n") {
            whole.extend_from_slice(b"\r\n");
        }
        if missing.date {
            whole.extend_from_slice(b"Date: x\r\n");
        }
        if missing.message_id {
            whole.extend_from_slice(b"Message-ID: <x@y>\r\n");
        }
        if missing.empty_line {
            whole.extend_from_slice(b"\r\n");
        }
    }
    whole.extend_from_slice(behind);
    let header = Header::read(&whole);
    assert!(header.has_date && header.has_message_id && !header.has_bcc && !header.is_open);
}
