"""/healthz, /readyz, /metrics: what is answered (the socket is in tests/integration/telemetry)."""

from __future__ import annotations

import asyncio
import errno
import json

import pytest

from smtp_proxy.errors import StoreMisconfigured, StoreUnavailable
from smtp_proxy.telemetry import health
from smtp_proxy.telemetry.health import Check, HealthServer, Readiness
from smtp_proxy.telemetry.metrics import ENVELOPES_ACCEPTED, REGISTRY, register_stats


async def well() -> str | None:
    return None


async def ill() -> str | None:
    return "too many open files"


async def away() -> str | None:
    raise StoreUnavailable("Postgres is away")


async def broken() -> str | None:
    raise KeyError("x")


async def stuck() -> str | None:
    await asyncio.sleep(60)
    return None


def server(**checks: Check) -> HealthServer:
    return HealthServer("127.0.0.1", 0, checks, service="smtp")


async def test_alive() -> None:
    assert (await server(store=away).answer("GET", "/healthz"))[0] == 200


async def test_ready() -> None:
    status, kind, body = await server(store=well, core=well).answer("GET", "/readyz?x=1")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {"service": "smtp", "ready": True, "checks": {"store": "ok", "core": "ok"}}


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (ill, "too many open files"),
        (away, "Postgres is away"),
        (broken, "KeyError"),
        (stuck, "no answer within 0.02 s"),
    ],
)
async def test_not_ready(check: Check, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CHECK_SECONDS", 0.02)
    status, _, body = await server(store=well, it=check).answer("GET", "/readyz")
    assert status == 503
    assert json.loads(body) == {"service": "smtp", "ready": False, "checks": {"store": "ok", "it": said}}


async def turned_away() -> str | None:
    raise StoreMisconfigured("no such user")


async def without_descriptors() -> str | None:
    raise StoreUnavailable("the database can not be reached") from OSError(errno.EMFILE, "too many open files")


class Asked:
    """A server one of whose checks changes."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self._server = server(store=well, it=self._it)

    async def at(self, path: str) -> int:
        return (await self._server.answer("GET", path))[0]

    async def _it(self) -> str | None:
        return await self.check()


@pytest.mark.parametrize(
    ("check", "status"),
    [(away, 200), (stuck, 200), (ill, 503), (broken, 503), (turned_away, 503), (without_descriptors, 503)],
)
async def test_a_target_stays_while_what_all_share_is_away(
    check: Check, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-INFRA-ECS-012: another task would fare no better, so ending this one helps nobody (decision 0045)."""
    monkeypatch.setattr(health, "_CHECK_SECONDS", 0.02)
    asked = Asked(check)
    assert await asked.at("/targetz") == 503, "never ready yet"
    asked.check = well
    assert await asked.at("/targetz") == 200
    asked.check = check
    assert await asked.at("/targetz") == status
    assert await asked.at("/readyz") == 503


async def test_a_fault_of_its_own_is_not_hidden_by_what_is_away() -> None:
    asked = HealthServer("127.0.0.1", 0, checks := {"store": well, "it": well}, service="smtp")
    assert (await asked.answer("GET", "/readyz"))[0] == 200
    checks.update(store=away, it=ill)
    assert (await asked.answer("GET", "/targetz"))[0] == 503


async def test_a_target_that_leaves_gets_nothing_new() -> None:
    readiness = Readiness()
    asked = HealthServer("127.0.0.1", 0, readiness.checks, service="smtp")
    assert (await asked.answer("GET", "/targetz"))[0] == 503
    with readiness.of({"store": well}):
        assert (await asked.answer("GET", "/targetz"))[0] == 200
    assert (await asked.answer("GET", "/targetz"))[0] == 503


async def test_metrics() -> None:
    ENVELOPES_ACCEPTED.inc(0)
    collector = register_stats(lambda: {"connections_active": 7, "accepted_total": 12})
    try:
        status, kind, body = await server().answer("GET", "/metrics")
    finally:
        REGISTRY.unregister(collector)
    assert status == 200
    assert kind.startswith("text/plain")
    lines = body.decode().splitlines()
    assert "smtp_core_connections_active 7.0" in lines
    assert "smtp_core_accepted_total 12.0" in lines
    assert any(line.startswith("smtp_envelopes_accepted_total ") for line in lines)


async def test_stats_are_read_only_when_asked_for() -> None:
    reads: list[int] = []

    def read() -> dict[str, int]:
        reads.append(1)
        return {}

    collector = register_stats(read)
    try:
        assert reads == []
        await server().answer("GET", "/metrics")
        assert reads == [1]
    finally:
        REGISTRY.unregister(collector)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/readyz", 405), ("GET", "*", 404)])
async def test_anything_else(method: str, path: str, status: int) -> None:
    assert (await server().answer(method, path))[0] == status


async def test_port_0_opens_nothing() -> None:
    async with health.serve("127.0.0.1", 0, {}, service="smtp") as opened:
        assert opened is None


def test_every_metric_says_what_it_is() -> None:
    for family in REGISTRY.collect():
        assert family.documentation, family.name
