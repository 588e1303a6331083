"""MTA-STS policies: read, fetched over real HTTPS, kept until they run out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from certificates import Authority
from dns_server import DnsServer

from smtp_proxy.delivery.mx.hosts import MailHosts
from smtp_proxy.delivery.mx.sts import (
    BadPolicy,
    HttpsFetch,
    PublicHosts,
    StsPolicies,
    StsPolicy,
    name_matches,
    read_policy,
    record_id,
)

pytestmark = pytest.mark.integration

ENFORCE = b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.example\r\nmx: *.mail.example\r\nmax_age: 86400\r\n"


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.seconds


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class PolicyHost:
    """The web server of a domain. `fetches` counts; `answer` may be changed."""

    def __init__(self) -> None:
        self.body = ENFORCE
        self.status = 200
        self.kind = "text/plain"
        self.fetches = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/.well-known/mta-sts.txt"
        assert request.host.startswith("mta-sts.a.example")
        self.fetches += 1
        return web.Response(
            status=self.status,
            body=self.body,
            content_type=self.kind,
            headers={"Location": "https://elsewhere.example/"},
        )

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext, ca_file: object) -> AsyncIterator[HttpsFetch]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        trusting = ssl.create_default_context(cafile=str(ca_file))
        fetch = HttpsFetch(Here(), trusting, port=port)
        try:
            yield fetch
        finally:
            await fetch.close()
            await runner.cleanup()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def host() -> PolicyHost:
    return PolicyHost()


@pytest.fixture
async def policies(dns: DnsServer, host: PolicyHost, time: Time, authority: Authority) -> AsyncIterator[StsPolicies]:
    dns.ttl = 0
    dns.add("_mta-sts.a.example", "TXT", '"v=STSv1; id=1;"')
    async with host.running(authority.server("mta-sts.a.example"), authority.ca_file) as fetch:
        yield StsPolicies(dns.resolver(), fetch, time)


async def test_fetched_once_and_kept(policies: StsPolicies, host: PolicyHost, time: Time) -> None:
    for _ in range(3):
        policy = await policies.of("a.example")
        time.seconds += 200
    assert policy == StsPolicy("enforce", ("mx.a.example", "*.mail.example"), 86_400)
    assert host.fetches == 1


async def test_none_without_a_record(policies: StsPolicies, host: PolicyHost) -> None:
    assert await policies.of("b.example") is None
    assert host.fetches == 0


async def test_another_id_brings_another_policy(
    policies: StsPolicies, host: PolicyHost, dns: DnsServer, time: Time
) -> None:
    assert await policies.of("a.example") is not None
    dns.add("_mta-sts.a.example", "TXT", '"v=STSv1; id=2;"')
    host.body = ENFORCE.replace(b"enforce", b"testing")
    time.seconds += 301
    policy = await policies.of("a.example")
    assert policy is not None
    assert (policy.mode, host.fetches) == ("testing", 2)


@pytest.mark.parametrize("trouble", ["no DNS", "no record", "no HTTPS", "nonsense", "redirect", "html"])
async def test_who_makes_dns_or_https_fail_takes_nothing_back(
    trouble: str, policies: StsPolicies, host: PolicyHost, dns: DnsServer, time: Time
) -> None:
    assert await policies.of("a.example") is not None
    dns.add("_mta-sts.a.example", "TXT", '"v=STSv1; id=2;"')
    if trouble == "no DNS":
        dns.failing.add("_mta-sts.a.example")
    elif trouble == "no record":
        del dns.records["_mta-sts.a.example", "TXT"]
    elif trouble == "nonsense":
        host.body = b"<html>"
    elif trouble == "html":
        host.kind = "text/html"
    else:
        host.status = 500 if trouble == "no HTTPS" else 302
    time.seconds += 301
    policy = await policies.of("a.example")
    assert policy is not None
    assert policy.mode == "enforce"
    time.seconds += 86_400
    assert await policies.of("a.example") is None


@pytest.mark.parametrize("age", [60, 86_400])
async def test_a_policy_that_is_refreshed_never_lapses(
    age: int, policies: StsPolicies, host: PolicyHost, time: Time
) -> None:
    """RFC 8461 10.2. It once was none from each expiry until the next look, up to five minutes."""
    host.body = ENFORCE.replace(b"86400", str(age).encode())
    for _ in range(40):
        assert await policies.of("a.example") is not None
        time.seconds += age / 11
    assert 4 <= host.fetches <= 10


@pytest.mark.parametrize("dns_fails", [False, True])
async def test_a_refresh_that_fails_is_tried_again_until_the_policy_ends(
    policies: StsPolicies, host: PolicyHost, dns: DnsServer, time: Time, *, dns_fails: bool
) -> None:
    assert await policies.of("a.example") is not None
    host.status = 503
    if dns_fails:
        dns.failing.add("_mta-sts.a.example")
    time.seconds += 43_300
    for fetches in (2, 3, 4):
        assert await policies.of("a.example") is not None
        assert await policies.of("a.example") is not None
        assert host.fetches == fetches
        time.seconds += 301
    host.status = 200
    assert await policies.of("a.example") is not None
    time.seconds += 43_100  # past the end of the first
    assert await policies.of("a.example") is not None


async def test_a_failed_fetch_is_not_repeated_at_once(policies: StsPolicies, host: PolicyHost, time: Time) -> None:
    host.status = 404
    for _ in range(3):
        assert await policies.of("a.example") is None
    assert host.fetches == 1
    host.status = 200
    time.seconds += 301
    assert await policies.of("a.example") is not None


@pytest.mark.parametrize("names", [("other.example",), ("a.example",)])
async def test_a_certificate_of_another_name(
    names: tuple[str, ...], dns: DnsServer, host: PolicyHost, time: Time, authority: Authority
) -> None:
    dns.add("_mta-sts.a.example", "TXT", '"v=STSv1; id=1;"')
    async with host.running(authority.server(*names), authority.ca_file) as fetch:
        assert await StsPolicies(dns.resolver(), fetch, time).of("a.example") is None
    assert host.fetches == 0


async def test_only_public_web_servers_are_asked(dns: DnsServer) -> None:
    dns.ttl = 0
    hosts = PublicHosts(MailHosts(dns.resolver()))
    dns.add("mta-sts.a.example", "A", "9.9.9.9")
    (found,) = await hosts.resolve("mta-sts.a.example", 443)
    assert (found["host"], found["port"]) == ("9.9.9.9", 443)
    dns.add("mta-sts.a.example", "A", "127.0.0.1")
    dns.failing.add("mta-sts.f.example")
    for name in ("mta-sts.a.example", "mta-sts.no.example", "mta-sts.f.example"):
        with pytest.raises(OSError, match="DNS"):
            await hosts.resolve(name, 443)
    fetch = HttpsFetch(hosts)
    with pytest.raises(OSError, match=r"Cannot connect to host mta-sts\.a\.example"):
        await fetch("a.example")
    await fetch.close()


async def test_too_large_a_policy(policies: StsPolicies, host: PolicyHost) -> None:
    host.body = ENFORCE + b"x: " + b"y" * 70_000
    assert await policies.of("a.example") is None


@pytest.mark.parametrize(
    ("texts", "number"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=spf1 -all", b"v=STSv1;id=a1"], "a1"),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=2;"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id=a b;"], None),
        ([b"V=STSv1; id=1;"], None),
        ([b"\xff\xfe"], None),
        ([], None),
    ],
)
def test_record_ids(texts: list[bytes], number: str | None) -> None:
    """RFC 8461 3.1."""
    assert record_id(texts) == number


@pytest.mark.parametrize(
    "body",
    [
        b"",
        ENFORCE.replace(b"STSv1", b"STSv2"),
        ENFORCE.replace(b"enforce", b"strict"),
        ENFORCE.replace(b"86400", b"-1"),
        ENFORCE.replace(b"86400", b"1e9"),
        b"version: STSv1\nmode: enforce\nmax_age: 1\n",
    ],
)
def test_what_is_no_policy(body: bytes) -> None:
    with pytest.raises(BadPolicy):
        read_policy(body)


def test_a_policy_without_hosts_and_one_of_too_long_a_life() -> None:
    assert read_policy(b"version: STSv1\nmode: none\nmax_age: 9999999999\n") == StsPolicy("none", (), 31_557_600)


@pytest.mark.parametrize(
    ("host", "pattern", "fits"),
    [
        ("MX.a.example.", "mx.a.example", True),
        ("x.mail.example", "*.mail.example", True),
        ("x.y.mail.example", "*.mail.example", False),
        ("mail.example", "*.mail.example", False),
        ("xmail.example", "*.mail.example", False),
    ],
)
def test_names(host: str, pattern: str, *, fits: bool) -> None:
    """RFC 8461 4.1."""
    assert name_matches(host, pattern) is fits


class Elsewhere(Here):
    """Policy hosts that say nothing are at another address of this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        (found,) = await super().resolve(host, port, family)
        return [{**found, "host": "127.0.0.2"} if "slow" in host else found]


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_hosts_that_stall_keep_no_policy_from_others(host: PolicyHost, authority: Authority) -> None:
    """Twenty of them once did, for ten seconds at a time: mail went without the policy."""
    async with host.running(authority.server("mta-sts.a.example"), authority.ca_file) as served:
        stalling = await asyncio.start_server(_say_nothing, "127.0.0.2", served._port)
        fetch = HttpsFetch(Elsewhere(), served._context, port=served._port)
        slow = [asyncio.create_task(fetch(f"slow{n}.example")) for n in range(60)]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            assert await fetch("a.example") == ENFORCE
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await fetch.close()
        stalling.close()
