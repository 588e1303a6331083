"""Ending tasks for sure."""

from __future__ import annotations

import asyncio

import pytest

from smtp_proxy.telemetry import tasks


async def test_one_that_loses_its_first_cancellation_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `asyncio.wait_for` does in Python 3.11 when the result comes at the same time."""
    monkeypatch.setattr(tasks, "_AGAIN_SECONDS", 0)
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.end([task]), 5)
    assert task.cancelled()
    assert lost == 3


async def test_those_that_have_ended_are_no_trouble() -> None:
    async def broken() -> None:
        raise ValueError("seen by whoever watches it")

    done = [asyncio.create_task(broken()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.wait(done)
    await tasks.end(done)
    await tasks.end([])
    assert isinstance(done[0].exception(), ValueError)
