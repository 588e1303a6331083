"""A `Result` as text for people and as JSON for programs (client/schema.json). Computes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from smtp_proxy_client.stats import Recorder, Result, SentMail, Summary

SCHEMA_VERSION = 1


def as_json(result: Result) -> str:
    """The result as one JSON object."""
    return json.dumps(as_object(result), indent=2, ensure_ascii=False)


def as_object(result: Result) -> dict[str, Any]:
    """The result as client/schema.json describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        **asdict(result.run),
        "accepted": result.accepted,
        "failed": result.failed,
        "unsent": result.unsent,
        "interrupted": result.interrupted,
        "elapsed_seconds": result.elapsed_seconds,
        "accepted_per_second": result.accepted_per_second,
        "failures": [asdict(failure) for failure in result.failures],
        "phases_seconds": {name: asdict(summary) for name, summary in result.phases.items()},
        "mail": asdict(result.mail) if result.mail else None,
    }


def as_text(result: Result) -> str:
    """The result on one screen."""
    if result.mail:
        return "\n".join(_mail_lines(result, result.mail))
    return "\n".join(
        [_headline(result), *_phase_table(result), *(f"  failed {line}" for line in failure_lines(result))]
    )


def failure_lines(result: Result) -> Iterator[str]:
    """How often what went wrong, most frequent first."""
    for failure in result.failures:
        again = " (temporary)" if failure.temporary else ""
        yield f"{failure.count} x {failure.text}{again}"


def progress_line(recorder: Recorder) -> str:
    """How far a batch has come."""
    accepted, failed, elapsed_seconds = recorder.progress
    done = accepted + failed
    rate = done / elapsed_seconds if elapsed_seconds else 0.0
    return f"sent {done}/{recorder.run.count} ({failed} failed), {rate:.1f}/s"


def _mail_lines(result: Result, mail: SentMail) -> Iterator[str]:
    run = result.run
    layer = " ".join(filter(None, (mail.tls_version, mail.tls_cipher))) or "no TLS"
    login = f"AUTH {mail.mechanism}" if mail.mechanism else "no login"
    yield f"accepted: {mail.reply}"
    yield f"  server      {run.host}:{run.port}, {run.tls}, {layer}, {login}"
    yield f"  message-id  {mail.message_id}"
    phases = (f"{name} {_ms(summary.median)}" for name, summary in result.phases.items())
    yield f"  ms          {', '.join(phases)}"
    for recipient, reply in mail.refused_recipients.items():
        yield f"  refused     {recipient}: {reply}"


def _headline(result: Result) -> str:
    run = result.run
    asked = f" (asked for {run.rate_per_second:g}/s)" if run.rate_per_second else ""
    return (
        f"{'interrupted: ' if result.interrupted else ''}"
        f"{run.host}:{run.port} ({run.tls}): {result.accepted} accepted, {result.failed} failed, "
        f"{result.unsent} unsent of {run.count} in {result.elapsed_seconds:.2f} s, "
        f"{result.accepted_per_second:.1f}/s{asked}"
    )


def _phase_table(result: Result) -> Iterator[str]:
    if not result.phases:
        return
    columns = [column.name for column in fields(Summary)]
    yield "  ms      " + "".join(f"{column:>10}" for column in columns)
    for name, summary in result.phases.items():
        count, *durations = (getattr(summary, column) for column in columns)
        yield f"  {name:<8}{count:>10}" + "".join(f"{_ms(spent):>10}" for spent in durations)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
