"""Commands that need the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from smtp_proxy.cli.arguments import settings_of
from smtp_proxy.store import Store

_T = TypeVar("_T")


def with_store(context: typer.Context, work: Callable[[Store], Coroutine[Any, Any, _T]]) -> _T:
    """Run `work` with a connected store. Raises as `Store.connect` does."""
    settings = settings_of(context)

    async def connected() -> _T:
        store = await Store.connect(settings, purpose="cli", accepts=False)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(connected())
