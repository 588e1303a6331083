//! The TLS side of a run, made once.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use tokio_rustls::TlsConnector;

use crate::{
    Error,
    plan::{Encryption, Plan, Trust},
};

/// What a handshake needs.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl Tls {
    /// `None` when the plan wants no encryption.
    pub(crate) fn of(plan: &Plan) -> Result<Option<Self>, Error> {
        let trust = match (plan.encryption, &plan.trust) {
            (Encryption::None, _) | (_, None) => return Ok(None),
            (_, Some(trust)) => trust,
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Certificates(error.to_string()))?;
        let mut config = match trust {
            Trust::CaFile(path) => builder.with_root_certificates(roots(path)?),
            Trust::Anything => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        }
        .with_no_client_auth();
        if !plan.tls_resumption {
            config.resumption = Resumption::disabled();
        }
        let name = plan.server_name.as_deref().unwrap_or_else(|| plan.host());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::Plan(format!("{name} is neither a host name nor an IP address")))?;
        Ok(Some(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        }))
    }
}

fn roots(path: &std::path::Path) -> Result<RootCertStore, Error> {
    let broken =
        |what: String| Error::Certificates(format!("--ca-file {}: {what}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| broken(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| broken(error.to_string()))?;
    }
    if roots.is_empty() {
        Err(broken("holds no certificate".to_owned()))
    } else {
        Ok(roots)
    }
}

/// Takes any certificate, but still checks that the server holds its key, so that a handshake costs the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Amount;

    #[test]
    fn a_ca_file_that_can_not_be_used_is_named() {
        let plan = Plan {
            encryption: Encryption::Implicit,
            trust: Some(Trust::CaFile("no/such/ca.pem".into())),
            ..Plan::new("localhost:465", Amount::Messages(1))
        };
        let error = Tls::of(&plan)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("no/such/ca.pem"), "{error}");
    }

    #[test]
    fn no_encryption_needs_nothing() {
        assert!(
            Tls::of(&Plan::new("localhost:25", Amount::Messages(1))).is_ok_and(|tls| tls.is_none())
        );
    }
}
