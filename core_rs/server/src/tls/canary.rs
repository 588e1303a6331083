//! A handshake of a certificate with itself, in memory: what no reading of it can tell is whether its
//! key signs what a client then accepts.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Once for each version that is served; or what went wrong.
pub(super) fn shake_hands(
    key: &Arc<CertifiedKey>,
    names: &[String],
    versions: &[&'static SupportedProtocolVersion],
    provider: &Arc<CryptoProvider>,
) -> Result<(), String> {
    let name = names.first().map_or("canary.invalid", String::as_str);
    let name = name.replacen('*', "canary", 1);
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("{name:?} cannot be a server's name"))?;
    for version in versions {
        shake_hands_in(version, key, name.clone(), provider).map_err(|error| {
            format!("a trial handshake in {:?} failed: {error}", version.version)
        })?;
    }
    Ok(())
}

fn shake_hands_in(
    version: &'static SupportedProtocolVersion,
    key: &Arc<CertifiedKey>,
    name: ServerName<'static>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), Error> {
    let server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[version])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Only(Arc::clone(key))));
    let client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Expects {
            chain: key.cert.clone(),
            provider: Arc::clone(provider),
        }))
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), name)?.into();
    let mut server = ServerConnection::new(Arc::new(server))?.into();
    while is_under_way(&client) || is_under_way(&server) {
        if pass(&mut client, &mut server)? + pass(&mut server, &mut client)? == 0 {
            return Err(Error::HandshakeNotComplete);
        }
    }
    Ok(())
}

fn is_under_way(connection: &Connection) -> bool {
    connection.is_handshaking() || connection.wants_write()
}

/// Hands on what the one has to say; bytes.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<usize, Error> {
    let general = |error: std::io::Error| Error::General(error.to_string());
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).map_err(general)?;
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(general)?;
        to.process_new_packets()?;
    }
    Ok(wire.len())
}

/// Shows this one, whatever the name: another may have the name already.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Trusts just this chain, and still checks what the key has signed.
#[derive(Debug)]
struct Expects {
    chain: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Expects {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

// What is alike in both versions is the trait's own signature.
impl ServerCertVerifier for Expects {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if std::iter::once(leaf)
            .chain(intermediates)
            .eq(self.chain.iter())
        {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another chain was shown".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}
