//! What a server is made of. Checked as a whole before anything is opened.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use smtp_proxy_proto::{Identity, Limits, Submission};

use crate::{Error, Protection};

/// One certificate chain with its key, in PEM.
#[derive(Clone, Default)]
pub struct CertificatePem {
    /// The server's certificate first, then what leads to the root.
    pub chain: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1, unencrypted.
    pub key: Vec<u8>,
    /// An OCSP response (DER) to be stapled (RFC 6066 8, RFC 8446 4.4.2.1); empty: none. Whether it is
    /// the certificate's and still fresh is the caller's to know.
    pub ocsp: Vec<u8>,
    /// What errors shall call it, such as its file; may be empty.
    pub name: String,
}

/// Are clients asked for a certificate?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// No.
    #[default]
    None,
    /// Asked, and one that is shown must be good; a client without is taken all the same.
    Optional,
    /// A handshake without a good one fails.
    Required,
}

/// Whose client certificates are good. May be reloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTrust {
    /// PEM certificates of the CAs that issue them.
    pub ca: Vec<u8>,
    /// PEM revocation lists, one of each CA; empty: nobody is revoked.
    pub crl: Vec<u8>,
}

/// How TLS is spoken; for good.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// TLS 1.2 is refused.
    pub tls13_only: bool,
    /// So long at most a session ticket is good; zero: none are given.
    pub ticket_lifetime: Duration,
    /// Are clients asked for a certificate?
    pub client_auth: ClientAuth,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            tls13_only: false,
            ticket_lifetime: Duration::from_secs(12 * 3600),
            client_auth: ClientAuth::None,
        }
    }
}

impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem").finish_non_exhaustive()
    }
}

/// How long a client may take. A phase's time begins anew with the client's progress in it.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// RFC 5321 4.5.3.2.7: from our reply to the next whole command.
    pub command: Duration,
    /// RFC 5321 4.5.3.2.5: between two pieces of a message, and for taking what we write.
    pub data: Duration,
    /// For one TLS handshake.
    pub handshake: Duration,
    /// Age at which a session gets 421 after its current message, so that clients spread anew over a
    /// fleet. `None`: any age.
    pub session: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data: Duration::from_secs(180),
            handshake: Duration::from_secs(30),
            session: None,
        }
    }
}

/// Everything a server is told at its start. [`Config::default`] listens nowhere.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name in the greeting, EHLO and 421.
    pub hostname: String,
    /// The greeting's text after the name.
    pub software: String,
    /// RFC 6409 with RFC 3207: where plaintext comes first and STARTTLS is offered.
    pub starttls: Option<SocketAddr>,
    /// RFC 8314 3.3: where TLS comes first.
    pub tls: Option<SocketAddr>,
    /// Where neither TLS nor AUTH is spoken, for benchmarks. Loopback only.
    pub plaintext: Option<SocketAddr>,
    /// Whose mail the plaintext listener takes.
    pub plaintext_identity: Option<Identity>,
    /// The first one is shown to clients that name no server, or none that we know.
    pub certificates: Vec<CertificatePem>,
    /// How TLS is spoken.
    pub tls_options: TlsOptions,
    /// Whose client certificates are good, where they are asked for.
    pub client_trust: ClientTrust,
    /// How much a client may send.
    pub limits: Limits,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Sessions at once over all listeners; more get 421.
    pub max_connections: usize,
    /// Bytes of messages held at once, received or being received, with their recipients; beyond,
    /// sockets are not read.
    pub max_in_flight_bytes: usize,
    /// Messages awaiting their commit at once; beyond, sockets are not read.
    pub max_waiting_messages: usize,
    /// Worker threads; 0 = one less than there are cores, at least 1.
    pub threads: usize,
    /// What is mended of a message.
    pub submission: Submission,
    /// From clients that are hostile, broken or too many.
    pub protection: Protection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            software: "smtp-proxy".to_owned(),
            starttls: None,
            tls: None,
            plaintext: None,
            plaintext_identity: None,
            certificates: Vec::new(),
            tls_options: TlsOptions::default(),
            client_trust: ClientTrust::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            max_connections: 20_000,
            max_in_flight_bytes: 256 * 1024 * 1024,
            max_waiting_messages: 10_000,
            threads: 0,
            submission: Submission::default(),
            protection: Protection::default(),
        }
    }
}

impl Config {
    /// `host:port` as an address; a name is resolved, and its first address taken. Blocks while it
    /// resolves.
    pub fn address(name: &'static str, text: &str) -> Result<SocketAddr, Error> {
        let mut found = text.to_socket_addrs().map_err(|error| Error::Setting {
            name,
            problem: format!(
                "{text:?} is not host:port ({error}), write 127.0.0.1:2587 or [::1]:2587"
            ),
        })?;
        found.next().ok_or_else(|| Error::Setting {
            name,
            problem: format!("{text:?} has no address"),
        })
    }

