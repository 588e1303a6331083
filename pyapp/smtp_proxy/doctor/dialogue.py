"""As much SMTP as it takes to look at a server: greeting, EHLO, STARTTLS, the handshake. It blocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = 10.0
_LINE_MAX_BYTES: Final = 2048
_LINES_MAX: Final = 100


class NotSmtp(Exception):
    """What answers there does not speak SMTP as it should; says how."""


@dataclass
class Dialogue:
    """One connection."""

    raw: socket.socket
    _left: bytes = b""

    def expect(self, code: int) -> list[str]:
        """The lines of one reply, without their codes. Raises NotSmtp."""
        lines = []
        for _ in range(_LINES_MAX):
            line = self._line()
            if line[:3] != str(code):
                raise NotSmtp(f"it says {line!r}, where {code} belongs")
            lines.append(line[4:])
            if line[3:4] != "-":
                return lines
        raise NotSmtp("its reply has no end")

    def command(self, text: str, code: int) -> list[str]:
        self.raw.sendall(text.encode() + b"\r\n")
        return self.expect(code)

    def start_tls(self, context: ssl.SSLContext, name: str | None) -> None:
        """Shake hands; `name` None: tell none (no SNI). Raises OSError, of which ssl.SSLError is one."""
        self.raw = context.wrap_socket(self.raw, server_hostname=name)

    def certificate(self) -> bytes:
        """Of the other side, DER."""
        if not isinstance(self.raw, ssl.SSLSocket):
            return b""
        return self.raw.getpeercert(binary_form=True) or b""

    def close(self) -> None:
        self.raw.close()

    def _line(self) -> str:
        while b"\n" not in self._left:
            if len(self._left) > _LINE_MAX_BYTES:
                raise NotSmtp("its reply has no end")
            more = self.raw.recv(4096)
            if not more:
                raise NotSmtp("it closes the connection")
            self._left += more
        line, _, self._left = self._left.partition(b"\n")
        return line.rstrip(b"\r").decode("ascii", "replace")


@contextlib.contextmanager
def connected(address: tuple[str, int], first: bytes = b"") -> Iterator[Dialogue]:
    """Connect, and send `first` (a PROXY header). Raises OSError."""
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(socket.create_connection(address, timeout=_SECONDS))
        dialogue = Dialogue(raw)
        stack.callback(dialogue.close)
        raw.sendall(first)
        yield dialogue


def own_address(address: tuple[str, int]) -> str:
    """From which address of ours that is reached. Raises OSError."""
    with socket.create_connection(address, timeout=_SECONDS) as raw:
        return str(raw.getsockname()[0])
