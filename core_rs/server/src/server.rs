//! The server as a whole: what the outside starts, takes batches from, and stops.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smtp_proxy_proto::{Gate, Lane, SessionConfig};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::batch::{Batch, Of, Waiting};
use crate::budget::Budget;
use crate::gate::SharedGate;
use crate::guard::Guard;
use crate::known::KnownLogins;
use crate::listener::{Port, accept_all, bind};
use crate::logins::{Asking, LoginBatch};
use crate::metrics::Metrics;
use crate::shutdown::Connections;
use crate::tenants::Tenants;
use crate::tls::Tls;
use crate::wakeup::{Interest, Wakeup};
use crate::{CertificatePem, ClientTrust, Config, Error, Timeouts};

/// So long `stop` waits for what a worker thread is in the middle of.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What every connection has access to.
pub(crate) struct Shared {
    starttls: Arc<SessionConfig>,
    implicit: Arc<SessionConfig>,
    plaintext: Arc<SessionConfig>,
    pub(crate) timeouts: Timeouts,
    pub(crate) tls: Option<Tls>,
    pub(crate) gate: SharedGate,
    pub(crate) budget: Arc<Budget>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) tenants: Tenants,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) asking: Asking,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) known: Arc<KnownLogins>,
    wakeup: Arc<Wakeup>,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let tls = match config.certificates.as_slice() {
            [] => None,
            certificates => Some(Tls::new(
                certificates,
                &config.client_trust,
                config.tls_options.clone(),
            )?),
        };
        let wakeup = Arc::new(Wakeup::new().map_err(Error::System)?);
        let metrics = Arc::<Metrics>::default();
        Ok(Self {
            starttls: session_config(config, Port::StartTls),
            implicit: session_config(config, Port::Tls),
            plaintext: session_config(config, Port::Plaintext),
            timeouts: config.timeouts.clone(),
            tls,
            gate: SharedGate::default(),
            budget: Budget::new(config.max_in_flight_bytes, config.max_waiting_messages),
            connections: Connections::new(config.max_connections, Arc::clone(&wakeup)),
            tenants: Tenants::new(config.protection.sessions_per_credential as usize),
            waiting: Waiting::new(Arc::clone(&wakeup), Arc::from(config.hostname.as_str())),
            asking: Asking::new(Arc::clone(&wakeup)),
            guard: Guard::new(
                config.protection.clone(),
                config.max_connections,
                Arc::clone(&metrics),
            ),
            metrics,
            known: KnownLogins::new()?,
            wakeup,
        })
    }

    pub(crate) fn session_config(&self, port: Port) -> &Arc<SessionConfig> {
        match port {
            Port::StartTls => &self.starttls,
            Port::Tls => &self.implicit,
            Port::Plaintext => &self.plaintext,
        }
    }
}

fn session_config(config: &Config, port: Port) -> Arc<SessionConfig> {
    let preset = port == Port::Plaintext;
    Arc::new(SessionConfig {
        hostname: config.hostname.clone(),
        software: config.software.clone(),
        limits: config.limits.clone(),
        starttls: port == Port::StartTls,
        identity: config
            .plaintext_identity
            .clone()
            .filter(|_| preset)
            .map(Arc::new),
        allow_plaintext_submission: preset,
        submission: config.submission,
    })
}

/// Where a started server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// STARTTLS is offered here.
    pub starttls: Option<SocketAddr>,
    /// TLS comes first here.
    pub tls: Option<SocketAddr>,
    /// The loopback listener for benchmarks.
    pub plaintext: Option<SocketAddr>,
}

/// Listeners, sessions and the queue of complete envelopes. Every method may be called from any
/// thread outside the server's own runtime; none but [`Server::start`] and [`Server::stop`] blocks.
pub struct Server {
    shared: Arc<Shared>,
    addresses: [(Port, Option<SocketAddr>); 3],
    threads: usize,
    life: Mutex<Life>,
}

