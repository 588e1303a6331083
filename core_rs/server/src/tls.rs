//! Certificates: an immutable snapshot that handshakes read and a reload swaps whole.
//!
//! A new set is validated first, each chain with its key, its dates and its names, and refused with
//! the reason while the old one serves. TLS 1.2 and 1.3 only; no ALPN, since none is registered for
//! submission.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::id::since_epoch;
use crate::{CertificatePem, Error};

/// What all handshakes use.
pub(crate) struct Tls {
    current: ArcSwap<rustls::ServerConfig>,
    provider: Arc<CryptoProvider>,
    /// Kept over reloads, so that they cost nobody a full handshake. The keys rotate by themselves.
    tickets: Arc<dyn ProducesTickets>,
}

impl Tls {
    pub(crate) fn new(certificates: &[CertificatePem]) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let tickets =
            ring::Ticketer::new().map_err(|error| Error::System(std::io::Error::other(error)))?;
        let config = server_config(certificates, &provider, &tickets)?;
        Ok(Self {
            current: ArcSwap::from_pointee(config),
            provider,
            tickets,
        })
    }

    /// Handshakes from now on use these; connections that stand are not touched.
    pub(crate) fn reload(&self, certificates: &[CertificatePem]) -> Result<(), Error> {
        let config = server_config(certificates, &self.provider, &self.tickets)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn server_config(
    certificates: &[CertificatePem],
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<rustls::ServerConfig, Error> {
    let names = Names::read(certificates, provider)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| Error::System(std::io::Error::other(error)))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    config.ticketer = Arc::clone(tickets);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Mail clients open one connection after another rather than several at once.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Which certificate for which name: exact, else wildcard, else the first one, which also serves the
/// many clients that name no server (RFC 6066 3).
#[derive(Debug)]
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`; a wildcard stands for one label (RFC 6125 6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Names {
    fn read(certificates: &[CertificatePem], provider: &CryptoProvider) -> Result<Self, Error> {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let mut default = None;
        for (number, pem) in certificates.iter().enumerate() {
            let (key, names) = certified(pem, provider)
                .map_err(|problem| Error::Certificate { number, problem })?;
            let key = Arc::new(key);
            for name in names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard
                        .entry(parent.to_owned())
                        .or_insert_with(|| Arc::clone(&key)),
                    None => exact.entry(name).or_insert_with(|| Arc::clone(&key)),
                };
            }
            default.get_or_insert(key);
        }
        let default = default.ok_or_else(|| Error::Certificate {
            number: 0,
            problem: "the list is empty".to_owned(),
        })?;
        Ok(Self {
            exact,
            wildcard,
            default,
        })
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.default;
        };
        let name = name.trim_end_matches('.');
        let parent = || {
            name.split_once('.')
                .and_then(|(_, parent)| self.wildcard.get(parent))
        };
        self.exact
            .get(name)
            .or_else(parent)
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}

/// Chain and key as rustls wants them, and the names in lower case; or what is wrong.
fn certified(
    pem: &CertificatePem,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Vec<String>), String> {
    let chain = CertificateDer::pem_slice_iter(&pem.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the chain is not PEM ({error})"))?;
    let leaf = chain
        .first()
        .ok_or("the chain has no certificate in it, it needs at least one CERTIFICATE block")?;
    let names = names_and_dates(leaf)?;
    // What the parser says of a broken key might quote it.
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|_| "the key is not an unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)")?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key does not belong to the certificate".to_owned()
        }
        error => format!("the certificate or its key cannot be used: {error}"),
    })?;
    Ok((key, names))
}

fn names_and_dates(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let broken =
        |error: &dyn std::fmt::Display| format!("the first certificate cannot be read ({error})");
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| broken(&error))?;
    let subject = leaf.subject();
    let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if validity.not_after.timestamp() < now {
        return Err(format!(
            "{subject} expired on {}, renew it",
            validity.not_after
        ));
    }
    if validity.not_before.timestamp() > now {
        return Err(format!(
            "{subject} is not valid before {}, check the machine's clock",
            validity.not_before
        ));
    }
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| broken(&error))?;
    let dns_name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Ok(names.map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .filter_map(dns_name)
            .collect()
    }))
}
