"""Time-outs that fit the load balancer's and ECS's (REQ-INFRA-SCALE-002)."""

from __future__ import annotations

import pytest

from smtp_proxy.config import Settings
from smtp_proxy.doctor import CHECK_NAMES, Finding, Level, Surroundings
from smtp_proxy.doctor.limits import examine, examine_descriptors
from smtp_proxy.doctor.run import CHECKS
from smtp_proxy.doctor.run import examine as examine_all


def worse(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level in (Level.WARNING, Level.FAILED)]


def test_the_defaults_fit_an_nlb() -> None:
    assert worse(examine(Settings(), 350, {})) == []


def test_a_client_must_hear_from_us_before_the_load_balancer_is_silent() -> None:
    (finding,) = worse(examine(Settings(), 300, {}))
    assert finding.what.startswith("SMTP_COMMAND_TIMEOUT_SECONDS is 300 s")
    assert "tcp.idle_timeout.seconds above 300" in finding.next_step


def test_a_stop_must_fit_into_fargates() -> None:
    settings = Settings(shutdown_delay_seconds=20, shutdown_timeout_seconds=110)
    (finding,) = worse(examine(settings, 350, {}))
    assert "are 130 s together" in finding.what


def test_descriptors_are_enough_for_what_may_be_open() -> None:
    settings = Settings(smtp_max_connections=2000, worker_concurrency=100)
    assert worse(examine_descriptors(settings, 2256)) == worse(examine_descriptors(settings, float("inf"))) == []
    (finding,) = worse(examine_descriptors(settings, 1024))
    assert finding.what == "a process may have 1024 descriptors open, and SMTP_MAX_CONNECTIONS (2000) needs 2256"
    assert [f.what.partition(", and ")[2] for f in worse(examine_descriptors(settings, 400))] == [
        "SMTP_MAX_CONNECTIONS (2000) needs 2256",
        "WORKER_CONCURRENCY (100) needs 475",
    ]


@pytest.mark.parametrize(("seconds", "count"), [(0, 1), (3600, 0)])
def test_protection_wants_an_end_of_sessions(seconds: float, count: int) -> None:
    environ = {"ECS_AGENT_URI": "http://agent"}
    found = worse(examine(Settings(smtp_session_max_seconds=seconds, task_protection_max_minutes=45), 350, environ))
    assert len(found) == count
    assert all("deployments waiting, for 45 minutes at a time" in finding.what for finding in found)
    assert worse(examine(Settings(task_protection="off"), 350, environ)) == []


async def test_a_check_that_breaks_is_a_finding() -> None:
    async def broken(_settings: Settings, _around: Surroundings) -> list[Finding]:
        raise KeyError("x")

    async def fine(_settings: Settings, _around: Surroundings) -> list[Finding]:
        return [Finding(Level.OK, "fine")]

    found = await examine_all(Settings(), Surroundings(), {"a", "b"}, {"a": broken, "b": fine, "c": fine})
    assert list(found) == ["a", "b"]
    assert (found["a"][0].level, found["b"][0].level) == (Level.FAILED, Level.OK)


def test_every_check_can_be_chosen() -> None:
    assert tuple(CHECKS) == CHECK_NAMES
