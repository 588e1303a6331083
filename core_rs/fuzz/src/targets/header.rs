//! Any message: mending it never panics, keeps its text, and once mended there is nothing more to mend.

use std::time::Duration;

use smtp_proxy_proto::header::Header;
use smtp_proxy_proto::{EnvelopeId, Facts, Mended, Submission};

/// See above.
pub fn run(input: &[u8]) {
    let found = Header::read(input);
    assert!(found.fields_end <= input.len());
    let mut body = input.to_vec();
    let Ok(Mended { missing, .. }) = Submission::default().mend(&mut body, 100) else {
        assert!(found.received > 100);
        return;
    };
    assert!(missing.at <= body.len() && body.len() <= input.len());
    assert!(found.has_bcc || found.has_blank || found.has_lane || body == input);
    let text = input.windows(4).position(|four| four == b"\r\n\r\n");
    if let Some(text) = text.and_then(|at| input.get(at + 4..)) {
        assert!(body.ends_with(text));
    }
    let facts = Facts {
        id: EnvelopeId([7; 16]),
        hostname: "mx.example.com",
        received_at: Duration::ZERO,
    };
    let additions = missing.additions(&body, &facts);
    let whole = missing.pieces(&body, &additions).concat();
    let header = Header::read(&whole);
    assert!(header.has_date && header.has_message_id && !header.is_open);
    assert!(!header.has_bcc && !header.has_blank && !header.has_lane);
}
