"""The border between Rust and Python: what comes over it is what was sent, and each is answered as Python says."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.core import (
    BODY,
    BODY_TYPE,
    CLIENT_ADDRESS,
    CREDENTIAL_ID,
    HELO,
    ID,
    RECEIVED_AT_US,
    RECIPIENTS,
    REVERSE_PATH,
    SMTPUTF8,
    TENANT_ID,
    TLS,
    Batch,
    Server,
    ServerConfig,
)
from smtp_proxy.model.envelope import BodyType

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

TENANT, CREDENTIAL = bytes(range(16)), bytes(range(16, 32))

words = st.text("abcdefXYZ0189!#$%&'*+-/=?^_`{|}~é☃", min_size=1, max_size=12)
mailboxes = st.builds("{}@{}.example".format, words, st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True))
text_lines = st.binary(max_size=60).filter(lambda raw: not set(raw) & set(b"\r\n\0"))
bodies = st.lists(st.one_of(text_lines, st.sampled_from([b".", b"..", b""])), max_size=8).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


class Talker:
    """A server without Python's event loop, and one client of it."""

    def __init__(self) -> None:
        self.server = Server(
            ServerConfig(
                hostname="mx.example",
                plaintext_address="127.0.0.1:0",
                plaintext_identity=(TENANT, CREDENTIAL, "preset@example.com"),
                limits={"errors_per_session": 0, "idle_commands_per_session": 0},
                add_missing_headers=False,
                strip_bcc=False,
                threads=1,
            )
        )
        address = self.server.start()["plaintext"]
        self.socket = socket.create_connection(address, 10)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.say("EHLO [192.0.2.1]")

    def say(self, line: str) -> bytes:
        """One command; the last line of its reply."""
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def reply(self) -> bytes:
        while (line := self.file.readline())[3:4] == b"-":
            pass
        return line

    def send(self, reverse_path: str, recipients: list[str], body: bytes) -> None:
        """A transaction up to its final dot; its reply is not read."""
        utf8 = "" if all(map(str.isascii, (reverse_path, *recipients))) else " SMTPUTF8"
        assert self.say(f"MAIL FROM:<{reverse_path}>{utf8}").startswith(b"250")
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>").startswith(b"250")
        assert self.say("DATA").startswith(b"354")
        stuffed = b"".join(b"." * line.startswith(b".") + line for line in body.splitlines(keepends=True))
        self.socket.sendall(stuffed + b".\r\n")

    def batch(self) -> Batch:
        deadline = time.monotonic() + 10
        while (batch := self.server.next_batch(100, 2**20)) is None:
            if not self.server.arm(batches=True, logins=False):
                assert select.select([self.server], [], [], deadline - time.monotonic())[0], "nothing came"
        return batch

    def close(self) -> None:
        self.file.close()
        self.socket.close()
        self.server.stop()


@pytest.fixture(scope="module")
def talker() -> Iterator[Talker]:
    made = Talker()
    yield made
    made.close()


@given(st.one_of(st.just(""), mailboxes), st.lists(mailboxes, min_size=1, max_size=4, unique=True), bodies)
def test_a_row_is_what_was_sent(talker: Talker, reverse_path: str, recipients: list[str], body: bytes) -> None:
    before = time.time_ns() // 1000
    talker.send(reverse_path, recipients, body)
    batch = talker.batch()
    (row,) = batch.envelopes()
    assert batch.size_bytes == len(body)
    assert (row[TENANT_ID], row[CREDENTIAL_ID]) == (TENANT, CREDENTIAL)
    assert (row[REVERSE_PATH], row[RECIPIENTS], row[BODY]) == (reverse_path, recipients, body)
    assert row[BODY_TYPE] == (BodyType.SEVEN_BIT if body.isascii() else BodyType.EIGHT_BIT_MIME)
    assert row[SMTPUTF8] is not all(map(str.isascii, (reverse_path, *recipients)))
    assert (row[HELO], row[CLIENT_ADDRESS], row[TLS]) == ("[192.0.2.1]", "127.0.0.1", False)
    assert before - 1000 <= row[RECEIVED_AT_US] <= time.time_ns() // 1000 + 1000
    assert UUID(bytes=row[ID]).version == 7
    batch.commit()
    assert talker.reply() == f"250 2.0.0 queued as {UUID(bytes=row[ID])}\r\n".encode()


@given(st.booleans(), st.lists(st.booleans(), max_size=3))
def test_each_is_answered_as_told_or_nobody(talker: Talker, stored: bool, others: list[bool]) -> None:
    talker.send("a@sender.example", ["b@rcpt.example"], b"A: b\r\n")
    batch = talker.batch()
    if others:
        with pytest.raises(ValueError, match="envelope"):
            batch.answer([stored, *others])
    with contextlib.suppress(TypeError):
        batch.answer([object()])  # type: ignore[list-item]
    batch.answer([stored])
    assert talker.reply()[:3] == (b"250" if stored else b"451")
    batch.commit()  # a second answer is none
    assert talker.say("NOOP").startswith(b"250 2.0.0 OK")


def test_a_batch_that_is_dropped_says_try_again(talker: Talker) -> None:
    talker.send("a@sender.example", ["b@rcpt.example"], b"A: b\r\n")
    talker.batch()
    assert talker.reply().startswith(b"451 4.3.0")


def test_bans() -> None:
    """On a server without any limit per address: an order counts all the same."""
    talker = Talker()
    server = talker.server

    def greeting() -> bytes:
        with socket.create_connection(talker.socket.getpeername(), 10) as come, come.makefile("rb") as file:
            return file.readline()

    assert greeting().startswith(b"220 ")
    assert server.ban("::ffff:127.0.0.1", 60)
    assert server.ban("192.0.2.1", 0.001)
    assert greeting().startswith(b"421 4.7.0 ")
    time.sleep(0.01)
    ((address, seconds_left),) = server.bans()
    assert address == "127.0.0.1"
    assert 50 < seconds_left <= 60
    assert talker.say("NOOP").startswith(b"250")
    assert server.lift_ban("127.0.0.1")
    assert not server.lift_ban("127.0.0.1")
    assert greeting().startswith(b"220 ")
    assert server.bans() == []
    for wrong in (lambda: server.ban("localhost", 1), lambda: server.lift_ban(""), lambda: server.ban("::1", -1)):
        with pytest.raises(ValueError, match=r"no IP address|not a time"):
            wrong()
    talker.close()
