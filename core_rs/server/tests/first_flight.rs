//! What goes with the handshake: the greeting, and which cipher suite it settles on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::{Authority, asking, client, start};
use rustls::CipherSuite::{
    self, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use smtp_proxy_server::ClientAuth;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> (ClientConnection, TcpStream) {
    let tls = ClientConnection::new(Arc::clone(config), "a.example".try_into().unwrap()).unwrap();
    let io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (tls, io)
}

/// What the client may read before it has sent its Finished.
fn heard_early(address: SocketAddr, config: &Arc<ClientConfig>) -> String {
    let (mut tls, mut io) = connect(address, config);
    tls.write_tls(&mut io).unwrap();
    while !tls.wants_write() {
        assert_ne!(tls.read_tls(&mut io).unwrap(), 0);
        tls.process_new_packets().unwrap();
    }
    // Not answered: what comes now has been sent without our Finished.
    io.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let _ = tls.read_tls(&mut io);
    let _ = tls.process_new_packets();
    let mut heard = [0; 1024];
    let read = tls.reader().read(&mut heard).unwrap_or(0);
    String::from_utf8_lossy(&heard[..read]).into_owned()
}

#[test]
fn the_greeting_comes_with_the_servers_part_of_the_handshake() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example"]).pem()], |_| {});
    let address = running.addresses.tls.unwrap();
    let heard = heard_early(address, &Arc::new(client(&TLS13, &ca, None)));
    assert!(heard.starts_with("220 "), "{heard:?}");
    assert_eq!(heard.matches("\r\n").count(), 1);
}

#[test]
fn whoever_is_asked_for_a_certificate_is_greeted_after_it() {
    let (ca, clients) = (Authority::new("server CA"), Authority::new("client CA"));
    for asked in [ClientAuth::Optional, ClientAuth::Required] {
        let certificates = vec![ca.issue(&["a.example"]).pem()];
        let running = start(certificates, asking(asked, &clients));
        let address = running.addresses.tls.unwrap();
        let heard = heard_early(address, &Arc::new(client(&TLS13, &ca, None)));
        assert_eq!(heard, "", "{asked:?}");
    }
}

/// A client that offers these, in this order.
fn offering(ca: &Authority, suites: &[CipherSuite]) -> Arc<ClientConfig> {
    let mut provider = ring::default_provider();
    let all = std::mem::take(&mut provider.cipher_suites);
    let named = |suite: &CipherSuite| all.iter().find(|known| known.suite() == *suite);
    let wanted = suites.iter().map(|suite| *named(suite).unwrap());
    provider.cipher_suites = wanted.collect();
    let version = if suites[0].as_str().unwrap().starts_with("TLS13_") {
        &TLS13
    } else {
        &TLS12
    };
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn settled(address: SocketAddr, config: &Arc<ClientConfig>) -> CipherSuite {
    let (mut tls, mut io) = connect(address, config);
    while tls.is_handshaking() {
        tls.complete_io(&mut io).unwrap();
    }
    let _ = tls.writer().write_all(b"QUIT\r\n");
    let _ = tls.complete_io(&mut io);
    tls.negotiated_cipher_suite().unwrap().suite()
}

#[test]
fn aes_128_comes_first_unless_the_client_would_rather_do_without_aes() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example"]).pem()], |_| {});
    let address = running.addresses.tls.unwrap();
    for [aes_128, aes_256, chacha_20] in [
        [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        [
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
    ] {
        for (offered, wanted) in [
            (vec![aes_256, chacha_20, aes_128], aes_128),
            (vec![aes_256, chacha_20], aes_256),
            (vec![chacha_20, aes_128, aes_256], chacha_20),
            (vec![aes_256], aes_256),
        ] {
            let got = settled(address, &offering(&ca, &offered));
            assert_eq!(got, wanted, "of {offered:?}");
        }
    }
}

/// The greeting is made before the handshake, but a client that never gets there was not refused.
#[test]
fn busy_is_counted_for_whom_it_is_said_to() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example"]).pem()], |_| {});
    let address = running.addresses.tls.unwrap();
    let config = Arc::new(client(&TLS13, &ca, None));
    running.server.set_gate(smtp_proxy_server::Gate::Busy);
    let refused = || {
        let stats = running.server.stats();
        let (_, count) = stats
            .iter()
            .find(|(name, _)| *name == "refused_busy_total")
            .unwrap();
        *count
    };
    let (mut tls, mut io) = connect(address, &config);
    tls.write_tls(&mut io).unwrap(); // ClientHello, and gone
    drop(io);
    for _ in 0..3 {
        let (mut tls, mut io) = connect(address, &config);
        tls.complete_io(&mut io).unwrap();
        let mut heard = String::new();
        let _ = rustls::Stream::new(&mut tls, &mut io).read_to_string(&mut heard);
        assert!(heard.starts_with("421 4.3.2 "), "{heard:?}");
    }
    assert_eq!(refused(), 3);
}
