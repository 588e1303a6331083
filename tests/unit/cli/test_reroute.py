"""`smtp-proxy messages reroute`: which routes a tenant's mail may take, and what is said of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from fix_shell import Shell
from store_suite import attempt_for, core_envelope

from smtp_proxy.model.attempt import Outcome

ROUTES = """
[routes.relay]
hosts = ["relay.example"]
[routes.spare]
hosts = ["spare.example"]
[routes.theirs]
hosts = ["theirs.example"]
[[rules]]
tenant = "acme"
routes = ["relay"]
[[rules]]
tenant = "other"
routes = ["theirs"]
"""


@pytest.fixture
def mail(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Of acme: one deferred for two domains, one fresh."""
    (tmp_path / "routes.toml").write_text(ROUTES)
    monkeypatch.setenv("ROUTES_FILE", str(tmp_path / "routes.toml"))

    async def fill() -> list[UUID]:
        acme = (await shell.store.create_tenant("acme")).id.bytes
        rows = [core_envelope(["a@x.example", "b@y.example"], tenant=acme), core_envelope(tenant=acme)]
        await shell.store.accept(rows, sweep_after_seconds=15)
        ids = [UUID(bytes=row[0]) for row in rows]
        worker = UUID(int=7)
        (job,) = await shell.store.claim(ids[:1], worker, 30)
        await shell.store.record([
            attempt_for(job, worker, Outcome.DEFERRED, recipient=n, retry_in=600) for n in (0, 1)
        ])  # fmt: skip
        return ids

    return asyncio.run(fill())


def routes(shell: Shell, envelope_id: UUID) -> list[str | None]:
    return [delivery.route for delivery in asyncio.run(shell.store.message(envelope_id)).deliveries]


def test_single_messages_and_back_again(shell: Shell, mail: list[UUID]) -> None:
    assert shell("messages", "reroute", str(mail[0]), "--route", "spare") == 0, shell.err
    assert shell.out == "rerouted 1 message to spare\n"
    assert (routes(shell, mail[0]), routes(shell, mail[1])) == (["spare", "spare"], [None])
    assert shell("explain", str(mail[0])) == 0
    assert "An operator chose the route spare" in shell.out
    assert shell("messages", "reroute", str(mail[0]), "--route", "default") == 0
    assert shell.out == "rerouted 1 message as the routes say\n"
    assert routes(shell, mail[0]) == [None, None]
    assert shell("explain", str(mail[0])) == 0
    assert "operator" not in shell.out


@pytest.mark.parametrize("which", ["named", "of its tenant"])
def test_what_a_worker_has_in_hand_is_said(shell: Shell, mail: list[UUID], which: str) -> None:
    (job,) = asyncio.run(shell.store.claim([mail[1]], UUID(int=8), 30))
    assert job.envelope.id == mail[1]
    target = ["--tenant", "acme"] if which == "of its tenant" else [str(mail[1])]
    shell("messages", "reroute", *target, "--route", "spare")
    assert "1 message is in a worker's hand, and what is under way of that was not rerouted" in shell.err


def test_all_of_a_tenant_or_some(shell: Shell, mail: list[UUID]) -> None:
    of_acme = ("messages", "reroute", "--tenant", "acme", "--route")
    assert shell(*of_acme, "relay", "--state", "deferred", "--domain", "Y.example") == 0, shell.err
    assert shell.out == "rerouted 1 message to relay\n"
    assert (routes(shell, mail[0]), routes(shell, mail[1])) == ([None, "relay"], [None])
    assert shell(*of_acme, "smarthost", "--state", "held") == 0
    assert shell.out == "rerouted 0 messages to smarthost\n"
    assert shell(*of_acme, "smarthost") == 0
    assert shell.out == "rerouted 2 messages to smarthost\n"
    assert routes(shell, mail[1]) == ["smarthost"]


@pytest.mark.parametrize("route", ["theirs", "nowhere"])
@pytest.mark.parametrize("by_id", [True, False])
def test_a_route_that_is_not_there_or_not_the_tenants_is_refused(
    shell: Shell, mail: list[UUID], route: str, by_id: bool
) -> None:
    which = (str(mail[0]),) if by_id else ("--tenant", "acme")
    assert shell("messages", "reroute", *which, "--route", route) == 2
    assert f"--route {route}: tenant acme has no such route; use one of relay, spare, smarthost, default" in shell.err
    assert routes(shell, mail[0]) == [None, None]


def test_what_can_not_be_meant_is_refused(shell: Shell, mail: list[UUID]) -> None:
    one = str(mail[0])
    for wrong in ((), (one, "--tenant", "acme"), ("latest",), (one, "--state", "sent"), (one, "--domain", ".")):
        assert shell("messages", "reroute", *wrong, "--route", "spare") == 2, wrong
    assert shell("messages", "reroute", one, "--state", "held", "--route", "spare") == 1
    assert f"nothing of it waits as you said: {one}" in shell.err
    assert shell("messages", "reroute", "--tenant", "nobody", "--route", "spare") == 1
