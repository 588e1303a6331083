//! What is shown for which name, what is refused before it serves, and whose client certificates are taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::{Authority, Door, Issued, VERSIONS, asking, client, start};
use rcgen::date_time_ymd;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use smtp_proxy_server::{CertificatePem, ClientAuth, ClientTrust, Config, Error};

fn leaf(issued: &Issued) -> Vec<u8> {
    CertificateDer::from_pem_slice(issued.chain.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn exact_then_wildcard_then_default() {
    let ca = Authority::new("server CA");
    let default = ca.issue(&["default.example", "*.default.example"]);
    let wildcard = ca.issue(&["*.shop.example"]);
    let exact = ca.issue(&["mail.shop.example"]);
    let running = start(vec![default.pem(), wildcard.pem(), exact.pem()], |_| {});
    for version in VERSIONS {
        let named = Arc::new(client(version, &ca, None));
        for (name, wanted) in [
            ("mail.shop.example", &exact),
            ("MAIL.shop.EXAMPLE", &exact),
            ("other.shop.example", &wildcard),
            ("default.example", &default),
            ("x.default.example", &default),
        ] {
            for door in [Door::Tls, Door::StartTls] {
                let shown = running.visit(door, &named, name).unwrap().leaf;
                assert!(shown == leaf(wanted), "{name}");
            }
        }
        // A wildcard stands for one label, so the default is shown, and this client does not like it.
        assert!(
            running
                .visit(Door::Tls, &named, "a.b.shop.example")
                .is_err()
        );
        let mut nameless = client(version, &ca, None);
        nameless.enable_sni = false;
        let shown = running.visit(Door::Tls, &Arc::new(nameless), "default.example");
        assert!(shown.unwrap().leaf == leaf(&default));
    }
}

#[test]
fn tls13_alone() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example"]).pem()], |config| {
        config.tls_options.tls13_only = true;
    });
    let [tls12, tls13] = VERSIONS.map(|version| Arc::new(client(version, &ca, None)));
    assert!(running.visit(Door::Tls, &tls12, "a.example").is_err());
    assert!(running.visit(Door::StartTls, &tls12, "a.example").is_err());
    running.visit(Door::Tls, &tls13, "a.example").unwrap();
}

