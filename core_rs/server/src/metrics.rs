//! Counters of what happened. Plain atomics; who wants them reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.many(1);
    }

    pub(crate) fn many(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All counters of a server.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics { $($(#[$doc])* pub(crate) $name: Counter,)* }

        impl Metrics {
            /// Name and value of each.
            pub(crate) fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.read()),)*]
            }
        }
    };
}

metrics! {
    /// Connections admitted.
    connections_total,
    /// Connections turned away because `max_connections` were there.
    refused_connections_total,
    /// Connections turned away by the gate.
    refused_busy_total,
    /// `accept()` failed, for want of descriptors as a rule.
    accept_errors_total,
    /// Messages committed and answered with 250.
    accepted_total,
    /// Messages answered with 451.
    deferred_total,
    /// Body bytes of the messages committed.
    accepted_bytes_total,
    /// Messages whose client was gone before the final dot.
    vanished_total,
    /// Sessions ended by a deadline.
    timeouts_total,
    /// Times a session had to wait for the memory budget.
    budget_waits_total,
    /// TLS handshakes that succeeded.
    tls_handshakes_total,
    /// TLS handshakes that resumed a session, among those that succeeded.
    tls_resumptions_total,
    /// TLS handshakes that failed.
    tls_failures_total,
    /// Certificates replaced while running.
    tls_reloads_total,
    /// Logins accepted.
    logins_total,
    /// Logins rejected.
    auth_failures_total,
    /// Logins that could not be checked.
    auth_unavailable_total,
    /// Connections turned away because their address had too many.
    refused_per_address_total,
    /// Connections turned away because their address opened too many in a minute.
    refused_per_minute_total,
    /// Connections turned away, and sessions ended, because their address is banned.
    refused_banned_total,
    /// Addresses banned for failed logins.
    login_bans_total,
    /// Failed logins whose answer was delayed.
    login_delays_total,
    /// Sessions ended because nobody logged in in time.
    login_timeouts_total,
    /// Sessions ended because a message came too slowly.
    slow_data_total,
    /// Connections whose PROXY header told who the client is.
    proxy_headers_total,
    /// Connections of a proxy for itself: closed without a word, or LOCAL.
    proxy_local_total,
    /// Connections of a proxy without a header in time.
    proxy_errors_total,
    /// Messages answered with 450 because their tenant was over its rate.
    over_rate_total,
    /// Good logins turned away because their tenant had as many sessions as it may.
    refused_sessions_total,
    /// Logins accepted that were still known, among those that were accepted.
    logins_remembered_total,
}
