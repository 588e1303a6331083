//! Reads the PROXY header of a connection that must begin with one. Never a byte more than that: what
//! follows is the client's, a TLS handshake or SMTP.

use std::net::IpAddr;

use smtp_proxy_proto::proxy::{Header, Progress, read};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// This is the client.
    Client(IpAddr),
    /// The proxy speaks for itself.
    Own,
    /// It closed without a word, as health checks do: nobody's failure.
    Silence,
    /// Something else, or it broke off.
    Malformed,
}

/// Without a time-out: that is the caller's.
pub(crate) async fn introduction(io: &mut (impl AsyncRead + Unpin)) -> Introduction {
    let mut header = Vec::new();
    loop {
        let wanted = match read(&header) {
            Ok(Progress::Complete(Header::Own, _)) => return Introduction::Own,
            Ok(Progress::Complete(Header::Announced { client, .. }, _)) => {
                return Introduction::Client(client.ip());
            }
            Ok(Progress::NeedMore(bytes)) => bytes,
            Err(_) => return Introduction::Malformed,
        };
        let before = header.len();
        match io.take(wanted as u64).read_buf(&mut header).await {
            Ok(0) | Err(_) if before == 0 => return Introduction::Silence,
            Ok(0) | Err(_) => return Introduction::Malformed,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn introduced(bytes: &[u8]) -> (Introduction, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(7);
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            let _ = client.write_all(&bytes).await;
        });
        let found = introduction(&mut server).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        writing.await.unwrap();
        (found, rest)
    }

    #[tokio::test]
    async fn what_follows_is_left() {
        let client = Introduction::Client("192.0.2.1".parse().unwrap());
        let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\r\nEHLO x\r\n";
        assert_eq!(introduced(v1).await, (client, b"EHLO x\r\n".to_vec()));
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\x03\x04\x16\x03\x01";
        assert_eq!(introduced(v2).await, (client, b"\x16\x03\x01".to_vec()));
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0QUIT\r\n";
        assert_eq!(
            introduced(local).await,
            (Introduction::Own, b"QUIT\r\n".to_vec())
        );
    }

    #[tokio::test]
    async fn a_health_check_and_a_stranger() {
        assert_eq!(introduced(b"").await.0, Introduction::Silence);
        assert_eq!(
            introduced(b"PROXY TCP4 192.0.2.1 198").await.0,
            Introduction::Malformed
        );
        assert_eq!(
            introduced(b"EHLO client.example\r\n").await.0,
            Introduction::Malformed
        );
    }
}
