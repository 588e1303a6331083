"""Reading replies (RFC 5321 4.2): bytes in, replies out; no socket, no clock.

Bounded: a line is at most 4 KiB and a reply at most 100 lines, whatever the server sends. Lenient where RFC 5321
4.2 asks clients to be (a bare code, a missing CR); strict about what would let answers slip against questions:
a line that is no reply, or a reply whose lines disagree on the code, ends the connection.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 5321 4.5.3.1.5 says 512 octets; long policy texts with links exceed it in the wild.
LINE_BYTES: Final = 4096
REPLY_LINES: Final = 100
# Replies that may come beyond those that were asked for, before it is a flood.
_UNASKED_REPLIES: Final = 100

_DIGITS: Final = frozenset(range(0x30, 0x3A))
_SPACE: Final = 0x20
_HYPHEN: Final = 0x2D
_ENHANCED = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?=[ \t]|$)")
# Controls, and what is invisible or turns the direction of what is beside it: a log line shows what was said.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+")


class MalformedReply(Exception):
    """The server sent something that is no SMTP reply."""


class Reply:
    """One reply: its code and the text of its lines, as received."""

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: list[bytes]) -> None:
        self.code = code
        self.lines = lines

    @property
    def enhanced_code(self) -> str:
        """The enhanced status code (RFC 2034), "" where there is none or where it contradicts the code."""
        found = _ENHANCED.match(self.lines[0])
        return found[0].decode() if found and int(found[1]) == self.code // 100 else ""

    @property
    def text(self) -> str:
        """The text of all lines as one printable line, without the enhanced code of each."""
        parts = []
        for line in self.lines:
            found = _ENHANCED.match(line)
            parts.append(line[found.end() :] if found else line)
        return printable(b" ".join(part.strip() for part in parts if part.strip()))

    def __repr__(self) -> str:
        return f"Reply({self.code}, {self.text!r})"


def printable(raw: bytes, limit: int = 1000) -> str:
    """Text for logs and records: no control characters, bounded, whatever bytes came."""
    text = _UNPRINTABLE.sub(" ", raw.decode("utf-8", "replace")).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ReplyParser:
    """Splits the byte stream into replies. `wanted`: how many were asked for, so that no more are kept than a few."""

    __slots__ = ("_buffer", "_code", "_lines", "_scanned", "replies", "wanted")

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.wanted = 1
        self._buffer = bytearray()
        self._scanned = 0
        self._code = 0
        self._lines: list[bytes] = []

    @property
    def at_rest(self) -> bool:
        """Nothing waits: neither a reply nor part of one."""
        return not (self.replies or self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        """Take what arrived; complete replies are appended to `replies`. Raises MalformedReply."""
        buffer = self._buffer
        if not buffer and len(data) <= LINE_BYTES and data.endswith(b"\n"):
            # As a rule whole lines arrive, and few: nothing needs to be kept.
            for line in data[:-1].split(b"\n"):
                self._take_line(line[:-1] if line.endswith(b"\r") else line)
            return
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", max(start, self._scanned))) >= 0:
            if end - start > LINE_BYTES:
                raise MalformedReply(f"a reply line of more than {LINE_BYTES} octets")
            self._take_line(bytes(buffer[start : end - 1 if end > start and buffer[end - 1] == 0x0D else end]))
            start = end + 1
        if start:
            del buffer[:start]
        self._scanned = len(buffer)
        if len(buffer) > LINE_BYTES:
            raise MalformedReply(f"a reply line of more than {LINE_BYTES} octets")

    def _take_line(self, line: bytes) -> None:
        head = line[:3]
        separator = line[3] if len(line) > 3 else _SPACE
        if len(head) < 3 or not _DIGITS.issuperset(head) or separator not in (_SPACE, _HYPHEN):
            raise MalformedReply(f"not a reply: {printable(line, 80)!r}")
        code = int(head)
        if not 200 <= code <= 599 or (self._lines and code != self._code):
            raise MalformedReply(f"an impossible reply code: {printable(line, 80)!r}")
        self._lines.append(line[4:])
        if separator == _HYPHEN:
            self._code = code
            if len(self._lines) > REPLY_LINES:
                raise MalformedReply(f"a reply of more than {REPLY_LINES} lines")
            return
        self.replies.append(Reply(code, self._lines))
        self._lines = []
        if len(self.replies) > self.wanted + _UNASKED_REPLIES:
            raise MalformedReply("replies that nobody asked for")
