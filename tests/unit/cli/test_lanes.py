"""Priority lanes on the command line: of tenants, of credentials, and as messages show theirs."""

from __future__ import annotations

import asyncio
from uuid import UUID

from fix_shell import Shell
from store_suite import core_envelope

from smtp_proxy.model.lane import Lane


def test_of_a_tenant(shell: Shell) -> None:
    tenant = asyncio.run(shell.store.create_tenant("acme"))
    assert shell("tenant", "policy", "acme", "--lane", "Bulk") == 0, shell.err
    assert "lane                   bulk" in shell.out
    assert asyncio.run(shell.store.lanes()) == {tenant.id: Lane.BULK}
    assert shell.json("tenant", "policy", "acme")["lane"] == "bulk"
    assert shell("tenant", "policy", "acme", "--lane", "fast") == 2
    assert "--lane fast: use one of transactional, bulk" in shell.err


def test_of_a_credential(shell: Shell) -> None:
    tenant = asyncio.run(shell.store.create_tenant("acme"))
    asyncio.run(shell.store.create_credential(tenant.id, "news", "hash"))
    assert shell("credential", "lane", "news", "bulk") == 0, shell.err
    assert shell.out == "news: bulk\n"
    assert [row["lane"] for row in shell.json("credential", "list")] == ["bulk"]
    assert shell("credential", "lane", "news", "tenant") == 0
    assert shell.out == "news: as its tenant\n"
    assert [row["lane"] for row in shell.json("credential", "list")] == ["tenant"]
    assert shell("credential", "lane", "news", "slow") == 2
    assert shell("credential", "lane", "nobody", "bulk") == 1


def test_messages_tell_theirs(shell: Shell) -> None:
    row = core_envelope(lane=1)
    asyncio.run(shell.store.accept([row], sweep_after_seconds=15))
    assert [each["lane"] for each in shell.json("messages", "list")] == ["bulk"]
    message = str(UUID(bytes=row[0]))
    assert shell("messages", "show", message) == 0
    assert "lane      bulk" in shell.out
    assert shell("explain", message) == 0
    assert "Its lane is bulk: transactional mail goes before it" in shell.out
