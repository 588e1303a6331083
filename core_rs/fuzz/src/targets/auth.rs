//! Lines of an exchange: no panic, and a login only with a name and a password that are fit to be handed on.

use std::sync::Arc;

use smtp_proxy_proto::auth::{Exchange, Step, decode};
use smtp_proxy_proto::{ClientCertificate, Mechanism, Proof};

/// See above.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(secret) = decode(text) {
        assert_eq!(
            secret.len(),
            text.len() / 4 * 3 - text.bytes().filter(|byte| *byte == b'=').count()
        );
    }
    let certificate = Arc::new(ClientCertificate {
        fingerprint: [3; 32],
        names: Vec::new(),
    });
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::External] {
        let mut lines = text.split('\n');
        let first = lines.next().filter(|line| !line.is_empty());
        let mut step = Exchange::begin(mechanism, first, Some(&certificate));
        for line in lines {
            let Step::Ask(_, exchange) = step else { break };
            step = exchange.next(line);
        }
        if let Step::Login(request) = step {
            assert!(!request.username.contains(char::is_control));
            match &request.proof {
                Proof::Password(password) => assert!(
                    !request.username.is_empty()
                        && !password.expose().is_empty()
                        && !password.expose().contains('\0')
                ),
                Proof::Certificate(_) => assert_eq!(mechanism, Mechanism::External),
            }
        }
    }
}
