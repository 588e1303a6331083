"""What a server said, made fit for a terminal."""

from __future__ import annotations

from dataclasses import dataclass


def printable(text: str) -> str:
    """The text with control and other unprintable characters shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Reply:
    """One reply of the server; `lines` without the code, made printable."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole reply as one line."""
        return f"{self.code} {' '.join(self.lines)}".rstrip()

    @property
    def is_positive(self) -> bool:
        """2xx: done."""
        return 200 <= self.code < 300

    @property
    def is_temporary(self) -> bool:
        """4xx: a later try may succeed."""
        return 400 <= self.code < 500

    def without(self, *secrets: str) -> Reply:
        """The same reply for the case that the server echoes what it must not."""
        lines = self.lines
        for secret in filter(None, secrets):
            lines = tuple(line.replace(secret, "[hidden]") for line in lines)
        return Reply(self.code, lines)