enum Life {
    Made,
    Running(Runtime),
    Stopped,
}

impl Server {
    /// Checks everything; opens nothing but the wake-up's descriptor.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            shared: Arc::new(Shared::new(config)?),
            addresses: [
                (Port::StartTls, config.starttls),
                (Port::Tls, config.tls),
                (Port::Plaintext, config.plaintext),
            ],
            threads: config.thread_count(),
            life: Mutex::new(Life::Made),
        })
    }

    /// Opens the listeners and starts the threads. If one listener cannot be opened, none stays.
    pub fn start(&self) -> Result<Addresses, Error> {
        let mut life = self.life();
        if !matches!(*life, Life::Made) {
            return Err(Error::AlreadyStarted);
        }
        let runtime = self.runtime()?;
        let mut listening = Vec::new();
        let mut addresses = Addresses::default();
        {
            let _within = runtime.enter();
            for (port, address) in self.addresses {
                let Some(address) = address else { continue };
                let listener = bind(port, address)?;
                let bound = listener.local_addr().map_err(Error::System)?;
                match port {
                    Port::StartTls => addresses.starttls = Some(bound),
                    Port::Tls => addresses.tls = Some(bound),
                    Port::Plaintext => addresses.plaintext = Some(bound),
                }
                listening.push((port, listener));
            }
        }
        for (port, listener) in listening {
            runtime.spawn(accept_all(Arc::clone(&self.shared), port, listener));
        }
        *life = Life::Running(runtime);
        Ok(addresses)
    }

    /// Readable when something that was armed for may have come, or the drain has ended.
    #[must_use]
    pub fn wakeup_descriptor(&self) -> RawFd {
        self.shared.wakeup.descriptor()
    }

    /// Clears the wake-up and arms it for `interest`; true if something of that kind waits already,
    /// and then it is not to be slept. Look at [`Server::is_drained`] afterwards: its signal is cleared
    /// with the others.
    pub fn arm(&self, interest: Interest) -> bool {
        self.shared.wakeup.arm(interest);
        (interest.includes(Interest::ENVELOPES) && !self.shared.waiting.is_empty())
            || (interest.includes(Interest::LOGINS) && !self.shared.asking.is_empty())
            || (interest.includes(Interest::NEWCOMERS) && self.shared.waiting.has_newcomer())
    }

    /// The envelopes that wait, up to `max_messages` and `max_bytes`, at least one if there is any.
    pub fn next_batch(&self, max_messages: usize, max_bytes: usize) -> Option<Batch> {
        self.take_batch(Of::All, max_messages, max_bytes)
    }

    /// The same of tenants alone that have nothing in a batch under way: they need not wait for the
    /// end of somebody else's.
    pub fn next_newcomers(&self, max_messages: usize, max_bytes: usize) -> Option<Batch> {
        self.take_batch(Of::Newcomers, max_messages, max_bytes)
    }

    fn take_batch(&self, of: Of, max_messages: usize, max_bytes: usize) -> Option<Batch> {
        let handle = self.handle()?;
        Batch::take(
            &self.shared.waiting,
            of,
            max_messages,
            max_bytes,
            &handle,
            &self.shared.metrics,
        )
    }

    /// The logins that wait, up to `max_logins`.
    pub fn next_logins(&self, max_logins: usize) -> Option<LoginBatch> {
        LoginBatch::take(
            &self.shared.asking,
            max_logins,
            &self.shared.metrics,
            &self.shared.known,
        )
    }

    /// Credentials may have changed: no login is answered without being asked for, until it is verified
    /// anew by a batch taken from now on.
    pub fn forget_logins(&self) {
        self.shared.known.forget();
    }

    /// May mail come in? Draining is for good.
    pub fn set_gate(&self, gate: Gate) {
        self.shared.gate.set(gate);
    }

    /// A tenant over its rate: its sessions hear 450 4.7.1 at MAIL for so long. Zero: no longer.
    pub fn shut_tenant(&self, tenant_id: [u8; 16], duration: Duration) {
        self.shared.tenants.shut(tenant_id, duration);
    }

    /// Which mail that of these tenants and credentials goes with, unless its header asks; a credential's counts before its
    /// tenant's. All others' is transactional.
    pub fn set_lanes(&self, lanes: HashMap<[u8; 16], Lane>) {
        self.shared.waiting.set_lanes(lanes);
    }

    /// So many sessions these tenants may have here, all others any number; more hear 421 4.7.0 when
    /// they log in. Nobody who is in is sent away.
    pub fn limit_sessions(&self, limits: &[([u8; 16], usize)]) {
        self.shared.tenants.limit_sessions(limits);
    }

    /// How many sessions each tenant has here that has any.
    #[must_use]
    pub fn tenant_sessions(&self) -> Vec<([u8; 16], usize)> {
        self.shared.tenants.sessions()
    }

    /// New handshakes use these; refused as a whole if one of them cannot be used.
    pub fn reload_tls(
        &self,
        certificates: &[CertificatePem],
        client_trust: &ClientTrust,
    ) -> Result<(), Error> {
        let Some(tls) = &self.shared.tls else {
            return Err(Error::Setting {
                name: "certificates",
                problem: "this server was started without TLS".to_owned(),
            });
        };
        tls.reload(certificates, client_trust)?;
        self.shared.metrics.tls_reloads_total.one();
        Ok(())
    }

    /// Turns that address away for so long, as if it had failed to log in too often: for whoever shares
    /// bans over a fleet. Of IPv6 its whole network. False: there is no room to remember it.
    pub fn ban(&self, address: IpAddr, duration: Duration) -> bool {
        self.shared.guard.ban(address, duration)
    }

    /// Who is banned, by order or by failures, and for how long still. Of an IPv6 network the first
    /// address.
    #[must_use]
    pub fn bans(&self) -> Vec<(IpAddr, Duration)> {
        self.shared.guard.bans()
    }

    /// Ends a ban, and forgives what led to it. False: there was none.
    pub fn lift_ban(&self, address: IpAddr) -> bool {
        self.shared.guard.lift_ban(address)
    }

    /// Closes the listeners, sends idle sessions away, and lets those that are in a message finish
    /// it. Returns at once; see [`Server::is_drained`]. Batches must still be taken and answered.
    pub fn drain(&self) {
        self.shared.gate.set(Gate::Draining);
        self.shared.connections.close();
    }

    /// The drain is over: nobody is connected.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shared.connections.is_drained()
    }

    /// Ends at once, whoever is connected. Blocks until the threads have ended. Again: nothing.
    pub fn stop(&self) {
        self.drain();
        let life = std::mem::replace(&mut *self.life(), Life::Stopped);
        if let Life::Running(runtime) = life {
            runtime.shutdown_timeout(STOP_WITHIN);
        }
        self.shared.waiting.close();
        self.shared.asking.close();
        self.shared.wakeup.wake();
    }

    /// Counters (`…_total`) and what is now.
    #[must_use]
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.shared;
        let mut stats = shared.metrics.read();
        stats.extend([
            ("connections_active", shared.connections.active() as u64),
            ("envelopes_waiting", shared.budget.messages() as u64),
            ("envelopes_queued", shared.waiting.len() as u64),
            ("logins_queued", shared.asking.len() as u64),
            ("bytes_in_flight", shared.budget.bytes() as u64),
            ("wakeups_total", shared.wakeup.signals()),
            ("addresses_known", shared.guard.len() as u64),
        ]);
        stats
    }

    fn runtime(&self) -> Result<Runtime, Error> {
        Builder::new_multi_thread()
            .worker_threads(self.threads)
            .max_blocking_threads(1)
            .thread_name("smtp-core")
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::System)
    }

    fn handle(&self) -> Option<Handle> {
        match &*self.life() {
            Life::Running(runtime) => Some(runtime.handle().clone()),
            Life::Made | Life::Stopped => None,
        }
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
