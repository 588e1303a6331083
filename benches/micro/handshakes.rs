//! TLS 1.3 handshakes with nothing else: what rustls and the kernel allow on this machine. Prints JSON.
//!
//! Over loopback, client and server in one process: the client on one thread, as the load engine is; the server on
//! THREADS of its own, as the SMTP server is. Both with the settings of ours, and no resumption by the client. The
//! server says goodbye as soon as it has the client's Finished, so that what is counted is whole on both sides.
//!
//! In memory, without sockets: both ends in turn on one thread, the CPU time of each apart.

#![allow(clippy::print_stdout, missing_docs)]

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::LocalSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[path = "tls_settings.rs"]
mod tls_settings;
use tls_settings::Failure;

const WARMUP: Duration = Duration::from_secs(1);
const USAGE: &str = "handshakes loopback|memory CONNECTIONS THREADS SECONDS CERTIFICATE KEY CA";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, connections, threads, seconds, certificate, key, ca] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let server = tls_settings::server(certificate.as_ref(), key.as_ref())?;
    let client = tls_settings::client(ca.as_ref())?;
    let seconds = Duration::try_from_secs_f64(seconds.parse()?)?;
    match kind.as_str() {
        "loopback" => loopback(
            connections.parse()?,
            threads.parse()?,
            seconds,
            server,
            client,
        ),
        "memory" => memory(seconds, &server, &client),
        _ => Err(USAGE.into()),
    }
}

fn loopback(
    connections: usize,
    threads: usize,
    seconds: Duration,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    runtime.spawn(serve(listener, TlsAcceptor::from(server)));
    let run = Run {
        address,
        connector: TlsConnector::from(client),
        counting_from: Instant::now() + WARMUP,
        end: Instant::now() + WARMUP + seconds,
    };
    let seen = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(LocalSet::new().run_until(clients(run, connections)))?;
    seen.report();
    Ok(())
}

fn memory(
    seconds: Duration,
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(), Failure> {
    let end = Instant::now() + seconds;
    let mut clock = Clock::default();
    let mut total = 0_u32;
    while Instant::now() < end {
        in_memory(&mut clock, server, client)?;
        total += 1;
    }
    let each = |of: Duration| of.as_secs_f64() * 1e6 / f64::from(total.max(1));
    let result = serde_json::json!({
        "total": total,
        "server_cpu_us": each(clock.of_server),
        "client_cpu_us": each(clock.of_client),
    });
    println!("{result}");
    Ok(())
}

fn in_memory(
    clock: &mut Clock,
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(), Failure> {
    clock.start();
    let mut client = ClientConnection::new(Arc::clone(client), "localhost".try_into()?)?;
    let hello = sent(|out| client.write_tls(out))?;
    clock.was_client();
    let mut server = ServerConnection::new(Arc::clone(server))?;
    server.read_tls(&mut hello.as_slice())?;
    server.process_new_packets()?;
    let flight = sent(|out| server.write_tls(out))?;
    clock.was_server();
    client.read_tls(&mut flight.as_slice())?;
    client.process_new_packets()?;
    let finished = sent(|out| client.write_tls(out))?;
    clock.was_client();
    server.read_tls(&mut finished.as_slice())?;
    server.process_new_packets()?;
    let _ticket = sent(|out| server.write_tls(out))?;
    clock.was_server();
    if client.is_handshaking() || server.is_handshaking() {
        return Err("a handshake that did not end".into());
    }
    Ok(())
}

/// Whose CPU time it was.
#[derive(Default)]
struct Clock {
    at: Duration,
    of_server: Duration,
    of_client: Duration,
}

impl Clock {
    fn start(&mut self) {
        self.at = thread_cpu();
    }

    fn was_server(&mut self) {
        let lap = self.lap();
        self.of_server += lap;
    }

    fn was_client(&mut self) {
        let lap = self.lap();
        self.of_client += lap;
    }

    fn lap(&mut self) -> Duration {
        let now = thread_cpu();
        let lap = now.saturating_sub(self.at);
        self.at = now;
        lap
    }
}

/// All that one end has to send now.
fn sent(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<usize>) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    write(&mut out)?;
    Ok(out)
}

fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(used.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(used.tv_sec).unwrap_or_default(), nanoseconds)
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
