//! What is known of each client's address and of each username that logins fail for: who has too many
//! connections, who guesses passwords, who is banned.
//!
//! Known to this process alone, and forgotten with it: a fleet of n lets one address guess n times as
//! much. [`crate::Server::ban`] is there for whoever wants to share bans.
//!
//! Failures are measured by buckets that empty by themselves. An address's failures lead to delays and
//! at last to a ban. A username's lead to delays alone, and only of what fails: whoever knows the
//! password is never delayed, or anybody could lock a customer out by guessing at its name.
//!
//! A proxy that does not say for whom it speaks (a health check, or a client that it cannot name) counts
//! by its own address, apart from clients of that address: limited and delayed as they are, never banned.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Counter, Metrics};
use crate::protection::Protection;
use crate::table::{Bucket, Entry, Table};

/// Addresses and usernames that are known at least; some 150 bytes each. An address that is connected
/// is always among them, so there are more where there may be more connections.
const KNOWN: usize = 65_536;
/// A login that succeeds forgives a part of a failure: an office of which one device has an old
/// password is not banned, and whoever has a password of his own to log in with between his guesses
/// gains little.
const FORGIVEN: f64 = 0.1;
/// Failures that are forgiven within the window if none of them bans.
const FAILURES: u32 = 100;

/// Why a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Banned,
    TooMany,
    TooFast,
}

impl Refusal {
    pub(crate) fn counter(self, metrics: &Metrics) -> &Counter {
        match self {
            Self::Banned => &metrics.refused_banned_total,
            Self::TooMany => &metrics.refused_per_address_total,
            Self::TooFast => &metrics.refused_per_minute_total,
        }
    }
}

#[derive(Debug, Default)]
struct Client {
    connections: u32,
    new: Bucket,
    failures: Bucket,
    banned_until: Option<Instant>,
}

impl Client {
    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }
}

impl Entry for Client {
    fn must_stay(&self, now: Instant) -> bool {
        self.connections > 0 || self.is_banned(now)
    }
}

/// See the module.
pub(crate) struct Guard {
    pub(crate) protection: Protection,
    clients: Mutex<Table<Client>>,
    usernames: Mutex<Table<Bucket>>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
    /// Somebody was banned by order: then addresses count even if no limit wants them.
    has_orders: AtomicBool,
}

