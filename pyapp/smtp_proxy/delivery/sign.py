"""Who signs what leaves: one question of the transport, asked once for every job.

The answer is header fields, which go on top of everything else that is sent; what lies below is not touched. Where the
keys come from is not this room's business (`worker.signing` brings them from the store).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from smtp_proxy.model.envelope import Envelope


class CannotSign(SmtpProxyError):
    """A key that should sign can not be used, so the message waits rather than leaving unsigned."""

    fault = "operator"
    temporary = True


class Signer(Protocol):
    """Signs for the domain that a message is from."""

    async def headers(self, envelope: Envelope) -> bytes:
        """Return whole header fields with CRLF, to be put on top; b"" where no key is for this message.

        Raises CannotSign: the message is to be tried again later.
        """
        ...


class Unsigned:
    """Signs nothing."""

    async def headers(self, envelope: Envelope) -> bytes:
        del envelope
        return b""
