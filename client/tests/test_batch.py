"""Many mails to real servers: how many, how fast, over how many connections, and what went wrong."""

import asyncio
import email
import email.policy
import re
import time

import pytest

from smtp_proxy_client import batch

LOGIN = ("--user", "tenant1@example.com", "--password", "s3cret-pa$$")
TIMED_PHASES = ["connect", "tls", "hello", "auth", "mail", "rcpt", "data", "total"]


@pytest.fixture
def run(client, authority, checked):
    """A batch that trusts the test's CA; its exit code and its checked JSON."""

    def start(server, *options):
        ran = client("batch", *server.options("--ca-file", authority.ca_file, "--json", *options))
        return ran.code, checked(ran.out)

    return start


def messages(server):
    return [email.message_from_bytes(e.content, policy=email.policy.default) for e in server.mailbox.envelopes]


def subjects(server) -> list[str]:
    return [message["Subject"] for message in messages(server)]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_each_mail_arrives_exactly_once(serve, run, tls):
    """REQ-INFRA-CLIENT-005: --count mails, numbered from 1, each with a Message-ID of its own."""
    server = serve(tls)
    code, result = run(server, "--tls", tls, "--count", "12", "--connections", "4")
    assert (code, result["accepted"], result["failed"], result["unsent"]) == (0, 12, 0, 0)
    assert sorted(subjects(server)) == sorted(f"Batch Test Email {number}" for number in range(1, 13))
    assert len({message["Message-ID"] for message in messages(server)}) == 12
    assert all(server.mailbox.tls)


def test_default_text_is_the_specs(serve, run):
    """REQ-INFRA-CLIENT-005: subject and body count along."""
    server = serve()
    assert run(server, "--count", "2")[0] == 0
    assert [m.get_content().strip() for m in messages(server)] == [
        f"This is batch test email number {n}" for n in (1, 2)
    ]


def test_connections_are_parallel_and_bounded(serve, run):
    """REQ-INFRA-CLIENT-005: --connections at the same time, never more."""
    server = serve()
    server.mailbox.together = asyncio.Barrier(3)
    code, result = run(server, "--count", "12", "--connections", "3", "--timeout", "20")
    assert (code, result["accepted"]) == (0, 12)
    assert server.mailbox.peak == 3


def test_no_more_connections_than_mails(serve, run):
    """REQ-INFRA-CLIENT-005: a connection without a mail is not opened."""
    server = serve()
    assert run(server, "--count", "2", "--connections", "50")[0] == 0
    assert server.mailbox.connections == 2


@pytest.mark.parametrize(("per_connection", "connections"), [((), 7), (("3",), 3), (("7",), 1), (("0",), 1)])
def test_messages_per_connection(serve, run, per_connection, connections):
    """REQ-INFRA-CLIENT-005, REQ-INFRA-CLIENT-008: reconnects, and logs in again, after so many mails."""
    server = serve(auth_required=True)
    options = [part for value in per_connection for part in ("--messages-per-connection", value)]
    code, result = run(server, "--count", "7", *LOGIN, *options)
    assert (code, result["accepted"]) == (0, 7)
    assert server.mailbox.connections == len(server.mailbox.logins) == connections
    assert result["phases_seconds"]["auth"]["count"] == connections
    assert result["phases_seconds"]["data"]["count"] == 7


def test_rate_is_not_exceeded(serve, run):
    """REQ-INFRA-CLIENT-005: mail k, from 0, does not leave before k / --rate."""
    server = serve()
    begun = time.monotonic()
    code, result = run(server, "--count", "6", "--rate", "20", "--connections", "6")
    assert (code, result["rate_per_second"]) == (0, 20)
    assert result["elapsed_seconds"] >= 5 / 20
    assert all(arrival - begun >= k / 20 for k, arrival in enumerate(sorted(server.mailbox.arrivals)))


