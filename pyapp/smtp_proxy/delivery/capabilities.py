"""What the server said it can do: the answer to EHLO (RFC 5321 4.1.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtp_proxy.delivery.reply import Reply


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Extensions by keyword; all False after HELO."""

    pipelining: bool = False  # RFC 2920
    eight_bit_mime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    starttls: bool = False  # RFC 3207
    size: bool = False  # RFC 1870
    size_bytes: int = 0  # 0: no limit told
    auth: frozenset[str] = frozenset()  # RFC 4954: SASL mechanisms
    dsn: bool = False  # RFC 3461


def read_ehlo(reply: Reply) -> Capabilities:
    """Understand an EHLO reply; its first line is the server's name."""
    found: dict[str, list[str]] = {}
    for line in reply.lines[1:]:
        # "AUTH=LOGIN" is how servers from before RFC 2554 say it.
        keyword, *parameters = line.decode("ascii", "replace").upper().replace("AUTH=", "AUTH ", 1).split() or [""]
        found.setdefault(keyword, []).extend(parameters)
    size = found.get("SIZE", [])
    return Capabilities(
        pipelining="PIPELINING" in found,
        eight_bit_mime="8BITMIME" in found,
        smtputf8="SMTPUTF8" in found,
        starttls="STARTTLS" in found,
        size="SIZE" in found,
        size_bytes=int(size[0]) if size and size[0].isascii() and size[0].isdigit() and len(size[0]) < 16 else 0,
        auth=frozenset(found.get("AUTH", ())),
        dsn="DSN" in found,
    )
