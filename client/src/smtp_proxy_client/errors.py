"""Everything that can go wrong, as one tree. Each class is one exit code.

ClientError
├── UsageError             2  the options make no sense together, or a file cannot be read
├── ConnectionFailed       3  no connection, a lost one, silence, or a peer that speaks no SMTP
├── TlsFailed              4  no STARTTLS, or the handshake failed
│   ├── CertificateRejected   the handshake failed because the certificate was not trusted
│   └── PinMismatch           the certificate was trusted, but has another public key than --pin
├── AuthFailed             5  the server refused the login, or offers none that we know
└── Refused                1  the server answered 4xx or 5xx to anything else

Exit code 1 is also that of a batch in which any mail failed, and 130 that of an interrupted run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtp_proxy_client.reply import Reply

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONNECTION = 3
EXIT_TLS = 4
EXIT_AUTH = 5
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it.


class Fault(StrEnum):
    """Who can mend it."""

    CALLER = "caller"
    NETWORK = "network"
    SERVER = "server"


class ClientError(Exception):
    """`reason` is one line that can be counted; `hint` is the next step for the reader."""

    exit_code = EXIT_FAILED
    fault = Fault.SERVER

    def __init__(
        self,
        reason: str,
        *,
        hint: str = "",
        temporary: bool = False,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.temporary = temporary
        self.reply = reply
        self.phase: str | None = None  # Set by the stopwatch that was running.

    @property
    def text(self) -> str:
        """What failures are counted by: the phase and the reason, nothing that differs per mail."""
        return f"{self.phase}: {self.reason}" if self.phase else self.reason


class UsageError(ClientError):
    """The command line cannot be carried out as it stands."""

    exit_code = EXIT_USAGE
    fault = Fault.CALLER


class ConnectionFailed(ClientError):
    """There is no connection to a server that speaks SMTP, or no longer."""

    exit_code = EXIT_CONNECTION
    fault = Fault.NETWORK

    def __init__(self, reason: str, *, hint: str = "", temporary: bool = True) -> None:
        super().__init__(reason, hint=hint, temporary=temporary)


class TlsFailed(ClientError):
    """No encrypted connection came about; nothing was sent without one."""

    exit_code = EXIT_TLS


class CertificateRejected(TlsFailed):
    """The server's certificate did not verify. `verify_code` is OpenSSL's X509_V_ERR number."""

    def __init__(self, reason: str, *, verify_code: int, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.verify_code = verify_code


class PinMismatch(TlsFailed):
    """The server has another public key than those that were pinned."""


class AuthFailed(ClientError):
    """The login did not succeed. Never carries the password."""

    exit_code = EXIT_AUTH
    fault = Fault.CALLER


class Refused(ClientError):
    """The server said no, and this is its reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text, reply=reply, temporary=reply.is_temporary)
