"""Logs: one event, one line; JSON for machines or coloured text for a terminal.

Use the standard library: `log = logging.getLogger(__name__)`, and `log.info("said in words", extra={"action":
"batch_committed", "messages": 12})`. `action` names the kind of event and does not change; everything in `extra`
becomes a field. A field of a secret type is written as `***` whatever its name.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from pydantic import SecretBytes, SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtp_proxy.config import Settings

REDACTED = "***"
# What every LogRecord has; the rest came through `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVEL_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
# ANSI colours of service prefixes; a name always gets the same one, and those that run side by side differ.
_SERVICE_COLOURS = {"dev": "97", "smtp": "36", "worker": "35", "sink": "33", "postgres": "34", "valkey": "31"}
_OTHER_COLOURS = ("32", "92", "93", "94", "95", "96")


class LineStream(Protocol):
    """Where lines go: a text file, or what behaves like one."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def configure(settings: Settings, service: str, *, stream: LineStream | None = None) -> None:
    """Set the root logger up, replacing what was there. `service` is the prefix of every line."""
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter(service))
    else:
        handler.setFormatter(ConsoleFormatter(service, coloured=wants_colour(out)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    # Libraries are heard when something is wrong; their chatter is for their own developers.
    for noisy in ("asyncio", "uvicorn", "uvicorn.access", "redis", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns, with a traceback of thirty lines each time, that Postgres is away. We say that ourselves in one.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)


def wants_colour(stream: LineStream, environ: Mapping[str, str] = os.environ) -> bool:
    """A terminal, or FORCE_COLOR; never against NO_COLOR (no-color.org)."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or bool(getattr(stream, "isatty", lambda: False)())


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What came through `extra`, ready for JSON and without secrets."""
    return {key: plain(value) for key, value in vars(record).items() if key not in _STANDARD}


def plain(value: Any) -> Any:
    """A value as JSON can hold it; a secret is redacted by its type, at any depth."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return _plain_one(value)


def _plain_one(value: Any) -> Any:
    if isinstance(value, SecretStr | SecretBytes) or type(value).__name__ == "Secret":
        return REDACTED
    if isinstance(value, Enum):  # before int and str, which an enum may be too
        return value.name.lower()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    return str(value) if isinstance(value, UUID | PurePath | BaseException) else repr(value)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, fields, exception."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in fields(record).items():
            event[key if key not in event else f"extra_{key}"] = value
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        # ASCII: what a stranger sent can then neither break the line nor steer a terminal.
        return json.dumps(event, separators=(",", ":"))


class ConsoleFormatter(logging.Formatter):
    """For people: `12:00:00.123 smtp | listening port=2587`. Line breaks in a message are made visible."""

    def __init__(self, service: str, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured
        self._prefix = self._paint(f"{service:<8}", service_colour(service)) + " |"

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        parts = [self._paint(moment, "2"), self._prefix]
        if record.levelno != logging.INFO:
            parts.append(self._paint(record.levelname.lower(), _LEVEL_COLOURS.get(record.levelname, "0")))
        parts.append(one_line(record.getMessage()))
        for key, value in fields(record).items():
            if key != "action":
                parts.append(self._paint(f"{key}={_shown(value)}", "2"))
        text = " ".join(parts)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


def service_colour(service: str) -> str:
    """The ANSI colour number of a service's prefix."""
    return _SERVICE_COLOURS.get(service) or _OTHER_COLOURS[sum(service.encode()) % len(_OTHER_COLOURS)]


def one_line(text: str) -> str:
    """Control characters, of which a stranger's HELO may have brought some, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: Any) -> str:
    bare = isinstance(value, str) and value and not any(c in ' "=' for c in value)
    return one_line(value if bare else json.dumps(value, ensure_ascii=False))
