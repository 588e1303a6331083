//! A CA, a running server, and clients that keep their sessions.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use smtp_proxy_server::{Addresses, CertificatePem, ClientAuth, ClientTrust, Config, Server};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key, PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Issued {
    pub fn pem(&self) -> CertificatePem {
        CertificatePem {
            chain: self.chain.clone().into_bytes(),
            key: self.key.clone().into_bytes(),
            ..CertificatePem::default()
        }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::made(name, None)
    }

    /// One that this one has issued; its `pem` is what belongs into a chain.
    pub fn intermediate(&self, name: &str) -> Self {
        Self::made(name, Some(self))
    }

    fn made(name: &str, by: Option<&Self>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        Self {
            pem: certificate.unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list that revokes these serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes()
    }

    pub fn trust(&self) -> ClientTrust {
        ClientTrust {
            ca: self.pem.clone().into_bytes(),
            crl: Vec::new(),
        }
    }
}

/// A server with both listeners on free ports.
pub struct Running {
    pub server: Server,
    pub addresses: Addresses,
}

pub fn start(certificates: Vec<CertificatePem>, change: impl FnOnce(&mut Config)) -> Running {
    let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config {
        starttls: Some(here),
        tls: Some(here),
        certificates,
        threads: 1,
        ..Config::default()
    };
    change(&mut config);
    let server = Server::new(&config).unwrap();
    let addresses = server.start().unwrap();
    Running { server, addresses }
}

pub fn asking(auth: ClientAuth, clients: &Authority) -> impl FnOnce(&mut Config) {
    let trust = clients.trust();
    move |config| {
        config.tls_options.client_auth = auth;
        config.client_trust = trust;
    }
}

/// Keeps what it is given, over connections: a `ClientConfig` holds the tickets.
pub fn client(
    version: &'static SupportedProtocolVersion,
    server_ca: &Authority,
    own: Option<&Issued>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server_ca.pem.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.chain.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Door {
    StartTls,
    Tls,
}

/// What came of a connection: how the handshake went, the leaf that was shown, and the EHLO reply.
pub struct Visit {
    pub kind: HandshakeKind,
    pub leaf: Vec<u8>,
    pub extensions: String,
}

impl Running {
    /// Connects, says EHLO under TLS, and leaves; or how it failed.
    pub fn visit(
        &self,
        door: Door,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> std::io::Result<Visit> {
        let name = ServerName::try_from(name).unwrap();
        let tls = ClientConnection::new(Arc::clone(client), name).unwrap();
        let address = match door {
            Door::Tls => self.addresses.tls.unwrap(),
            Door::StartTls => self.addresses.starttls.unwrap(),
        };
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        if matches!(door, Door::StartTls) {
            let mut reader = BufReader::new(socket.try_clone()?);
            reply(&mut reader)?;
            socket.write_all(b"EHLO client.example\r\n")?;
            reply(&mut reader)?;
            socket.write_all(b"STARTTLS\r\n")?;
            reply(&mut reader)?;
        }
        let mut stream = BufReader::new(StreamOwned::new(tls, socket));
        if matches!(door, Door::Tls) {
            reply(&mut stream)?;
        }
        stream.get_mut().write_all(b"EHLO client.example\r\n")?;
        let extensions = reply(&mut stream)?;
        stream.get_mut().write_all(b"QUIT\r\n")?;
        reply(&mut stream)?;
        let connection = &stream.get_ref().conn;
        Ok(Visit {
            kind: connection.handshake_kind().unwrap(),
            leaf: connection.peer_certificates().unwrap()[0].to_vec(),
            extensions,
        })
    }

    pub fn kind(
        &self,
        door: Door,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> HandshakeKind {
        self.visit(door, client, name).unwrap().kind
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.server.stats();
        stats.iter().find(|(known, _)| *known == name).unwrap().1
    }
}

fn reply(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut whole = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        whole.push_str(&line);
        if line.as_bytes().get(3) == Some(&b' ') {
            return Ok(whole);
        }
    }
}
