//! The session and the text that the benches and the guard (`benches/guard`) work with.

use std::sync::Arc;

use smtp_proxy_proto::{Identity, Limits, Senders, SessionConfig, Submission};

/// Plaintext and logged in from the start, as on the listener for benchmarks.
pub(crate) fn config() -> Arc<SessionConfig> {
    let identity = Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: "bench@example.com".into(),
        senders: Senders::default(),
    };
    Arc::new(SessionConfig {
        hostname: "mx.example.com".into(),
        software: "smtp-proxy".into(),
        limits: Limits::default(),
        starttls: false,
        identity: Some(Arc::new(identity)),
        allow_plaintext_submission: true,
        submission: Submission::default(),
    })
}

/// At most so many bytes in lines of 78, as mail has them, with a stuffed dot every 50; then the final dot.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 3);
    for nth in 0..bytes / 78 {
        let first = if nth % 50 == 49 { ".." } else { "x" };
        text.extend_from_slice(format!("{first:y<76}\r\n").as_bytes());
    }
    text.extend_from_slice(b".\r\n");
    text
}
