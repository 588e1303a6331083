//! Session tickets: stateless, and good only where they were issued.
//!
//! RFC 6066 3: a session must not be resumed under another server name. rustls writes the name into
//! the ticket and compares it (TLS 1.2 and 1.3 alike), so that needs no key of its own. What it does not
//! write are the listener and the rules for client certificates: these have keys of their own here, and
//! with new rules new keys begin, so that an old ticket does not carry a client past them.

use std::sync::Arc;
use std::time::Duration;

use rustls::TicketRotator;
use rustls::crypto::ring::Ticketer;
use rustls::server::ProducesTickets;

use super::system;
use crate::listener::Port;
use crate::{ClientTrust, Error};

/// The keys of each listener under one set of rules for client certificates.
#[derive(Debug, Clone)]
pub(super) struct Tickets {
    starttls: Arc<dyn ProducesTickets>,
    implicit: Arc<dyn ProducesTickets>,
    lifetime: Duration,
    trust: ClientTrust,
}

impl Tickets {
    pub(super) fn new(lifetime: Duration, trust: &ClientTrust) -> Result<Self, Error> {
        Ok(Self {
            starttls: ticketer(lifetime)?,
            implicit: ticketer(lifetime)?,
            lifetime,
            trust: trust.clone(),
        })
    }

    /// The same under the same rules, else new ones.
    pub(super) fn under(&self, trust: &ClientTrust) -> Result<Self, Error> {
        if self.trust == *trust {
            Ok(self.clone())
        } else {
            Self::new(self.lifetime, trust)
        }
    }

    pub(super) fn of(&self, port: Port) -> Arc<dyn ProducesTickets> {
        Arc::clone(match port {
            Port::Tls => &self.implicit,
            Port::StartTls | Port::Plaintext => &self.starttls,
        })
    }
}

/// A key issues tickets for half of the lifetime and opens them for the other half.
fn ticketer(lifetime: Duration) -> Result<Arc<dyn ProducesTickets>, Error> {
    if lifetime.is_zero() {
        return Ok(Arc::new(NoTickets));
    }
    let half = u32::try_from(lifetime.as_secs().div_ceil(2)).unwrap_or(u32::MAX);
    let rotator = TicketRotator::new(half, || match Ticketer::new() {
        Ok(key) => Ok(Box::new(Key(key))),
        Err(_) => Err(rustls::crypto::GetRandomFailed),
    });
    Ok(Arc::new(rotator.map_err(system)?))
}

/// rustls shares its ticketers, but wants to own those that it rotates.
#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_ticket_is_opened_for_its_lifetime_by_the_keys_that_made_it() {
        let trust = ClientTrust::default();
        let tickets = Tickets::new(Duration::from_secs(2), &trust).unwrap();
        let ticket = tickets.of(Port::Tls).encrypt(b"a session").unwrap();
        let opened = |by: &Tickets, port| by.of(port).decrypt(&ticket);
        assert_eq!(tickets.of(Port::Tls).lifetime(), 2);
        assert_eq!(opened(&tickets, Port::Tls).unwrap(), b"a session");
        assert_eq!(opened(&tickets, Port::StartTls), None);
        let same = tickets.under(&trust).unwrap();
        assert_eq!(opened(&same, Port::Tls).unwrap(), b"a session");
        let other = ClientTrust {
            crl: b"another list".to_vec(),
            ..trust
        };
        assert_eq!(opened(&tickets.under(&other).unwrap(), Port::Tls), None);
        // The key turns when it is used, and opens for one more half.
        for _ in 0..3 {
            sleep(Duration::from_millis(2100));
            let _ = tickets.of(Port::Tls).encrypt(b"another");
        }
        assert_eq!(opened(&tickets, Port::Tls), None);
    }
}
