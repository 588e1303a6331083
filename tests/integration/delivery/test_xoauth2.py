"""XOAUTH2 with a token service of our own: tokens are kept, and fetched anew before their end and after a 535."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from mail import job
from pydantic import SecretStr
from scripted_server import ScriptedServer

from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.delivery.token import ClientCredentials, NoToken, TokenSource
from smtp_proxy.model.attempt import Outcome

pytestmark = pytest.mark.integration

TransportTo = Callable[..., SmtpTransport]


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.seconds


class TokenService:
    """Gives token-1, token-2, …"""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.status = 200
        self.body: dict[str, object] | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.forms.append({key: str(value) for key, value in (await request.post()).items()})
        given = {"access_token": f"token-{len(self.forms)}", "token_type": "Bearer", "expires_in": 3600}
        return web.json_response(given if self.body is None else self.body, status=self.status)


@pytest.fixture
async def service() -> AsyncIterator[TokenService]:
    made = TokenService()
    app = web.Application()
    app.router.add_post("/token", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield made
    await runner.cleanup()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def source(service: TokenService, time: Time) -> TokenSource:
    return TokenSource(ClientCredentials(service.url, "client", SecretStr("s3cret"), "smtp.send"), time)


async def test_fetched_once_and_kept_until_shortly_before_its_end(
    source: TokenSource, service: TokenService, time: Time
) -> None:
    assert set(await asyncio.gather(*[source.token() for _ in range(20)])) == {"token-1"}
    time.seconds = 3470
    assert await source.token() == "token-1"
    time.seconds = 3490
    assert await source.token() == "token-2"
    assert service.forms[0] == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "s3cret",
        "scope": "smtp.send",
    }


@pytest.mark.parametrize(
    ("status", "body", "said", "operator"),
    [
        (401, {"error": "invalid_client", "error_description": "wrong secret"}, "HTTP 401: wrong secret", True),
        (503, {"error": "temporarily_unavailable"}, "temporarily_unavailable", False),
        (200, {"token_type": "Bearer"}, "no access_token", False),
        (200, {"access_token": "a\r\nb"}, "no access_token", False),
        (200, {"access_token": 7}, "no access_token", False),
    ],
)
async def test_no_token(
    status: int,
    body: dict[str, object],
    said: str,
    *,
    operator: bool,
    source: TokenSource,
    service: TokenService,
    time: Time,
) -> None:
    service.status, service.body = status, body
    for _ in range(3):  # the service is asked once, not by every message
        with pytest.raises(NoToken, match=said) as raised:
            await source.token()
        assert raised.value.operator is operator
        assert "s3cret" not in str(raised.value)
    assert len(service.forms) == 1
    service.status, service.body = 200, None
    time.seconds = 6
    assert await source.token() == "token-2"


async def test_a_service_that_is_not_there(time: Time) -> None:
    source = TokenSource(ClientCredentials("http://127.0.0.1:1/token", "client", SecretStr("s")), time)
    with pytest.raises(NoToken, match="no token from"):
        await source.token()


def smtp_server(*good: str) -> ScriptedServer:
    """Takes these tokens; explains itself as Google and Microsoft do to others."""

    def auth(argument: bytes) -> bytes:
        mechanism, _, response = argument.partition(b" ")
        assert mechanism == b"XOAUTH2"
        user, bearer, *_ = base64.b64decode(response).split(b"\x01")
        assert user == b"user=mailer@acme.example"
        ok = bearer.removeprefix(b"auth=Bearer ").decode() in good
        return b"235 2.7.0 ok\r\n" if ok else b"334 eyJzdGF0dXMiOiI0MDAifQ==\r\n"

    answers = {"AUTH": auth, "": b"535 5.7.3 Authentication unsuccessful\r\n"}
    return ScriptedServer(answers=answers, extensions=(b"PIPELINING", b"AUTH LOGIN XOAUTH2"))


async def test_a_login(source: TokenSource, transport_to: TransportTo) -> None:
    async with smtp_server("token-1").running() as server:
        (result,) = await transport_to(server.port, username="mailer@acme.example", token=source).deliver(job())
    assert result.outcome is Outcome.DELIVERED


async def test_a_token_that_was_withdrawn_is_fetched_anew_once(
    source: TokenSource, service: TokenService, transport_to: TransportTo
) -> None:
    async with smtp_server("token-2").running() as server:
        (result,) = await transport_to(server.port, username="mailer@acme.example", token=source).deliver(job())
    assert (result.outcome, len(service.forms)) == (Outcome.DELIVERED, 2)


async def test_a_login_that_is_refused_again_defers(
    source: TokenSource, service: TokenService, transport_to: TransportTo, caplog: pytest.LogCaptureFixture
) -> None:
    async with smtp_server().running() as server:
        (result,) = await transport_to(server.port, username="mailer@acme.example", token=source).deliver(job())
    assert (result.outcome, result.reply_code, len(service.forms)) == (Outcome.DEFERRED, 535, 2)
    assert "token-" not in caplog.text


async def test_no_token_defers_without_asking(
    source: TokenSource, service: TokenService, transport_to: TransportTo
) -> None:
    service.status, service.body = 400, {"error": "invalid_scope"}
    told: list[str] = []
    options = {"username": "mailer@acme.example", "token": source, "login_refused": lambda: told.append("no token")}
    async with smtp_server("token-1").running() as server:
        (result,) = await transport_to(server.port, **options).deliver(job())
        assert told == ["no token"]
        assert b"AUTH" not in b" ".join(server.commands)
    assert result.outcome is Outcome.DEFERRED
    assert "invalid_scope" in result.reply_text


async def test_a_server_without_xoauth2(source: TokenSource, transport_to: TransportTo) -> None:
    async with ScriptedServer(extensions=(b"AUTH PLAIN",)).running() as server:
        (result,) = await transport_to(server.port, username="mailer@acme.example", token=source).deliver(job())
    assert "does not offer AUTH XOAUTH2" in result.reply_text
