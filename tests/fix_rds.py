"""What RDS puts before Postgres when somebody logs in by IAM, before a real Postgres: TLS, and the token looked at.

It asks for the password in clear text, as PAM does, looks at the token as AWS documents it (Signature Version 4, the
host and port, the user, 15 minutes), and hands the connection on to a server that trusts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ssl
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

# Made up, as AWS's own examples are.
ACCESS, SECRET = "EXAMPLEACCESSKEY", "example/secret+key"
REGION = "eu-central-1"
SSL_REQUEST = 80877103
_HEADER = struct.Struct("!ii")


def signature(token: str, service: str) -> str:
    """Signature Version 4 of a presigned request, worked out from its parts alone (AWS General Reference)."""
    parts = urlsplit(f"https://{token}")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "X-Amz-Signature"]
    said = dict(query)
    canonical = urlencode(sorted(query), quote_via=quote, safe="-_.~")
    request = "\n".join(["GET", "/", canonical, f"host:{parts.netloc}\n", "host", hashlib.sha256(b"").hexdigest()])
    access, day, region, signed_for, end = said["X-Amz-Credential"].split("/")
    assert (access, region, signed_for, end) == (ACCESS, REGION, service, "aws4_request")
    scope = f"{day}/{region}/{service}/{end}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", said["X-Amz-Date"], scope, digest])
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, end):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def wrong(token: str, address: str, user: str) -> str:
    """What is wrong with a token, or nothing."""
    parts = urlsplit(f"https://{token}")
    said = dict(parse_qsl(parts.query))
    if parts.netloc != address:
        return f"it is for {parts.netloc}"
    if (said.get("Action"), said.get("DBUser")) != ("connect", user):
        return f"it is for the user {said.get('DBUser')}"
    signed = datetime.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if not -5 <= (datetime.now(UTC) - signed).total_seconds() < int(said["X-Amz-Expires"]) <= 900:
        return "it is too old"
    return "" if hmac.compare_digest(said["X-Amz-Signature"], signature(token, "rds-db")) else "it is not signed"


class Rds:
    """Listens on a port of 127.0.0.1. `tokens` is what was accepted, `refused` why not."""

    def __init__(self, behind: int, tls: ssl.SSLContext) -> None:
        self.port = 0
        self.tokens: list[str] = []
        self.refused: list[str] = []
        self.turn_away = 0  # so many are refused, whatever they bring: more than 200 new ones a second
        self._behind = behind
        self._tls = tls

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Rds]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                await self._log_in(reader, writer)
            finally:
                writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert _HEADER.unpack(await reader.readexactly(8)) == (8, SSL_REQUEST), "in the clear"
        writer.write(b"S")
        await writer.start_tls(self._tls)
        length = await reader.readexactly(4)
        startup = await reader.readexactly(int.from_bytes(length) - 4)
        words = startup[4:].rstrip(b"\0").split(b"\0")
        user = dict(zip(words[::2], words[1::2], strict=True))[b"user"].decode()
        writer.write(b"R" + _HEADER.pack(8, 3))  # AuthenticationCleartextPassword
        kind, size = await reader.readexactly(1), await reader.readexactly(4)
        assert kind == b"p"
        token = (await reader.readexactly(int.from_bytes(size) - 4)).rstrip(b"\0").decode()
        trouble = wrong(token, f"127.0.0.1:{self.port}", user)
        if self.turn_away:
            self.turn_away, trouble = self.turn_away - 1, "too many"
        if trouble:
            self.refused.append(trouble)
            said = f'SFATAL\0VFATAL\0C28000\0MPAM authentication failed for user "{user}"\0\0'.encode()
            writer.write(b"E" + (len(said) + 4).to_bytes(4) + said)
            await writer.drain()
            return
        self.tokens.append(token)
        await self._hand_on(reader, writer, length + startup)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, startup: bytes) -> None:
        far_reader, far = await asyncio.open_connection("127.0.0.1", self._behind)
        far.write(startup)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far), pump(far_reader, writer))
