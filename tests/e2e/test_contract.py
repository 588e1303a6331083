"""The contract with anyone's test harness (docs/DEV.md): the ready file is true, and options do what they say."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiosmtpd.controller import Controller
from certificates import Authority
from fix_dev import Dev, until
from fix_postgres import free_port
from senders import Refused, Senders, Wire, closed

PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
TEXT = {"type": "string", "minLength": 1}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [
        "smtp", "ca_file", "user", "password", "sink", "api", "database", "redis_url", "data_dir", "health", "pids",
    ],
    "properties": {
        "smtp": {
            "type": ["object", "null"],
            "required": ["host", "starttls_port", "tls_port", "plaintext_port"],
            "properties": {
                "host": TEXT, "starttls_port": PORT, "tls_port": PORT,
                "plaintext_port": {"anyOf": [PORT, {"type": "null"}]},
            },
        },
        "ca_file": {"anyOf": [TEXT, {"type": "null"}]},
        "user": TEXT, "password": TEXT, "redis_url": TEXT, "data_dir": TEXT,
        "sink": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["smtp_port", "http_url"]}]},
        "api": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["url", "key_file"]}]},
        "database": {"type": "object", "required": ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"]},
        "health": {"type": "object", "additionalProperties": TEXT},
        "pids": {"type": "object", "required": ["supervisor"], "additionalProperties": {"type": "integer"}},
    },
}  # fmt: skip


def test_the_ready_file_holds_what_is_promised(dev: Dev) -> None:
    jsonschema.validate(dev.ready, SCHEMA)
    assert set(dev.ready["pids"]) == {"postgres", "valkey", "sink", "smtp", "worker", "supervisor"}
    assert set(dev.ready["health"]) == {"sink", "smtp", "worker"}
    assert dev.ready["api"] is None  # tests/e2e/test_api.py has one
    for url in dev.ready["health"].values():
        with urllib.request.urlopen(url + "/readyz", timeout=5) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
            assert b"# HELP" in answer.read()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_certificate_verifies_by_the_ca_file(dev: Dev, name: str) -> None:
    context = ssl.create_default_context(cafile=dev.ready["ca_file"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", dev.ready["smtp"]["tls_port"], ssl=context, server_hostname=name
    )
    assert (await reader.readline()).startswith(b"220 ")
    await closed(writer)


async def test_the_plaintext_listener_is_on_loopback_alone(dev: Dev) -> None:
    wire = await Wire.open("127.0.0.1", dev.ready["smtp"]["plaintext_port"])
    ehlo = await wire.command(250, "EHLO again.example")
    assert "STARTTLS" not in ehlo
    assert "AUTH" not in ehlo
    await wire.close()
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not str(address).startswith("127."):
            with (
                pytest.raises(ConnectionError),
                socket.create_connection((address, dev.ready["smtp"]["plaintext_port"]), 2),
            ):
                pass


async def test_the_sink_lists_with_a_cursor_and_forgets(dev: Dev) -> None:
    before = len(dev.sink())
    await Senders(dev.ready["smtp"]["plaintext_port"], 3, connections=1).run()
    until(lambda: len(dev.sink()) == before + 3, 20, dev.tail)
    messages = dev.sink()
    numbers = [message["number"] for message in messages]
    assert numbers == sorted(numbers)
    assert [m["number"] for m in dev.sink(after=numbers[-2])] == numbers[-1:]
    assert set(messages[0]) == {
        "number", "id", "received_at", "mail_from", "rcpt_tos", "size_bytes", "subject", "message_id",
    }  # fmt: skip
    assert len(dev.raw(numbers[-1])) == messages[-1]["size_bytes"]
    dev.forget()
    assert dev.sink() == []


class Keeper:
    def __init__(self) -> None:
        self.subjects: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.subjects += [line for line in envelope.original_content.splitlines() if line.startswith(b"Subject:")]
        return "250 OK"


async def test_a_smarthost_of_the_harness_own(make_dev: Callable[..., Dev]) -> None:
    keeper = Keeper()
    port = free_port()
    controller = Controller(keeper, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        dev = make_dev("--plaintext-port", "0", "--smarthost", f"127.0.0.1:{port}", "--without", "sink").start()
        assert dev.ready["sink"] is None
        assert "sink" not in dev.ready["pids"]
        await Senders(dev.ready["smtp"]["plaintext_port"], 5).run()
        until(lambda: len(keeper.subjects) == 5, 20, dev.tail)
        assert sorted(keeper.subjects) == [b"Subject: message %d" % n for n in range(5)]
        dev.stop()
    finally:
        controller.stop()


async def test_settings_ports_and_services_as_asked(make_dev: Callable[..., Dev]) -> None:
    free = free_port()
    dev = make_dev(
        "--without", "worker", "--without", "sink", "--starttls-port", str(free), "--plaintext-port", "0",
        "--set", "smtp_max_message_bytes=70000", "--set", "SMTP_MAX_RECIPIENTS=2",
    ).start()  # fmt: skip
    assert dev.ready["smtp"]["starttls_port"] == free
    assert set(dev.ready["pids"]) == {"postgres", "valkey", "smtp", "supervisor"}
    wire = await Wire.open("127.0.0.1", dev.ready["smtp"]["plaintext_port"])
    assert "SIZE 70000" in await wire.command(250, "EHLO client.example")
    await wire.command(250, "MAIL FROM:<a@test.example>")
    await wire.command(250, "RCPT TO:<b@test.example>")
    await wire.command(250, "RCPT TO:<c@test.example>")
    with pytest.raises(Refused, match=r"^452 4\.5\.3"):
        await wire.command(250, "RCPT TO:<d@test.example>")
    await wire.close()


async def test_accept_only_says_so_and_keeps_nothing(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--accept-only", "--plaintext-port", "0", "--without", "worker,sink").start()
    port = dev.ready["smtp"]["plaintext_port"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert b"discarded" in await reader.readline()
    await closed(writer)
    senders = Senders(port, 50)
    await senders.run()
    assert len(senders.acknowledged) == 50
    assert "DISCARDED" in dev.tail()
    assert json.loads(dev.command("messages", "list", "--json")) == []


async def test_a_certificate_of_ones_own(make_dev: Callable[..., Dev], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    file = authority.issue("mail.example.com")
    dev = make_dev(
        "--set", f"tls_cert_file={file}", "--set", f"tls_key_file={file}", "--without", "worker,sink"
    ).start()
    assert dev.ready["ca_file"] is None
    assert "--ca-file" not in dev.tail()
    context = ssl.create_default_context(cafile=authority.ca_file)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", dev.ready["smtp"]["tls_port"], ssl=context, server_hostname="mail.example.com"
    )
    assert (await reader.readline()).startswith(b"220 ")
    await closed(writer)


def test_without_smtp_there_is_nowhere_to_connect(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--without", "smtp").start()
    jsonschema.validate(dev.ready, SCHEMA)
    assert dev.ready["smtp"] is None
    assert "smtp-proxy-client" not in dev.tail()
