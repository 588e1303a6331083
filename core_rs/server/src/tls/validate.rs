//! Whether a certificate can serve, before it does: its chain, key, dates and names.

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CertificatePem;
use crate::id::since_epoch;

/// Chain and key as rustls wants them, and the DNS names in lower case; or what is wrong.
pub(super) fn certified(
    pem: &CertificatePem,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Vec<String>), String> {
    let chain = CertificateDer::pem_slice_iter(&pem.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the chain is not PEM ({error})"))?;
    let names = check_chain(&chain)?;
    // What the parser says of a broken key might quote it.
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|_| "the key is not an unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)")?;
    let mut key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key does not belong to the certificate".to_owned()
        }
        error => format!("the certificate or its key cannot be used: {error}"),
    })?;
    key.ocsp = Some(pem.ocsp.clone()).filter(|response| !response.is_empty());
    Ok((key, names))
}

/// The names that the leaf serves.
fn check_chain(chain: &[CertificateDer<'_>]) -> Result<Vec<String>, String> {
    let chain = chain
        .iter()
        .enumerate()
        .map(|(at, der)| match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Ok(certificate),
            Err(error) => Err(format!("certificate {} cannot be read ({error})", at + 1)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let leaf = chain
        .first()
        .ok_or("the chain has no certificate in it, it needs at least one CERTIFICATE block")?;
    for certificate in &chain {
        check_dates(certificate)?;
    }
    if leaf.is_ca() {
        return Err(format!(
            "{} is a CA's certificate; the server's own comes first in the chain",
            leaf.subject()
        ));
    }
    for (at, pair) in chain.windows(2).enumerate() {
        if let [certificate, issuer] = pair {
            check_issued(certificate, issuer, at + 1)?;
        }
    }
    served_names(leaf)
}

fn check_dates(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let subject = certificate.subject();
    let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
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
    Ok(())
}

/// RFC 5246 7.4.2: each certificate must directly certify the one before it.
fn check_issued(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    number: usize,
) -> Result<(), String> {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(format!(
            "the chain is out of order: certificate {} ({}) is not the issuer of certificate {number} ({}), which is {}",
            number + 1,
            issuer.subject(),
            certificate.subject(),
            certificate.issuer(),
        ));
    }
    match certificate.verify_signature(Some(issuer.public_key())) {
        // Rare algorithms that we cannot compute; the client may.
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => Ok(()),
        Err(_) => Err(format!(
            "the signature of certificate {number} ({}) is not by certificate {} ({})",
            certificate.subject(),
            number + 1,
            issuer.subject(),
        )),
    }
}

/// RFC 6125 6.4.4: the subject's common name has long ceased to count.
fn served_names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| format!("the first certificate cannot be read ({error})"))?;
    let names = names
        .as_ref()
        .map_or(&[][..], |names| &names.value.general_names);
    let is_served = |name: &GeneralName<'_>| {
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
    };
    if !names.iter().any(is_served) {
        return Err(format!(
            "{} has no name in its subjectAltName, so no client could accept it",
            leaf.subject()
        ));
    }
    let dns_name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Ok(names.iter().filter_map(dns_name).collect())
}
