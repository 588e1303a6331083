//! The session on its happy path, and the text's receiver alone. `cargo bench -p smtp-proxy-proto`.
//!
//! Compare ratios of interleaved runs, never absolute times of different days or machines.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod session;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use smtp_proxy_proto::data::Text;
use smtp_proxy_proto::{
    EnvelopeId, EnvelopeVerdict, Event, Gate, Limits, Security, Session, Submission, address,
};

use crate::session::{config, text};

/// MAIL, RCPT and DATA in one write, the text in another, as a pipelining client sends them.
fn transaction(session: &mut Session, group: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let (taken, _) = session.advance(group, Gate::Open, out);
    assert_eq!(taken, group.len());
    let Event::Envelope(envelope) = session.advance(text, Gate::Open, out).1 else {
        panic!("no envelope")
    };
    black_box(&envelope);
    let _ = session.envelope_answered(
        EnvelopeVerdict::Queued {
            id: EnvelopeId([7; 16]),
        },
        out,
    );
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transaction");
    for (name, bytes) in [("1KiB", 1024), ("4KiB", 4096), ("64KiB", 65_536)] {
        let commands = format!(
            "MAIL FROM:<sender@example.com> SIZE={bytes}\r\nRCPT TO:<rcpt@example.org>\r\nDATA\r\n"
        );
        let text = text(bytes);
        let mut out = Vec::new();
        let mut session = Session::new(config(), Security::Plaintext);
        let _ = session.advance(b"EHLO client.example\r\n", Gate::Open, &mut out);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| transaction(&mut session, commands.as_bytes(), &text, &mut out));
        });
    }
    group.finish();
}

fn connections(criterion: &mut Criterion) {
    let config = config();
    let mut out = Vec::new();
    criterion.bench_function("greeting and EHLO", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut session = Session::new(Arc::clone(&config), Security::Plaintext);
            let _ = session.greet(Gate::Open, &mut out);
            session.advance(b"EHLO client.example\r\n", Gate::Open, &mut out)
        });
    });
}

fn texts(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("text");
    let shapes = [
        ("mail 1MiB", text(1 << 20)),
        (
            "empty lines 1MiB",
            [b"\r\n".repeat(1 << 19).as_slice(), b".\r\n"].concat(),
        ),
    ];
    for (name, text) in shapes {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || Text::new(None),
                |mut receiver| {
                    // As from a socket: 16 KiB at a time.
                    let mut from = 0;
                    loop {
                        let until = (from + 16_384).min(text.len());
                        let (taken, done) =
                            receiver.receive(text.get(from..until).unwrap_or_default(), &limits);
                        from += taken;
                        if done {
                            return receiver.finish();
                        }
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn addresses(criterion: &mut Criterion) {
    criterion.bench_function("forward path", |bencher| {
        bencher.iter(|| {
            address::forward_path(black_box("<first.last+tag@subdomain.example.com>"))
                .map(|path| path.address.len())
        });
    });
}

/// Ten fields before the text. `complete` needs no mending; `bcc` costs a move of the whole.
fn headers(criterion: &mut Criterion) {
    let fields = "X-Header-Of-A-Usual-Length: with a value of a usual length\r\n".repeat(8);
    let mut group = criterion.benchmark_group("mending");
    for (name, added, bytes) in [
        ("complete 4KiB", "Date: x\r\nMessage-ID: <x@y>\r\n", 4096),
        ("complete 1MiB", "Date: x\r\nMessage-ID: <x@y>\r\n", 1 << 20),
        ("bcc 4KiB", "Date: x\r\nBcc: a@b\r\n", 4096),
        ("bcc 1MiB", "Date: x\r\nBcc: a@b\r\n", 1 << 20),
    ] {
        let message = [fields.as_bytes(), added.as_bytes(), b"\r\n", &text(bytes)].concat();
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || message.clone(),
                |message| Submission::default().mend(black_box(message), 100),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, sessions, connections, texts, addresses, headers);
criterion_main!(benches);