#[test]
fn a_whole_chain_serves_and_a_broken_one_is_refused_with_its_reason() {
    let root = Authority::new("root");
    let (middle, stranger) = (root.intermediate("middle"), root.intermediate("stranger"));
    // Of the same name as `middle`, but with another key.
    let impostor = root.intermediate("middle");
    let good = middle.issue(&["a.example"]);
    let chain = |parts: &[&str]| CertificatePem {
        chain: parts.concat().into_bytes(),
        name: "certs/a.example/fullchain.pem".to_owned(),
        ..good.pem()
    };
    let whole = chain(&[&good.chain, &middle.pem]);
    let running = start(vec![whole.clone()], |_| {});
    let visitor = Arc::new(client(VERSIONS[1], &root, None));
    let expired = root.issue_with(&["a.example"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let future = root.issue_with(&["a.example"], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    let none: &[&str] = &[];
    for (bad, reason) in [
        (chain(none), "has no certificate in it"),
        (chain(&[&middle.pem, &good.chain]), "is a CA's certificate"),
        (chain(&[&good.chain, &stranger.pem]), "out of order"),
        (
            chain(&[&good.chain, &root.pem, &middle.pem]),
            "out of order",
        ),
        (
            chain(&[&good.chain, &impostor.pem]),
            "the signature of certificate 1",
        ),
        (root.issue(&[]).pem(), "no name in its subjectAltName"),
        (expired.pem(), "expired on"),
        (future.pem(), "not valid before"),
        (
            CertificatePem {
                key: expired.pem().key,
                ..whole.clone()
            },
            "the key does not belong",
        ),
        (
            CertificatePem {
                key: b"no key".to_vec(),
                ..whole.clone()
            },
            "is not an unencrypted PEM private key",
        ),
    ] {
        let error = running
            .server
            .reload_tls(&[whole.clone(), bad], &ClientTrust::default())
            .unwrap_err();
        assert!(matches!(error, Error::Certificate { number: 1, .. }));
        assert!(error.to_string().contains(reason), "{error}");
        let shown = running
            .visit(Door::Tls, &visitor, "a.example")
            .unwrap()
            .leaf;
        assert!(shown == leaf(&good), "the old one serves on");
    }
    let named = running
        .server
        .reload_tls(&[chain(none)], &ClientTrust::default())
        .unwrap_err();
    assert!(
        named
            .to_string()
            .starts_with("certs/a.example/fullchain.pem: ")
    );
    assert_eq!(running.stat("tls_reloads_total"), 0);
}

#[test]
fn client_certificates_are_as_the_rules_say() {
    let ca = Authority::new("server CA");
    let (clients, strangers) = (Authority::new("client CA"), Authority::new("strangers"));
    let (own, foreign) = (
        clients.issue(&["app.example"]),
        strangers.issue(&["app.example"]),
    );
    let expired = clients.issue_with(&["app.example"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    for version in VERSIONS {
        for (auth, without) in [(ClientAuth::Optional, true), (ClientAuth::Required, false)] {
            let running = start(vec![ca.issue(&["a.example"]).pem()], asking(auth, &clients));
            for door in [Door::Tls, Door::StartTls] {
                let visit = |own: Option<&Issued>| {
                    running.visit(door, &Arc::new(client(version, &ca, own)), "a.example")
                };
                assert!(
                    visit(Some(&own))
                        .unwrap()
                        .extensions
                        .contains("LOGIN EXTERNAL")
                );
                assert!(visit(Some(&foreign)).is_err());
                assert!(visit(Some(&expired)).is_err());
                match visit(None) {
                    Ok(visit) => assert!(without && !visit.extensions.contains("EXTERNAL")),
                    Err(_) => assert!(!without),
                }
            }
        }
        let running = start(vec![ca.issue(&["a.example"]).pem()], |_| {});
        let visitor = Arc::new(client(version, &ca, Some(&own)));
        let visit = running.visit(Door::Tls, &visitor, "a.example").unwrap();
        assert!(!visit.extensions.contains("EXTERNAL"), "nobody asked");
    }
}

#[test]
fn rules_that_cannot_be_are_refused_and_the_old_ones_stay() {
    let ca = Authority::new("server CA");
    let clients = Authority::new("client CA");
    let certificates = vec![ca.issue(&["a.example"]).pem()];
    let running = start(certificates.clone(), asking(ClientAuth::Required, &clients));
    let own = clients.issue(&["app.example"]);
    let visitor = Arc::new(client(VERSIONS[1], &ca, Some(&own)));
    let pem = clients.pem.clone().into_bytes();
    for (ca, crl, reason) in [
        (b"".to_vec(), b"".to_vec(), "client_ca: has no PEM block"),
        (
            b"-----BEGIN CERTIFICATE-----\nx\n".to_vec(),
            b"".to_vec(),
            "client_ca: is not PEM",
        ),
        (pem.clone(), pem.clone(), "client_crl: has no PEM block"),
    ] {
        let error = running
            .server
            .reload_tls(&certificates, &ClientTrust { ca, crl })
            .unwrap_err();
        assert!(error.to_string().starts_with(reason), "{error}");
        running.visit(Door::Tls, &visitor, "a.example").unwrap();
    }
    let mut config = Config {
        tls: Some("127.0.0.1:0".parse().unwrap()),
        certificates,
        ..Config::default()
    };
    config.tls_options.client_auth = ClientAuth::Optional;
    assert!(
        config
            .check()
            .unwrap_err()
            .to_string()
            .starts_with("client_ca:")
    );
}

/// REQ-INFRA-TLS-014.
#[test]
fn what_is_stapled_reaches_the_client() {
    #[derive(Debug)]
    struct Keeps(
        Arc<rustls::client::WebPkiServerVerifier>,
        std::sync::Mutex<Vec<u8>>,
    );
    impl rustls::client::danger::ServerCertVerifier for Keeps {
        fn verify_server_cert(
            &self,
            leaf: &CertificateDer<'_>,
            rest: &[CertificateDer<'_>],
            name: &rustls::pki_types::ServerName<'_>,
            ocsp: &[u8],
            now: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            *self.1.lock().unwrap() = ocsp.to_vec();
            self.0.verify_server_cert(leaf, rest, name, ocsp, now)
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, leaf, signed)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, leaf, signed)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
    let ca = Authority::new("server CA");
    let mut pem = ca.issue(&["a.example"]).pem();
    pem.ocsp = b"a response".to_vec();
    let running = start(vec![pem], |_| {});
    for version in VERSIONS {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
        let keeps = Arc::new(Keeps(inner, std::sync::Mutex::default()));
        let mut config = client(version, &ca, None);
        config
            .dangerous()
            .set_certificate_verifier(Arc::clone(&keeps) as _);
        running
            .visit(Door::Tls, &Arc::new(config), "a.example")
            .unwrap();
        assert_eq!(*keeps.1.lock().unwrap(), b"a response");
    }
}
