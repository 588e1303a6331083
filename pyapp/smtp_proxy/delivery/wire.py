"""What may go on the wire, and in what shape: envelope arguments, dot-stuffing, line ends.

The core stores only clean mail (CRLF lines, no bare CR or LF, no NUL) and clean addresses. Both are looked at again
here, because this is where a slip would become someone else's problem: a bare LF that another server takes for a line
end smuggles a second message (CVE-2023-51764 and its family), and so does a NUL before a dot where NULs are dropped; a
CR or LF in an address is a command of its own.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 5321 4.1.2: no controls, no space, no angle brackets outside a quoted local part; RFC 6531 adds what is not ASCII.
_PATH = re.compile(r'(?:[^\x00-\x20\x7f<>"\\]|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*")*')
# RFC 5321 4.5.3.1.3 allows 256 octets of path; what the core took may be longer, within one command line.
PATH_BYTES: Final = 1000
END_OF_DATA: Final = b".\r\n"


class UnfitForWire(ValueError):
    """Sending it would break the protocol. `enhanced_code` is from RFC 3463."""

    def __init__(self, message: str, enhanced_code: str) -> None:
        super().__init__(message)
        self.enhanced_code = enhanced_code


def path_bytes(address: str, enhanced_code: str) -> bytes:
    """Encode an address for MAIL (5.1.7) or RCPT (5.1.3). Raises UnfitForWire with that code."""
    if _PATH.fullmatch(address) is None:
        raise UnfitForWire("the address holds characters that may not be sent", enhanced_code)
    try:
        encoded = address.encode()
    except UnicodeEncodeError:
        raise UnfitForWire("the address is no valid Unicode", enhanced_code) from None
    if len(encoded) > PATH_BYTES:
        raise UnfitForWire(f"the address is longer than {PATH_BYTES} octets", enhanced_code)
    return encoded


def check_line_ends(body: bytes) -> None:
    """Every CR and every LF is part of a CRLF (RFC 5321 2.3.8). Raises UnfitForWire."""
    line_ends = body.count(b"\r\n")
    if body.count(b"\n") != line_ends or body.count(b"\r") != line_ends:
        raise UnfitForWire("the message holds a bare CR or LF", "5.6.0")


def check_nul(body: bytes) -> None:
    """NUL is in neither 7-bit nor 8-bit text (RFC 5321 2.3.1, RFC 6152 3). Raises UnfitForWire."""
    if b"\0" in body:
        raise UnfitForWire("the message holds NUL", "5.6.0")


def stuffed(body: bytes) -> bytes:
    """Double leading dots and end the last line (RFC 5321 4.5.2); without the final dot."""
    if b"\r\n." in body:
        body = body.replace(b"\r\n.", b"\r\n..")
    if body.startswith(b"."):
        body = b"." + body
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    return body


def unstuffed(data: bytes) -> bytes:
    """The message again: what `stuffed` made, with the final dot, less its dots."""
    body = data.removesuffix(END_OF_DATA).replace(b"\r\n..", b"\r\n.")
    return body[1:] if body.startswith(b"..") else body


def header_of(body: bytes) -> bytes:
    """Return the header section, up to the empty line."""
    if body.startswith(b"\r\n"):
        return b""
    return body[: end + 2] if (end := body.find(b"\r\n\r\n")) >= 0 else body
