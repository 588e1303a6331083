"""The published smuggling sequences of `tests/vectors/smuggling`, and messages that carry them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FILE = Path(__file__).parent / "vectors/smuggling/sequences.toml"
# The second transaction. Its text must arrive as text or not at all.
SMUGGLED = (
    b"MAIL FROM:<evil@sender.example>\r\nRCPT TO:<victim@rcpt.example>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nsmuggled\r\n.\r\n"
)
FINAL_DOT = b"\r\n.\r\n"
Place = Literal["body", "header", "at once"]
PLACES: tuple[Place, ...] = ("body", "header", "at once")
_BEFORE: dict[Place, bytes] = {
    "body": b"From: a@sender.example\r\nSubject: first\r\n\r\nfirst",
    "header": b"Subject: first",
    "at once": b"",
}


@dataclass(frozen=True)
class Sequence:
    name: str
    content: bytes
    outcome: Literal["refused", "one"]
    source: str

    def text(self, place: Place = "body") -> bytes:
        """What is sent after DATA, up to and with the one real final dot."""
        return _BEFORE[place] + self.content + SMUGGLED

    def around(self, place: Place = "body") -> range:
        """Where the text may be cut: before, within and behind the sequence."""
        start = len(_BEFORE[place])
        return range(max(start - 1, 1), start + len(self.content) + 2)

    def body(self, place: Place = "body") -> bytes:
        """The same as a message that an older release would have stored, without the real final dot."""
        return self.text(place).removesuffix(b".\r\n")


def sequences() -> list[Sequence]:
    read = tomllib.loads(FILE.read_text())
    return [
        Sequence(entry["name"], entry["bytes"].encode(), entry["outcome"], read["sources"][entry["source"]])
        for entry in read["sequence"]
    ]


def exchanges() -> dict[str, bytes]:
    """Whole exchanges by name."""
    read = tomllib.loads(FILE.read_text())
    found = {}
    for entry in read["exchange"]:
        assert entry["source"] in read["sources"]
        say = entry["say"].encode().replace(b"{smuggled}", SMUGGLED)
        chunk = say.partition(b"LAST\r\n")[2]
        found[entry["name"]] = say.replace(b"{size}", b"%d" % len(chunk))
    return found
