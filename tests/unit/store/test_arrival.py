"""What a starting service waits for, and what it does not."""

from __future__ import annotations

import pytest

from smtp_proxy.config import Settings
from smtp_proxy.errors import SchemaMismatch, StoreMisconfigured
from smtp_proxy.store import arrival
from smtp_proxy.store.store import Store
from smtp_proxy.telemetry.lifecycle import Lifecycle

THERE = object()


def connects(monkeypatch: pytest.MonkeyPatch, *answers: object) -> None:
    left = list(answers)

    async def connect(*_: object, **__: object) -> object:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Store, "connect", connect)
    monkeypatch.setattr(arrival, "_AGAIN_SECONDS", 0.01)


async def arrive() -> object:
    settings = Settings(start_waits=True)
    return await arrival.connect_when_there(settings, "test", Lifecycle(1.0), accepts=False)


async def test_a_first_migration_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    connects(monkeypatch, StoreMisconfigured("no such role"), SchemaMismatch("half way"), THERE)
    assert await arrive() is THERE


async def test_a_schema_of_another_release_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    connects(monkeypatch, SchemaMismatch("another release"))
    with pytest.raises(SchemaMismatch, match="another release"):
        await arrive()


async def test_nor_for_ever_after_a_login_that_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a deployment of the wrong release would pass for a good one, had its first login come too early."""
    monkeypatch.setattr(arrival, "_MIGRATION_SECONDS", 0.05)
    connects(monkeypatch, StoreMisconfigured("too many logins"), SchemaMismatch("another release"))
    with pytest.raises(SchemaMismatch, match="another release"):
        await arrive()
