"""Ctrl-C, sent to a client in a process of its own."""

import signal
import time

import pytest

PATIENCE_SECONDS = 20


@pytest.mark.parametrize("pace", [("--messages-per-connection", "0"), ("--rate", "0.01", "--connections", "4")])
def test_interrupt_finishes_what_is_under_way(serve, spawn, authority, checked, pace):
    """REQ-INFRA-CLIENT-005: SIGINT yields the summary of what was sent, and exit code 130."""
    server = serve()
    server.mailbox.slowness_seconds = 0.2
    process = spawn("batch", *server.options("--ca-file", authority.ca_file, "--count", "1000", "--json", *pace))
    assert server.mailbox.arrived.wait(PATIENCE_SECONDS)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    result = checked(out)
    assert process.returncode == 130
    assert result["interrupted"]
    assert 1 <= result["accepted"] == len(server.mailbox.envelopes) < 1000
    assert result["unsent"] == 1000 - result["accepted"]
    assert result["phases_seconds"]["total"]["count"] == result["accepted"]


def test_second_interrupt_leaves_at_once(serve, spawn, authority):
    """REQ-INFRA-CLIENT-005: nobody waits for a server that does not answer."""
    server = serve()
    server.mailbox.slowness_seconds = 3600
    process = spawn("batch", *server.options("--ca-file", authority.ca_file, "--count", "5"))
    assert server.mailbox.arrived.wait(PATIENCE_SECONDS)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # Signals do not queue: the first must have been seen.
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert out.startswith(f"interrupted: 127.0.0.1:{server.port} (starttls): 0 accepted, 0 failed, 5 unsent of 5 in ")
    assert "Traceback" not in err


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="a child inherits that")
def test_interrupt_of_a_single_mail(serve, spawn, authority):
    """REQ-INFRA-CLIENT-004: one word and exit code 130."""
    server = serve()
    server.mailbox.slowness_seconds = 3600
    process = spawn("send", *server.options("--ca-file", authority.ca_file))
    assert server.mailbox.arrived.wait(PATIENCE_SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
