"""A real core on loopback, and clients that do only what they are told, when they are told.

Core and clients are one process, and the clients are its only Python thread: what the process used of the CPU beyond
that thread is the core's own (`CoreCpu`).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from smtp_proxy.core import Batch, Server, ServerConfig

IDENTITY = (b"t" * 16, b"c" * 16, "bench")
SENDER, RECIPIENT = "sender@load.example", "recipient@load.example"
TRANSACTION = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
# Complete, as libraries make it: nothing is added, and what is stored is what was sent.
_HEADER = (
    f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: bench\r\n"
    "Date: Mon, 04 May 2026 03:02:01 +0000\r\nMessage-ID: <1@bench.invalid>\r\n\r\n"
).encode()
_TIMEOUT_SECONDS = 20.0


def message(size_bytes: int) -> bytes:
    """A message of exactly that size, in lines of 78 bytes as mail has them. None begins with a dot."""
    lines, rest = divmod(size_bytes - len(_HEADER), 78)
    first = b"x" * (rest + 76) + b"\r\n"
    return _HEADER + first + (b"x" * 76 + b"\r\n") * (lines - 1)


class Client:
    """One session on the plaintext listener, past EHLO."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close = self._socket.close
        self.write = self._socket.sendall
        greeting = self.read(1)
        self.write(b"EHLO client.example\r\n")
        extensions = self._read_until(b"\r\n250 ")
        assert greeting[0].startswith(b"220 "), greeting
        assert b"PIPELINING" in extensions, extensions

    def read(self, lines: int) -> list[bytes]:
        """Exactly so many lines; more is an error."""
        seen, missing = [], lines
        while missing > 0:
            seen.append(self._receive())
            missing -= seen[-1].count(b"\n")
        assert missing == 0, b"".join(seen)[-200:]
        return b"".join(seen).splitlines()

    def begin_message(self) -> None:
        """A transaction up to the server's wish for the text."""
        self.write(TRANSACTION)
        replies = self.read(3)
        assert [reply[:3] for reply in replies] == [b"250", b"250", b"354"], replies

    def _read_until(self, last_line: bytes) -> bytes:
        seen = b""
        while last_line not in seen or not seen.endswith(b"\r\n"):
            seen += self._receive()
        return seen

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 18)
        assert received, "the server hung up"
        return received


class Core:
    """A started server with its plaintext listener, and ways to wait for it without an event loop."""

    def __init__(self) -> None:
        self.server = Server(
            ServerConfig(
                hostname="mx.example.com",
                plaintext_address="127.0.0.1:0",
                plaintext_identity=IDENTITY,
                threads=1,
                limits={"idle_commands_per_session": 0},  # NOOPs in a row are what is measured
            )
        )
        self._address = self.server.start()["plaintext"]

    def connect(self) -> Client:
        return Client(self._address)

    def wait_until_queued(self, envelopes: int) -> None:
        """Until so many wait for `next_batch`. If that is one of each session, the core then has nothing to do."""
        end = time.monotonic() + _TIMEOUT_SECONDS
        while (queued := self.server.stats()["envelopes_queued"]) < envelopes:
            assert time.monotonic() < end, f"{queued} of {envelopes} envelopes came"
            time.sleep(0.001)

    def next_batch(self) -> Batch:
        """Sleep until the core's wake-up, as the event loop does, and take what came."""
        while (batch := self.server.next_batch(1000, 1 << 30)) is None:
            if not self.server.arm(logins=False):
                readable, _, _ = select.select([self.server.fileno()], [], [], _TIMEOUT_SECONDS)
                assert readable, "no envelope came"
        return batch


@contextmanager
def running(clients: int) -> Iterator[tuple[Core, list[Client]]]:
    """A core and so many sessions on it."""
    core = Core()
    with ExitStack() as closing:
        closing.callback(core.server.stop)
        sessions = []
        for _ in range(clients):
            sessions.append(core.connect())
            closing.callback(sessions[-1].close)
        yield core, sessions


class CoreCpu:
    """CPU seconds of all threads but this one between `start` and `stop`, summed up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def start(self) -> None:
        self._began = self._others()

    def stop(self) -> None:
        self.seconds += self._others() - self._began

    @staticmethod
    def _others() -> float:
        return time.process_time() - time.thread_time()