    /// Refuses what cannot work, naming the setting. Certificates are looked at by `Server::new`.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |name, problem: &str| {
            Err(Error::Setting {
                name,
                problem: problem.to_owned(),
            })
        };
        let addresses = [self.starttls, self.tls, self.plaintext];
        if addresses.iter().all(Option::is_none) {
            return refuse(
                "starttls_address",
                "nothing to listen on: give starttls_address, tls_address or plaintext_address",
            );
        }
        if self.certificates.is_empty() && (self.starttls.is_some() || self.tls.is_some()) {
            return refuse(
                "certificates",
                "starttls_address and tls_address need at least one certificate",
            );
        }
        if self.tls_options.client_auth != ClientAuth::None && self.client_trust.ca.is_empty() {
            return refuse("client_ca", "client_auth needs the CA of the clients");
        }
        // Beyond, rustls' own keys would turn before ours.
        if self.tls_options.ticket_lifetime > Duration::from_secs(12 * 3600) {
            return refuse("ticket_seconds", "must be 43200 (12 hours) at most");
        }
        if let Some(address) = self.plaintext {
            if !address.ip().to_canonical().is_loopback() {
                return refuse(
                    "plaintext_address",
                    "only loopback addresses (127.0.0.1, [::1]): nobody logs in there",
                );
            }
            if self.plaintext_identity.is_none() {
                return refuse("plaintext_identity", "plaintext_address needs one");
            }
        }
        if !is_one_word(&self.hostname) {
            return refuse("hostname", "must be a host name or an address literal");
        }
        if self.software.chars().any(char::is_control) {
            return refuse("software", "must not hold control characters");
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), Error> {
        let Timeouts {
            command,
            data,
            handshake,
            session,
        } = &self.timeouts;
        for (name, zero) in [
            ("command_timeout_seconds", command.is_zero()),
            ("data_timeout_seconds", data.is_zero()),
            ("handshake_timeout_seconds", handshake.is_zero()),
            (
                "session_max_seconds",
                session.is_some_and(|max| max.is_zero()),
            ),
            ("max_connections", self.max_connections == 0),
            ("max_in_flight_bytes", self.max_in_flight_bytes == 0),
            ("max_waiting_messages", self.max_waiting_messages == 0),
        ] {
            if zero {
                return Err(Error::Setting {
                    name,
                    problem: "must be greater than 0".to_owned(),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn thread_count(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        // One core is left to Python and to what else serves the mail on its way.
        std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
    }
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use smtp_proxy_proto::Senders;

    use super::*;

    fn plaintext(address: &str) -> Config {
        Config {
            plaintext: Some(Config::address("plaintext_address", address).unwrap()),
            plaintext_identity: Some(Identity {
                tenant_id: [1; 16],
                credential_id: [2; 16],
                username: "bench".to_owned(),
                senders: Senders::default(),
            }),
            ..Config::default()
        }
    }

    fn refusal(config: &Config) -> String {
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn plaintext_is_for_loopback_only() {
        for good in [
            "127.0.0.1:0",
            "127.1.2.3:25",
            "[::1]:0",
            "[::ffff:127.0.0.1]:0",
        ] {
            plaintext(good).check().unwrap();
        }
        for bad in ["0.0.0.0:0", "[::]:0", "192.0.2.1:25", "[2001:db8::1]:25"] {
            assert!(refusal(&plaintext(bad)).starts_with("plaintext_address: only loopback"));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(refusal(&Config::default()).contains("nothing to listen on"));
        let mut config = plaintext("127.0.0.1:0");
        config.tls = config.plaintext;
        assert!(refusal(&config).starts_with("certificates:"));
        config = plaintext("127.0.0.1:0");
        config.plaintext_identity = None;
        assert!(refusal(&config).starts_with("plaintext_identity:"));
        config = plaintext("127.0.0.1:0");
        config.hostname = "a b".to_owned();
        assert!(refusal(&config).starts_with("hostname:"));
        config = plaintext("127.0.0.1:0");
        config.timeouts.data = Duration::ZERO;
        assert_eq!(
            refusal(&config),
            "data_timeout_seconds: must be greater than 0"
        );
    }

    #[test]
    fn an_address_that_is_none_is_told_what_would_do() {
        let error = Config::address("tls_address", "2465").unwrap_err();
        assert!(
            error.to_string().contains("write 127.0.0.1:2587"),
            "{error}"
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let pem = CertificatePem {
            chain: b"chain".to_vec(),
            key: b"hunter2".to_vec(),
            ..CertificatePem::default()
        };
        assert_eq!(format!("{pem:?}"), "CertificatePem { .. }");
    }
}
