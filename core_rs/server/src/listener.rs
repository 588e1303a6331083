//! Accepting. A seat is taken before the connection is served; without one, or with too many from its
//! address, the client is told 421 and closed at once, by the same task, so that turning away costs
//! next to nothing. Whoever comes by a proxy is introduced first, in a task of its own.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smtp_proxy_proto::{Reply, Security, reply};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::connection::Connection;
use crate::guard::{Refusal, Visit};
use crate::proxy::{Introduction, introduction};
use crate::server::Shared;
use crate::shutdown::Seat;

/// Connections that the kernel holds ready for us; it may allow less (net.core.somaxconn).
const BACKLOG: u32 = 4096;
/// RFC 5321 has no say here: without descriptors or memory, a while passes before `accept()` can do
/// better, and spinning would take the time from those who could free some.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Which of the three doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    StartTls,
    Tls,
    Plaintext,
}

impl Port {
    pub(crate) fn security(self) -> Security {
        match self {
            Self::Tls => Security::Tls,
            Self::StartTls | Self::Plaintext => Security::Plaintext,
        }
    }

    /// The setting that its address comes from.
    fn setting(self) -> &'static str {
        match self {
            Self::StartTls => "starttls_address",
            Self::Tls => "tls_address",
            Self::Plaintext => "plaintext_address",
        }
    }
}

/// Within a runtime. `SO_REUSEADDR`: a restart must not wait for the last one's `TIME_WAIT`.
pub(crate) fn bind(port: Port, address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| Error::Listen {
        name: port.setting(),
        address,
        source,
    })
}

/// Until the order to close.
pub(crate) async fn accept_all(shared: Arc<Shared>, port: Port, listener: TcpListener) {
    let mut close_order = shared.connections.close_order();
    let mut rest = REST.0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = close_order.wait_for(|close| *close) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, client)) => {
                rest = REST.0;
                admit(&shared, port, io, client);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => {
                shared.metrics.accept_errors_total.one();
                sleep(rest).await;
                rest = (rest * 2).min(REST.1);
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, port: Port, io: TcpStream, peer: SocketAddr) {
    let Some(seat) = shared.connections.seat() else {
        shared.metrics.refused_connections_total.one();
        turn_away(port, &io, &reply::NOT_ACCEPTING);
        return;
    };
    if port != Port::Plaintext && shared.guard.protection.is_proxy(peer.ip()) {
        tokio::spawn(introduce(Arc::clone(shared), port, io, peer, seat));
        return;
    }
    match shared.guard.admit(peer.ip()) {
        Ok(visit) => serve(shared, port, io, peer.ip(), seat, visit),
        Err(refusal) => refuse(shared, port, &io, refusal),
    }
}

/// The proxy says who the client is, and policy is about the client.
async fn introduce(
    shared: Arc<Shared>,
    port: Port,
    mut io: TcpStream,
    peer: SocketAddr,
    seat: Seat,
) {
    let mailbox = Arc::clone(seat.mailbox());
    let leaving = poll_fn(|cx| {
        if mailbox.is_closing(cx) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let introduced = tokio::select! {
        biased;
        () = leaving => return,
        introduced = timeout(shared.guard.protection.proxy_timeout, introduction(&mut io)) => introduced,
    };
    match introduced {
        Ok(Introduction::Client(address)) => {
            shared.metrics.proxy_headers_total.one();
            match shared.guard.admit(address) {
                Ok(visit) => serve(&shared, port, io, address, seat, visit),
                Err(refusal) => refuse(&shared, port, &io, refusal),
            }
        }
        Ok(Introduction::Own) => {
            shared.metrics.proxy_local_total.one();
            // Nobody's address is known but the proxy's own, and that is what mail came from.
            match shared.guard.admit_unnamed(peer.ip()) {
                Ok(visit) => serve(&shared, port, io, peer.ip(), seat, visit),
                Err(refusal) => refuse(&shared, port, &io, refusal),
            }
        }
        Ok(Introduction::Silence) => shared.metrics.proxy_local_total.one(),
        Ok(Introduction::Malformed) | Err(_) => shared.metrics.proxy_errors_total.one(),
    }
}

fn serve(
    shared: &Arc<Shared>,
    port: Port,
    io: TcpStream,
    client: IpAddr,
    seat: Seat,
    visit: Visit,
) {
    shared.metrics.connections_total.one();
    // Without it a reply may wait for the client's ACK. Whoever cannot set it has lost the client.
    let _ = io.set_nodelay(true);
    let address = Arc::from(client.to_canonical().to_string());
    let connection = Connection::new(Arc::clone(shared), port, io, address, seat, visit);
    tokio::spawn(connection.run(port));
}

fn refuse(shared: &Shared, port: Port, io: &TcpStream, refusal: Refusal) {
    refusal.counter(&shared.metrics).one();
    let reply = match refusal {
        Refusal::Banned => reply::BANNED,
        Refusal::TooMany | Refusal::TooFast => reply::TOO_MANY_CONNECTIONS,
    };
    turn_away(port, io, &reply);
}

/// 421 where it can be said for the price of one write. Under implicit TLS it would cost a handshake,
/// which is what an overloaded server has least to spare for.
fn turn_away(port: Port, io: &TcpStream, reply: &Reply) {
    if port.security() == Security::Plaintext {
        let mut out = Vec::new();
        reply.write(&mut out);
        let _ = io.try_write(&out);
    }
}

/// The client was gone before we got to it (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock
    )
}
