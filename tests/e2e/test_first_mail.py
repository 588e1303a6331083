"""The first thing that anybody does: send a mail, and see that it arrived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fix_dev import Dev, until
from programs import program

TOOLS = Path(sys.executable).parent


def run(dev: Dev, *command: str, given: str = "") -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, env=dev.environment(), timeout=60, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def kept(dev: Dev, subject: str) -> dict[str, object]:
    """The one message with this subject, once it is there."""
    found: list[dict[str, object]] = []

    def arrived() -> bool:
        found[:] = [message for message in dev.sink() if message["subject"] == subject]
        return bool(found)

    until(arrived, 15, lambda: f"{subject} did not arrive\n{dev.tail()}")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_the_client_sends_and_the_server_shows(dev: Dev, tls: str) -> None:
    """REQ-INFRA-CLIENT-001: by a command of its own, which knows the server from the wire alone."""
    smtp = dev.ready["smtp"]
    answer = run(
        dev, str(TOOLS / "smtp-proxy-client"), "send", "--host", smtp["host"],
        "--port", str(smtp["starttls_port" if tls == "starttls" else "tls_port"]), "--tls", tls,
        "--ca-file", dev.ready["ca_file"], "--user", dev.ready["user"], "--password", "-",
        "--from", "you@example.com", "--to", "friend@example.org", "--subject", f"Hello by {tls}", "--json",
        given=dev.ready["password"] + "\n",
    )  # fmt: skip
    assert json.loads(answer)["accepted"] == 1, answer
    message = kept(dev, f"Hello by {tls}")
    assert (message["mail_from"], message["rcpt_tos"]) == ("you@example.com", ["friend@example.org"])

    listed = json.loads(dev.command("messages", "list", "--json"))
    assert message["id"] in [one["id"] for one in listed]
    shown = json.loads(dev.command("messages", "show", str(message["id"]), "--json"))
    (delivery,) = shown["deliveries"]
    assert delivery["state"] == "delivered"
    assert delivery["attempts"][0]["reply_code"] == 250

    raw = dev.raw(int(str(message["number"])))
    assert raw.startswith(b"Received: from ")
    assert f"with ESMTPSA id {message['id']}\r\n\ttls TLS_AES_".encode() in raw


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_sends(dev: Dev, mechanism: str) -> None:
    smtp = dev.ready["smtp"]
    run(
        dev, program("swaks", "swaks"), "--server", smtp["host"],
        "--port", str(smtp["starttls_port"]), "--tls", "--auth", mechanism,
        "--auth-user", dev.ready["user"], "--auth-password", dev.ready["password"], "--from", "swaks@example.com",
        "--to", "one@example.org,two@example.org", "--header", f"Subject: swaks {mechanism}",
        "--body", ".dots\n..more dots\n.",
    )  # fmt: skip
    message = kept(dev, f"swaks {mechanism}")
    assert message["rcpt_tos"] == ["one@example.org", "two@example.org"]
    assert b"\r\n\r\n.dots\r\n..more dots\r\n.\r\n" in dev.raw(int(str(message["number"])))


def test_the_block_that_is_printed_works_as_it_is_pasted(dev: Dev) -> None:
    lines = dev.log.read_text().splitlines()
    (send,) = [line for line in lines if "smtp-proxy-client send" in line]
    assert dev.ready["password"] not in dev.log.read_text()
    environment = {**dev.environment(), "PATH": f"{TOOLS}:{dev.environment()['PATH']}"}
    done = subprocess.run(send, shell=True, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "accepted: 250 2.0.0 queued as " in done.stdout
    assert kept(dev, "Hello")["mail_from"] == "you@example.com"
    (listing,) = [line for line in lines if "messages list" in line]
    bare = {name: value for name, value in environment.items() if not name.startswith("DB_")}
    done = subprocess.run(listing, shell=True, capture_output=True, text=True, env=bare, timeout=60, check=False)
    assert "<friend@example.org>" in done.stdout, done.stderr
