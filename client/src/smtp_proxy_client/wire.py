"""Bytes on the socket: command lines out, replies in, and the switch to TLS.

No SMTP sense lives here beyond the form of a reply (RFC 5321 4.2). Every reply has a deadline as a
whole, so a server that drips one byte a second cannot hold the client. What a server says is made
printable before anybody sees it, since it may end on a terminal.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress

from smtp_proxy_client.errors import CertificateRejected, ClientError, ConnectionFailed, TlsFailed, UsageError
from smtp_proxy_client.reply import Reply, printable

# RFC 5321 4.5.3.1.5 allows a reply line 512 bytes incl. CRLF; servers are known to exceed it.
MAX_REPLY_LINE_BYTES = 4096
MAX_REPLY_LINES = 200
READ_BYTES = 16384


class Wire:
    """A connected socket, plain at first, and the bytes read ahead from it."""

    def __init__(self, sock: socket.socket, timeout_seconds: float) -> None:
        self._socket = sock
        self._timeout_seconds = timeout_seconds
        self._buffer = bytearray()

    @property
    def local_address(self) -> str:
        """The address of this end."""
        return str(self._socket.getsockname()[0])

    @property
    def tls(self) -> ssl.SSLSocket | None:
        """The TLS layer, if there is one."""
        return self._socket if isinstance(self._socket, ssl.SSLSocket) else None

    def command(self, line: str) -> Reply:
        """Send one line and read the answer to it."""
        if not line.isprintable():
            raise UsageError(f"control characters in a command: {printable(line)[:60]}")
        return self.exchange(line.encode() + b"\r\n")

    def exchange(self, data: bytes) -> Reply:
        """Send bytes and read the answer, also the one a server leaves before it hangs up."""
        try:
            self._write(data)
        except ConnectionFailed:
            with suppress(ClientError):
                return self.read_reply()
            raise
        return self.read_reply()

    def read_reply(self) -> Reply:
        """Read one reply of one or more lines."""
        deadline = time.monotonic() + self._timeout_seconds
        lines: list[str] = []
        while len(lines) < MAX_REPLY_LINES:
            line = self._read_line(deadline)
            code, separator, text = line[:3], line[3:4], line[4:]
            if not (code.isdigit() and len(code) == 3 and separator in (b"", b" ", b"-")):
                raise self._not_smtp(line)
            lines.append(printable(text.decode("utf-8", "backslashreplace")))
            if separator != b"-":
                return Reply(int(code), tuple(lines))
        raise ConnectionFailed(f"a reply of more than {MAX_REPLY_LINES} lines", temporary=False)

    def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Put TLS on the connection; what was read before it must be empty."""
        if self._buffer:
            # RFC 3207 4.2, and the injection known as CVE-2011-0411: bytes sent in the clear
            # must never be taken for bytes that came through TLS.
            raise TlsFailed("the server sent more after its answer to STARTTLS")
        self._socket.settimeout(self._timeout_seconds)
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=server_name)
        except ssl.SSLCertVerificationError as error:
            raise CertificateRejected(
                error.verify_message or "certificate verification failed",
                verify_code=error.verify_code,
            ) from error
        except ssl.SSLError as error:
            raise TlsFailed(f"TLS handshake failed: {openssl_reason(error)}") from error
        except TimeoutError as error:
            raise TlsFailed("TLS handshake timed out", temporary=True) from error
        except OSError as error:
            raise TlsFailed("connection lost in the TLS handshake", temporary=True) from error

    def close(self) -> None:
        """Let go of the socket; never fails."""
        with suppress(OSError):
            self._socket.close()

    def _write(self, data: bytes) -> None:
        self._socket.settimeout(self._timeout_seconds)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise ConnectionFailed("connection lost") from error

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_REPLY_LINE_BYTES:
                raise self._not_smtp(bytes(self._buffer))
            self._buffer += self._read_some(deadline)
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        if len(line) > MAX_REPLY_LINE_BYTES:
            raise self._not_smtp(line)
        return line.removesuffix(b"\r")

    def _read_some(self, deadline: float) -> bytes:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise self._silent()
        self._socket.settimeout(remaining)
        try:
            data = self._socket.recv(READ_BYTES)
        except TimeoutError as error:
            raise self._silent() from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise ConnectionFailed("connection closed by the server") from error
        except ssl.SSLError as error:
            raise TlsFailed(f"TLS failed: {openssl_reason(error)}") from error
        except OSError as error:
            raise ConnectionFailed("connection lost") from error
        if not data:
            raise ConnectionFailed("connection closed by the server")
        return data

    def _silent(self) -> ConnectionFailed:
        return ConnectionFailed(f"no answer within {self._timeout_seconds:g} s", hint="--timeout sets the patience")

    @staticmethod
    def _not_smtp(line: bytes) -> ConnectionFailed:
        shown = printable(line[:60].decode("utf-8", "backslashreplace"))
        return ConnectionFailed(f"not an SMTP reply: {shown!r}", temporary=False)


def openssl_reason(error: ssl.SSLError) -> str:
    """OpenSSL's own word for it, in small letters."""
    return (error.reason or str(error)).replace("_", " ").lower()
