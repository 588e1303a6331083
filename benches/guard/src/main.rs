//! What the guard counts the instructions of: `smtp-proxy-guard WORK TIMES` does the work so often, and nothing else.

#[path = "../../micro/session.rs"]
mod session;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use smtp_proxy_proto::{EnvelopeId, EnvelopeVerdict, Event, Gate, Security, Session, address};

use crate::session::{config, text};

type Failure = Box<dyn Error>;

const ENVELOPE: &[u8] =
    b"MAIL FROM:<sender@example.com> SIZE=4096\r\nRCPT TO:<rcpt@example.org>\r\nDATA\r\n";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, times] = arguments.as_slice() else {
        return Err("smtp-proxy-guard WORK TIMES".into());
    };
    let times = times.parse()?;
    match work.as_str() {
        "session" => sessions(times),
        "message-4KiB" => messages(times, 4096)?,
        "message-64KiB" => messages(times, 65_536)?,
        "forward-path" => paths(times)?,
        other => return Err(format!("{other} is no work of the guard").into()),
    }
    Ok(())
}

/// Greeting and EHLO.
fn sessions(times: usize) {
    let config = config();
    let mut out = Vec::new();
    for _ in 0..times {
        out.clear();
        let mut session = Session::new(Arc::clone(&config), Security::Plaintext);
        let _ = session.greet(Gate::Open, &mut out);
        let _ = session.advance(b"EHLO client.example\r\n", Gate::Open, &mut out);
        black_box(&out);
    }
}

/// Transactions of a message of so many bytes.
fn messages(times: usize, bytes: usize) -> Result<(), Failure> {
    let text = text(bytes);
    let mut out = Vec::new();
    let mut session = Session::new(config(), Security::Plaintext);
    let _ = session.advance(b"EHLO client.example\r\n", Gate::Open, &mut out);
    for _ in 0..times {
        out.clear();
        let _ = session.advance(ENVELOPE, Gate::Open, &mut out);
        let Event::Envelope(envelope) = session.advance(&text, Gate::Open, &mut out).1 else {
            return Err("the message was not taken".into());
        };
        black_box(&envelope);
        let id = EnvelopeId([7; 16]);
        let _ = session.envelope_answered(EnvelopeVerdict::Queued { id }, &mut out);
    }
    Ok(())
}

fn paths(times: usize) -> Result<(), Failure> {
    for _ in 0..times {
        let path = address::forward_path(black_box("<first.last+tag@subdomain.example.com>"));
        black_box(path.map_err(|_| "the path was not taken")?);
    }
    Ok(())
}
