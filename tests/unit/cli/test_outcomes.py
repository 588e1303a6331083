"""Commands about what was not delivered: suppressions, dead letters, and the policy about them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from fix_shell import Shell
from store_suite import attempt_for, core_envelope

from smtp_proxy.cli.suppressions import read_addresses
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.attempt import Kind, Outcome

WORKER = UUID(int=7)


@pytest.fixture
def dead(shell: Shell) -> list[UUID]:
    """Two refused messages of acme: one hard with two recipients, one for want of quota."""

    async def fill() -> list[UUID]:
        tenant = await shell.store.create_tenant("acme")
        rows = [
            core_envelope(["a@x.example", "b@x.example"], tenant=tenant.id.bytes, id=UUID(int=1).bytes),
            core_envelope(["c@x.example"], tenant=tenant.id.bytes, id=UUID(int=2).bytes),
        ]
        await shell.store.accept(rows, sweep_after_seconds=15)
        ids = [UUID(bytes=row[0]) for row in rows]
        for job, kind in zip(await shell.store.claim(ids, WORKER, 30), (Kind.HARD, Kind.QUOTA), strict=True):
            attempts = [attempt_for(job, WORKER, Outcome.REFUSED, recipient=r.number) for r in job.recipients]
            await shell.store.record([replace(a, result=replace(a.result, kind=kind)) for a in attempts])
        return ids

    return asyncio.run(fill())


def test_dead_letters_are_listed(shell: Shell, dead: list[UUID]) -> None:
    found = shell.json("messages", "dead")
    assert [(letter["envelope_id"], letter["recipient"], letter["kind"]) for letter in found] == [
        (str(dead[1]), "c@x.example", "quota"),
        (str(dead[0]), "a@x.example", "hard"),
        (str(dead[0]), "b@x.example", "hard"),
    ]
    assert shell("messages", "dead", "--tenant", "acme", "--kind", "quota") == 0
    assert "<c@x.example>" in shell.out
    assert "a@x.example" not in shell.out
    assert shell("messages", "dead", "--kind", "angry") == 2
    assert "use one of unknown, accepted, soft" in shell.err
    assert shell("messages", "dead", "--tenant", "nobody") == 1


def test_a_dead_letter_is_replayed(shell: Shell, dead: list[UUID]) -> None:
    assert shell("messages", "replay", str(dead[0]), "--recipient", "b@x.example") == 0
    assert shell.out == "replayed 1 message\n"
    message = shell.json("messages", "show", str(dead[0]))
    assert [(d["state"], len(d["attempts"])) for d in message["deliveries"]] == [("refused", 1), ("queued", 1)]
    assert shell("messages", "replay", str(UUID(int=9))) == 1
    assert "no dead letters" in shell.err


def test_all_of_a_tenant_are_replayed(shell: Shell, dead: list[UUID]) -> None:
    assert shell("messages", "replay", "--tenant", "acme", "--kind", "quota") == 0
    assert shell.out == "replayed 1 message\n"
    assert shell("messages", "replay", "--tenant", "acme") == 0
    assert shell.out == "replayed 1 message\n"
    assert shell.json("messages", "dead") == []
    assert len(dead) == 2


def test_those_of_a_tenant_to_these_recipients_are_replayed(shell: Shell, dead: list[UUID]) -> None:
    chosen = ("--recipient", "B@x.example", "--recipient", "c@x.example")
    assert shell("messages", "replay", "--tenant", "acme", "--recipient", "nobody@x.example") == 0
    assert shell.out == "replayed 0 messages\n"
    assert shell("messages", "replay", "--tenant", "acme", "--kind", "quota", "--recipient", "a@x.example") == 0
    assert shell.out == "replayed 0 messages\n"
    assert shell("messages", "replay", "--tenant", "acme", *chosen) == 0
    assert shell.out == "replayed 2 messages\n"
    assert [letter["recipient"] for letter in shell.json("messages", "dead")] == ["a@x.example"]
    assert len(dead) == 2


def test_what_is_replayed_has_to_be_said(shell: Shell, dead: list[UUID]) -> None:
    assert shell("messages", "replay") == 2
    assert shell("messages", "replay", "--recipient", "a@x.example") == 2
    assert "--recipient goes with both" in shell.err
    assert shell("messages", "replay", "--tenant", "acme", "--recipient", "nobody@x.example") == 0
    assert len(shell.json("messages", "dead")) == 3, "what is not said is not replayed"
    assert shell("messages", "replay", str(UUID(int=1)), "--tenant", "acme") == 2
    assert shell("messages", "replay", str(UUID(int=1)), "--kind", "quota") == 2


def test_suppressions_come_and_go(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("suppressions", "add", "acme", "A@x.example", "b@x.example", "--reason", "asked us to") == 0
    assert shell.out == "added 2, 0 were there already\n"
    assert shell("suppressions", "add", "acme", "a@x.example") == 0
    assert shell.out == "added 0, 1 were there already\n"
    (first, second) = shell.json("suppressions", "list", "acme")
    assert (first["address"], first["reason"], second["address"]) == ("a@x.example", "asked us to", "b@x.example")
    assert shell("suppressions", "list", "acme", "--after", "a@x.example", "--limit", "1") == 0
    assert "b@x.example" in shell.out
    assert shell("suppressions", "remove", "acme", "A@x.example", "nobody@x.example") == 1
    assert "not suppressed: nobody@x.example" in shell.err
    assert [s["address"] for s in shell.json("suppressions", "list", "acme")] == ["b@x.example"]
    assert shell("suppressions", "add", "nobody", "a@x.example") == 1
    assert shell("suppressions", "add", "acme", "no address") == 2


def test_an_international_address_has_many_spellings(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("suppressions", "add", "acme", "\u00c9va@B\u00dcCHER.example", "e\u0301va@xn--bcher-kva.example") == 0
    assert shell.out == "added 1, 0 were there already\n"
    (found,) = shell.json("suppressions", "list", "acme", "--address", "\u00e9va@b\u00fccher.example")
    assert found["address"] == "\u00e9va@xn--bcher-kva.example"
    assert shell("suppressions", "remove", "acme", " \u00c9va@b\u00fccher.EXAMPLE") == 0
    assert shell.json("suppressions", "list", "acme") == []


def test_a_file_is_imported(shell: Shell, tmp_path: Path) -> None:
    shell("tenant", "create", "acme")
    (tmp_path / "list.csv").write_text('email,reason\na@x.example,bounced\n\n# a comment\n"B@x.example",complained\n')
    assert shell("suppressions", "import", "acme", str(tmp_path / "list.csv")) == 0
    assert shell.out == "added 2, 0 were there already\n"
    assert [s["address"] for s in shell.json("suppressions", "list", "acme")] == ["a@x.example", "b@x.example"]
    assert shell("suppressions", "import", "acme", str(tmp_path / "none")) == 2


def test_a_line_that_is_no_address_is_named() -> None:
    with pytest.raises(InvalidValue, match="line 2: 'nobody' is no address: write local-part@domain"):
        read_addresses("a@x.example\nnobody\n")


def test_a_tenant_says_what_it_wants(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    policy = shell.json("tenant", "policy", "acme")
    assert (policy["max_age_seconds"], policy["reports"], policy["suppress_hard_bounces"]) == (None, "all", False)
    changes = ("--max-age-seconds", "3600", "--reports", "none", "--suppress-hard-bounces")
    policy = shell.json("tenant", "policy", "acme", *changes)
    assert (policy["max_age_seconds"], policy["reports"], policy["suppress_hard_bounces"]) == (3600, "none", True)
    policy = shell.json("tenant", "policy", "acme", "--no-suppress-hard-bounces", "--max-age-seconds", "none")
    assert (policy["max_age_seconds"], policy["reports"], policy["suppress_hard_bounces"]) == (None, "none", False)
