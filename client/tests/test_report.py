"""The result as text and as the JSON of schema.json."""

import pytest

from smtp_proxy_client import report
from smtp_proxy_client.errors import ClientError
from smtp_proxy_client.stats import PHASES, Failure, Recorder, Result, Run, Summary

SUMMARY = Summary(count=2, min=0.001, median=0.0015, p95=0.002, p99=0.002, max=0.002)


def result(**changes) -> Result:
    facts = {
        "run": Run("batch", "mail.example.com", 587, "starttls", 5, 10.0, 2),
        "accepted": 2,
        "failed": 1,
        "interrupted": True,
        "elapsed_seconds": 0.5,
        "failures": (Failure("rcpt: 450 later", 1, temporary=True),),
        "phases": {"data": SUMMARY},
        "mail": None,
    }
    return Result(**{**facts, **changes})


def test_text_of_a_batch():
    """REQ-INFRA-CLIENT-012: the whole summary, word for word."""
    assert report.as_text(result()) == "\n".join(
        [
            "interrupted: mail.example.com:587 (starttls): 2 accepted, 1 failed, 2 unsent of 5 in 0.50 s, 4.0/s"
            " (asked for 10/s)",
            "  ms           count       min    median       p95       p99       max",
            "  data             2      1.00      1.50      2.00      2.00      2.00",
            "  failed 1 x rcpt: 450 later (temporary)",
        ]
    )


def test_text_without_a_rate_or_phases():
    """REQ-INFRA-CLIENT-012: what was not asked for and what did not happen is not shown."""
    plain = result(
        run=Run("batch", "h", 465, "implicit"), interrupted=False, phases={}, failures=(), accepted=1, failed=0
    )
    assert report.as_text(plain) == "h:465 (implicit): 1 accepted, 0 failed, 0 unsent of 1 in 0.50 s, 2.0/s"


def test_json_of_a_batch(checked):
    """REQ-INFRA-CLIENT-012: seconds, as schema.json says."""
    parsed = checked(report.as_json(result()))
    assert (parsed["unsent"], parsed["accepted_per_second"]) == (2, 4.0)
    assert parsed["phases_seconds"]["data"] == {
        "count": 2,
        "min": 0.001,
        "median": 0.0015,
        "p95": 0.002,
        "p99": 0.002,
        "max": 0.002,
    }


def test_no_time_at_all_is_no_division_by_zero(checked):
    """REQ-INFRA-CLIENT-012: a clock that did not move gives a rate of 0."""
    assert checked(report.as_json(result(elapsed_seconds=0.0)))["accepted_per_second"] == 0.0


def test_schema_knows_every_phase(checked):
    """REQ-INFRA-CLIENT-012: a phase of the program is a phase of the schema."""
    parsed = checked(report.as_json(result(phases=dict.fromkeys(PHASES, SUMMARY))))
    assert list(parsed["phases_seconds"]) == list(PHASES)


def test_schema_allows_the_most_failures_there_are(checked):
    """REQ-INFRA-CLIENT-005: the bound of the program is the bound of the schema."""
    recorder = Recorder(Run("batch", "h", 25, "none", 100))
    for number in range(100):
        recorder.failed({}, ClientError(f"no {number}"))
    assert len(checked(report.as_json(recorder.result()))["failures"]) == 51


def test_progress_line():
    """REQ-INFRA-CLIENT-005: how far it has come."""
    recorder = Recorder(Run("batch", "h", 25, "none", 10))
    recorder.accepted({})
    recorder.failed({}, ClientError("no"))
    assert report.progress_line(recorder).startswith("sent 2/10 (1 failed), ")


def test_json_of_a_single_mail(serve, client, authority, checked):
    """REQ-INFRA-CLIENT-004, REQ-INFRA-CLIENT-012: the mail's facts and the time of each phase."""
    server = serve()
    server.mailbox.on_recipient = lambda address: "550 5.1.1 nobody here" if "bad" in address else None
    options = (
        "--user",
        "tenant1@example.com",
        "--password",
        "s3cret-pa$$",
        "--to",
        "bad@x.example",
        "--to",
        "b@x.example",
    )
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--json", *options))
    sent = checked(ran.out)
    assert (ran.code, sent["command"], sent["accepted"], sent["count"]) == (1, "send", 1, 1)
    assert sent["mail"]["reply"] == "250 2.0.0 taken"
    assert (sent["mail"]["tls_version"], sent["mail"]["mechanism"]) == ("TLSv1.3", "PLAIN")
    assert sent["mail"]["refused_recipients"] == {"bad@x.example": "550 5.1.1 nobody here"}
    assert list(sent["phases_seconds"]) == [name for name in PHASES if name != "wait"]
    assert "s3cret" not in ran.out + ran.err


def test_text_of_a_single_mail(serve, client, authority):
    """REQ-INFRA-CLIENT-012: a line with the milliseconds of each phase."""
    ran = client("send", *serve().options("--ca-file", authority.ca_file))
    [line] = [line for line in ran.out.splitlines() if line.startswith("  ms ")]
    assert [part.split()[0] for part in line.removeprefix("  ms ").split(",")] == [
        name for name in PHASES if name not in {"wait", "auth"}
    ]


@pytest.mark.parametrize("command", ["send", "batch"])
def test_json_of_a_failure(client, checked, command):
    """REQ-INFRA-CLIENT-012: also a run without a connection is a valid result; -q keeps it."""
    ran = client(command, "--host", "127.0.0.1", "--port", "1", "--json", "-q")
    failed = checked(ran.out)
    assert (failed["accepted"], failed["mail"], failed["phases_seconds"]) == (0, None, {})
    assert failed["failures"][0]["text"].startswith("connect: cannot connect to 127.0.0.1:1")


def test_replies_in_other_scripts_are_readable_json(script, client, checked):
    """REQ-INFRA-CLIENT-005: what the server said, as it said it."""
    port = script("554 доступ запрещён\r\n".encode())
    ran = client("batch", "--host", "127.0.0.1", "--port", port, "--tls", "none", "--count", "1", "--json")
    assert checked(ran.out)["failures"][0]["text"] == "hello: 554 доступ запрещён"
    assert "доступ" in ran.out
