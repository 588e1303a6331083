//! Which cipher suite: AES-128 before AES-256, except for clients that had rather do without AES.
//!
//! Most clients name AES-256 first, out of habit. Nothing is safer for it: the keys come from X25519 or
//! P-256 and are vouched for by P-256 as a rule, all of them of the strength of AES-128. But the suite
//! brings its hash along, for some forty hashes per handshake, and processors do SHA-256 in hardware
//! where they do not SHA-384 (docs/decisions/0025-cost-of-a-connection.md).
//!
//! A client that names `ChaCha20` first has no AES in hardware. In software that is slow, and its time may
//! tell the key; so it gets what it asks for.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::{CipherSuite, ServerConfig};

const CHACHA20: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
const AES_256: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// The provider with its suites in the order of what they cost us. None is added and none is lost.
pub(super) fn fastest_first(mut provider: CryptoProvider) -> CryptoProvider {
    provider.cipher_suites.sort_by_key(|suite| {
        let suite = suite.suite();
        if CHACHA20.contains(&suite) {
            2
        } else {
            u8::from(AES_256.contains(&suite))
        }
    });
    provider
}

/// One configuration in two orders.
pub(super) struct Ordered {
    by_us: Arc<ServerConfig>,
    by_client: Arc<ServerConfig>,
}

impl Ordered {
    pub(super) fn new(config: ServerConfig) -> Self {
        let mut by_us = config.clone();
        by_us.ignore_client_order = true;
        Self {
            by_us: Arc::new(by_us),
            by_client: Arc::new(config),
        }
    }

    pub(super) fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = self.by_us.crypto_provider();
        let is_ours = |named: &CipherSuite| ours.cipher_suites.iter().any(|s| s.suite() == *named);
        let first = hello.cipher_suites().iter().copied().find(is_ours);
        Arc::clone(if first.is_some_and(|suite| CHACHA20.contains(&suite)) {
            &self.by_client
        } else {
            &self.by_us
        })
    }
}
