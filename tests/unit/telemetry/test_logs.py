"""Logs: one event is one line, and no secret is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from smtp_proxy.config import Settings
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.telemetry import logs


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def configured(log_format: str, level: str = "info", service: str = "smtp") -> io.StringIO:
    out = io.StringIO()
    logs.configure(Settings.load({"log_format": log_format, "log_level": level}, {}), service, stream=out)
    return out


def written(message: str, extra: dict[str, Any] | None = None, log_format: str = "json") -> str:
    out = configured(log_format)
    logging.getLogger("smtp_proxy.x").info("%s", message, extra=extra)
    return out.getvalue()


def test_json() -> None:
    event = json.loads(written("stored", {"action": "batch_committed", "messages": 3, "message_id": UUID(int=1)}))
    assert {key: event[key] for key in ("level", "service", "logger", "message", "action", "messages")} == {
        "level": "info",
        "service": "smtp",
        "logger": "smtp_proxy.x",
        "message": "stored",
        "action": "batch_committed",
        "messages": 3,
    }
    assert event["message_id"] == "00000000-0000-0000-0000-000000000001"
    assert datetime.fromisoformat(event["time"]).tzinfo is not None


def test_a_field_does_not_hide_what_every_line_has() -> None:
    event = json.loads(written("x", {"service": "other", "level": 9}))
    assert (event["service"], event["extra_service"], event["extra_level"]) == ("smtp", "other", 9)


def test_console() -> None:
    line = written("stored 3", {"action": "batch_committed", "seconds": 0.25, "peer": "mx 1"}, "console")
    assert line.rstrip("\n").endswith('smtp     | stored 3 seconds=0.25 peer="mx 1"')
    assert "\x1b" not in line
    assert "batch_committed" not in line


def test_an_exception_is_told() -> None:
    out = configured("json")
    try:
        int("so it went")
    except ValueError:
        logging.getLogger("x").exception("failed")
    event = json.loads(out.getvalue())
    assert event["level"] == "error"
    assert event["exception"].endswith("with base 10: 'so it went'")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        SecretStr("hunter2"),
        SecretBytes(b"hunter2"),
        {"inner": [SecretStr("hunter2")]},
        (SecretStr("hunter2"),),
        b"hunter2",
    ],
)
def test_secrets_are_redacted_by_type(log_format: str, value: object) -> None:
    assert "hunter2" not in written("login", {"field": value}, log_format)


def test_values_become_plain() -> None:
    assert logs.plain(
        {
            "when": datetime(2026, 1, 1, tzinfo=UTC),
            "state": DeliveryState.QUEUED,
            "path": Path("/x"),
            "items": {1},
            "error": ValueError("bad"),
            "bytes": b"1234",
            "none": None,
            "yes": True,
        }
    ) == {
        "when": "2026-01-01T00:00:00+00:00",
        "state": "queued",
        "path": "/x",
        "items": [1],
        "error": "bad",
        "bytes": "<4 bytes>",
        "none": None,
        "yes": True,
    }


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_is_one_line(message: str, field: str) -> None:
    for log_format in ("json", "console"):
        text = written(message, {"field": field}, log_format)
        assert len(text.rstrip("\n").splitlines()) == 1
        assert "\x1b" not in text
        assert "\x9b" not in text
        text.encode()


def test_what_is_below_the_level_is_not_written_and_libraries_are_quiet() -> None:
    out = configured("json")
    logging.getLogger("smtp_proxy").debug("x")
    logging.getLogger("asyncio").info("x")
    logging.getLogger("uvicorn.access").info("x")
    assert out.getvalue() == ""


def test_asyncpg_does_not_say_again_that_postgres_is_away() -> None:
    """asyncpg 0.32 warns with a traceback at each try of its pool to connect again; once a second at first."""
    out = configured("json")
    pool = logging.getLogger("asyncpg.pool")
    pool.warning("Failed to restore the pool connection floor; retrying", exc_info=OSError("refused"))
    assert out.getvalue() == ""
    pool.error("what is really wrong")
    assert "what is really wrong" in out.getvalue()


def test_configured_twice_writes_once() -> None:
    first = configured("json")
    second = configured("json")
    logging.getLogger("x").warning("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(stream: io.StringIO, environ: dict[str, str], coloured: bool) -> None:
    assert logs.wants_colour(stream, environ) is coloured


def test_a_service_keeps_its_colour() -> None:
    record = logging.makeLogRecord({"msg": "x", "levelno": logging.WARNING, "levelname": "WARNING"})
    line = logs.ConsoleFormatter("smtp", coloured=True).format(record)
    assert f"\x1b[{logs.service_colour('smtp')}msmtp    \x1b[0m |" in line
    assert "\x1b[33mwarning\x1b[0m" in line
