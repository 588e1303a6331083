//! Accepting. A seat is taken before the connection is served; without one the client is told 421 and
//! closed at once, by the same task, so that turning away costs next to nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smtp_proxy_proto::{Gate, Security, Session};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::Error;
use crate::connection::Connection;
use crate::server::Shared;

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

fn admit(shared: &Arc<Shared>, port: Port, io: TcpStream, client: SocketAddr) {
    let Some(seat) = shared.connections.seat() else {
        shared.metrics.refused_connections_total.one();
        turn_away(shared, port, &io);
        return;
    };
    shared.metrics.connections_total.one();
    // Without it a reply may wait for the client's ACK. Whoever cannot set it has lost the client.
    let _ = io.set_nodelay(true);
    let address = Arc::from(client.ip().to_canonical().to_string());
    let connection = Connection::new(Arc::clone(shared), port, io, address, seat);
    tokio::spawn(connection.run(port));
}

/// 421 where it can be said for the price of one write. Under implicit TLS it would cost a handshake,
/// which is what an overloaded server has least to spare for.
fn turn_away(shared: &Shared, port: Port, io: &TcpStream) {
    if port.security() == Security::Plaintext {
        let mut out = Vec::new();
        let _ = Session::new(Arc::clone(shared.session_config(port)), port.security())
            .greet(Gate::Busy, &mut out);
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
