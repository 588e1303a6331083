"""Commands about messages."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from fix_shell import Shell
from store_suite import attempt_for, core_envelope

from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.limits import Placement


@pytest.fixture
def mail(shell: Shell) -> list[UUID]:
    """Two messages: one delivered to one of two recipients and deferred for the other, one fresh."""

    async def fill() -> list[UUID]:
        tenant = await shell.store.create_tenant("acme")
        rows = [
            core_envelope(["a@x.example", "b@x.example"], tenant=tenant.id.bytes),
            core_envelope(reverse_path="", id=(UUID(int=(1 << 128) - 1)).bytes),
        ]
        await shell.store.accept(rows, sweep_after_seconds=15)
        ids = [UUID(bytes=row[0]) for row in rows]
        worker = UUID(int=7)
        (job,) = await shell.store.claim(ids[:1], worker, 30)
        await shell.store.record(
            [
                attempt_for(job, worker, Outcome.DELIVERED),
                attempt_for(job, worker, Outcome.DEFERRED, recipient=1, retry_in=60),
            ]
        )
        return ids

    return asyncio.run(fill())


def test_messages_are_listed(shell: Shell, mail: list[UUID]) -> None:
    assert [row["id"] for row in shell.json("messages", "list")] == [str(mail[1]), str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--tenant", "acme")] == [str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--state", "delivered")] == [str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--before", str(mail[1]))] == [str(mail[0])]
    assert shell("messages", "list", "--limit", "10") == 0
    first, second = shell.out.splitlines()[1:]
    assert "<>" in first
    assert "<a@x.example> and 1 more" in second
    assert second.rstrip().endswith("1 delivered, 1 queued")


def test_a_message_is_shown(shell: Shell, mail: list[UUID]) -> None:
    shown = shell.json("messages", "show", str(mail[0]))
    assert [d["state"] for d in shown["deliveries"]] == ["delivered", "queued"]
    assert shown["deliveries"][1]["attempts"][0]["reply_code"] == 451
    assert shell("messages", "show", str(mail[0])) == 0
    assert "451 4.0.0 so it went" in shell.out
    assert "mx.example:25" in shell.out
    assert shell("messages", "show", str(mail[1])) == 0
    assert "outcome" not in shell.out


def test_what_was_asked_for_with_dsn_is_shown(shell: Shell) -> None:
    dsn = (2, "Q+2B1", [(5, "rfc822;a@x.example"), (None, None), (0, None)])
    row = core_envelope(["a@x.example", "b@x.example", "c@x.example"], dsn=dsn)
    asyncio.run(shell.store.accept([row, plain := core_envelope()], sweep_after_seconds=15))
    shown = shell.json("messages", "show", str(UUID(bytes=row[0])))
    assert (shown["ret"], shown["envid"]) == ("hdrs", "Q+2B1")
    assert [(d["notify"], d["orcpt"]) for d in shown["deliveries"]] == [
        (["success", "delay"], "rfc822;a@x.example"),
        (None, None),
        (["never"], None),
    ]
    assert shell("messages", "show", str(UUID(bytes=row[0]))) == 0
    assert (
        "DSN       RET=HDRS ENVID=Q+2B1; <a@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@x.example; "
        "<c@x.example> NOTIFY=NEVER\n"
    ) in shell.out
    assert shell("messages", "show", str(UUID(bytes=plain[0]))) == 0
    assert "DSN" not in shell.out


def test_messages_that_cannot_be_shown(shell: Shell) -> None:
    assert shell("messages", "show", str(UUID(int=1))) == 1
    assert shell("messages", "show", "latest") == 2
    assert shell("messages", "list", "--state", "lost") == 2
    assert "queued, sending, delivered, refused" in shell.err


def test_held_messages_are_released(shell: Shell, mail: list[UUID]) -> None:
    async def hold() -> list[UUID]:
        tenant = await shell.store.tenant_by_name("acme")
        rows = [core_envelope(tenant=tenant.id.bytes) for _ in range(3)]
        held = {row[0]: Placement(held=True) for row in rows}
        await shell.store.accept(rows, sweep_after_seconds=15, placements=held)
        return [UUID(bytes=row[0]) for row in rows]

    held = asyncio.run(hold())
    assert {row["id"] for row in shell.json("messages", "list", "--state", "held")} == set(map(str, held))
    assert shell("messages", "release", str(held[0])) == 0
    assert shell.out == "released 1 message\n"
    assert shell("messages", "release", str(held[0]), str(held[1])) == 1
    assert shell.out == "released 1 message\n"
    assert f"not held: {held[0]}" in shell.err
    assert shell("messages", "release", "--tenant", "acme") == 0
    assert shell.out == "released 1 message\n"
    assert shell("messages", "release", "--tenant", "acme") == 0
    assert shell.out == "released 0 messages\n"
    for wrong in ((), (str(held[0]), "--tenant", "acme"), ("latest",)):
        assert shell("messages", "release", *wrong) == 2


def test_what_a_worker_has_in_hand_is_said(shell: Shell, mail: list[UUID]) -> None:
    worker = UUID(int=8)
    assert len(asyncio.run(shell.store.claim(mail[1:], worker, 30))) == 1
    assert shell("messages", "hold", str(mail[0])) == 0
    assert (shell.out, shell.err) == ("held 1 message\n", "")
    assert shell("messages", "cancel", *map(str, mail)) == 1
    assert shell.out == "cancelled 1 message\n"
    assert "1 message is in a worker's hand, and what is under way of that was not cancelled" in shell.err
    assert f"neither queued nor held: {mail[1]}" in shell.err


def test_what_a_worker_has_in_hand_of_a_tenant_is_said(shell: Shell, mail: list[UUID]) -> None:
    async def claim_two_of_three() -> None:
        tenant = await shell.store.tenant_by_name("acme")
        rows = [core_envelope(tenant=tenant.id.bytes) for _ in range(3)]
        await shell.store.accept(rows, sweep_after_seconds=15)
        assert len(await shell.store.claim([UUID(bytes=row[0]) for row in rows[:2]], UUID(int=8), 30)) == 2

    asyncio.run(claim_two_of_three())
    assert shell("messages", "hold", "--tenant", "acme") == 0
    assert shell.out == "held 2 messages\n"
    assert "2 messages are in a worker's hand, and what is under way of that was not held" in shell.err
