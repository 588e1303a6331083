"""What the sink keeps: messages in a SQLite file, so that a sink that was killed has what it said 250 to.

Not here: SMTP and HTTP, which put in and read.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.parser import BytesHeaderParser
from email.policy import default as email_policy
from pathlib import Path

from smtp_proxy.errors import ConfigurationError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    received_at TEXT NOT NULL,
    mail_from TEXT NOT NULL,
    rcpt_tos TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    subject TEXT NOT NULL,
    message_id TEXT NOT NULL,
    content BLOB NOT NULL
)
"""
_COLUMNS = "number, id, received_at, mail_from, rcpt_tos, size_bytes, subject, message_id"
# Trimming costs a statement; so often is enough.
_TRIM_EVERY = 100
# While somebody else looks into the file. Everything waits meanwhile, so not long.
_PATIENCE_SECONDS = 0.2
# The id that our worker put in its Received field (RFC 5321 4.4).
_RECEIVED_ID = re.compile(rb"\AReceived:.*?\bid ([0-9a-f-]{36})[;\s]", re.DOTALL | re.IGNORECASE)
_HEADER_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept message without its content. `id` is the one that its 250 named; empty if we did not relay it."""

    number: int
    id: str
    received_at: str
    mail_from: str
    rcpt_tos: list[str]
    size_bytes: int
    subject: str
    message_id: str


class Mailbox:
    """The file. All on one thread; each `add` is a transaction and takes well under a millisecond."""

    def __init__(self, file: Path | None, keep_messages: int) -> None:
        """`file` None: in memory. Raises ConfigurationError when it can not be used."""
        self._keep = keep_messages
        self._since_trim = 0
        try:
            if file is not None:
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                str(file) if file is not None else ":memory:", isolation_level=None, timeout=_PATIENCE_SECONDS
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            # Outlives a kill of this process, not a failure of the machine: it is a sink for tests.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"SMTP_PROXY_DATA_DIR: the sink can not use {file}: {error}") from None

    def add(self, mail_from: str, rcpt_tos: Iterable[str], content: bytes, received_at: datetime) -> int:
        """Keep a message; returns its number. Committed when this returns.

        Raises:
            sqlite3.Error: it can not be kept now.
        """
        subject, message_id = _headers(content)
        found = _RECEIVED_ID.match(content[:_HEADER_MAX_BYTES])
        row = (
            found[1].decode() if found else "", received_at.isoformat(), _text(mail_from),
            json.dumps([_text(address) for address in rcpt_tos]),
            len(content), subject, message_id, content,
        )  # fmt: skip
        with closing(self._db.execute(
            "INSERT INTO messages (id, received_at, mail_from, rcpt_tos, size_bytes, subject, message_id, content)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row,
        )) as cursor:  # fmt: skip
            number = int(cursor.lastrowid or 0)
        with contextlib.suppress(sqlite3.Error):  # the message is kept; what is too many can go next time
            self._trim(number)
        return number

    def messages(self, after: int, limit: int) -> list[Kept]:
        """Oldest first, of those numbered above `after`."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608 - a constant
            (after, limit),
        )
        return [_kept(*row) for row in rows]

    def content(self, number: int) -> bytes | None:
        """As it came; None: no such message, or no more."""
        row = self._db.execute("SELECT content FROM messages WHERE number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM messages").fetchone()[0])

    def clear(self) -> None:
        """Forget all; numbers go on."""
        self._db.execute("DELETE FROM messages")

    def close(self) -> None:
        self._db.close()

    def _trim(self, newest: int) -> None:
        self._since_trim += 1
        if self._since_trim >= min(_TRIM_EVERY, self._keep):
            self._since_trim = 0
            self._db.execute("DELETE FROM messages WHERE number <= ?", (newest - self._keep,))


def _kept(
    number: int,
    id_: str,
    received_at: str,
    mail_from: str,
    rcpt_tos: str,
    size_bytes: int,
    subject: str,
    message_id: str,
) -> Kept:
    return Kept(number, id_, received_at, mail_from, json.loads(rcpt_tos), size_bytes, subject, message_id)


def _text(value: str) -> str:
    """Without the lone surrogates in which aiosmtpd and the email package carry bytes that are no UTF-8."""
    return value.encode("utf-8", "replace").decode()


def _headers(content: bytes) -> tuple[str, str]:
    """Subject, decoded, and Message-ID, each on one line."""
    head = content[:_HEADER_MAX_BYTES].partition(b"\r\n\r\n")[0]
    try:
        parsed = BytesHeaderParser(policy=email_policy).parsebytes(head + b"\r\n\r\n")
        found = [" ".join(str(parsed.get(name, "")).split()) for name in ("Subject", "Message-ID")]
    except (MessageError, ValueError, LookupError, IndexError, AttributeError):
        return "", ""  # the email package gives up on some headers in its own ways; the message is kept all the same
    return _text(found[0]), _text(found[1])
