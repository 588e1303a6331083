"""`smtp-proxy explain`: what it says of each way a message can stand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from fix_shell import Shell
from store_suite import attempt_for, core_envelope

from smtp_proxy.model.attempt import Outcome, Postponed, Sending
from smtp_proxy.model.change import Change
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.policy import OnUnknown, TenantPolicy

WORKER = UUID(int=7)


async def accepted(shell: Shell, *, policy: TenantPolicy | None = None, placement: Placement | None = None) -> UUID:
    tenant = await shell.store.create_tenant("acme")
    app = await shell.store.create_credential(tenant.id, "app", "hash")
    if policy is not None:
        await shell.store.set_tenant_policy("acme", policy)
    row = core_envelope(["a@x.example"], tenant=tenant.id.bytes, credential=app.id.bytes)
    await shell.store.accept([row], sweep_after_seconds=15, placements={row[0]: placement} if placement else None)
    return UUID(bytes=row[0])


async def sent(shell: Shell, envelope_id: UUID) -> None:
    (job,) = await shell.store.claim([envelope_id], WORKER, 30)
    now = datetime.now(UTC)
    await shell.store.sending([Sending(envelope_id, job.envelope.tenant_id, 0, 1, WORKER, now, "mx.example:25")])


def explained(shell: Shell, envelope_id: UUID) -> str:
    assert shell("explain", str(envelope_id)) == 0, shell.err
    return shell.out


def test_one_that_is_ready(shell: Shell) -> None:
    text = explained(shell, asyncio.run(accepted(shell)))
    assert "from app of tenant acme at 192.0.2.1" in text
    assert "waits for a worker, as 1 deliveries do in all" in text


@pytest.mark.parametrize(
    ("change", "is_ours"),
    [({}, True), ({"tls": 1}, False), ({"reverse_path": "a@x.example"}, False), ({"client": "192.0.2.1"}, False)],
)
def test_a_report_of_ours_was_accepted_from_nobody(shell: Shell, change: dict[str, object], is_ours: bool) -> None:
    values = {"reverse_path": "", "client": "127.0.0.1", "tls": 0, **change}
    made = list(core_envelope(["me@x.example"], reverse_path=str(values["reverse_path"])))
    made[9], made[10], made[12] = values["client"], values["tls"], (None, None, [(int(Notify.NEVER), None)])
    asyncio.run(shell.store.accept([tuple(made)], sweep_after_seconds=15))  # type: ignore[list-item]
    text = explained(shell, UUID(bytes=made[0]))
    assert ("is a report that was written here" in text) == is_ours
    assert ("before the client heard 250" in text) != is_ours


def test_one_that_its_tenants_rate_delays(shell: Shell) -> None:
    text = explained(shell, asyncio.run(accepted(shell, placement=Placement(delay_seconds=600))))
    assert "10 minutes from now" in text
    assert "when its tenant's rate lets it leave." in text


def test_one_that_was_put_back_without_an_attempt(shell: Shell) -> None:
    envelope_id, worker = asyncio.run(accepted(shell)), UUID(int=9)

    async def put_back() -> None:
        await shell.store.claim([envelope_id], worker, 30)
        due = datetime.now(UTC) + timedelta(seconds=600)
        await shell.store.postpone([Postponed(envelope_id, 0, worker, due, "mx.example:25: 3 wait for it")])

    asyncio.run(put_back())
    assert "from now), without an attempt: mx.example:25: 3 wait for it." in explained(shell, envelope_id)


def test_one_that_is_held(shell: Shell) -> None:
    envelope_id = asyncio.run(accepted(shell, placement=Placement(held=True)))
    assert "Held by an operator, or since" in explained(shell, envelope_id)


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome.DELIVERED, ("taken by the next server, it said '250 2.0.0 so it went'", "Delivered ")),
        (Outcome.DEFERRED, ("not now, it said '451 4.0.0 so it went'", "when its next attempt is due")),
        (Outcome.REFUSED, ("refused for good, it said '550 5.0.0", "Given up ")),
    ],
)
def test_one_that_was_attempted(shell: Shell, outcome: Outcome, says: tuple[str, ...]) -> None:
    async def attempted() -> UUID:
        envelope_id = await accepted(shell)
        (job,) = await shell.store.claim([envelope_id], WORKER, 30)
        retry_in = 3600 if outcome is Outcome.DEFERRED else None
        await shell.store.record([attempt_for(job, WORKER, outcome, retry_in=retry_in)])
        return envelope_id

    text = explained(shell, asyncio.run(attempted()))
    assert all(each in text for each in says), text


def test_one_that_is_being_sent_and_then_unknown(shell: Shell) -> None:
    async def begun() -> UUID:
        envelope_id = await accepted(shell, policy=TenantPolicy(OnUnknown.HOLD))
        await sent(shell, envelope_id)
        return envelope_id

    envelope_id = asyncio.run(begun())
    text = explained(shell, envelope_id)
    assert "to mx.example:25: it is being sent; the answer is not recorded yet" in text
    assert str(WORKER) in text
    asyncio.run(shell.store.release(WORKER))
    text = explained(shell, envelope_id)
    assert "nobody knows whether it was taken" in text
    assert "does not want it sent twice" in text
    assert shell("messages", "cancel", str(envelope_id)) == 0
    assert "Cancelled by an operator" in explained(shell, envelope_id)


def test_what_is_not_there(shell: Shell) -> None:
    assert shell("explain", str(uuid4())) == 1
    assert shell("explain", "nonsense") == 2


def test_holding_and_cancelling(shell: Shell) -> None:
    envelope_id = asyncio.run(accepted(shell))
    assert shell("messages", "hold") == 2
    assert shell("messages", "hold", str(envelope_id), "--tenant", "acme") == 2
    assert shell("messages", "hold", str(envelope_id)) == 0
    assert shell.out == "held 1 message\n"
    assert shell("messages", "hold", str(envelope_id)) == 1
    assert "not queued" in shell.err
    assert shell("messages", "release", "--tenant", "acme") == 0
    assert shell("messages", "hold", "--tenant", "acme") == 0
    assert shell("messages", "cancel", "--tenant", "acme") == 0
    assert shell.out == "cancelled 1 message\n"
    assert shell("messages", "cancel", str(envelope_id)) == 1
    assert asyncio.run(shell.store.change(Change.RELEASE, [envelope_id])) == []
