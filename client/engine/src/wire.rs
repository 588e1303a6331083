//! Bytes and replies of one connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::failure::{Failure, Phase};
use crate::reply::{Line, Replies};

/// Room that a read is offered, bytes.
const READ_BYTES: usize = 2048;

/// A TCP connection, encrypted or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection and what was read from it but not used yet.
pub(crate) struct Wire {
    stream: Stream,
    replies: Replies,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            replies: Replies::default(),
        }
    }

    /// The stream, for the TLS handshake. Refused if the server sent more than its reply: that would be injected
    /// plaintext (RFC 3207 4.2, CVE-2011-0411).
    pub(crate) fn into_stream(self) -> Result<Stream, Failure> {
        if !self.replies.is_empty() {
            return Err(Failure::fatal(
                Phase::StartTls,
                "plaintext after the reply to STARTTLS",
            ));
        }
        Ok(self.stream)
    }

    pub(crate) async fn write(&mut self, phase: Phase, bytes: &[u8]) -> Result<(), Failure> {
        self.write_both(phase, bytes, &[]).await
    }

    /// Both, in one system call where the kernel has room.
    pub(crate) async fn write_both(
        &mut self,
        phase: Phase,
        first: &[u8],
        second: &[u8],
    ) -> Result<(), Failure> {
        let mut both = Buf::chain(first, second);
        let written = async {
            self.stream.write_all_buf(&mut both).await?;
            self.stream.flush().await
        };
        written.await.map_err(|error| Failure::io(phase, &error))
    }

    /// Reads one reply, which must have this code; any other is the failure's text.
    pub(crate) async fn expect(&mut self, phase: Phase, code: u16) -> Result<(), Failure> {
        self.reply(phase, code, |_| ()).await
    }

    /// As `expect`; `each` sees every line of the reply, without CRLF.
    pub(crate) async fn reply(
        &mut self,
        phase: Phase,
        code: u16,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        loop {
            let next = self.replies.next_line();
            match next.map_err(|trouble| Failure::fatal(phase, trouble.name()))? {
                None => {}
                Some(Line {
                    code: got,
                    last,
                    text,
                }) => {
                    each(text);
                    if !last {
                        continue;
                    }
                    return if got == code {
                        Ok(())
                    } else {
                        Err(Failure::reply(phase, got, text))
                    };
                }
            }
            self.read_more(phase).await?;
        }
    }

    async fn read_more(&mut self, phase: Phase) -> Result<(), Failure> {
        match self.stream.read_buf(self.replies.room(READ_BYTES)).await {
            Ok(0) => Err(Failure::fatal(phase, "the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::io(phase, &error)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
