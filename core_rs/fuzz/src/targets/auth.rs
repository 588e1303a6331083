//! Lines of an exchange: no panic, and a login only with a name and a password that are fit to be handed on.

use smtp_proxy_proto::Mechanism;
use smtp_proxy_proto::auth::{Exchange, Step, decode};

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
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let mut lines = text.split('\n');
        let mut step = Exchange::begin(mechanism, lines.next().filter(|line| !line.is_empty()));
        for line in lines {
            let Step::Ask(_, exchange) = step else { break };
            step = exchange.next(line);
        }
        if let Step::Login(request) = step {
            assert!(!request.username.is_empty() && !request.username.contains(char::is_control));
            assert!(
                !request.password.is_empty()
                    && !request.password.expose().is_empty()
                    && !request.password.expose().contains('\0')
            );
        }
    }
}
