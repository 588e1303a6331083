//! The least that an SMTP server on rustls and tokio can do: accept, shake hands, and answer each command with what is
//! always answered. Nothing is parsed, checked, kept or limited. What the load engine gets out of it is what the bare
//! handshakes allow on this machine, since client and server share its cores.
//!
//! `canned PORT THREADS CERTIFICATE KEY`, on loopback, until it is killed. For one client only: the load engine, which
//! sends a command, or a message, and waits for the reply.

#![allow(missing_docs)]

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_rustls::TlsAcceptor;

#[path = "tls_settings.rs"]
mod tls_settings;
use tls_settings::Failure;

const USAGE: &str = "canned PORT THREADS CERTIFICATE KEY";
const GREETING: &[u8] = b"220 canned.invalid ESMTP\r\n";
const EHLO: &[u8] = b"250-canned.invalid\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n";
const END: &[u8] = b"\r\n.\r\n";
/// More than one record holds.
const READ_BYTES: usize = 32 * 1024;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, threads, certificate, key] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let acceptor = TlsAcceptor::from(tls_settings::server(certificate.as_ref(), key.as_ref())?);
    Builder::new_multi_thread()
        .worker_threads(threads.parse()?)
        .enable_all()
        .build()?
        .block_on(serve(port.parse()?, acceptor))
}

async fn serve(port: u16, acceptor: TlsAcceptor) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    // In a worker, as ours: not in the thread that blocks.
    tokio::spawn(async move {
        let acceptor = Arc::new(acceptor);
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(converse(Arc::clone(&acceptor), socket));
        }
    })
    .await?;
    Ok(())
}

async fn converse(acceptor: Arc<TlsAcceptor>, socket: TcpStream) -> Result<(), Failure> {
    socket.set_nodelay(true)?;
    let mut stream = acceptor.accept(socket).await?;
    stream.write_all(GREETING).await?;
    let mut piece = vec![0; READ_BYTES];
    let mut in_text = false;
    loop {
        let read = stream.read(&mut piece).await?;
        let said = piece.get(..read).unwrap_or_default();
        let reply: &[u8] = match said.first() {
            None => return Ok(()),
            Some(_) if in_text && !said.ends_with(END) => continue,
            Some(_) if in_text => {
                in_text = false;
                b"250 2.0.0 gone\r\n"
            }
            Some(b'E') => EHLO,
            Some(b'A') => b"235 2.7.0 welcome\r\n",
            Some(b'D') => {
                in_text = true;
                b"354 go on\r\n"
            }
            Some(b'Q') => {
                stream.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(stream.shutdown().await?);
            }
            Some(_) => b"250 2.0.0 ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}
