"""The HTTP API over a store in memory. Import the fixture into a conftest: `from fix_api import api`."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from asgi import Answer, ask
from fastapi import FastAPI

from smtp_proxy import tenants
from smtp_proxy.api.app import make_app
from smtp_proxy.api.desk import Desk
from smtp_proxy.clock import ManualClock
from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.store import MemoryStore


@dataclass
class Api:
    store: MemoryStore
    app: FastAPI
    health: int = 200

    async def key(self, *scopes: ApiScope, tenant: str = "acme", name: str = "crm") -> str:
        return (await tenants.create_api_key(self.store, tenant, name, scopes or ApiScope))[1]

    async def __call__(self, method: str, path: str, **more: object) -> Answer:
        return await ask(self.app, method, path, **more)  # type: ignore[arg-type]


@pytest.fixture
async def api() -> Api:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.create_tenant("acme")

    async def health() -> int:
        return made.health

    made = Api(store, make_app(Desk(store, tenants.ApiKeyChecker(store, clock)), health))
    return made


def problem(answer: Answer, status: int) -> str:
    """Checks its form; returns what it says."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    found = answer.json()
    assert (found["status"], found["type"], bool(found["title"])) == (status, "about:blank", True)
    return str(found["detail"])
