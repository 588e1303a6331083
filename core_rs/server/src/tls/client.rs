//! Client certificates: whose we take, and what they say.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use smtp_proxy_proto::ClientCertificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::NotTrusted;
use crate::{ClientAuth, ClientTrust, Error};

/// `None`: no certificate is asked for. With CRLs every CA on the way needs one, and one that is past its
/// next update counts no longer: not to know is not to trust.
pub(super) fn verifier(
    auth: ClientAuth,
    trust: &ClientTrust,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if !auth.is_asked_for() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for der in pem_objects::<CertificateDer<'_>>("client_ca", &trust.ca)? {
        roots.add(der).map_err(|error| {
            bad(
                "client_ca",
                &format!("a certificate cannot be used: {error}"),
            )
        })?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !trust.crl.is_empty() {
        let lists = pem_objects::<CertificateRevocationListDer<'_>>("client_crl", &trust.crl)?;
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    match builder.build() {
        Ok(verifier) => Ok(Some(verifier)),
        Err(error) => Err(bad("client_crl", &format!("cannot be used: {error}"))),
    }
}

fn pem_objects<T: PemObject>(name: &'static str, pem: &[u8]) -> Result<Vec<T>, Error> {
    let found = T::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(name, &format!("is not PEM ({error})")))?;
    if found.is_empty() {
        return Err(bad(name, "has no PEM block of its kind in it"));
    }
    Ok(found)
}

fn bad(name: &'static str, problem: &str) -> Error {
    Error::Setting {
        name,
        problem: problem.to_owned(),
    }
}

/// What the client has shown; see `Tls::client`.
pub(super) fn shown(
    connection: &ServerConnection,
    verifier: &dyn ClientCertVerifier,
) -> Result<Option<Arc<ClientCertificate>>, NotTrusted> {
    let Some((leaf, intermediates)) = connection.peer_certificates().and_then(<[_]>::split_first)
    else {
        return if verifier.client_auth_mandatory() {
            Err(NotTrusted)
        } else {
            Ok(None)
        };
    };
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|_| NotTrusted)?;
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, leaf).as_ref());
    Ok(Some(Arc::new(ClientCertificate {
        fingerprint,
        names: names(leaf),
    })))
}

/// RFC 6125 6.4.4: the common name counts where there is no subjectAltName.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Vec::new(); // Not reached: it was verified.
    };
    let alternative: Vec<String> = match leaf.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
        _ => leaf
            .subject()
            .iter_common_name()
            .filter_map(|name| Some(format!("cn:{}", name.as_str().ok()?)))
            .collect(),
    };
    alternative
        .into_iter()
        .filter(|name| !name.contains(char::is_control))
        .collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
        // RFC 5321 2.4: the local part may have a case, the domain has none.
        GeneralName::RFC822Name(address) => {
            let (local, domain) = address.rsplit_once('@')?;
            Some(format!("email:{local}@{}", domain.to_ascii_lowercase()))
        }
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            let v6 = <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string());
            Some(format!("ip:{}", v4.or(v6).ok()?))
        }
        _ => None,
    }
}
