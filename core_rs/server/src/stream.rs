//! A connection's bytes, in plaintext or under TLS.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// RFC 8446 5.1: the longest record, bytes of plaintext.
const RECORD_BYTES: usize = 16_384;

/// What a connection runs over: a socket, or a pipe in tests.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// See the module.
pub(crate) enum Stream<S> {
    Plain(S),
    /// Apart, so that a plaintext connection does not carry its size.
    Tls(Box<TlsStream<S>>),
    /// A handshake has it, or has lost it.
    Away,
}

impl<S: Io> Stream<S> {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What the handshake agreed on, by its number in IANA's registry (RFC 8446 B.4). `None` in plaintext.
    pub(crate) fn cipher_suite(&self) -> Option<u16> {
        match self {
            Self::Tls(io) => {
                let suite = io.get_ref().1.negotiated_cipher_suite();
                suite.map(|suite| suite.suite().into())
            }
            Self::Plain(_) | Self::Away => None,
        }
    }

    /// The plaintext stream, for a handshake.
    pub(crate) fn take_plain(&mut self) -> Option<S> {
        match std::mem::replace(self, Self::Away) {
            Self::Plain(io) => Some(io),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes and flushes all of `bytes` from `written` on.
    pub(crate) fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
            let count = match self {
                Self::Plain(io) => ready!(Pin::new(io).poll_write(cx, rest))?,
                Self::Tls(io) => ready!(Pin::new(io).poll_write(cx, rest))?,
                Self::Away => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        match self {
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Makes the last words and `close_notify` (RFC 8446 6.1) one write of the next `poll_write_all`;
    /// `out` is empty then. False: not under TLS, or too much for one record.
    pub(crate) fn finish_with(&mut self, out: &mut Vec<u8>) -> bool {
        let Self::Tls(io) = self else { return false };
        let tls = io.get_mut().1;
        if out.len() > RECORD_BYTES || tls.writer().write_all(out).is_err() {
            return false;
        }
        out.clear();
        tls.send_close_notify();
        true
    }

    /// Says that nothing more comes: `close_notify` under TLS (RFC 8446 6.1), then FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Away => Poll::Ready(Ok(())),
        }
    }
}
