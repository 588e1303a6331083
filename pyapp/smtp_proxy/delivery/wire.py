"""What may go on the wire, and in what shape: envelope arguments, dot-stuffing, line ends.

The core stores only clean mail (CRLF lines, no bare CR or LF, no NUL) and clean addresses. Both are looked at again
here, because this is where a slip would become someone else's problem: a bare LF that another server takes for a line
end smuggles a second message (CVE-2023-51764 and its family), and so does a NUL before a dot where NULs are dropped; a
CR or LF in an address is a command of its own.
"""

from __future__ import annotations

import re
from typing import Final

from smtp_proxy.core import transmission

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


def transmitted(trace: bytes, body: bytes) -> tuple[bytes, bool]:
    """What is sent after DATA, with its dots doubled and the final one (RFC 5321 4.5.2); whether the body is ASCII.

    Raises UnfitForWire: the body holds a bare CR or LF (RFC 5321 2.3.8), or NUL (2.3.1, RFC 6152 3).
    """
    try:
        return transmission(trace, body)
    except ValueError as defect:
        raise UnfitForWire(str(defect), "5.6.0") from None


def unstuffed(data: bytes) -> bytes:
    """The message again: what `transmitted` made of it, less its dots."""
    body = data.removesuffix(END_OF_DATA).replace(b"\r\n..", b"\r\n.")
    return body[1:] if body.startswith(b"..") else body


def header_of(body: bytes) -> bytes:
    """Return the header section, up to the empty line."""
    if body.startswith(b"\r\n"):
        return b""
    return body[: end + 2] if (end := body.find(b"\r\n\r\n")) >= 0 else body
