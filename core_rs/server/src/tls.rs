//! TLS: an immutable snapshot that handshakes read and a reload swaps whole.
//!
//! A new set is validated first (`validate`: chain, key, dates, names; `canary`: a handshake against
//! itself) and refused with the reason while the old one serves. TLS 1.2 and 1.3 only, or 1.3 alone; no
//! ALPN, since none is registered for submission. `names` chooses the certificate, `tickets` keeps
//! resumption apart where it must be, `client` knows whose certificates we take, `suites` which cipher.

mod canary;
mod client;
mod names;
mod suites;
mod tickets;
mod validate;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use smtp_proxy_proto::ClientCertificate;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use self::names::Names;
use self::suites::Ordered;
use self::tickets::Tickets;
use crate::listener::Port;
use crate::stream::Io;
use crate::{CertificatePem, ClientAuth, ClientTrust, Error, TlsOptions};

/// What all handshakes use.
pub(crate) struct Tls {
    current: ArcSwap<Snapshot>,
    provider: Arc<CryptoProvider>,
    options: TlsOptions,
    /// Kept over reloads, so that they cost nobody a full handshake. The lock makes reloads take turns.
    tickets: Mutex<Tickets>,
}

/// One per listener, since a ticket of the one is none at the other.
struct Snapshot {
    starttls: Ordered,
    implicit: Ordered,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// The client shows no certificate where one is needed, or one that is no longer good.
pub(crate) struct NotTrusted;

impl Tls {
    pub(crate) fn new(
        certificates: &[CertificatePem],
        trust: &ClientTrust,
        options: TlsOptions,
    ) -> Result<Self, Error> {
        let provider = Arc::new(suites::fastest_first(ring::default_provider()));
        let tickets = Tickets::new(options.ticket_lifetime, trust)?;
        let snapshot = snapshot(certificates, trust, &options, &provider, &tickets)?;
        Ok(Self {
            current: ArcSwap::from_pointee(snapshot),
            provider,
            options,
            tickets: Mutex::new(tickets),
        })
    }

    /// Handshakes from now on use these; connections that stand are not touched.
    pub(crate) fn reload(
        &self,
        certificates: &[CertificatePem],
        trust: &ClientTrust,
    ) -> Result<(), Error> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let next = tickets.under(trust)?;
        let snapshot = snapshot(certificates, trust, &self.options, &self.provider, &next)?;
        *tickets = next;
        self.current.store(Arc::new(snapshot));
        Ok(())
    }

    /// A handshake. `words` go with it: at TLS 1.3 in the server's own part, before the client's last
    /// one, so that a client has its greeting one round trip earlier. Whoever asks for certificates has
    /// none to give: it would tell them to somebody who has not shown one.
    pub(crate) async fn accept<S: Io>(
        &self,
        port: Port,
        io: S,
        words: &[u8],
    ) -> std::io::Result<TlsStream<S>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let config = {
            let current = self.current.load();
            match port {
                Port::Tls => current.implicit.for_client(&hello.client_hello()),
                Port::StartTls | Port::Plaintext => {
                    current.starttls.for_client(&hello.client_hello())
                }
            }
        };
        let mut queued = Ok(());
        let handshake = hello.into_stream_with(config, |connection| {
            queued = connection.writer().write_all(words);
        });
        queued?;
        handshake.await
    }

    /// Are clients asked for certificates?
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.options.client_auth.is_asked_for()
    }

    /// Whom the client has proved to be, if it showed a certificate. A ticket brings back what was
    /// verified when it was issued, so that is looked at again: by now it may have expired.
    pub(crate) fn client(
        &self,
        connection: &ServerConnection,
    ) -> Result<Option<Arc<ClientCertificate>>, NotTrusted> {
        let current = self.current.load();
        let Some(verifier) = &current.clients else {
            return Ok(None);
        };
        client::shown(connection, verifier.as_ref())
    }
}

fn snapshot(
    certificates: &[CertificatePem],
    trust: &ClientTrust,
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    tickets: &Tickets,
) -> Result<Snapshot, Error> {
    let versions: &[&SupportedProtocolVersion] = if options.tls13_only {
        &[&TLS13]
    } else {
        &[&TLS13, &TLS12]
    };
    let names = Arc::new(Names::read(certificates, versions, provider)?);
    let clients = client::verifier(options.client_auth, trust, provider)?;
    let config = |port| -> Result<Ordered, Error> {
        let verifier = clients
            .clone()
            .unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(system)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&names) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets.of(port);
        // Mail clients open one connection after another rather than several at once.
        config.send_tls13_tickets = usize::from(config.ticketer.enabled());
        // What `accept` is given is a greeting, which everybody may read. rustls itself sends nothing
        // early where it asks for a certificate.
        config.send_half_rtt_data = true;
        Ok(Ordered::new(config))
    };
    Ok(Snapshot {
        starttls: config(Port::StartTls)?,
        implicit: config(Port::Tls)?,
        clients,
    })
}

fn system(error: rustls::Error) -> Error {
    Error::System(std::io::Error::other(error))
}

impl ClientAuth {
    fn is_asked_for(self) -> bool {
        self != Self::None
    }
}