def test_slow_server_shows_as_lateness(serve, run):
    """REQ-INFRA-CLIENT-005, REQ-INFRA-CLIENT-012: the schedule goes on; mails behind it are late."""
    server = serve()
    server.mailbox.slowness_seconds = 0.1
    code, result = run(server, "--count", "4", "--rate", "100")
    assert code == 0
    assert result["phases_seconds"]["wait"]["count"] == 4
    assert result["phases_seconds"]["wait"]["max"] > 3 * (0.1 - 0.01) * 0.9


def test_without_a_rate_nothing_is_late(serve, run):
    """REQ-INFRA-CLIENT-012: the phase `wait` belongs to --rate."""
    _, result = run(serve(), "--count", "2")
    assert result["rate_per_second"] is None
    assert "wait" not in result["phases_seconds"]


def test_recipients_are_taken_in_turn(serve, run):
    """REQ-INFRA-CLIENT-005: each mail goes to one recipient, the next mail to the next one."""
    server = serve()
    assert run(server, "--count", "5", "--to", "a@example.com", "--to", "b@example.com")[0] == 0
    assert [e.rcpt_tos for e in server.mailbox.envelopes] == [[f"{name}@example.com"] for name in "ababa"]
    assert [m["To"] for m in messages(server)] == [f"{name}@example.com" for name in "ababa"]


def test_failures_are_counted_by_their_text(serve, run):
    """REQ-INFRA-CLIENT-005: a refused mail does not end the batch, nor its connection."""
    server = serve()
    server.mailbox.on_recipient = lambda address: "550 5.1.1 nobody here" if "bad" in address else None
    server.mailbox.on_data = lambda count: "451 4.3.0 disk is full" if count == 2 else None
    options = ("--to", "a@example.com", "--to", "bad@example.com", "--messages-per-connection", "0")
    code, result = run(server, "--count", "6", *options)
    assert code == 1
    assert (result["accepted"], result["failed"], result["unsent"]) == (2, 4, 0)
    assert result["failures"] == [
        {"text": "rcpt: 550 5.1.1 nobody here", "count": 3, "temporary": False},
        {"text": "data: 451 4.3.0 disk is full", "count": 1, "temporary": True},
    ]
    assert server.mailbox.connections == 1
    assert result["phases_seconds"]["total"]["count"] == 2


@pytest.mark.parametrize("per_connection", ["0", "1"])
def test_connection_lost_in_the_middle(serve, run, per_connection):
    """REQ-INFRA-CLIENT-005: the mail that was lost with it is counted; the next one connects anew."""
    server = serve()
    server.mailbox.hangs_up_at = lambda count: count == 3
    code, result = run(server, "--count", "6", "--messages-per-connection", per_connection)
    assert code == 1
    assert (result["accepted"], result["failed"], result["unsent"]) == (5, 1, 0)
    assert result["failures"][0]["text"].startswith("data: connection ")
    assert result["failures"][0]["temporary"]
    assert subjects(server) == [f"Batch Test Email {number}" for number in (1, 2, 4, 5, 6)]


def test_server_that_goes_away_for_good(serve, run):
    """REQ-INFRA-CLIENT-005: every remaining mail is tried and counted, with the reason."""
    server = serve()

    def close(count):
        if count == 2:
            server.listener.close()

    server.mailbox.on_data = close
    code, result = run(server, "--count", "5")
    assert code == 1
    assert (result["accepted"], result["failed"], result["unsent"]) == (2, 3, 0)
    [failure] = result["failures"]
    assert failure["count"] == 3
    assert failure["text"].startswith(f"connect: cannot connect to 127.0.0.1:{server.port}")
    assert "Connection refused" in failure["text"]


def test_connection_that_the_server_announces_to_close(serve, run):
    """REQ-INFRA-CLIENT-005: 421 ends the connection, not the batch."""
    server = serve()
    server.mailbox.on_data = lambda count: "421 4.3.2 too many mails" if count == 1 else None
    code, result = run(server, "--count", "3", "--messages-per-connection", "0")
    assert (code, result["accepted"], result["failed"]) == (1, 2, 1)
    assert server.mailbox.connections == 2


