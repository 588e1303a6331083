//! TLS 1.3 handshakes over loopback with nothing else: what rustls and the kernel allow on this machine.
//!
//! Client and server in one process: the client on one thread, as the load engine is; the server on THREADS of its own,
//! as the SMTP server is. Both with the settings of ours: ring, one ticket, no resumption by the client. The server says
//! goodbye as soon as it has the client's Finished, so that what is counted is whole on both sides. Prints JSON.

#![allow(clippy::print_stdout, missing_docs)]

use std::{
    cell::RefCell,
    error::Error,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::ring,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::LocalSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Failure = Box<dyn Error + Send + Sync>;

const WARMUP: Duration = Duration::from_secs(1);
const USAGE: &str = "handshakes CONNECTIONS THREADS SECONDS CERTIFICATE KEY CA";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [connections, threads, seconds, certificate, key, ca] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let server = Builder::new_multi_thread()
        .worker_threads(threads.parse()?)
        .enable_all()
        .build()?;
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    server.spawn(serve(
        listener,
        acceptor(certificate.as_ref(), key.as_ref())?,
    ));
    let run = Run {
        address,
        connector: connector(ca.as_ref())?,
        counting_from: Instant::now() + WARMUP,
        end: Instant::now() + WARMUP + Duration::try_from_secs_f64(seconds.parse()?)?,
    };
    let seen = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(LocalSet::new().run_until(clients(run, connections.parse()?)))?;
    seen.report();
    Ok(())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let _ = stream.shutdown().await;
            }
        });
    }
}

struct Run {
    address: String,
    connector: TlsConnector,
    counting_from: Instant,
    end: Instant,
}

struct Seen {
    counted: u64,
    total: u64,
    failed: u64,
    seconds: f64,
    microseconds: Histogram<u64>,
}

async fn clients(run: Run, connections: usize) -> Result<Seen, Failure> {
    let seen = Rc::new(RefCell::new(Seen {
        counted: 0,
        total: 0,
        failed: 0,
        seconds: (run.end - run.counting_from).as_secs_f64(),
        microseconds: Histogram::new_with_bounds(1, 60_000_000, 3)?,
    }));
    let run = Rc::new(run);
    let all: Vec<_> = (0..connections)
        .map(|_| tokio::task::spawn_local(client(Rc::clone(&run), Rc::clone(&seen))))
        .collect();
    for one in all {
        one.await?;
    }
    Rc::into_inner(seen)
        .map(RefCell::into_inner)
        .ok_or_else(|| "a client outlived the run".into())
}

async fn client(run: Rc<Run>, seen: Rc<RefCell<Seen>>) {
    while Instant::now() < run.end {
        let took = handshake(&run).await;
        let now = Instant::now();
        let mut seen = seen.borrow_mut();
        match took {
            Ok(took) => {
                seen.total += 1;
                let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                seen.microseconds.saturating_record(microseconds);
                seen.counted += u64::from(now >= run.counting_from && now <= run.end);
            }
            Err(_) => seen.failed += 1,
        }
    }
}

async fn handshake(run: &Run) -> Result<Duration, Failure> {
    let socket = TcpStream::connect(&run.address).await?;
    socket.set_nodelay(true)?;
    let began = Instant::now();
    let name = ServerName::try_from("localhost")?;
    let mut stream = run.connector.connect(name, socket).await?;
    let took = began.elapsed();
    let said = stream.read(&mut [0; 16]).await?;
    if said == 0 {
        Ok(took)
    } else {
        Err("bytes that nobody sent".into())
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn connector(ca: &Path) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Seen {
    #[expect(
        clippy::cast_precision_loss,
        reason = "far below 2^53 handshakes and microseconds"
    )]
    fn report(&self) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let result = serde_json::json!({
            "per_second": self.counted as f64 / self.seconds,
            "total": self.total,
            "failed": self.failed,
            "cpu_seconds": used.tv_sec as f64 + used.tv_nsec as f64 / 1e9,
            "p50_ms": self.microseconds.value_at_quantile(0.5) as f64 / 1000.0,
            "p99_ms": self.microseconds.value_at_quantile(0.99) as f64 / 1000.0,
        });
        println!("{result}");
    }
}
