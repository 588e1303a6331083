"""The HTTP API in `smtp-proxy dev`: what it is told decides what becomes of mail."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fix_dev import Dev, until
from senders import Wire

pytestmark = pytest.mark.timeout(240)
GONE = "gone@example.net"


class Asked:
    """The API as the ready file tells of it."""

    def __init__(self, dev: Dev) -> None:
        self._url = dev.ready["api"]["url"]
        self.key = Path(dev.ready["api"]["key_file"]).read_text().strip()

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


async def submit(dev: Dev, *recipients: str) -> str:
    """One message to these; returns its id."""
    wire = await Wire.open("127.0.0.1", dev.ready["smtp"]["plaintext_port"])
    await wire.command(250, "EHLO client.example")
    await wire.command(250, "MAIL FROM:<me@example.com>")
    for recipient in recipients:
        await wire.command(250, f"RCPT TO:<{recipient}>")
    await wire.command(354, "DATA")
    accepted = await wire.command(250, "Subject: both\r\n\r\nhello\r\n.")
    await wire.close()
    return accepted.split("queued as ")[1].split()[0]


def test_a_suppressed_address_gets_no_mail_and_the_sender_sees_why(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--plaintext-port", "0", api=True).start()
    assert set(dev.ready["pids"]) == {"postgres", "valkey", "sink", "smtp", "worker", "api", "supervisor"}
    assert stat.S_IMODE(Path(dev.ready["api"]["key_file"]).stat().st_mode) == 0o600
    ask = Asked(dev)
    ask("PUT", f"/api/v1/suppressions/{GONE}", {"reason": "asked us to stop"})
    message_id = asyncio.run(submit(dev, GONE, "here@example.net"))

    def shown() -> dict[str, Any]:
        found = ask("GET", f"/api/v1/messages/{message_id}")
        return {delivery["recipient"]: delivery for delivery in found["deliveries"]}

    until(lambda: {d["state"] for d in shown().values()} == {"refused", "delivered"}, 30, dev.tail)
    gone = shown()[GONE]
    assert (gone["state"], "asked us to stop" in gone["attempts"][-1]["reply_text"]) == ("refused", True)
    (kept,) = [m for m in dev.sink() if m["id"] == message_id]
    assert kept["rcpt_tos"] == ["here@example.net"]
    listed = [m["id"] for m in ask("GET", "/api/v1/messages?state=refused")["messages"]]
    assert message_id in listed

    # What is printed works as it is pasted, and no secret is in it.
    log = dev.log.read_text()
    (line,) = [line for line in log.splitlines() if "curl" in line and "/api/v1/messages" in line]
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert message_id in done.stdout
    assert ask.key not in log

    # The key is found again, and one that was revoked is replaced.
    assert dev.stop() == 0
    dev.start()
    assert Asked(dev).key == ask.key
    dev.command("api-key", "revoke", "dev", "dev")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        Asked(dev)("GET", "/api/v1/messages")
    dev.stop()
    dev.start()
    again = Asked(dev)
    assert again.key != ask.key
    assert again("GET", f"/api/v1/suppressions/{GONE}")["reason"] == "asked us to stop"