def test_refused_login_is_counted_per_mail(serve, run):
    """REQ-INFRA-CLIENT-008: nothing is sent without the login."""
    server = serve(auth_required=True)
    code, result = run(server, "--count", "3", "--user", "somebody", "--password", "wrongpassword")
    assert (code, result["failed"]) == (1, 3)
    assert "auth: AUTH PLAIN refused: 535" in result["failures"][0]["text"]
    assert server.mailbox.envelopes == []


def test_options_that_make_no_sense_end_the_run(client):
    """REQ-INFRA-CLIENT-008: a login in the clear to another machine is refused once, with exit code 2."""
    ran = client("batch", "--host", "192.0.2.1", "--tls", "none", "--count", "1000", *LOGIN)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("refusing to log in without TLS") == 1


def test_text_summary_has_the_timings(serve, client, authority):
    """REQ-INFRA-CLIENT-012: one row per phase: count, min, median, percentiles, max, in milliseconds."""
    server = serve(auth_required=True)
    ran = client("batch", *server.options("--ca-file", authority.ca_file, "--count", "5", *LOGIN))
    assert ran.code == 0
    headline, columns, *rows = ran.out.splitlines()
    assert headline.startswith(f"127.0.0.1:{server.port} (starttls): 5 accepted, 0 failed, 0 unsent of 5 in ")
    assert columns.split() == ["ms", "count", "min", "median", "p95", "p99", "max"]
    assert [row.split()[0] for row in rows] == TIMED_PHASES
    for row in rows:
        count, *durations = row.split()[1:]
        assert count == "5"
        assert list(map(float, durations)) == sorted(map(float, durations))


def test_text_summary_names_the_failures(serve, client, authority):
    """REQ-INFRA-CLIENT-005: how often what was said, and whether a later try may help."""
    server = serve()
    server.mailbox.on_data = lambda _count: "451 4.3.0 later"
    ran = client("batch", *server.options("--ca-file", authority.ca_file, "--count", "2"))
    assert ran.code == 1
    assert "  failed 2 x data: 451 4.3.0 later (temporary)\n" in ran.out


def test_timings_of_the_phases_add_up(serve, run):
    """REQ-INFRA-CLIENT-012: a slow answer to DATA shows in `data` and in `total`, and nowhere else."""
    server = serve()
    server.mailbox.slowness_seconds = 0.15
    phases = run(server, "--count", "2")[1]["phases_seconds"]
    assert phases["data"]["min"] >= 0.14
    assert phases["total"]["min"] >= phases["data"]["min"]
    others = sum(phases[name]["min"] for name in phases if name not in {"data", "total"})
    assert phases["total"]["max"] >= phases["data"]["min"] + others


def test_quiet_is_silent(serve, client, authority):
    """REQ-INFRA-CLIENT-005: with -q the exit code says it all."""
    ran = client("batch", *serve().options("--ca-file", authority.ca_file, "--count", "2", "-q"))
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_quiet_still_names_the_failures(serve, client, authority):
    """REQ-INFRA-CLIENT-005: -q leaves errors, on stderr."""
    server = serve()
    server.mailbox.on_data = lambda _count: "554 5.6.0 no"
    ran = client("batch", *server.options("--ca-file", authority.ca_file, "--count", "2", "-q"))
    assert (ran.code, ran.out, ran.err) == (1, "", "error: 2 x data: 554 5.6.0 no\n")


@pytest.mark.parametrize(("quiet", "shown"), [((), True), (("-q",), False)])
def test_progress(serve, client, authority, monkeypatch, quiet, shown):
    """REQ-INFRA-CLIENT-005: now and then a line on stderr, unless -q."""
    monkeypatch.setattr(batch, "PROGRESS_SECONDS", 0.1)
    server = serve()
    ran = client("batch", *server.options("--ca-file", authority.ca_file, "--count", "4", "--rate", "10", *quiet))
    assert ran.code == 0
    assert bool(ran.err) == shown
    assert all(re.fullmatch(r"sent [0-4]/4 \(0 failed\), [0-9.]+/s", line) for line in ran.err.splitlines())
