"""One connection to a next hop: bytes out, replies in, a deadline on every wait.

An asyncio.Protocol and not a pair of streams: a message costs two writes and two waits, and that is what there is to
pay for. One watchdog timer per connection serves all waits.

Not here: what the replies mean (`dialogue`, `transaction`), and who may use the connection when (`pool`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, cast

from smtp_proxy.delivery.capabilities import Capabilities
from smtp_proxy.delivery.reply import MalformedReply, Reply, ReplyParser
from smtp_proxy.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable

# Larger bodies go out in pieces, so that one slow reader does not make us hold a second copy of the body.
CHUNK_BYTES: Final = 256 * 1024
_GOODBYE_SECONDS: Final = 5.0


class LinkLost(DeliveryError):
    """The connection ended, stalled or broke the protocol. The text says how."""

    def __init__(self, message: str | None = None, *, operator: bool = False) -> None:
        super().__init__(message)
        self.operator = operator  # somebody has to change a setting


class Connection(asyncio.Protocol):
    """One connection. `failure` is set, once, when it can no longer be used."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.capabilities = Capabilities()
        self.failure: str | None = None
        self.messages = 0  # transactions begun
        self.needs_reset = False  # a transaction was left open
        self.opened_at = loop.time()
        self.idle_since = 0.0  # loop time
        self.on_closed: Callable[[Connection], None] | None = None
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser()
        self._expected = 0
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._upgrading = False
        self._leaving = False
        self._deadline = 0.0
        self._timeout_seconds = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._closed = loop.create_future()

    # -- what the dialogue asks

    @property
    def usable(self) -> bool:
        """Open, and nothing came that nobody asked for."""
        return self.failure is None and not self._leaving and self._parser.at_rest

    def send(self, data: bytes) -> None:
        """Hand bytes to the socket."""
        if self.failure is None and self._transport is not None:
            self._transport.write(data)

    def ask(self, commands: bytes) -> None:
        """Send commands. What is there already answers something else, unless it is the server's farewell (421)."""
        if not self._parser.at_rest and not any(reply.code == 421 for reply in self._parser.replies):
            self.abort("the server broke the protocol: it answered before it was asked")
        self.send(commands)

    @property
    def has_sent_all(self) -> bool:
        """Whether nothing of what was handed over still waits in this process."""
        return self._transport is None or self._transport.get_write_buffer_size() == 0

    async def send_large(self, data: bytes, timeout_seconds: float) -> bool:
        """Hand over in pieces as the peer takes them, each within `timeout_seconds` (RFC 5321 4.5.3.2.5).

        Stops early when the link is lost or when a reply comes before the data has ended; then False.
        """
        view = memoryview(data)
        for start in range(0, len(data), CHUNK_BYTES):
            if self.failure is not None or not self._parser.at_rest:
                return False
            self.send(bytes(view[start : start + CHUNK_BYTES]))
            if self._paused and self.failure is None:
                self._drained = self._loop.create_future()
                self._watch(timeout_seconds)
                await self._drained
        return True

    @property
    def has_reply(self) -> bool:
        """Whether something has arrived, asked for or not."""
        return not self._parser.at_rest

    async def replies(self, count: int, timeout_seconds: float) -> list[Reply]:
        """Wait for `count` replies, `timeout_seconds` for each.

        Fewer come back when the link is lost (`failure` says how) or with a 421, after which none will follow.
        """
        arrived = self._parser.replies
        if len(arrived) < count and self.failure is None and not any(reply.code == 421 for reply in arrived):
            self._expected = self._parser.wanted = count
            self._waiter = self._loop.create_future()
            self._watch(timeout_seconds)
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.abort("the delivery was cancelled")
                raise
            finally:
                self._waiter = None
        taken = arrived[:count]
        del arrived[:count]
        return taken

    async def reply(self, timeout_seconds: float) -> Reply:
        """Wait for one reply. Raises LinkLost."""
        if taken := await self.replies(1, timeout_seconds):
            return taken[0]
        raise LinkLost(self.failure or "the connection was closed")

    async def command(self, line: bytes, timeout_seconds: float) -> Reply:
        """Send one command line, without its CRLF, and wait for the reply. Raises LinkLost."""
        self.ask(line + b"\r\n")
        return await self.reply(timeout_seconds)

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout_seconds: float) -> None:
        """Upgrade in place. Raises LinkLost.

        Bytes that came in clear behind the server's go-ahead were put there by someone else: they would be read as
        if they had come through TLS (the response side of CVE-2011-0411, as in CVE-2021-38371).
        """
        if not self._parser.at_rest:
            self.abort("the server, or someone between, sent data in clear after its answer to STARTTLS")
        if self.failure is not None or self._transport is None:
            raise LinkLost(self.failure)
        self._upgrading = True
        try:
            upgraded = await self._loop.start_tls(
                self._transport, self, context, server_hostname=server_name, ssl_handshake_timeout=timeout_seconds
            )
        except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:  # ValueError: a name that is none to TLS
            failure = self.failure or tls_trouble(error)
            self.abort(failure)
            raise LinkLost(failure, operator=isinstance(error, ssl.SSLCertVerificationError)) from None
        finally:
            self._upgrading = False
        if upgraded is None or self.failure is not None:
            self.abort("the connection was closed in the TLS handshake")
            raise LinkLost(self.failure)
        self._transport = upgraded
        self.capabilities = Capabilities()  # RFC 3207 4.2: what was said in clear is forgotten

    @property
    def peer_certificate(self) -> bytes | None:
        """What the server has shown under TLS, DER."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return None if tls is None else tls.getpeercert(binary_form=True)

    @property
    def peer_chain(self) -> list[bytes]:
        """All that the server has shown under TLS, DER, its own first; verified or not."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if tls is None:
            return []
        # Public from Python 3.13 on; before that the object behind has the same.
        shown = getattr(tls, "get_unverified_chain", None) or tls._sslobj.get_unverified_chain
        return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in shown() or ()]

    def quit(self) -> None:
        """Say QUIT and close; does not wait for the answer longer than a moment, nor make the caller wait."""
        if self.failure is not None or self._leaving:
            return
        self._leaving = True
        self.send(b"QUIT\r\n")
        self._loop.call_later(_GOODBYE_SECONDS, self.abort, "closed")

    def abort(self, failure: str) -> None:
        """End it now; what waits gets to know `failure`."""
        if self.failure is None:
            self.failure = failure
            self._wake()
        if self._transport is not None:
            self._transport.abort()

    async def closed(self) -> None:
        """Wait until the socket is gone."""
        await asyncio.shield(self._closed)

    # -- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            if self._transport is not None:
                self._transport.close()
            return
        if self._upgrading:
            self.abort("the server, or someone between, sent data in clear after its answer to STARTTLS")
            return
        replies = self._parser.replies
        before = len(replies)
        try:
            self._parser.feed(data)
        except MalformedReply as problem:
            self.abort(f"the server broke the protocol: {problem}")
            return
        # Only a whole reply earns the next one its time: a server that drips bytes would be waited for without end.
        if self._waiter is not None and len(replies) > before:
            if len(replies) >= self._expected or replies[-1].code == 421:
                self._wake()
            else:
                self._deadline = self._loop.time() + self._timeout_seconds

    def eof_received(self) -> None:
        if self.failure is None:
            self.failure = "the server closed the connection"
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self.failure is None:
            self.failure = f"the connection was lost: {error}" if error else "the server closed the connection"
        self._wake()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if not self._closed.done():
            self._closed.set_result(None)
            if self.on_closed is not None:
                self.on_closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- details

    def _wake(self) -> None:
        for future in (self._waiter, self._drained):
            if future is not None and not future.done():
                future.set_result(None)

    def _watch(self, timeout_seconds: float) -> None:
        """Set the deadline of the present wait. The timer is only moved when it would fire too late."""
        self._timeout_seconds = timeout_seconds
        self._deadline = self._loop.time() + timeout_seconds
        if self._watchdog is not None:
            if self._watchdog.when() <= self._deadline:
                return
            self._watchdog.cancel()
        self._watchdog = self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._watchdog = None
        waiting = any(f is not None and not f.done() for f in (self._waiter, self._drained))
        if not waiting or self.failure is not None:
            return
        if self._loop.time() < self._deadline:
            self._watchdog = self._loop.call_at(self._deadline, self._check_deadline)
        else:
            self.abort(f"no answer within {self._timeout_seconds:g} s")


def tls_trouble(error: BaseException) -> str:
    """Say what is wrong with the server's TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the server's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: the handshake failed: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "TLS: the handshake took too long"
    return f"TLS: the connection was lost in the handshake: {error or type(error).__name__}"
