//! Session resumption by real clients: where a ticket is good, and above all where it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use common::{Authority, Door, VERSIONS, asking, client, start};
use rustls::HandshakeKind::{Full, Resumed};
use smtp_proxy_server::{ClientAuth, ClientTrust};

#[test]
fn a_ticket_is_good_at_its_listener_under_its_name_alone() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example", "b.example"]).pem()], |_| {});
    for version in VERSIONS {
        for (door, other) in [(Door::Tls, Door::StartTls), (Door::StartTls, Door::Tls)] {
            let client = Arc::new(client(version, &ca, None));
            assert_eq!(running.kind(door, &client, "a.example"), Full);
            assert_eq!(
                running.kind(door, &client, "a.example"),
                Resumed,
                "{door:?}"
            );
            // The client's memory is by name, and so it offers the ticket at the other port as well.
            assert_eq!(running.kind(other, &client, "a.example"), Full, "{door:?}");
        }
    }
    assert_eq!(running.stat("tls_resumptions_total"), 4);
}

/// A client that offers a ticket under whatever name, as an attacker between would (RFC 6066 3).
#[derive(Debug)]
struct OneMemory(rustls::client::ClientSessionMemoryCache);

mod one_memory {
    use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
    use rustls::pki_types::ServerName;

    use super::OneMemory;

    fn one() -> ServerName<'static> {
        ServerName::try_from("one.example").unwrap()
    }

    impl ClientSessionStore for OneMemory {
        fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
            self.0.set_kx_hint(one(), group);
        }
        fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
            self.0.kx_hint(&one())
        }
        fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
            self.0.set_tls12_session(one(), value);
        }
        fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
            self.0.tls12_session(&one())
        }
        fn remove_tls12_session(&self, _: &ServerName<'static>) {
            self.0.remove_tls12_session(&one());
        }
        fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
            self.0.insert_tls13_ticket(one(), value);
        }
        fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
            self.0.take_tls13_ticket(&one())
        }
    }
}

#[test]
fn a_ticket_is_none_under_another_name_not_even_of_the_same_certificate() {
    let ca = Authority::new("server CA");
    let running = start(vec![ca.issue(&["a.example", "b.example"]).pem()], |_| {});
    for version in VERSIONS {
        let mut config = client(version, &ca, None);
        let memory = OneMemory(rustls::client::ClientSessionMemoryCache::new(8));
        config.resumption = rustls::client::Resumption::store(Arc::new(memory));
        let mut nameless = config.clone();
        nameless.enable_sni = false;
        let (client, nameless) = (Arc::new(config), Arc::new(nameless));
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Resumed);
        assert_eq!(running.kind(Door::Tls, &client, "b.example"), Full);
        assert_eq!(running.kind(Door::Tls, &client, "b.example"), Resumed);
        // Nor with no name at all, nor the other way round.
        assert_eq!(running.kind(Door::Tls, &nameless, "b.example"), Full);
        assert_eq!(running.kind(Door::Tls, &nameless, "b.example"), Resumed);
        assert_eq!(running.kind(Door::Tls, &client, "b.example"), Full);
    }
}

#[test]
fn tickets_outlive_a_reload_under_the_same_rules() {
    let ca = Authority::new("server CA");
    let clients = Authority::new("client CA");
    let running = start(
        vec![ca.issue(&["a.example"]).pem()],
        asking(ClientAuth::Optional, &clients),
    );
    let own = clients.issue(&["app.example"]);
    for version in VERSIONS {
        let client = Arc::new(client(version, &ca, Some(&own)));
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        let renewed = [ca.issue(&["a.example"]).pem()];
        running
            .server
            .reload_tls(&renewed, &clients.trust())
            .unwrap();
        let visit = running.visit(Door::Tls, &client, "a.example").unwrap();
        assert_eq!(visit.kind, Resumed);
        assert!(visit.extensions.contains("EXTERNAL"), "still who it was");
    }
}

#[test]
fn tickets_end_with_the_rules_for_client_certificates() {
    let ca = Authority::new("server CA");
    let (clients, others) = (Authority::new("client CA"), Authority::new("other CA"));
    let certificates = [ca.issue(&["a.example"]).pem()];
    for version in VERSIONS {
        let running = start(
            certificates.to_vec(),
            asking(ClientAuth::Required, &clients),
        );
        let own = clients.issue_with(&["app.example"], |params| {
            params.serial_number = Some(7.into());
        });
        let client = Arc::new(client(version, &ca, Some(&own)));
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Resumed);
        // Another list that does not name it: a new handshake, and good.
        let list = ClientTrust {
            crl: clients.revoke(&[8]),
            ..clients.trust()
        };
        running.server.reload_tls(&certificates, &list).unwrap();
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Resumed);
        // Revoked: the ticket must not carry it past the list.
        let list = ClientTrust {
            crl: clients.revoke(&[7, 8]),
            ..clients.trust()
        };
        running.server.reload_tls(&certificates, &list).unwrap();
        assert!(running.visit(Door::Tls, &client, "a.example").is_err());
        // And by another CA it never was.
        running
            .server
            .reload_tls(&certificates, &clients.trust())
            .unwrap();
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        running
            .server
            .reload_tls(&certificates, &others.trust())
            .unwrap();
        assert!(running.visit(Door::Tls, &client, "a.example").is_err());
    }
}

#[test]
fn a_certificate_that_has_expired_is_not_resumed_by_its_ticket() {
    let ca = Authority::new("server CA");
    let clients = Authority::new("client CA");
    let running = start(
        vec![ca.issue(&["a.example"]).pem()],
        asking(ClientAuth::Optional, &clients),
    );
    for version in VERSIONS {
        let own = clients.issue_with(&["app.example"], |params| {
            params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
        });
        let client = Arc::new(client(version, &ca, Some(&own)));
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Full);
        assert_eq!(running.kind(Door::Tls, &client, "a.example"), Resumed);
        sleep(Duration::from_secs(4));
        assert!(running.visit(Door::Tls, &client, "a.example").is_err());
    }
}

#[test]
fn tickets_live_for_their_time_and_may_be_turned_off() {
    let ca = Authority::new("server CA");
    let certificates = vec![ca.issue(&["a.example"]).pem()];
    for version in VERSIONS {
        let none = start(certificates.clone(), |config| {
            config.tls_options.ticket_lifetime = Duration::ZERO;
        });
        let forgetful = Arc::new(client(version, &ca, None));
        assert_eq!(none.kind(Door::Tls, &forgetful, "a.example"), Full);
        assert_eq!(none.kind(Door::Tls, &forgetful, "a.example"), Full);
        let short = start(certificates.clone(), |config| {
            config.tls_options.ticket_lifetime = Duration::from_secs(2);
        });
        let keeper = Arc::new(client(version, &ca, None));
        assert_eq!(short.kind(Door::Tls, &keeper, "a.example"), Full);
        assert_eq!(short.kind(Door::Tls, &keeper, "a.example"), Resumed);
        sleep(Duration::from_secs(5));
        assert_eq!(short.kind(Door::Tls, &keeper, "a.example"), Full);
    }
}
