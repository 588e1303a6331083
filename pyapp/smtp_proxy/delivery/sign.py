"""Who signs what leaves: one question of the transport for each choice of signatures that the routes of a job have.

The answer is header fields, which go on top of everything else that is sent; what lies below is not touched. Where the
keys come from is not this room's business (`worker.signing` brings them from the store).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from smtp_proxy.model.envelope import Envelope

# Which signatures a next hop is given: one of each key; one alone, which covers nothing that the next hop replaces;
# none, since it makes its own.
Dkim: TypeAlias = Literal["all", "one", "none"]

# Amazon SES as a smarthost, of any partition, by FIPS, by IPv6 and by an endpoint of the VPC.
_SES_SMTP: Final = re.compile(
    r"(?:[a-z0-9-]+\.)*email-smtp(?:-fips)?\.[a-z0-9-]+\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)\.?"
)


def usual_for(host: str) -> Dkim:
    """What a smarthost is given unless somebody says otherwise.

    SES signs for a verified domain itself (Easy DKIM), replaces Message-ID and Date, which our signatures cover, and
    takes no message with two DKIM-Signature fields.
    """
    return "none" if _SES_SMTP.fullmatch(host.lower()) else "all"


class CannotSign(SmtpProxyError):
    """A key that should sign can not be used, so the message waits rather than leaving unsigned."""

    fault = "operator"
    temporary = True


class Signer(Protocol):
    """Signs for the domain that a message is from."""

    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        """Return whole header fields with CRLF, to be put on top; b"" where no key is for this message.

        `alone`: one field, which covers neither Message-ID nor Date.
        Raises CannotSign: the message is to be tried again later.
        """
        ...


class Unsigned:
    """Signs nothing."""

    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        del envelope, alone
        return b""


class Signatures:
    """Those of one message, each made when a route first asks for it, and once for all legs."""

    __slots__ = ("_envelope", "_made", "_making", "_signer")

    def __init__(self, signer: Signer, envelope: Envelope, *, legs: int = 1) -> None:
        self._signer = signer
        self._envelope = envelope
        self._made: dict[Dkim, bytes] = {"none": b""}
        # Legs go at the same time, and a large message is signed in a thread. One alone, as nearly all are, waits for
        # nobody.
        self._making = asyncio.Lock() if legs > 1 else None

    async def of(self, choice: Dkim) -> bytes:
        """Raises CannotSign."""
        if choice in self._made:
            return self._made[choice]
        if self._making is None:
            return await self._make(choice)
        async with self._making:
            return self._made[choice] if choice in self._made else await self._make(choice)

    async def _make(self, choice: Dkim) -> bytes:
        signature = self._made[choice] = await self._signer.headers(self._envelope, alone=choice == "one")
        return signature
