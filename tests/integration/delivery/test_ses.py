"""Amazon SES, API v2: over HTTP to moto where it sends, and to a server that refuses as SES does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import boto3
import pytest
from aiohttp import web
from certificates import Authority
from fix_moto import keys, moto
from fix_valkey import ValkeyServer
from mail import BODY, envelope, job
from remaining import Remaining

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.delivery.governor import Governor
from smtp_proxy.delivery.leg import Leg
from smtp_proxy.delivery.mx.resolver import Resolver
from smtp_proxy.delivery.mx.sts import HttpsFetch, StsPolicies
from smtp_proxy.delivery.providers.pace import FleetPace, Pace
from smtp_proxy.delivery.providers.ses import Ses, SesAccount, SesClient
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.routing.file import RoutesFile
from smtp_proxy.delivery.routing.load import Surroundings, build
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.delivery.transport import NO_LEDGER
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.stream.paces import Paces
from smtp_proxy.stream.places import Places

__all__ = ["keys", "moto"]

pytestmark = pytest.mark.integration


def transport_by(
    endpoint: str,
    *,
    paces: Paces | None = None,
    limits: dict[str, int] | None = None,
    patience: int = 30,
    **ses: object,
) -> SmtpTransport:
    """All mail by SES at `endpoint`, of our tenant `acme`; an answer may take `patience` seconds."""
    clock = SystemClock()
    resolver = Resolver([("127.0.0.1", 1)])
    base = Route("unused.example", 25, "none", "proxy.example")
    policies = StsPolicies(resolver, HttpsFetch(), clock)
    around = Surroundings(base, resolver, policies, "proxy.example", clock, _acme, paces)
    rule = {
        "kind": "ses",
        "connect_timeout_seconds": patience,
        "command_timeout_seconds": patience,
        **(limits or {}),
        "ses": {"region": "eu-central-1", "endpoint_url": endpoint, "max_rate_per_second": 1000, **ses},
    }
    return SmtpTransport(build(RoutesFile.model_validate({"default": "ses", "routes": {"ses": rule}}), around))


async def _acme(_: UUID) -> str:
    return "acme"


async def test_a_message_as_moto_got_it(moto: str) -> None:
    api = boto3.client("sesv2", region_name="eu-central-1", endpoint_url=moto)
    await asyncio.to_thread(api.create_email_identity, EmailIdentity="sender.example")
    transport = transport_by(moto)
    results = await transport.deliver(job("b@rcpt.example", "c@bücher.example"))
    await transport.close()
    assert [(r.number, r.outcome, r.reply_code, r.kind) for r in results] == [
        (0, Outcome.DELIVERED, 250, Kind.ACCEPTED),
        (1, Outcome.DELIVERED, 250, Kind.ACCEPTED),
    ]
    assert results[0].remote == "email.eu-central-1.amazonaws.com:443"
    sent = await asyncio.to_thread(_sent, moto)
    (message,) = [m for m in sent if m["id"] == results[0].reply_text.removeprefix("Ok ")]
    assert "b@rcpt.example" in str(message["destinations"])
    assert "c@xn--bcher-kva.example" in str(message["destinations"])
    raw = str(message["raw_data"])
    assert raw.startswith("Received: from client.example")
    assert raw.endswith(BODY.decode())  # dots as they were written


def _sent(moto: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{moto}/moto-api/data.json") as answer:
        return list(json.load(answer)["ses"]["RawMessage"])


async def test_a_sender_that_is_not_verified_is_refused(moto: str) -> None:
    transport = transport_by(moto)
    body = BODY.replace(b"a@sender.example", b"a@unknown.example")
    (result,) = await transport.deliver(job(of=envelope(body)))
    await transport.close()
    assert (result.outcome, result.reply_code, result.enhanced_code) == (Outcome.REFUSED, 554, "5.7.1")
    assert "MessageRejected" in result.reply_text


class Refusing:
    """An endpoint that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.error = ""
        self.message = "no"
        self.status = 400
        self.stall = False
        self.good_calls = 0  # before the error
        self.at_a_call: Callable[[], None] = lambda: None
        self.requests: list[dict[str, object]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        self.at_a_call()
        if self.stall:
            await asyncio.sleep(5)
        if not self.error or len(self.requests) <= self.good_calls:
            return web.json_response({"MessageId": f"m-{len(self.requests)}"})
        return web.json_response(
            {"message": self.message}, status=self.status, headers={"x-amzn-ErrorType": self.error}
        )


@pytest.fixture
async def refusing() -> AsyncIterator[Refusing]:
    made = Refusing()
    app = web.Application(client_max_size=2**27)
    app.router.add_post("/v2/email/outbound-emails", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def deliver(refusing: Refusing, *recipients: str, patience: int = 30, **ses: object) -> list[RecipientResult]:
    transport = transport_by(refusing.url, patience=patience, **ses)
    results = await transport.deliver(job(*recipients))
    await transport.close()
    return results


@pytest.mark.parametrize(
    ("error", "status", "message", "outcome", "code", "kind"),
    [
        ("TooManyRequestsException", 429, "slow", Outcome.DEFERRED, 454, Kind.QUOTA),
        ("ThrottlingException", 400, "Maximum sending rate exceeded.", Outcome.DEFERRED, 454, Kind.QUOTA),
        ("LimitExceededException", 400, "Daily message quota exceeded", Outcome.DEFERRED, 454, Kind.QUOTA),
        ("SendingPausedException", 400, "paused", Outcome.DEFERRED, 454, Kind.BLOCK),
        ("AccountSuspendedException", 400, "suspended", Outcome.DEFERRED, 454, Kind.BLOCK),
        ("MailFromDomainNotVerifiedException", 400, "no", Outcome.DEFERRED, 451, Kind.LOCAL),
        ("NotFoundException", 404, "Configuration set does not exist", Outcome.DEFERRED, 451, Kind.LOCAL),
        ("UnrecognizedClientException", 403, "token", Outcome.DEFERRED, 454, Kind.AUTH),
        ("SomethingNew", 403, "who", Outcome.DEFERRED, 454, Kind.AUTH),
        ("SomethingNew", 429, "slow", Outcome.DEFERRED, 454, Kind.QUOTA),
        ("InternalServiceError", 500, "oops", Outcome.UNKNOWN, 0, Kind.NETWORK),  # it may have been taken
        ("SomethingNew", 504, "the gateway waited", Outcome.UNKNOWN, 0, Kind.NETWORK),
        ("ServiceUnavailable", 503, "later", Outcome.DEFERRED, 451, Kind.SOFT),
        ("SomethingNew", 400, "what", Outcome.DEFERRED, 451, Kind.SOFT),
        ("MessageRejected", 400, "Virus", Outcome.REFUSED, 554, Kind.BLOCK),
        ("MessageRejected", 400, "Email address is not verified.", Outcome.REFUSED, 554, Kind.POLICY),
        ("BadRequestException", 400, "Illegal address", Outcome.REFUSED, 554, Kind.POLICY),
    ],
)
async def test_what_an_error_means(
    error: str, status: int, message: str, outcome: Outcome, code: int, kind: Kind, refusing: Refusing
) -> None:
    refusing.error, refusing.status, refusing.message = error, status, message
    (result,) = await deliver(refusing)
    assert (result.outcome, result.reply_code, result.kind) == (outcome, code, kind)
    assert result.reply_text == f"SES: {error}: {message}"
    assert len(refusing.requests) == 1  # boto3 does not try again by itself


async def test_the_request(refusing: Refusing) -> None:
    await deliver(refusing, configuration_set="set", from_arn="arn:aws:ses:x", tenants={"acme": "acme-ses"})
    (request,) = refusing.requests
    content = request.pop("Content")
    assert isinstance(content, dict)
    assert base64.b64decode(content["Raw"]["Data"]).endswith(BODY)
    assert request == {
        "Destination": {"ToAddresses": ["b@rcpt.example"]},
        "ConfigurationSetName": "set",
        "FromEmailAddressIdentityArn": "arn:aws:ses:x",
        "TenantName": "acme-ses",
    }


async def test_fifty_recipients_a_call(refusing: Refusing) -> None:
    results = await deliver(refusing, *[f"r{n}@rcpt.example" for n in range(120)], max_rate_per_second=10_000)
    assert [len(r["Destination"]["ToAddresses"]) for r in refusing.requests] == [50, 50, 20]  # type: ignore[index]
    assert [r.reply_text for r in results[::60]] == ["Ok m-1", "Ok m-2"]


async def test_what_was_taken_before_a_throttle_stays_taken(refusing: Refusing) -> None:
    refusing.error, refusing.status, refusing.good_calls = "TooManyRequestsException", 429, 1
    results = await deliver(refusing, *[f"r{n}@rcpt.example" for n in range(120)], max_rate_per_second=10_000)
    assert [r.outcome for r in results] == [Outcome.DELIVERED] * 50 + [Outcome.DEFERRED] * 70
    assert len(refusing.requests) == 2


async def test_no_answer_is_an_unknown_outcome(refusing: Refusing) -> None:
    refusing.stall = True
    (result,) = await deliver(refusing, patience=2)
    assert (result.outcome, result.reply_code) == (Outcome.UNKNOWN, 0)
    assert "whether it was taken is unknown" in result.reply_text


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_that_breaks_after_the_call_went_out_is_an_unknown_outcome(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """Both are an SSLError of botocore, which is a ConnectionError: the message once went elsewhere a second time."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            plain = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
            with plain, contextlib.suppress(OSError):
                tls = authority.server("localhost").wrap_socket(connection, server_side=True)
                asked.append(tls.recv(65536))
                plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody can decrypt
                time.sleep(0.3)
                tls.close()

    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca_file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        transport = transport_by(f"https://localhost:{listener.getsockname()[1]}")
        (result,) = await transport.deliver(job())
        await transport.close()
        await asyncio.to_thread(server.join)
    assert (result.outcome, result.kind) == (Outcome.UNKNOWN if trusted else Outcome.DEFERRED, Kind.NETWORK)
    assert "SSL validation failed" in result.reply_text
    assert bool(asked) is trusted


async def test_nobody_there_and_no_keys(refusing: Refusing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, refusing.url = refusing.url, "http://127.0.0.1:1"
    (result,) = await deliver(refusing)
    assert (result.outcome, result.kind) == (Outcome.DEFERRED, Kind.NETWORK)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    refusing.url = url
    (result,) = await deliver(refusing)
    assert (result.outcome, result.kind, refusing.requests) == (Outcome.DEFERRED, Kind.AUTH, [])


async def test_a_throttle_slows_down_and_the_next_candidate_is_asked(refusing: Refusing) -> None:
    refusing.error, refusing.status = "TooManyRequestsException", 429
    clock = SystemClock()
    client = SesClient(SesAccount("eu-central-1", refusing.url, max_rate_per_second=100), clock)
    way = Route("ses.example", 443, "implicit", "proxy.example", provider=Ses(client))
    backup = Route("127.0.0.1", 1, "none", "proxy.example")

    class Both:
        async def plan(self, job: object) -> list[Leg]:
            return [Leg(job.recipients, (way, backup))]  # type: ignore[attr-defined]

    transport = SmtpTransport(Both())
    (result,) = await transport.deliver(job())
    assert result.remote == "127.0.0.1:1"
    assert client.pace.own.rate == 50
    assert client.pace.own.wait_seconds(clock.monotonic()) > 0.3
    await transport.close()
    await way.provider.close()  # type: ignore[union-attr]


async def test_a_throttle_slows_every_worker_down(refusing: Refusing, valkey: ValkeyServer) -> None:
    """Another worker once went on at its full pace until it was refused as often itself."""
    refusing.error, refusing.status = "TooManyRequestsException", 429
    paces = [Paces(Settings.load({"redis_url": valkey.url}, {})) for _ in range(2)]
    one, other = (transport_by(refusing.url, paces=each) for each in paces)
    for _ in range(5):  # pauses of 1, 2, 4, 8 seconds: until one is longer than anybody waits for
        (result,) = await one.deliver(job())
        if "slower" in result.reply_text:
            break
    asked = len(refusing.requests)
    (result,) = await other.deliver(job())
    assert (result.outcome, result.kind, result.reply_code) == (Outcome.DEFERRED, Kind.LOCAL, 0)
    assert result.postponed_seconds > 0, "no attempt is counted"
    assert "sending slower for now" in result.reply_text
    assert len(refusing.requests) == asked, "the other worker did not ask"
    for part in (one, other, *paces):
        await part.close()


async def test_our_own_pace_is_no_attempt_and_no_failure_of_ses(refusing: Refusing) -> None:
    """Five kept back in a row once opened the circuit of a healthy SES, and each cost an attempt."""
    transport = transport_by(refusing.url)
    assert (await transport.deliver(job()))[0].outcome is Outcome.DELIVERED
    (leg,) = await transport._routes.plan(job())
    (way,) = leg.candidates
    pace = way.provider._client.pace.own  # type: ignore[union-attr]
    pace._paused_until = SystemClock().monotonic() + 30
    for _ in range(20):
        (result,) = await transport.deliver(job())
        assert (result.outcome, result.kind, result.reply_code) == (Outcome.DEFERRED, Kind.LOCAL, 0)
        assert 20 < result.postponed_seconds <= 45
    assert len(refusing.requests) == 1
    pace._paused_until = 0.0
    assert (await transport.deliver(job()))[0].outcome is Outcome.DELIVERED
    await transport.close()


async def test_a_throttle_opens_no_circuit(refusing: Refusing) -> None:
    refusing.error, refusing.status = "TooManyRequestsException", 429
    transport = transport_by(refusing.url)
    (leg,) = await transport._routes.plan(job())
    (way,) = leg.candidates
    pace = way.provider._client.pace.own  # type: ignore[union-attr]
    for _ in range(8):
        pace._paused_until = pace._next_at = 0.0
        assert (await transport.deliver(job()))[0].reply_code == 454
        await asyncio.sleep(0.1)
    assert len(refusing.requests) == 8
    assert not transport._governor._breakers
    await transport.close()


async def test_what_another_candidate_was_asked_is_not_postponed(refusing: Refusing) -> None:
    """An attempt was written down, so it is given the end that the one who was asked gave it."""
    asked = Ses(SesClient(SesAccount("eu-central-1", refusing.url, max_rate_per_second=100), SystemClock()))
    waits = Ses(SesClient(SesAccount("eu-west-1", refusing.url, max_rate_per_second=100), SystemClock()))
    waits._client.pace.own._paused_until = SystemClock().monotonic() + 30
    refusing.error, refusing.status = "ServiceUnavailable", 503
    ways = [Route(f"{n}.example", 443, "implicit", "p.example", provider=one) for n, one in enumerate((asked, waits))]

    class Both:
        async def plan(self, job: object) -> list[Leg]:
            return [Leg(job.recipients, tuple(ways))]  # type: ignore[attr-defined]

    transport = SmtpTransport(Both())
    (result,) = await transport.deliver(job())
    assert (result.reply_code, result.postponed_seconds) == (451, 0.0)
    await transport.close()
    await asked.close()
    await waits.close()


@pytest.mark.parametrize(
    ("error", "outcome", "pause_seconds"),
    [("", Outcome.DELIVERED, 1), ("TooManyRequestsException", Outcome.DEFERRED, 4)],
)
async def test_what_ses_said_does_not_wait_for_redis(
    refusing: Refusing, valkey: ValkeyServer, error: str, outcome: Outcome, pause_seconds: float
) -> None:
    """Whoever was broken off there once lost an answer that SES had given: the mail might be sent again."""
    settings = Settings.load({"redis_url": valkey.url, "redis_timeout_seconds": "60"}, {})
    paces, others = Paces(settings), Paces(settings)
    paces._timeout_seconds = others._timeout_seconds = 60.0
    client = SesClient(SesAccount("eu-central-1", refusing.url, max_rate_per_second=100), SystemClock(), paces)
    client.pace._chance = lambda: 0.5
    client.pace.too_fast()  # so that a success is news, and the next pause of two seconds
    await paces.told()
    await asyncio.sleep(1.1)
    refusing.error, refusing.status, refusing.at_a_call = error, 429, valkey.pause
    try:
        async with asyncio.timeout(20):
            offered = await Ses(client).offer(b"x", [(0, "a@b.example")], NO_LEDGER)
        assert offered.results[0].outcome is outcome
        assert len(paces._telling) == 1, "and it is still being told"
    finally:
        valkey.resume()
    await paces.close()  # it waits for that
    await asyncio.sleep(2.1 if error else 0)
    other = FleetPace(client.pace._name, 100.0, SystemClock(), others, lambda: 0.5)
    began = time.monotonic()
    other.too_fast()
    assert await other.take(1, 0.0) == Remaining(pause_seconds, began)
    assert other._away_until == 0.0, "Redis was asked for it, and answered"
    await others.close()
    await client.close()


async def test_limits_of_the_fleet_are_for_ses_too(moto: str, valkey: ValkeyServer) -> None:
    api = boto3.client("sesv2", region_name="eu-central-1", endpoint_url=moto)
    api.create_email_identity(EmailIdentity="example.com")
    settings = Settings.load({"redis_url": valkey.url}, {})
    places = [Places(settings), Places(settings)]
    results = []
    for each in places:  # two workers
        transport = transport_by(moto, limits={"messages_per_minute": 1, "fleet_connections": 1})
        transport._governor = Governor(SystemClock(), places=each)
        results += await transport.deliver(job())
        await transport.close()
        await each.close()
    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.DEFERRED]
    assert results[1].postponed_seconds > 5, "it waits for the minute to pass, and no attempt is counted"


async def test_a_lost_claim_sends_nothing(refusing: Refusing) -> None:
    class Lost:
        async def sending(self, recipient_numbers: object, remote: str = "") -> bool:
            return False

    client = SesClient(SesAccount("eu-central-1", refusing.url), SystemClock())
    offered = await Ses(client).offer(b"x", [(0, "a@b.example")], Lost())
    assert (offered.results[0].outcome, refusing.requests) == (Outcome.DEFERRED, [])
    offered = await Ses(client).offer(b"x", [(0, "ü@b.example")], NO_LEDGER)
    assert (offered.results[0].outcome, offered.results[0].enhanced_code) == (Outcome.REFUSED, "5.6.7")
    await client.close()


async def test_ses_gets_no_signature_of_ours(refusing: Refusing) -> None:
    """It takes no message with two, and signs itself: mail of a domain with keys once bounced for good."""

    class Keys:
        async def headers(self, envelope: object, *, alone: bool = False) -> bytes:
            return b"DKIM-Signature: rsa\r\nDKIM-Signature: ed25519\r\n"

    transport = transport_by(refusing.url)
    transport._signer = Keys()
    (result,) = await transport.deliver(job())
    await transport.close()
    assert result.outcome is Outcome.DELIVERED
    (request,) = refusing.requests
    assert b"DKIM-Signature" not in base64.b64decode(request["Content"]["Raw"]["Data"])  # type: ignore[index]


async def test_what_ses_says_of_a_second_signature_waits_for_the_operator(
    refusing: Refusing, caplog: pytest.LogCaptureFixture
) -> None:
    refusing.error, refusing.message = "BadRequestException", "Duplicate header 'DKIM-Signature'."
    transport = transport_by(refusing.url)
    results = [(await transport.deliver(job()))[0] for _ in range(8)]
    assert not transport._governor._breakers, "and SES is well"
    await transport.close()
    assert {(r.outcome, r.reply_code, r.kind) for r in results} == {(Outcome.DEFERRED, 451, Kind.LOCAL)}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 8
    assert "(route ses)" in said[0]
    assert 'set dkim = "none"' in said[0]
    refusing.message = "Duplicate header 'Subject'."  # nothing that we could mend
    transport = transport_by(refusing.url)
    (result,) = await transport.deliver(job())
    await transport.close()
    assert result.outcome is Outcome.REFUSED


async def test_the_ledger_is_told_which_server_of_ses(refusing: Refusing) -> None:
    """`explain` of an outcome that nobody knows once named none."""
    told: list[str] = []

    class Ledger:
        async def sending(self, recipient_numbers: object, remote: str = "") -> bool:
            told.append(remote)
            return True

    transport = transport_by(refusing.url)
    await transport.deliver(job(), Ledger())
    await transport.close()
    assert told == ["email.eu-central-1.amazonaws.com:443"]


def test_the_pace_halves_recovers_and_pauses_for_longer_each_time() -> None:
    pace = Pace(100.0, chance=lambda: 0.5)
    pace.too_fast(0.0)
    assert (pace.rate, pace.wait_seconds(0.0)) == (50.0, 1.0)
    pace.too_fast(0.5)  # together with the first
    assert pace.rate == 50.0
    pace.too_fast(2.0)
    assert (pace.rate, pace.wait_seconds(2.0)) == (25.0, 2.0)
    pace.went_well(3.9)  # it was under way: neither faster nor a shorter pause
    pace.too_fast(4.0)
    assert (pace.rate, pace.wait_seconds(4.0)) == (12.5, 4.0)
    for _ in range(88):
        pace.went_well(8.0)
    assert pace.rate == 100.0
    pace.take(100, 10.0)
    assert pace.wait_seconds(10.0) == 0.0
    pace.take(100, 10.0)
    assert pace.wait_seconds(10.0) == 1.0
    for now in range(1000, 100_000, 1000):
        pace.too_fast(float(now))
    assert pace.rate == 0.2
    assert pace.wait_seconds(99_000.0) == 60.0