impl Guard {
    pub(crate) fn new(
        protection: Protection,
        max_connections: usize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            protection,
            clients: Mutex::new(Table::new(KNOWN.max(max_connections.saturating_mul(2)))),
            usernames: Mutex::new(Table::new(KNOWN)),
            hasher: RandomState::new(),
            metrics,
            has_orders: AtomicBool::new(false),
        })
    }

    /// May one more come from there?
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Visit, Refusal> {
        self.admit_as(Who::Client(self.protection.client(address)))
    }

    /// May one more come from this proxy that it does not name the client of?
    pub(crate) fn admit_unnamed(self: &Arc<Self>, proxy: IpAddr) -> Result<Visit, Refusal> {
        self.admit_as(Who::Proxy(self.protection.client(proxy)))
    }

    fn admit_as(self: &Arc<Self>, who: Who) -> Result<Visit, Refusal> {
        if !self.needs_addresses() {
            return Ok(self.uncounted(who));
        }
        let now = Instant::now();
        let mut clients = self.clients();
        let Some(known) = clients.entry(who.key(), now) else {
            return Ok(self.uncounted(who));
        };
        if known.is_banned(now) {
            return Err(Refusal::Banned);
        }
        let limit = self.protection.connections_per_address;
        if limit > 0 && known.connections >= limit {
            return Err(Refusal::TooMany);
        }
        let per_minute = f64::from(self.protection.connections_per_address_per_minute);
        if per_minute > 0.0 {
            if known.new.level(per_minute / 60.0, now) + 1.0 > per_minute {
                return Err(Refusal::TooFast);
            }
            known.new.add(1.0);
        }
        known.connections += 1;
        drop(clients);
        Ok(Visit {
            guard: Arc::clone(self),
            who,
            counts: true,
        })
    }

    /// One that no limit per address concerns.
    fn uncounted(self: &Arc<Self>, who: Who) -> Visit {
        Visit {
            guard: Arc::clone(self),
            who,
            counts: false,
        }
    }

    /// From now on for so long. False: there is no room to remember it.
    pub(crate) fn ban(&self, address: IpAddr, duration: Duration) -> bool {
        self.has_orders.store(true, Relaxed);
        let now = Instant::now();
        let mut clients = self.clients();
        let Some(known) = clients.entry(self.protection.client(address), now) else {
            return false;
        };
        known.banned_until = Some(now + duration);
        self.metrics.login_bans_total.one();
        true
    }

    /// Who is banned now, and for how long still; the first address of each IPv6 network.
    pub(crate) fn bans(&self) -> Vec<(IpAddr, Duration)> {
        let now = Instant::now();
        let banned = |(key, known): (u128, &Client)| {
            let left = known.banned_until?.checked_duration_since(now)?;
            (!left.is_zero()).then(|| (Ipv6Addr::from_bits(key).to_canonical(), left))
        };
        self.clients().iter().filter_map(banned).collect()
    }

    /// Ends its ban, and forgives its failures, or the next one would bring it back. False: it had none.
    pub(crate) fn lift_ban(&self, address: IpAddr) -> bool {
        let mut clients = self.clients();
        let Some(known) = clients.known(self.protection.client(address)) else {
            return false;
        };
        known.failures = Bucket::default();
        let until = known.banned_until.take();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Addresses that are known.
    pub(crate) fn len(&self) -> usize {
        self.clients().len()
    }

    fn needs_addresses(&self) -> bool {
        self.protection.needs_addresses() || self.has_orders.load(Relaxed)
    }

    fn failure_of_address(&self, who: Who, now: Instant) -> f64 {
        let mut clients = self.clients();
        let Some(known) = clients.entry(who.key(), now) else {
            return 0.0;
        };
        let failures = known.failures.level(self.forgiven_per_second(), now) + 1.0;
        known.failures.add(1.0);
        let limit = self.protection.login_failures_before_ban;
        let over = limit > 0 && failures > f64::from(limit);
        if over && who.may_be_banned() && !known.is_banned(now) {
            known.banned_until = Some(now + self.protection.login_ban);
            self.metrics.login_bans_total.one();
        }
        failures
    }

    fn failure_of_claimed(&self, claimed: &str, now: Instant) -> f64 {
        let mut usernames = self
            .usernames
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(known) = usernames.entry(self.hasher.hash_one(claimed).into(), now) else {
            return 0.0;
        };
        let failures = known.level(self.forgiven_per_second(), now) + 1.0;
        known.add(1.0);
        failures
    }

    fn forgiven_per_second(&self) -> f64 {
        let failures = match self.protection.login_failures_before_ban {
            0 => FAILURES,
            failures => failures,
        };
        // A window of 0 forgives at once, and then there is nothing to delay or to ban for.
        f64::from(failures)
            / self
                .protection
                .login_failures_window
                .as_secs_f64()
                .max(1e-3)
    }

    /// Of that many failures.
    fn delay(&self, failures: f64) -> Duration {
        let doublings = (failures.ceil() - 1.0).clamp(0.0, 30.0);
        let delay = self.protection.login_delay.as_secs_f64() * doublings.exp2();
        Duration::from_secs_f64(delay.min(self.protection.login_delay_max.as_secs_f64()))
    }

    fn clients(&self) -> MutexGuard<'_, Table<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Client(u128),
    /// One that did not say who its client is.
    Proxy(u128),
}

impl Who {
    /// In the table of clients. The complement of an address is none that TCP speaks with: of IPv4 (within IPv6) it
    /// is multicast (`ff00::/8`), of global unicast (`2000::/3`) it is reserved (`c000::/3`; RFC 4291 2.4).
    fn key(self) -> u128 {
        match self {
            Self::Client(address) => address,
            Self::Proxy(address) => !address,
        }
    }

    /// A ban of a proxy would end the service for all its clients: its health checks would fail.
    fn may_be_banned(self) -> bool {
        matches!(self, Self::Client(_))
    }
}

/// One connection's part in what is known of its address. Gone with it.
pub(crate) struct Visit {
    guard: Arc<Guard>,
    who: Who,
    /// False: there is no limit, or no room to know it.
    counts: bool,
}

impl Visit {
    /// It came by a proxy that did not say who the client is.
    pub(crate) fn is_of_proxy(&self) -> bool {
        matches!(self.who, Who::Proxy(_))
    }

    /// For how long the client waits for its 535. `claimed`: the username, or what else it claimed to be.
    pub(crate) fn login_failed(&self, claimed: &str) -> Duration {
        if !self.guard.protection.needs_failures() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let of_address = if self.counts {
            self.guard.failure_of_address(self.who, now)
        } else {
            0.0
        };
        let of_claimed = self.guard.failure_of_claimed(claimed, now);
        self.guard.delay(of_address.max(of_claimed))
    }

    pub(crate) fn login_succeeded(&self) {
        if self.counts && self.guard.protection.needs_failures() {
            let forgiven = self.guard.forgiven_per_second();
            if let Some(known) = self.guard.clients().known(self.who.key()) {
                known.failures.level(forgiven, Instant::now());
                known.failures.add(-FORGIVEN);
            }
        }
    }

    pub(crate) fn is_banned(&self) -> bool {
        if !self.guard.needs_addresses() || !self.who.may_be_banned() {
            return false;
        }
        let mut clients = self.guard.clients();
        clients
            .known(self.who.key())
            .is_some_and(|known| known.is_banned(Instant::now()))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.counts {
            if let Some(known) = self.guard.clients().known(self.who.key()) {
                known.connections = known.connections.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
