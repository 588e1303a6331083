//! Logins that whoever verifies lets the core answer by itself for a while: a client that opens a
//! connection per message comes back with the same password again and again.
//!
//! Only good ones are kept, under a keyed hash of username and password whose key lives and dies with
//! this process: the memory holds nothing that can be tried elsewhere. A wrong password, and the right
//! one from where it may not be used, go the usual way, which takes the same time for all of them. How
//! long each may be kept is said by whoever verified it; all go at once when it says that something
//! changed, together with those whose verdict is still under way.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::hmac;
use ring::rand::SystemRandom;
use smtp_proxy_proto::{Identity, LoginRequest, Proof};
use tokio::time::Instant;

use crate::Error;
use crate::protection::Network;
use crate::table::{Entry, Table};

/// As many as are remembered where they are verified; some 300 bytes each.
const KNOWN: usize = 20_000;

/// How long the core may answer a login by itself, and from where; without networks from everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Not longer than the verdict itself would be believed.
    pub duration: Duration,
    /// Those of the credential.
    pub networks: Vec<Network>,
}

/// Which login; of no use without the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u128);

/// Which of the times between two changes; see [`KnownLogins::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

#[derive(Debug, Default)]
struct Kept(Option<Known>);

#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    networks: Box<[Network]>,
    until: Instant,
}

impl Entry for Kept {
    fn must_stay(&self, _: Instant) -> bool {
        false
    }
}

impl Known {
    fn admits(&self, address: &str) -> bool {
        self.networks.is_empty()
            || address.parse::<IpAddr>().is_ok_and(|address| {
                let within = |network: &Network| network.contains(address);
                self.networks.iter().any(within)
            })
    }
}

/// See the module.
pub(crate) struct KnownLogins {
    key: hmac::Key,
    inner: Mutex<Inner>,
}

struct Inner {
    table: Table<Kept>,
    generation: u64,
}

impl KnownLogins {
    /// Error: the system has no randomness.
    pub(crate) fn new() -> Result<Arc<Self>, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| Error::System(std::io::Error::other("no random numbers")))?;
        let inner = Inner {
            table: Table::new(KNOWN),
            generation: 0,
        };
        Ok(Arc::new(Self {
            key,
            inner: Mutex::new(inner),
        }))
    }

    /// Who it is, if that is known and may come from there.
    pub(crate) fn look(&self, request: &LoginRequest, address: &str) -> Option<Arc<Identity>> {
        let Digest(digest) = self.digest(request)?;
        let mut inner = self.lock();
        let known = inner.table.known(digest)?.0.as_ref()?;
        (Instant::now() < known.until && known.admits(address)).then(|| Arc::clone(&known.identity))
    }

    /// `None` for what is no password: certificates are looked at each time.
    pub(crate) fn digest(&self, request: &LoginRequest) -> Option<Digest> {
        let Proof::Password(password) = &request.proof else {
            return None;
        };
        let mut mac = hmac::Context::with_key(&self.key);
        // The length keeps `a` + `bc` and `ab` + `c` apart.
        mac.update(&request.username.len().to_be_bytes());
        mac.update(request.username.as_bytes());
        mac.update(password.expose_bytes());
        let tag = mac.sign();
        // RFC 2104 5: half of it is as good.
        let half = tag.as_ref().first_chunk().copied()?;
        Some(Digest(u128::from_be_bytes(half)))
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation(self.lock().generation)
    }

    /// Unless something has changed since `generation`, when this began to be verified.
    pub(crate) fn remember(
        &self,
        Digest(digest): Digest,
        generation: Generation,
        identity: &Arc<Identity>,
        keep: Keep,
    ) {
        let now = Instant::now();
        let Some(until) = now.checked_add(keep.duration) else {
            return;
        };
        let mut inner = self.lock();
        if Generation(inner.generation) != generation {
            return;
        }
        if let Some(kept) = inner.table.entry(digest, now) {
            kept.0 = Some(Known {
                identity: Arc::clone(identity),
                networks: keep.networks.into(),
                until,
            });
        }
    }

    /// All of them, and those that are being verified now.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.table = Table::new(KNOWN);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use smtp_proxy_proto::{Mechanism, Secret, Senders};
    use tokio::time::advance;

    use super::*;

    const HERE: &str = "192.0.2.1";

    fn request(username: &str, password: &str) -> LoginRequest {
        LoginRequest {
            username: username.to_owned(),
            proof: Proof::Password(Secret::new(password)),
            mechanism: Mechanism::Plain,
        }
    }

    fn somebody() -> Arc<Identity> {
        Arc::new(Identity {
            tenant_id: [1; 16],
            credential_id: [2; 16],
            username: "app".to_owned(),
            senders: Senders::default(),
        })
    }

    fn keep(seconds: u64, networks: &[&str]) -> Keep {
        let networks = networks.iter().map(|text| Network::read(text).unwrap());
        Keep {
            duration: Duration::from_secs(seconds),
            networks: networks.collect(),
        }
    }

    fn remember(known: &KnownLogins, request: &LoginRequest, keep: Keep) {
        let digest = known.digest(request).unwrap();
        known.remember(digest, known.generation(), &somebody(), keep);
    }

    #[tokio::test(start_paused = true)]
    async fn only_just_this_login_is_known_and_not_for_ever() {
        let known = KnownLogins::new().unwrap();
        let app = request("app", "secret");
        assert!(known.look(&app, HERE).is_none());
        remember(&known, &app, keep(60, &[]));
        assert!(known.look(&app, HERE).is_some());
        for (username, password) in [
            ("app", "Secret"),
            ("ap", "psecret"),
            ("App", "secret"),
            ("", ""),
        ] {
            assert!(known.look(&request(username, password), HERE).is_none());
        }
        advance(Duration::from_secs(60)).await;
        assert!(known.look(&app, HERE).is_none());
    }

    #[test]
    fn from_elsewhere_it_is_not_known() {
        let known = KnownLogins::new().unwrap();
        let app = request("app", "secret");
        remember(&known, &app, keep(60, &["192.0.2.0/24", "2001:db8::/32"]));
        for (address, there) in [
            (HERE, true),
            ("2001:db8::7", true),
            ("198.51.100.1", false),
            ("", false),
        ] {
            assert_eq!(known.look(&app, address).is_some(), there, "{address}");
        }
    }

    #[test]
    fn what_changed_meanwhile_is_not_remembered() {
        let known = KnownLogins::new().unwrap();
        let app = request("app", "secret");
        remember(&known, &app, keep(60, &[]));
        let (digest, began) = (known.digest(&app).unwrap(), known.generation());
        known.forget();
        assert!(known.look(&app, HERE).is_none());
        known.remember(digest, began, &somebody(), keep(60, &[]));
        assert!(known.look(&app, HERE).is_none());
    }

    #[test]
    fn a_flood_takes_bounded_memory() {
        let known = KnownLogins::new().unwrap();
        for number in 0..KNOWN + 100 {
            remember(&known, &request("app", &number.to_string()), keep(60, &[]));
        }
        assert_eq!(known.lock().table.len(), KNOWN);
    }
}
