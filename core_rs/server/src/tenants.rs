//! What each tenant has here at the moment: sessions, memory, and whether it may send.
//!
//! A session that has logged in holds its tenant's entry, so that a message looks nothing up. Who
//! has neither sessions nor a limit is forgotten, a while later.
//!
//! Sessions are counted per credential too, if they are limited: one leaked or runaway login is not to
//! take the place of all others, its own tenant's least of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::Holding;
use crate::fairness::TenantId;

/// From here on the map is looked through for what can be forgotten, each time it has doubled.
const FORGET_FROM: usize = 64;
const OPEN: u64 = 0;

/// A UUID.
type CredentialId = [u8; 16];

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    sessions: AtomicUsize,
    max_sessions: AtomicUsize,
    /// Milliseconds after `began` until which MAIL is refused.
    shut_until_ms: AtomicU64,
    began: Instant,
    pub(crate) holding: Arc<Holding>,
}

impl Tenant {
    fn new(id: TenantId, began: Instant) -> Self {
        Self {
            id,
            sessions: AtomicUsize::new(0),
            max_sessions: AtomicUsize::new(usize::MAX),
            shut_until_ms: AtomicU64::new(OPEN),
            began,
            holding: Arc::default(),
        }
    }

    /// Is it over its rate? One load, unless it is or was lately.
    pub(crate) fn is_shut(&self) -> bool {
        let until = self.shut_until_ms.load(Relaxed);
        if until == OPEN {
            return false;
        }
        if milliseconds(self.began.elapsed()) < until {
            return true;
        }
        let _ = self
            .shut_until_ms
            .compare_exchange(until, OPEN, Relaxed, Relaxed);
        false
    }

    fn shut(&self, duration: Duration) {
        let until = if duration.is_zero() {
            OPEN
        } else {
            milliseconds(self.began.elapsed() + duration).max(1)
        };
        self.shut_until_ms.store(until, Relaxed);
    }

    fn is_worth_keeping(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
            || self.max_sessions.load(Relaxed) != usize::MAX
            || self.is_shut()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// All that are known.
#[derive(Debug)]
pub(crate) struct Tenants {
    map: Mutex<Map>,
    /// Sessions at once; zero: any number, and they are not counted.
    max_per_credential: usize,
    began: Instant,
}

#[derive(Debug)]
struct Map {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    forget_at: usize,
    /// Held once here and once by each session.
    credentials: HashMap<CredentialId, Arc<()>>,
    forget_credentials_at: usize,
}

impl Map {
    /// A seat of this credential, unless all are taken.
    fn seat(&mut self, id: CredentialId, most: usize) -> Option<Arc<()>> {
        if self.credentials.len() >= self.forget_credentials_at
            && !self.credentials.contains_key(&id)
        {
            self.credentials
                .retain(|_, seats| Arc::strong_count(seats) > 1);
            self.forget_credentials_at = FORGET_FROM.max(2 * self.credentials.len());
        }
        let seats = self.credentials.entry(id).or_default();
        (Arc::strong_count(seats) <= most).then(|| Arc::clone(seats))
    }
}

impl Tenants {
    /// `max_per_credential`: sessions at once, zero: any number.
    pub(crate) fn new(max_per_credential: usize) -> Self {
        Self {
            map: Mutex::new(Map {
                tenants: HashMap::new(),
                forget_at: FORGET_FROM,
                credentials: HashMap::new(),
                forget_credentials_at: FORGET_FROM,
            }),
            max_per_credential,
            began: Instant::now(),
        }
    }

    /// One more session. `None`: the tenant or the credential has as many as it may.
    pub(crate) fn admit(&self, id: TenantId, credential: CredentialId) -> Option<Membership> {
        let mut map = self.lock();
        // Counted under the lock, so that two do not take the last seat.
        let seat = match self.max_per_credential {
            0 => None,
            most => Some(map.seat(credential, most)?),
        };
        let tenant = self.entry(&mut map, id);
        let free = tenant.sessions.load(Relaxed) < tenant.max_sessions.load(Relaxed);
        free.then(|| Membership::new(Arc::clone(tenant), seat))
    }

    /// One more session, whatever the limit: of the listener whose identity is preset.
    pub(crate) fn join(&self, id: TenantId) -> Membership {
        let mut map = self.lock();
        Membership::new(Arc::clone(self.entry(&mut map, id)), None)
    }

    /// MAIL of this tenant is refused for so long; zero: no longer.
    pub(crate) fn shut(&self, id: TenantId, duration: Duration) {
        let mut map = self.lock();
        self.entry(&mut map, id).shut(duration);
    }

    /// So many sessions these may have here; all others any number.
    pub(crate) fn limit_sessions(&self, limits: &[(TenantId, usize)]) {
        let mut map = self.lock();
        for tenant in map.tenants.values() {
            tenant.max_sessions.store(usize::MAX, Relaxed);
        }
        for (id, most) in limits {
            self.entry(&mut map, *id).max_sessions.store(*most, Relaxed);
        }
    }

    /// How many sessions each has that has any.
    pub(crate) fn sessions(&self) -> Vec<(TenantId, usize)> {
        let map = self.lock();
        let counted = map
            .tenants
            .values()
            .map(|tenant| (tenant.id, tenant.sessions.load(Relaxed)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    fn entry<'a>(&self, map: &'a mut Map, id: TenantId) -> &'a Arc<Tenant> {
        if map.tenants.len() >= map.forget_at && !map.tenants.contains_key(&id) {
            map.tenants.retain(|_, tenant| tenant.is_worth_keeping());
            map.forget_at = FORGET_FROM.max(2 * map.tenants.len());
        }
        map.tenants
            .entry(id)
            .or_insert_with(|| Arc::new(Tenant::new(id, self.began)))
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's tenant, and its seat among its credential's; counted while it lives.
#[derive(Debug)]
pub(crate) struct Membership {
    tenant: Arc<Tenant>,
    _seat: Option<Arc<()>>,
}

impl Membership {
    fn new(tenant: Arc<Tenant>, seat: Option<Arc<()>>) -> Self {
        tenant.sessions.fetch_add(1, Relaxed);
        Self {
            tenant,
            _seat: seat,
        }
    }

    pub(crate) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.tenant.sessions.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantId = [1; 16];
    const B: TenantId = [2; 16];
    const LOGIN: CredentialId = [3; 16];

    #[test]
    fn sessions_are_counted_and_limited_by_tenant() {
        let tenants = Tenants::new(0);
        tenants.limit_sessions(&[(A, 2)]);
        let (one, two) = (tenants.admit(A, LOGIN), tenants.admit(A, LOGIN));
        assert!(one.is_some() && two.is_some() && tenants.admit(A, LOGIN).is_none());
        let other = tenants.admit(B, LOGIN);
        let mut sessions = tenants.sessions();
        sessions.sort_unstable();
        assert_eq!(sessions, [(A, 2), (B, 1)]);
        drop(one);
        let three = tenants.admit(A, LOGIN);
        assert!(three.is_some() && tenants.admit(A, LOGIN).is_none());
        tenants.limit_sessions(&[]);
        let many: Vec<_> = (0..10).map(|_| tenants.admit(A, LOGIN)).collect();
        assert!(many.iter().all(Option::is_some), "the limit was lifted");
        drop((two, three, other, many));
        assert_eq!(tenants.sessions(), []);
    }

    #[test]
    fn a_limit_below_what_is_there_sends_nobody_away() {
        let tenants = Tenants::new(0);
        let held: Vec<_> = (0..3).map(|_| tenants.admit(A, LOGIN)).collect();
        tenants.limit_sessions(&[(A, 1)]);
        assert!(tenants.admit(A, LOGIN).is_none());
        assert_eq!(tenants.sessions(), [(A, 3)]);
        let preset = tenants.join(A);
        assert_eq!(preset.tenant().sessions.load(Relaxed), 4);
        drop(held);
        assert!(
            tenants.admit(A, LOGIN).is_none(),
            "the preset one has the seat"
        );
    }

    #[test]
    fn sessions_are_limited_by_credential_too() {
        let tenants = Tenants::new(2);
        let other = [4; 16];
        let one = tenants.admit(A, LOGIN);
        let two = tenants.admit(A, LOGIN);
        assert!(one.is_some() && two.is_some() && tenants.admit(A, LOGIN).is_none());
        assert_eq!(
            tenants.sessions(),
            [(A, 2)],
            "who was refused is not counted"
        );
        assert!(tenants.admit(A, other).is_some(), "another of its tenant");
        drop(one);
        let three = tenants.admit(A, LOGIN);
        assert!(three.is_some() && tenants.admit(A, LOGIN).is_none());
        tenants.limit_sessions(&[(A, 2)]);
        assert!(tenants.admit(A, other).is_none(), "the tenant's limit");
        tenants.limit_sessions(&[]);
        let kept = [tenants.admit(A, other), tenants.admit(A, other)];
        assert!(kept.iter().all(Option::is_some), "it kept no seat");
        drop((two, three, kept));
        for n in 0..u8::MAX {
            drop(tenants.admit(A, [n; 16]));
        }
        assert!(tenants.lock().credentials.len() <= FORGET_FROM);
    }

    #[test]
    fn shut_is_for_a_while_and_for_one() {
        let tenants = Tenants::new(0);
        let (a, b) = (tenants.join(A), tenants.join(B));
        tenants.shut(A, Duration::from_secs(60));
        assert!(a.tenant().is_shut() && !b.tenant().is_shut());
        tenants.shut(A, Duration::ZERO);
        assert!(!a.tenant().is_shut());
        a.tenant().shut_until_ms.store(1, Relaxed);
        let past = Tenant {
            began: Instant::now()
                .checked_sub(Duration::from_secs(1))
                .unwrap_or_else(Instant::now),
            ..Tenant::new(A, Instant::now())
        };
        past.shut_until_ms.store(500, Relaxed);
        assert!(!past.is_shut());
        assert_eq!(past.shut_until_ms.load(Relaxed), OPEN, "looked at no more");
    }

    #[test]
    fn who_has_nothing_here_is_forgotten() {
        let tenants = Tenants::new(0);
        let id = |n: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            id
        };
        let stays = tenants.admit(id(0), id(0));
        tenants.limit_sessions(&[(id(1), 5)]);
        tenants.shut(id(2), Duration::from_secs(60));
        for n in 3..1000 {
            drop(tenants.admit(id(n), id(n)));
        }
        let map = tenants.lock();
        assert!(map.tenants.len() <= FORGET_FROM);
        assert!((0..3).all(|n| map.tenants.contains_key(&id(n))));
        drop((map, stays));
    }
}
